//! Counters of the committing thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What the committing thread has done since the spool was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Batches committed.
    pub commits: u64,
    /// Batches refused, nothing of which was written.
    pub refusals: u64,
    /// Groups of batches written, each with one `fdatasync`.
    pub groups: u64,
    /// Bytes of the batches committed, as [`Batch::bytes`](crate::Batch::bytes) counts them.
    pub bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) refusals: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> Statistics {
        Statistics {
            commits: self.commits.load(Relaxed),
            refusals: self.refusals.load(Relaxed),
            groups: self.groups.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }
}
