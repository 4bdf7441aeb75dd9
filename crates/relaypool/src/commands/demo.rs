//! `relaypool demo`

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use relaypool_simulator::worlds::demo_world;
use relaypool_simulator::{Keep, Options, Simulator};

use super::local::settle;
use super::termination;
use crate::demo::{DemoNetwork, DemoReport, demo_files, verified_signatures};
use crate::local::{Objects, ProgressBars, Runner, RunnerOptions};

/// Arguments of `relaypool demo`.
#[derive(Args)]
pub struct Demo {
    /// Print one JSON object instead of a report.
    #[arg(long)]
    json: bool,
    /// Keep the YAML files, the state and the accepted messages (as .eml files) in this folder.
    #[arg(long)]
    keep: Option<PathBuf>,
}

impl Demo {
    /// Sends, waits for the end, compares both sides.
    pub async fn run(self) -> anyhow::Result<()> {
        let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
        let folder = self.keep.as_deref().unwrap_or(temporary.path());
        anyhow::ensure!(
            !folder.join("state").exists(),
            "{} has the state of an earlier demo: name a new folder, or look at that one again with `relaypool local`",
            folder.display()
        );
        let files = folder.join("yaml");
        std::fs::create_dir_all(&files).with_context(|| format!("cannot make {}", files.display()))?;

        let options = Options {
            keep: Keep::Messages,
            seed: 1,
            ..Options::default()
        };
        let simulator = Simulator::start(demo_world(), options)
            .await
            .context("cannot start the simulated providers")?;
        let network = DemoNetwork {
            dns: simulator.dns_address(),
            smtp_port: simulator.smtp_port(),
        };
        let records = demo_files(&files, network)?;
        for (name, text) in &records {
            simulator.add_txt(name, text).await?;
        }
        self.introduce(&files)?;
        let report = self.send(folder, &files, &simulator, network, records).await?;
        if let Some(folder) = &self.keep {
            keep_messages(&folder.join("accepted"), &simulator)?;
        }
        simulator.shutdown().await;
        self.print(&report)?;
        anyhow::ensure!(
            report.is_sound(),
            "the two sides do not agree: this is a defect, please report it"
        );
        Ok(())
    }

    async fn send(
        &self,
        folder: &Path,
        files: &Path,
        simulator: &Simulator,
        network: DemoNetwork,
        records: Vec<(String, String)>,
    ) -> anyhow::Result<DemoReport> {
        let began = Instant::now();
        let objects = Objects::read(files)?;
        let options = RunnerOptions {
            state: folder.join("state"),
            low_space: 0,
        };
        let mut runner = Runner::start(&objects, &options).await?;
        let mut bars = ProgressBars::new();
        tokio::select! {
            settled = settle(&mut runner, |snapshot| bars.show(snapshot)) => settled?,
            signal = termination() => { signal?; anyhow::bail!("interrupted") }
        }
        let snapshot = runner.snapshot().await?;
        let seconds = began.elapsed().as_secs_f64();
        bars.show(&snapshot);
        bars.finish();
        runner.drain(Duration::from_secs(10)).await;

        let accepted = simulator.books().accepted();
        let messages = accepted.iter().filter_map(|message| message.content.as_deref());
        let verified = verified_signatures(network.dns, messages).await?;
        let status = snapshot
            .deliveries
            .into_iter()
            .find_map(|delivery| delivery.status)
            .unwrap_or_default();
        Ok(DemoReport::new(
            status,
            simulator.books().summary(),
            verified,
            records,
            seconds,
        ))
    }

    fn introduce(&self, files: &Path) -> anyhow::Result<()> {
        if self.json {
            return Ok(());
        }
        let mut output = std::io::stdout();
        writeln!(
            output,
            "Sending 2 000 personalised, signed messages to three simulated providers on this machine:"
        )?;
        writeln!(output, "  generous  takes what it is given")?;
        writeln!(
            output,
            "  strict    answers 4xx to more than five connections, or 40 messages a second"
        )?;
        writeln!(
            output,
            "  village   greylists strangers, has some dead and some full mailboxes"
        )?;
        writeln!(
            output,
            "Some rows of the list are duplicates, malformed, or at domains that do not exist."
        )?;
        if self.keep.is_some() {
            writeln!(output, "The objects are in {}.", files.display())?;
        }
        Ok(writeln!(output)?)
    }

    fn print(&self, report: &DemoReport) -> anyhow::Result<()> {
        let mut output = std::io::stdout();
        if self.json {
            writeln!(output, "{}", serde_json::to_string(report)?)?;
        } else {
            writeln!(output, "{report}")?;
        }
        Ok(())
    }
}

fn keep_messages(folder: &Path, simulator: &Simulator) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (number, message) in simulator.books().accepted().iter().enumerate() {
        if let Some(content) = &message.content {
            std::fs::write(folder.join(format!("{number:05}.eml")), content)?;
        }
    }
    Ok(())
}
