//! The sink: a process of its own, so that its work is not counted as the sender's.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use relaypool_simulator::{Keep, Options, Provider, Simulator, World};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// The domain that the sink takes mail for.
pub const SINK_DOMAIN: &str = "sink.example";
/// How often the sink says how many it took.
const TELLING: Duration = Duration::from_millis(20);

/// Arguments of `relaypool bench sink`.
#[derive(Args)]
pub struct Sink {}

/// What the sink says first.
#[derive(Serialize, Deserialize)]
struct Addresses {
    dns: SocketAddr,
    host: SocketAddr,
}

impl Sink {
    /// Takes mail until its standard output is closed.
    pub async fn run(self) -> anyhow::Result<()> {
        let domain = SINK_DOMAIN.parse()?;
        let world = World {
            providers: vec![Provider::new("sink", &domain)],
            zones: Vec::new(),
        };
        let host = world.providers[0].mx_hosts[0].name.clone();
        let simulator = Simulator::start(
            world,
            Options {
                keep: Keep::Counts,
                ..Options::default()
            },
        )
        .await?;
        let addresses = Addresses {
            dns: simulator.dns_address(),
            host: simulator.host_address(&host).context("the sink has an address")?,
        };
        let mut output = std::io::stdout();
        writeln!(output, "{}", serde_json::to_string(&addresses)?)?;
        loop {
            let count = simulator.books().read(|books| books.messages_accepted());
            // The benchmark that started the sink is gone when this fails.
            if writeln!(output, "{count}").and_then(|()| output.flush()).is_err() {
                return Ok(());
            }
            tokio::time::sleep(TELLING).await;
        }
    }
}

/// A running sink.
pub struct SinkProcess {
    addresses: Addresses,
    count: Arc<AtomicU64>,
    _child: Child,
}

impl SinkProcess {
    /// Starts one.
    pub async fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench", "sink"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the sink")?;
        let output = child.stdout.take().context("the sink has an output")?;
        let mut lines = BufReader::new(output).lines();
        let first = lines.next_line().await?.context("the sink said nothing")?;
        let addresses = serde_json::from_str(&first).context("the sink did not say where it is")?;
        let count = Arc::new(AtomicU64::new(0));
        tokio::spawn(follow(lines, Arc::clone(&count)));
        Ok(Self {
            addresses,
            count,
            _child: child,
        })
    }

    /// Its DNS server.
    pub fn dns(&self) -> SocketAddr {
        self.addresses.dns
    }

    /// Its MX host.
    pub fn host(&self) -> SocketAddr {
        self.addresses.host
    }

    /// Messages it has taken so far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until it has taken this many, or until none came for a while; returns how many it took.
    pub async fn settled(&self, expected: u64) -> u64 {
        let (mut last, mut quiet) = (self.count(), 0);
        while self.count() < expected && quiet < 100 {
            tokio::time::sleep(TELLING).await;
            quiet = if self.count() == last { quiet + 1 } else { 0 };
            last = self.count();
        }
        self.count()
    }
}

async fn follow(mut lines: Lines<BufReader<ChildStdout>>, count: Arc<AtomicU64>) {
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(number) = line.parse() {
            count.store(number, Ordering::Relaxed);
        }
    }
}
