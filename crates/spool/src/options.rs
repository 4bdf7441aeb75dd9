//! Sizes.

use std::time::Duration;

const MEBIBYTE: usize = 1024 * 1024;

/// Sizes and times of a spool. The defaults serve 5 000 commits/s in some tens of megabytes of memory.
#[derive(Debug, Clone)]
pub struct Options {
    /// Memory for blocks read from disk, in bytes.
    pub cache_bytes: usize,
    /// When the changes of a table that are held in memory reach this size in bytes, they are written to a file. Each of
    /// the four tables holds at most about four times this. Fixed when the spool is created: one that exists keeps the
    /// value it was made with.
    pub memtable_bytes: usize,
    /// How many bytes of batches may wait for the committing thread, including those it is working on. Further ones
    /// wait for room. A single larger batch goes alone.
    pub queue_bytes: usize,
    /// How many bytes of batches are written with one `fdatasync`. A single larger batch goes alone.
    pub group_bytes: usize,
    /// The shortest time from the start of one group to the start of the next while several callers commit at once.
    /// Batches gather meanwhile, so this is both the most a commit is delayed and the bound on `fdatasync`s per second.
    pub group_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 8 * MEBIBYTE,
            memtable_bytes: 4 * MEBIBYTE,
            queue_bytes: 16 * MEBIBYTE,
            group_bytes: 4 * MEBIBYTE,
            group_interval: Duration::from_millis(2),
        }
    }
}
