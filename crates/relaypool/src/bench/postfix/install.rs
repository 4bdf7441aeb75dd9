//! Debian's package `postfix`: there, or installed now.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The command that starts and stops an instance.
pub const POSTFIX: &str = "/usr/sbin/postfix";
/// The injector that comes with Postfix.
pub const SMTP_SOURCE: &str = "/usr/sbin/smtp-source";

/// Asked by Debian's tools whether a service may be started.
const SERVICE_POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs the package if it is missing, in a way that makes no configuration for the machine and starts nothing.
pub async fn ensure_installed() -> anyhow::Result<()> {
    if installed() {
        return Ok(());
    }
    let _policy = NoServices::begin()?;
    let answer = "postfix postfix/main_mailer_type select No configuration\n";
    run(Command::new("debconf-set-selections"), answer).await?;
    if install().await.is_err() {
        // Package lists that are too old name files the mirror no longer has.
        let mut update = Command::new("apt-get");
        update.args(["--quiet=2", "update"]);
        run(update, "").await?;
        install()
            .await
            .context("Debian's package postfix is missing and cannot be installed")?;
    }
    ensure!(
        installed(),
        "the package postfix is installed, but {POSTFIX} or {SMTP_SOURCE} is not there"
    );
    Ok(())
}

fn installed() -> bool {
    [POSTFIX, SMTP_SOURCE]
        .iter()
        .all(|program| Path::new(program).is_file())
}

async fn install() -> anyhow::Result<()> {
    let mut command = Command::new("apt-get");
    command
        .args(["--quiet=2", "--option", "DPkg::Lock::Timeout=600"])
        // A machine has one mail system: the one it has is not removed for a measurement.
        .args(["install", "--yes", "--no-install-recommends", "--no-remove", "postfix"])
        .env("DEBIAN_FRONTEND", "noninteractive");
    run(command, "").await
}

/// Runs a command; its output is part of the error when it fails.
async fn run(mut command: Command, input: &str) -> anyhow::Result<()> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}: the baseline needs Debian and its package postfix"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(input.as_bytes())
            .await
            .with_context(|| format!("cannot write to {name}"))?;
    }
    let output = child
        .wait_with_output()
        .await
        .with_context(|| format!("cannot wait for {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{name} failed ({}): {}",
        output.status,
        said.trim()
    );
    Ok(())
}

/// While this lives, installing a package starts no service. A policy that the machine has stays as it is.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn begin() -> anyhow::Result<Self> {
        if Path::new(SERVICE_POLICY).exists() {
            return Ok(Self { ours: false });
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(SERVICE_POLICY)
            .with_context(|| format!("cannot write {SERVICE_POLICY}: installing postfix needs root"))?;
        let policy = Self { ours: true };
        // 101 means: not allowed.
        file.write_all(b"#!/bin/sh\nexit 101\n")
            .with_context(|| format!("cannot write {SERVICE_POLICY}"))?;
        Ok(policy)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            // It was writable a moment ago, and there is nobody left to tell.
            let _ = std::fs::remove_file(SERVICE_POLICY);
        }
    }
}
