//! `relaypool local`

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use relaypool_api::Delivery;

use super::termination;
use crate::local::{Objects, ProgressBars, Runner, RunnerOptions, Snapshot};

/// How often the display is renewed.
const REFRESH: Duration = Duration::from_millis(250);
/// How long open transactions may take to finish at the end.
const GRACE: Duration = Duration::from_secs(20);

/// Arguments of `relaypool local`.
#[derive(Args)]
pub struct Local {
    /// A YAML file, or a folder of them: RelayPool, SendingIp, MxPolicy, DkimKey, Delivery, and the Secrets and
    /// ConfigMaps they refer to.
    #[arg(short, long)]
    file: PathBuf,
    /// Folder of plans and spools. A second run with the same folder continues and sends nothing again.
    #[arg(long, default_value = ".relaypool")]
    state: PathBuf,
    /// Print the Deliveries as one JSON array instead of YAML.
    #[arg(long)]
    json: bool,
}

impl Local {
    /// Runs until every message came to its end, or until interrupted.
    pub async fn run(self) -> anyhow::Result<()> {
        let objects = Objects::read(&self.file)?;
        anyhow::ensure!(
            !objects.deliveries.is_empty(),
            "there is no Delivery in {} ({objects})",
            self.file.display()
        );
        let options = RunnerOptions {
            state: self.state.clone(),
            low_space: 64 << 20,
        };
        let mut runner = Runner::start(&objects, &options).await?;
        let mut bars = ProgressBars::new();
        let interrupted = tokio::select! {
            settled = settle(&mut runner, |snapshot| bars.show(snapshot)) => settled.map(|()| false)?,
            signal = termination() => signal.map(|()| true)?,
        };
        let snapshot = runner.snapshot().await?;
        bars.show(&snapshot);
        bars.finish();
        tokio::select! {
            () = runner.drain(GRACE) => {}
            // Whoever asks a second time does not want to wait for open transactions.
            signal = termination() => signal?,
        }
        self.print(&snapshot.deliveries)?;
        if interrupted {
            anyhow::bail!("interrupted: run the same command again to continue");
        }
        for delivery in snapshot.suspended() {
            let advice = "is suspended: take spec.suspend out and run the same command again to continue";
            writeln!(std::io::stderr(), "Delivery {delivery} {advice}")?;
        }
        Ok(())
    }

    fn print(&self, deliveries: &[Delivery]) -> anyhow::Result<()> {
        let mut output = std::io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut output, deliveries)?;
            return Ok(writeln!(output)?);
        }
        for delivery in deliveries {
            // What was sent is known; the recipients and the message would bury the answer.
            let answer = serde_json::json!({
                "apiVersion": "relaypool.dev/v1alpha1",
                "kind": "Delivery",
                "metadata": { "name": delivery.metadata.name },
                "status": delivery.status,
            });
            write!(output, "---\n{}", serde_yaml::to_string(&answer)?)?;
        }
        Ok(())
    }
}

/// Waits until nothing more will happen.
pub async fn settle(runner: &mut Runner, mut show: impl FnMut(&Snapshot)) -> anyhow::Result<()> {
    loop {
        let snapshot = runner.snapshot().await?;
        show(&snapshot);
        if snapshot.is_settled() {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(REFRESH) => {}
            failure = runner.failed() => return Err(failure).context("cannot go on"),
        }
    }
}
