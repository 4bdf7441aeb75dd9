//! `relaypool controller`

use std::net::SocketAddr;

use anyhow::Context;
use clap::Args;
use kube::Client;
use prometheus_client::registry::Registry;
use relaypool_controller::Config;

use super::termination;
use crate::admin::{self, Readiness};

/// Arguments of `relaypool controller`.
#[derive(Args)]
pub struct Controller {
    /// Look after one namespace only. Absent: after all.
    #[arg(long, env = "RELAYPOOL_NAMESPACE")]
    namespace: Option<String>,
    /// Name servers that DKIM records are looked up at, `address:port`. Absent: those of the machine.
    #[arg(long = "dns-server", env = "RELAYPOOL_DNS_SERVERS", value_delimiter = ',')]
    dns_servers: Vec<SocketAddr>,
    /// Address of the admin port (metrics, probes).
    #[arg(long, env = "RELAYPOOL_ADMIN", default_value = "[::]:9090")]
    admin: SocketAddr,
}

impl Controller {
    /// Runs until told to end.
    pub async fn run(self) -> anyhow::Result<()> {
        let client = Client::try_default().await.context("cannot find the API server")?;
        let config = Config {
            client,
            namespace: self.namespace,
            dns_servers: self.dns_servers,
        };
        let mut registry = Registry::default();
        let work = relaypool_controller::run(config, &mut registry, async {
            if let Err(error) = termination().await {
                tracing::error!(%error, "signals cannot be received, ending");
            }
        });
        let readiness = Readiness::default();
        admin::serve(self.admin, registry, readiness.clone()).await?;
        readiness.set(true);
        Ok(work.await?)
    }
}
