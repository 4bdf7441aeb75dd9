//! Debian's Postfix as the yardstick: an instance of its own that relays to the sink what `smtp-source` injects.
//!
//! The work is the same as the sender's, without DKIM: take a message in, make it durable, deliver it by SMTP. Postfix
//! gets what speeds it up here: processes and connections enough, clients that keep their connections, no DNS, no
//! content inspection, no pauses between messages taken in.

mod install;
mod instance;
mod usage;

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use tokio::process::{Child, Command};

use super::sink::SINK_DOMAIN;
use instance::Instance;

/// Connections that inject at one time, and connections to the sink.
const CONNECTIONS: usize = 50;
/// How often the sink's count is looked at.
const POLL: Duration = Duration::from_millis(10);
/// A run is given up when the sink has got nothing for that long.
const STALLED: Duration = Duration::from_secs(60);

/// A running Postfix that relays everything to one sink. Dropping it stops it, too, and waits for that.
#[derive(Debug)]
pub struct PostfixRelay {
    instance: Instance,
}

/// What one run measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RelayRun {
    /// Messages that went through.
    pub messages: u64,
    /// From the start of the injection until the sink had all messages.
    pub seconds: f64,
    /// Messages divided by seconds.
    pub messages_per_second: f64,
    /// Processor time of all processes of Postfix, without those that inject and receive.
    pub cpu_seconds: f64,
}

impl PostfixRelay {
    /// Starts an instance whose queue, configuration and log lie in `folder`, after installing Debian's package if it
    /// is missing.
    ///
    /// The folder should be empty and lie on a real disk.
    ///
    /// # Errors
    /// When this is not root, the package cannot be installed, or Postfix does not start.
    pub async fn start(folder: &Path, sink: SocketAddr) -> anyhow::Result<Self> {
        install::ensure_installed().await?;
        let instance = Instance::start(folder, sink, CONNECTIONS).await?;
        Ok(Self { instance })
    }

    /// Injects that many messages of `size` bytes each, over [`CONNECTIONS`] connections, and waits until the sink has
    /// them all. `received` is the number of messages the sink has got so far.
    ///
    /// # Errors
    /// When a message is refused, or the sink gets nothing for [`STALLED`].
    pub async fn relay(&self, messages: u64, size: usize, received: impl Fn() -> u64) -> anyhow::Result<RelayRun> {
        let message = self.instance.folder().join("message");
        std::fs::write(&message, injected_message(size))
            .with_context(|| format!("cannot write {}", message.display()))?;

        let (before, cpu_before) = (received(), self.instance.cpu_seconds()?);
        let began = Instant::now();
        let source = self.start_source(messages, &message)?;
        self.wait_for_all(source, || received().saturating_sub(before), messages)
            .await?;
        let seconds = began.elapsed().as_secs_f64();
        Ok(RelayRun {
            messages,
            seconds,
            messages_per_second: messages as f64 / seconds,
            cpu_seconds: self.instance.cpu_seconds()? - cpu_before,
        })
    }

    /// Stops the instance and returns when its processes are gone.
    ///
    /// # Errors
    /// When Postfix does not stop.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.instance.stop().await
    }

    fn start_source(&self, messages: u64, message: &Path) -> anyhow::Result<Child> {
        let log = File::create(self.source_log()).context("cannot create the log of smtp-source")?;
        Command::new(install::SMTP_SOURCE)
            // -d: many messages over one connection.
            .arg("-d")
            .args(["-s", &CONNECTIONS.to_string(), "-m", &messages.to_string()])
            .args(["-f", "orders@bench.example", "-t", &format!("customer@{SINK_DOMAIN}")])
            .arg("-F")
            .arg(message)
            .arg(self.instance.address().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start smtp-source")
    }

    async fn wait_for_all(&self, mut source: Child, received: impl Fn() -> u64, messages: u64) -> anyhow::Result<()> {
        let (mut count, mut changed, mut injecting) = (0, Instant::now(), true);
        while count < messages {
            tokio::select! {
                status = source.wait(), if injecting => {
                    let status = status.context("cannot wait for smtp-source")?;
                    ensure!(status.success(), "smtp-source failed ({status}): {}", self.logs());
                    injecting = false;
                }
                () = tokio::time::sleep(POLL) => {}
            }
            let now = received();
            if now != count {
                (count, changed) = (now, Instant::now());
            }
            if changed.elapsed() > STALLED {
                let seconds = STALLED.as_secs();
                bail!(
                    "the sink has {count} of {messages} messages, and got none for {seconds} s: {}",
                    self.logs()
                );
            }
        }
        Ok(())
    }

    fn source_log(&self) -> std::path::PathBuf {
        self.instance.folder().join("smtp-source.log")
    }

    /// The ends of the logs, for error messages.
    fn logs(&self) -> String {
        let source = std::fs::read_to_string(self.source_log()).unwrap_or_default();
        format!("{}\n{}", source.trim_end(), self.instance.log_tail())
    }
}

/// A message of exactly `size` bytes as it goes over the wire, or of headers alone when that is more. Line ends are
/// plain line feeds, as `smtp-source` wants them: it sends each as two bytes.
fn injected_message(size: usize) -> String {
    const LINE: &str = "Dear customer, your order is on its way and will be with you in a few days.";

    let mut message = format!(
        "From: Bench <orders@bench.example>\nTo: <customer@{SINK_DOMAIN}>\nSubject: Your order\n\
         Date: Fri, 20 Nov 2026 12:00:00 +0000\nMessage-ID: <order@bench.example>\nMIME-Version: 1.0\n\
         Content-Type: text/plain; charset=us-ascii\n\n"
    );
    let mut room = size.saturating_sub(message.len() + message.matches('\n').count());
    while room > 0 {
        // A line takes its text and two bytes; what is left behind it must hold a line again, or nothing.
        let text = match room.checked_sub(LINE.len() + 2) {
            Some(0) | Some(2..) => LINE.len(),
            Some(1) => LINE.len() - 2,
            None => room.saturating_sub(2),
        };
        message.push_str(&LINE[..text]);
        message.push('\n');
        room = room.saturating_sub(text + 2);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_takes_its_size_on_the_wire() {
        for size in (400..700).chain([20 * 1024]) {
            let message = injected_message(size);
            let on_the_wire = message.replace('\n', "\r\n").len();
            assert_eq!(on_the_wire, size);
            assert!(message.lines().all(|line| line.len() <= 78));
        }
    }
}
