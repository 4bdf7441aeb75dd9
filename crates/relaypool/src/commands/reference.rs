//! `relaypool reference`

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

/// Arguments of `relaypool reference`.
#[derive(Args)]
pub struct Reference {
    /// Write to this file instead.
    #[arg(long)]
    output: Option<PathBuf>,
}

impl Reference {
    /// Prints or writes.
    pub fn run(self) -> anyhow::Result<()> {
        let markdown = relaypool_api::reference::markdown();
        match self.output {
            Some(path) => std::fs::write(&path, markdown).with_context(|| format!("cannot write {}", path.display())),
            None => Ok(std::io::stdout().write_all(markdown.as_bytes())?),
        }
    }
}
