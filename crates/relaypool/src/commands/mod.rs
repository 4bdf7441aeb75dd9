//! One module for each command.

pub mod bench;
pub mod controller;
pub mod crds;
pub mod demo;
pub mod explain;
pub mod local;
pub mod policies;
pub mod reference;
pub mod sender;
pub mod simulator;

use tokio::signal::unix::{SignalKind, signal};

/// Resolves at SIGTERM (from an orchestrator) or SIGINT (from a terminal).
pub async fn termination() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
