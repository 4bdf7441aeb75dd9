//! The durable queue of one sender.
//!
//! A [`Spool`] holds what a sender must not forget: the slices of deliveries it has accepted, the rows (recipients) and
//! the content of each, the state of every message, and a few small named notes. Payloads are opaque bytes; the sender
//! gives them meaning.
//!
//! # Guarantees
//!
//! - A [`Batch`] is applied as a whole or not at all, and once [`Spool::commit`] returns `Ok` it is on disk: it survives
//!   the death of the process at any moment, and of the machine as far as its disk keeps what it has synchronised.
//! - Batches that wait at the same moment share one `fdatasync`. One thread does all the writing.
//! - After a failed write nothing more is written ([`Spool::failed`]): a failed `fsync` says nothing about which pages
//!   reached the disk, and trying again may report success for data that is lost. The process must stop and open the
//!   spool anew.
//! - One process at a time has a spool open.
//! - Memory is bounded by the [`Options`], whatever the length of the queue.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod batch;
mod commit;
mod committer;
mod directory;
mod error;
mod identity;
mod keys;
mod options;
mod record;
mod scan;
mod spool;
mod stage;
mod statistics;
mod store;

pub use batch::{Batch, MAX_BATCH_BYTES, MAX_BATCH_CHANGES, MAX_NAME_BYTES};
pub use commit::{AddedSlice, Commit, Committed};
pub use error::{CommitError, OpenError, ReadError, Refusal, SpoolFailure};
pub use identity::{ContentId, MessageKey, SliceNumber};
pub use options::Options;
pub use record::{NewSlice, SliceRecord};
pub use scan::{Messages, Notes};
pub use spool::Spool;
pub use statistics::Statistics;
