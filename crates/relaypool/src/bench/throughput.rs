//! `relaypool bench throughput`: how many messages a second, and how many times Postfix's.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use prometheus_client::registry::Registry;
use relaypool_api::delivery::Recipient;
use relaypool_api::delivery_slice::{MAX_SLICE_ROWS, SliceRow};
use relaypool_api::dkim_key::DkimAlgorithm;
use relaypool_api::message::OnBlock;
use relaypool_api::message::{MessageSnapshot, SigningKeyRef};
use relaypool_api::names::signing_key_entry;
use relaypool_message::dkim::{SigningKey, generate};
use relaypool_sender::resolver::{DestinationLimits, MxResolver};
use relaypool_sender::{Engine, EngineConfig, KeyRing, NewSlice, PoolSettings, SenderMetrics, SourceIp};
use relaypool_shaping::policy::PolicySet;
use serde::Serialize;
use serde_json::json;

use super::cpu;
use super::postfix::PostfixRelay;
use super::sink::{SINK_DOMAIN, SinkProcess};

/// Size of a message, about, in bytes.
const MESSAGE_BYTES: usize = 20 * 1024;

/// Arguments of `relaypool bench throughput`.
#[derive(Args, Clone)]
pub struct Throughput {
    /// Messages of each run. Choose them so that a run takes at least 30 seconds.
    #[arg(long, default_value_t = 120_000)]
    messages: u64,
    /// Runs of each side; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Connections open at one time.
    #[arg(long, default_value_t = 50)]
    connections: u32,
    /// Send without DKIM signatures.
    #[arg(long)]
    without_dkim: bool,
    /// Measure Debian's Postfix too, run for run. Installs it if it is missing.
    #[arg(long)]
    vs_postfix: bool,
    /// Folder for spools and queues; it should lie on a real disk.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// One run.
#[derive(Debug, Clone, Copy, Serialize)]
struct Run {
    seconds: f64,
    messages_per_second: f64,
    cpu_seconds_per_1000: f64,
}

#[derive(Debug, Serialize)]
struct Answer {
    messages: u64,
    message_bytes: usize,
    connections: u32,
    dkim: bool,
    messages_per_second: f64,
    cpu_seconds_per_1000: f64,
    postfix_messages_per_second: Option<f64>,
    ratio: Option<f64>,
    runs: Vec<Run>,
    postfix_runs: Vec<f64>,
}

impl Throughput {
    /// Measures run for run, and prints.
    pub async fn run(self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.folder).with_context(|| format!("cannot make {}", self.folder.display()))?;
        let (mut runs, mut postfix_runs) = (Vec::new(), Vec::new());
        for number in 1..=self.runs {
            self.say(&format!(
                "run {number} of {}: relaypool, {} messages",
                self.runs, self.messages
            ))?;
            runs.push(self.relaypool().await?);
            if self.vs_postfix {
                self.say(&format!(
                    "run {number} of {}: Postfix, {} messages",
                    self.runs, self.messages
                ))?;
                postfix_runs.push(self.postfix().await?);
            }
        }
        let messages_per_second = median(runs.iter().map(|run| run.messages_per_second));
        let postfix = (!postfix_runs.is_empty()).then(|| median(postfix_runs.iter().copied()));
        self.print(&Answer {
            messages: self.messages,
            message_bytes: MESSAGE_BYTES,
            connections: self.connections,
            dkim: !self.without_dkim,
            messages_per_second,
            cpu_seconds_per_1000: median(runs.iter().map(|run| run.cpu_seconds_per_1000)),
            postfix_messages_per_second: postfix,
            ratio: postfix.map(|postfix| messages_per_second / postfix),
            runs,
            postfix_runs,
        })
    }

    /// From the first slice handed over to the last message recorded as sent.
    async fn relaypool(&self) -> anyhow::Result<Run> {
        let sink = SinkProcess::start().await?;
        let folder = tempfile::tempdir_in(&self.folder)?;
        let engine = self.engine(folder.path(), &sink).await?;
        let key = self.key()?;
        if let Some((_, ring)) = &key {
            engine.set_keys(ring.clone()).await?;
        }
        let message = Arc::new(snapshot(self.messages, key.map(|(reference, _)| reference))?);

        let (began, cpu_before) = (Instant::now(), cpu::seconds()?);
        for (number, rows) in slices(self.messages).enumerate() {
            let slice = NewSlice {
                id: format!("bench-{number}"),
                name: format!("bench-{number}"),
                delivery_uid: "bench".to_owned(),
                message: Arc::clone(&message),
                rows,
            };
            engine.accept(slice).await?;
        }
        while engine.report().await?.queued > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu::seconds()? - cpu_before);

