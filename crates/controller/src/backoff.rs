//! How long to wait after a failed reconcile: each object has its own count of failures in a row.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Wait after the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row, by object. Only objects that failed last time have an entry.
#[derive(Debug)]
pub(crate) struct Backoff<K>(Mutex<HashMap<K, u32>>);

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Backoff<K> {
    /// Counts a failure, and says how long to wait: 1 s, 2 s, 4 s … 60 s, of which a random part of up to a third is
    /// taken off, so that objects that failed together do not come back together.
    pub(crate) fn failed(&self, key: K) -> Duration {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key).or_default();
        *count = count.saturating_add(1);
        without_jitter(*count).mul_f64(rand::random_range(2.0 / 3.0..=1.0))
    }

    /// Forgets the failures of an object that was reconciled, or is gone.
    pub(crate) fn forget(&self, key: &K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

fn without_jitter(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (FIRST * 2_u32.pow(doublings)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute() {
        let waits: Vec<_> = (1..=8).map(|count| without_jitter(count).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(without_jitter(u32::MAX), LONGEST);
    }

    #[test]
    fn success_starts_anew_and_objects_do_not_share() {
        let backoff = Backoff::default();
        let in_bounds = |wait: Duration, full: u64| {
            assert!(wait <= Duration::from_secs(full), "{wait:?}");
            assert!(wait >= Duration::from_secs(full).mul_f64(0.66), "{wait:?}");
        };
        in_bounds(backoff.failed("a"), 1);
        in_bounds(backoff.failed("a"), 2);
        in_bounds(backoff.failed("b"), 1);
        backoff.forget(&"a");
        in_bounds(backoff.failed("a"), 1);
    }
}
