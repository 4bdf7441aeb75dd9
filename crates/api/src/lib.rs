//! The resources of Relaypool as Rust types: what users write, what the operator answers, and the rules between them.
//!
//! This crate is pure: no I/O, no tasks, no clock. Everything above it parses with these types at its border and trusts
//! them from there on.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod reply;
pub mod types;

pub use types::{Domain, Duration, EmailAddress, Mask, Rate};
