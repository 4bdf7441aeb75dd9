//! How fast, over how many connections, and when again.
//!
//! - [`site`]: the MX hosts of a domain as a *site*, so that all domains of one provider share what is learned of it.
//! - [`policy`]: what the MxPolicy objects say of a domain and its site, and which object says it.
//! - [`pool_shares`]: a limit that all senders of a pool have together, shared out among them.
//! - [`shared_rate`]: a share of a rate that several lanes have together.
//! - [`pacer`]: grants permission to open a connection or send a message on one lane (sending IP × site).
//! - [`reply_rules`]: what users want done when a provider answers certain words.
//! - [`retry`]: when a message is tried again.
//! - [`warm_up`]: how many messages a new address may send today, and to whom.
//!
//! This crate is pure: no I/O, no tasks, no clock. A moment is a [`Duration`](std::time::Duration) since an epoch of the
//! caller's choice, the same in every call; with the Unix epoch, what is remembered stays right over a restart.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod pacer;
pub mod policy;
pub mod pool_shares;
pub mod reply_rules;
pub mod retry;
pub mod shared_rate;
pub mod site;
pub mod warm_up;
