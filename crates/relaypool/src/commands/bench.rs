//! `relaypool bench`

use clap::{Args, Subcommand};

use crate::bench::{adaptive, sink, throughput};

/// Arguments of `relaypool bench`.
#[derive(Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// How well the pacer copes with what providers do, beside other ways to pace mail: simulated, in virtual time.
    Adaptive(adaptive::Adaptive),
    /// Messages per second: merge, spool with fsync, DKIM, SMTP to a sink on this machine.
    Throughput(throughput::Throughput),
    /// The sink of the benchmarks: takes everything, counts, and says how many it took.
    #[command(hide = true)]
    Sink(sink::Sink),
}

impl Bench {
    /// Measures.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.what {
            What::Adaptive(adaptive) => adaptive.run(),
            What::Throughput(throughput) => throughput.run().await,
            What::Sink(sink) => sink.run().await,
        }
    }
}
