//! DKIM: signing keys, signatures (RFC 6376, RFC 8463) and published records.

mod key;
mod record;
mod signer;

pub use key::{KeyError, SigningKey, generate};
pub use record::{RecordMismatch, matches_record};
pub use signer::{SignError, Signer, SignerError};