        let sent: u64 = engine.report().await?.lanes.iter().map(|lane| lane.sent).sum();
        let taken = sink.settled(self.messages).await;
        ensure!(
            sent == self.messages,
            "{} of {} messages were sent",
            sent,
            self.messages
        );
        ensure!(taken == sent, "the sink took {taken} messages and {sent} count as sent");
        engine.drain(Duration::from_secs(5)).await;
        Ok(Run {
            seconds,
            messages_per_second: self.messages as f64 / seconds,
            cpu_seconds_per_1000: cpu * 1_000.0 / self.messages as f64,
        })
    }

    async fn postfix(&self) -> anyhow::Result<f64> {
        let sink = SinkProcess::start().await?;
        let folder = tempfile::tempdir_in(&self.folder)?;
        let postfix = PostfixRelay::start(folder.path(), sink.host()).await?;
        let run = postfix.relay(self.messages, MESSAGE_BYTES, || sink.count()).await;
        postfix.stop().await?;
        Ok(run?.messages_per_second)
    }

    async fn engine(&self, folder: &Path, sink: &SinkProcess) -> anyhow::Result<Engine> {
        let limits = DestinationLimits {
            allow_private: true,
            ..DestinationLimits::default()
        };
        let resolver = MxResolver::new(&[sink.dns().to_string()], None, limits)?;
        let settings = PoolSettings {
            pool: "bench".to_owned(),
            smtp_port: sink.host().port(),
            max_connections: 1_000,
            adaptive: true,
            on_block: OnBlock::Wait,
        };
        let config = EngineConfig {
            spool: folder.join("spool"),
            settings,
            low_space: 0,
        };
        let metrics = Arc::new(SenderMetrics::register(&mut Registry::default()));
        let engine = Engine::open(config, resolver, metrics).await?;
        let policy = serde_json::from_value(json!({
            "match": { "domains": ["*"] },
            "limits": { "maxConnections": self.connections, "maxMessagesPerConnection": 1_000_000 },
            "tls": "Disabled",
        }))?;
        engine
            .set_policies(PolicySet::new(vec![("bench".to_owned(), policy)]))
            .await?;
        engine.set_ips(vec![source_ip()?]).await?;
        Ok(engine)
    }

    /// An RSA key of 2048 bits.
    fn key(&self) -> anyhow::Result<Option<(SigningKeyRef, KeyRing)>> {
        if self.without_dkim {
            return Ok(None);
        }
        let key = SigningKey::from_pem(generate(DkimAlgorithm::Rsa)?.as_bytes(), DkimAlgorithm::Rsa)?;
        let reference = SigningKeyRef {
            domain: "bench.example".parse()?,
            selector: "bench".parse()?,
            algorithm: DkimAlgorithm::Rsa,
            version: key.version(),
        };
        let ring = KeyRing::from([(signing_key_entry(&reference), Arc::new(key))]);
        Ok(Some((reference, ring)))
    }

    fn say(&self, text: &str) -> anyhow::Result<()> {
        Ok(writeln!(std::io::stderr(), "{text}")?)
    }

    fn print(&self, answer: &Answer) -> anyhow::Result<()> {
        let mut output = std::io::stdout();
        if self.json {
            return Ok(writeln!(output, "{}", serde_json::to_string(answer)?)?);
        }
        writeln!(
            output,
            "relaypool  {:>7.0} messages/s, {:.3} CPU seconds per 1000",
            answer.messages_per_second, answer.cpu_seconds_per_1000
        )?;
        if let (Some(postfix), Some(ratio)) = (answer.postfix_messages_per_second, answer.ratio) {
            writeln!(output, "Postfix    {postfix:>7.0} messages/s")?;
            writeln!(output, "ratio      {ratio:>7.1}")?;
        }
        Ok(())
    }
}

fn source_ip() -> anyhow::Result<SourceIp> {
    let address = "127.0.0.1".parse()?;
    Ok(SourceIp {
        name: "bench".to_owned(),
        bind: address,
        address,
        ehlo_name: "out.bench.example".parse()?,
        weight: 1,
        suspended: false,
        labels: BTreeMap::new(),
        warm_up: None,
    })
}

/// A merge of text and HTML whose rendered form is about [`MESSAGE_BYTES`].
fn snapshot(total: u64, key: Option<SigningKeyRef>) -> anyhow::Result<MessageSnapshot> {
    let paragraph = "Dear {{ name }}, order {{ number }} is on its way to you and will be there within the week. ";
    let text = paragraph.repeat(50);
    let html = format!("<p>{}</p>\n", paragraph.repeat(4)).repeat(36);
    let snapshot = json!({
        "sender": { "address": "orders@bench.example", "name": "Bench" },
        "message": { "subject": "Order {{ number }}", "text": text, "html": html },
        "dkimKeys": key.into_iter().collect::<Vec<_>>(),
        "validity": "84h",
        "fingerprint": "bench",
        "total": total,
        "slices": total.div_ceil(MAX_SLICE_ROWS as u64),
    });
    Ok(serde_json::from_value(snapshot)?)
}

fn slices(messages: u64) -> impl Iterator<Item = Vec<SliceRow>> {
    let rows = MAX_SLICE_ROWS as u64;
    (0..messages.div_ceil(rows)).map(move |slice| (slice * rows..messages.min((slice + 1) * rows)).map(row).collect())
}

fn row(index: u64) -> SliceRow {
    let variables = BTreeMap::from([
        ("name".to_owned(), json!(format!("Customer {index}"))),
        ("number".to_owned(), json!(index)),
    ]);
    SliceRow {
        index,
        recipient: Recipient {
            address: format!("customer{index}@{SINK_DOMAIN}"),
            variables,
        },
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
