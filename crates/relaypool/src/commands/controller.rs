//! `relaypool controller`

use std::net::SocketAddr;

use clap::Args;
use prometheus_client::registry::Registry;

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
