//! `relaypool simulator`

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use relaypool_simulator::worlds::demo_world;
use relaypool_simulator::{Keep, Listen, Options, Simulator as Providers, World};

use super::termination;

/// Arguments of `relaypool simulator`.
#[derive(Args)]
pub struct Simulator {
    /// Description of the providers in YAML; the demo's where absent.
    #[arg(long)]
    world: Option<PathBuf>,
    /// Port of the DNS server at 127.0.0.1. 0: chosen by the kernel.
    #[arg(long, default_value_t = 5353)]
    dns_port: u16,
    /// Port of all MX hosts. 0: chosen by the kernel.
    #[arg(long, default_value_t = 2525)]
    smtp_port: u16,
    /// Virtual seconds that pass in one second.
    #[arg(long, default_value_t = 1.0)]
    time_scale: f64,
    /// Decides all chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Simulator {
    /// Runs until told to end, then prints the books as JSON.
    pub async fn run(self) -> anyhow::Result<()> {
        let world = match &self.world {
            Some(path) => read_world(path)?,
            None => demo_world(),
        };
        let options = Options {
            time_scale: self.time_scale,
            seed: self.seed,
            keep: Keep::Nothing,
            listen: Listen {
                dns: fixed(self.dns_port),
                smtp: fixed(self.smtp_port),
            },
        };
        let providers = Providers::start(world, options).await?;
        tracing::info!(dns = %providers.dns_address(), smtp_port = providers.smtp_port(), "simulated providers are up");
        termination().await?;
        let books = providers.books().summary();
        providers.shutdown().await;
        Ok(writeln!(
            std::io::stdout(),
            "{}",
            serde_json::to_string_pretty(&books)?
        )?)
    }
}

fn fixed(port: u16) -> Option<u16> {
    (port != 0).then_some(port)
}

fn read_world(path: &PathBuf) -> anyhow::Result<World> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_yaml::from_str(&text).with_context(|| format!("{} is no description of providers", path.display()))
}
