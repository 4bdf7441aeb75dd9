//! What the controller remembers about objects between two looks at them, and may forget.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An entry that nobody used for this long is dropped.
const KEPT: Duration = Duration::from_secs(30 * 60);

/// A value for each object, which starts as its default. A value that nobody used for half an hour is forgotten, so objects
/// that are gone leave nothing behind.
#[derive(Debug)]
pub(crate) struct Memory<K, V>(Mutex<Entries<K, V>>);

#[derive(Debug)]
struct Entries<K, V> {
    values: HashMap<K, (Instant, V)>,
    swept: Option<Instant>,
}

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self(Mutex::new(Entries {
            values: HashMap::new(),
            swept: None,
        }))
    }
}

impl<K: Eq + Hash, V: Default> Memory<K, V> {
    /// Uses the value of an object.
    pub(crate) fn with<R>(&self, key: K, now: Instant, use_value: impl FnOnce(&mut V) -> R) -> R {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.sweep(now);
        let (used, value) = entries.values.entry(key).or_insert_with(|| (now, V::default()));
        *used = now;
        use_value(value)
    }
}

impl<K: Eq + Hash, V> Entries<K, V> {
    fn sweep(&mut self, now: Instant) {
        if self
            .swept
            .is_none_or(|swept| now.saturating_duration_since(swept) > KEPT / 2)
        {
            self.swept = Some(now);
            self.values
                .retain(|_, (used, _)| now.saturating_duration_since(*used) <= KEPT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_used_and_forgets_the_rest() {
        let memory = Memory::<&str, u32>::default();
        let start = Instant::now();
        let add = |key, now| {
            memory.with(key, now, |value| {
                *value += 1;
                *value
            })
        };
        assert_eq!(add("used", start), 1);
        assert_eq!(add("left", start), 1);
        assert_eq!(add("used", start + KEPT), 2);
        let later = start + KEPT + KEPT;
        assert_eq!(add("used", later), 3);
        assert_eq!(memory.0.lock().unwrap().values.len(), 1);
    }
}
