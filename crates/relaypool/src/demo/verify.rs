//! Checks signatures as a receiving host would: with the key from DNS.

use std::net::SocketAddr;

use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator};

/// How many of the messages have at least one signature, all of them good.
pub async fn verified_signatures<'a>(
    dns: SocketAddr,
    messages: impl Iterator<Item = &'a [u8]>,
) -> anyhow::Result<usize> {
    let mut server = NameServerConfig::udp_and_tcp(dns.ip());
    for connection in &mut server.connections {
        connection.port = dns.port();
    }
    let config = ResolverConfig::from_name_servers(vec![server]);
    let authenticator = MessageAuthenticator::new(config, ResolverOpts::default())?;
    let mut verified = 0;
    for message in messages {
        if let Some(message) = AuthenticatedMessage::parse(message) {
            let signatures = authenticator.verify_dkim(&message).await;
            let all_pass = signatures
                .iter()
                .all(|signature| *signature.result() == DkimResult::Pass);
            verified += usize::from(all_pass && !signatures.is_empty());
        }
    }
    Ok(verified)
}
