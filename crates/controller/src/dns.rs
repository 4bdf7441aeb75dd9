//! Looking up what owners of DKIM keys have published.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::{Resolver, TokioResolver};

/// Longest one lookup may take, all servers and repetitions included.
const TIMEOUT: Duration = Duration::from_secs(8);
/// Longest one request to one server may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest an answer is kept: who has just published a record wants to see it noticed.
const LONGEST_CACHED: Duration = Duration::from_secs(30);

/// Why DNS gave no answer. That a name does not exist is an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookupError {
    /// No server answered in time.
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// The servers failed.
    #[error("{0}")]
    Failed(#[from] NetError),
}

/// Looks up TXT records.
#[derive(Debug, Clone)]
pub(crate) struct Dns(TokioResolver);

impl Dns {
    /// Asks these servers, or those of the machine where there are none.
    ///
    /// # Errors
    /// When the machine's settings cannot be read.
    pub(crate) fn new(servers: &[SocketAddr]) -> Result<Self, NetError> {
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = servers.iter().map(name_server).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            Resolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.timeout = REQUEST_TIMEOUT;
        options.attempts = 1;
        options.positive_max_ttl = Some(LONGEST_CACHED);
        options.negative_max_ttl = Some(LONGEST_CACHED);
        Ok(Self(builder.build()?))
    }

    /// The TXT records of a name, each with its strings joined (RFC 6376 section 3.6.2.2). None when the name has none.
    ///
    /// # Errors
    /// When DNS gives no answer within a few seconds.
    pub(crate) async fn txt_records(&self, name: &str) -> Result<Vec<String>, LookupError> {
        // With a dot at the end: search domains of the machine have no say.
        let name = format!("{name}.");
        let lookup = tokio::time::timeout(TIMEOUT, self.0.txt_lookup(name)).await;
        match lookup.map_err(|_| LookupError::Timeout)? {
            Ok(found) => Ok(found.answers().iter().filter_map(|record| text(&record.data)).collect()),
            Err(error) if error.is_no_records_found() => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

fn text(data: &RData) -> Option<String> {
    let RData::TXT(txt) = data else { return None };
    Some(txt.txt_data.iter().map(|part| String::from_utf8_lossy(part)).collect())
}
