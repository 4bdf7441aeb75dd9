//! What a refusal means: from a reply of a receiving host, or from a failure without one, to a [`Verdict`].
//!
//! ```text
//!   Reading (phase, reply) ── classify ──────────┐
//!                                                ├─► Verdict: category, action, hint
//!   Failure (no reply)     ── classify_failure ──┘
//! ```
//!
//! The verdict says what happens to the message (retry, fail, or hold it while the path rests), what a report says (bounce
//! code, class, error reason), and whether it is news about the path or only about this message. The categories and what
//! follows from each are data: `data/categories.tsv`.
//!
//! This crate is pure: no I/O, no tasks, no clock.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod category;
mod classify;
mod failure;
mod verdict;

pub use category::{Action, Category, Class, ErrorReason, ErrorType, UnknownCategory};
pub use classify::{Reading, classify};
pub use failure::{Failure, classify_failure};
pub use verdict::{Basis, Hint, Verdict};
