//! Client sessions against hosts that follow a script, well-behaved and not.

#![allow(clippy::unwrap_used, clippy::panic)]

mod endings;
mod hostile;
mod opening;
mod support;
mod timeouts;
mod tls;
mod transactions;
