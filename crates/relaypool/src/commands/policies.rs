//! `relaypool policies`

use std::io::Write;

use clap::Args;
use relaypool_shaping::policy::profiles;

/// Arguments of `relaypool policies`.
#[derive(Args)]
pub struct Policies {
    /// Name of one profile, such as gmail. Without it, all are printed.
    name: Option<String>,
}

impl Policies {
    /// Prints objects that `kubectl apply` takes: a copy with changes of one's own applies before the built-in one.
    pub fn run(self) -> anyhow::Result<()> {
        let wanted = |name: &str| self.name.as_deref().is_none_or(|only| only == name);
        let found: Vec<&str> = profiles()
            .iter()
            .filter(|profile| wanted(&profile.name))
            .map(|profile| profile.yaml)
            .collect();
        if found.is_empty() {
            let names: Vec<&str> = profiles().iter().map(|profile| &*profile.name).collect();
            anyhow::bail!(
                "there is no built-in profile '{}'; there are {}",
                self.name.unwrap_or_default(),
                names.join(", ")
            );
        }
        Ok(std::io::stdout().lock().write_all(found.join("---\n").as_bytes())?)
    }
}
