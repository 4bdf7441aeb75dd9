//! The client side of SMTP (RFC 5321): one [`Session`] per connection, any number of transactions in it.
//!
//! ```text
//! Session::open ── greeting, EHLO, STARTTLS, EHLO
//!       │
//!       ├─ send(envelope, message) ── MAIL, RCPT…, DATA, message ──► Transaction: one outcome per recipient
//!       ├─ probe(envelope) ────────── MAIL, RCPT…, RSET ───────────► Transaction
//!       ├─ idle() ─────────────────── waits for the host to hang up
//!       └─ quit()
//! ```
//!
//! What a host may do wrong is bounded: every wait has a limit ([`Timeouts`]), a reply has at most 8 KB and 128 lines, and
//! nothing it says out of turn is taken for an answer.

mod capabilities;
mod config;
mod error;
mod message;
mod opening;
mod reply;
mod session;
mod stream;
mod tls;
mod transaction;
mod wire;

pub use capabilities::Capabilities;
pub use config::{ClientConfig, Timeouts, TlsMode};
pub use error::{ProtocolError, SendError, SessionError, Unsendable};
pub use rustls::RootCertStore;
pub use session::Session;
pub use tls::TlsClient;
pub use transaction::{Envelope, RecipientOutcome, Transaction};
