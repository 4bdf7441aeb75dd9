//! SMTP sessions over any async stream.
//!
//! [`client`] delivers mail to a receiving host. Connecting, choosing a host and deciding what a reply means are left to
//! the callers: this crate speaks the protocol and reports every reply as it came.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod client;
