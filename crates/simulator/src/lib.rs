//! Receiving mail providers with hidden limits, for the demo, tests and benchmarks.
//!
//! A [`World`] describes providers: their domains and MX hosts, how many connections and messages they bear, whom they
//! greylist, which mailboxes are dead or full. The same description runs in two ways:
//!
//! - [`model`]: a pure state machine in virtual time, so that an hour of sending is played in milliseconds;
//! - [`Simulator`]: real SMTP servers on loopback addresses and a real DNS server, driven by that same model.
//!
//! What the servers accepted and refused stands in their [`Books`], against which a sender's own account is checked.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod books;
mod clock;
pub mod description;
mod dns;
pub mod model;
pub mod scenarios;
mod server;
mod simulator;
mod stable_hash;
pub mod worlds;

pub use books::{Books, Keep};
pub use description::{Provider, World, WorldError};
pub use dns::DnsError;
pub use server::{BindError, TlsError};
pub use simulator::{Listen, Options, Simulator, StartError};
