//! What a session is told before it starts.

use std::time::Duration;

use relaypool_api::Domain;

use super::TlsClient;

/// How a session uses STARTTLS (RFC 3207).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TlsMode {
    /// Never.
    Disabled,
    /// When the host offers it; in clear text when it does not, or refuses the command (RFC 7435).
    #[default]
    Opportunistic,
    /// No mail without it.
    Required,
}

/// How long a session waits in each phase before it gives the connection up.
///
/// A limit holds for one whole reply, or one whole write, not for each byte of it: a host that sends a byte now and then
/// gains nothing. The defaults are those of RFC 5321 section 4.5.3.2 where it names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the 220 greeting. Default: 5 minutes.
    pub greeting: Duration,
    /// For the replies to EHLO, HELO and STARTTLS. Default: 5 minutes.
    pub ehlo: Duration,
    /// For the TLS handshake. Default: 60 seconds.
    pub tls_handshake: Duration,
    /// For the reply to MAIL. Default: 5 minutes.
    pub mail: Duration,
    /// For the reply to each RCPT. Default: 5 minutes.
    pub rcpt: Duration,
    /// For the reply to DATA. Default: 2 minutes.
    pub data: Duration,
    /// For the host to take one block of the message, at most 64 KB. Default: 3 minutes.
    pub data_block: Duration,
    /// For the reply to the final dot. Default: 10 minutes.
    pub end_of_data: Duration,
    /// For the reply to RSET. Default: 30 seconds.
    pub rset: Duration,
    /// For saying goodbye, from QUIT to the closed stream. Default: 5 seconds.
    pub quit: Duration,
    /// How long [`Session::idle`](super::Session::idle) waits. Default: 60 seconds.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        const fn minutes(minutes: u64) -> Duration {
            Duration::from_secs(minutes * 60)
        }
        Self {
            greeting: minutes(5),
            ehlo: minutes(5),
            tls_handshake: minutes(1),
            mail: minutes(5),
            rcpt: minutes(5),
            data: minutes(2),
            data_block: minutes(3),
            end_of_data: minutes(10),
            rset: Duration::from_secs(30),
            quit: Duration::from_secs(5),
            idle: minutes(1),
        }
    }
}

/// What every session of one lane has in common. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The name given in EHLO: the host name of the sending address.
    pub ehlo_name: Domain,
    /// Whether sessions use STARTTLS.
    pub tls: TlsMode,
    /// How they do: ciphers, verification, and the tickets of earlier sessions.
    pub tls_client: TlsClient,
    /// How long they wait.
    pub timeouts: Timeouts,
}

impl ClientConfig {
    /// Opportunistic TLS without verification, and the default timeouts.
    pub fn new(ehlo_name: Domain) -> Self {
        Self {
            ehlo_name,
            tls: TlsMode::default(),
            tls_client: TlsClient::default(),
            timeouts: Timeouts::default(),
        }
    }
}
