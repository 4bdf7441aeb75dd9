//! `relaypool crds`

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

/// Arguments of `relaypool crds`.
#[derive(Args)]
pub struct Crds {
    /// Write one file for each kind into this folder instead.
    #[arg(long)]
    output: Option<PathBuf>,
}

impl Crds {
    /// Prints or writes.
    pub fn run(self) -> anyhow::Result<()> {
        for crd in relaypool_api::crds::documents() {
            let yaml = serde_yaml::to_string(&crd)?;
            let name = crd["metadata"]["name"].as_str().unwrap_or_default();
            match &self.output {
                Some(folder) => {
                    let path = folder.join(format!("{name}.yaml"));
                    std::fs::create_dir_all(folder)?;
                    std::fs::write(&path, yaml).with_context(|| format!("cannot write {}", path.display()))?;
                }
                None => write!(std::io::stdout(), "---\n{yaml}")?,
            }
        }
        Ok(())
    }
}
