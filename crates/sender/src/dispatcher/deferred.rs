//! Messages of a lane that wait for a time of their own although it is the site that makes them wait: once it shows that it
//! makes nobody wait that long, they need not either.

use std::collections::BTreeSet;
use std::time::Duration;

use relaypool_bounce::{Action, Category, Verdict};
use relaypool_spool::MessageKey;

use super::Dispatcher;
use super::attempt::Attempt;
use super::lane::{LaneId, pacer_time};
use super::slice::Place;
use crate::ledger::{Millis, Tried};

/// Messages released after one acceptance. Those sent then release more.
const RELEASED_AT_ONCE: usize = 256;

/// Entries before the stale ones are looked for.
const FIRST_TRIM: usize = 1_024;

/// The messages by the time of their first refusal. A message has one entry; one whose message has moved on is dropped when
/// it is met, or when there are too many.
#[derive(Debug, Default)]
pub(crate) struct Deferred {
    entries: BTreeSet<(Millis, MessageKey)>,
    /// Entries that were left when stale ones were last dropped.
    trimmed_to: usize,
}

impl Deferred {
    pub(crate) fn remove(&mut self, first_refused: Millis, key: MessageKey) {
        self.entries.remove(&(first_refused, key));
    }

    /// Takes out the first of those that were refused at or before `until`.
    fn pop(&mut self, until: Duration) -> Option<(Millis, MessageKey)> {
        let (first_refused, _) = self.entries.first()?;
        if pacer_time(*first_refused) > until {
            return None;
        }
        self.entries.pop_first()
    }

    fn needs_trim(&self) -> bool {
        self.entries.len() >= FIRST_TRIM.max(2 * self.trimmed_to)
    }
}

/// Whether the site puts everybody off rather than this message: then what others meet says something about it. A host that
/// says how long to wait is taken at its word.
fn is_up_to_the_site(verdict: &Verdict) -> bool {
    verdict.hint.retry_after.is_none()
        && matches!(
            verdict.category,
            Category::Greylisted | Category::Transient | Category::RateLimited | Category::Undetermined
        )
}

impl Dispatcher {
    /// Keeps with a message that stays where it was tried from, and when it was first put off there.
    pub(crate) fn remember_attempt(
        &mut self,
        key: MessageKey,
        lane: LaneId,
        attempt: &Attempt,
        verdict: &Verdict,
        now: Millis,
    ) {
        if !attempt.met_a_host() {
            return;
        }
        let ip = self.lanes[lane.0 as usize].ip.clone();
        let Some(slot) = self.slot_mut(key) else { return };
        let mut tried = slot.tried.take().filter(|tried| tried.ip == ip).unwrap_or_else(|| {
            Box::new(Tried {
                ip,
                first_refused: None,
            })
        });
        // A path that is blocked says nothing about how long strangers wait.
        if matches!(attempt, Attempt::Refused { .. }) && verdict.action == Action::Retry {
            tried.first_refused.get_or_insert(now);
        }
        slot.tried = Some(tried);
    }

    /// A message begins to wait for its time: it may be released before.
    pub(crate) fn defer(&mut self, key: MessageKey, lane: LaneId, verdict: &Verdict, now: Millis) {
        let Some(first_refused) = self.first_refused(key, lane).filter(|_| is_up_to_the_site(verdict)) else {
            return;
        };
        let lane_state = self.lane_mut(lane);
        // One that was refused although the site lets such messages pass is refused for a reason of its own.
        let is_passed = |until: Duration| pacer_time(first_refused) <= until;
        if lane_state.pacer.released(pacer_time(now)).is_some_and(is_passed) {
            return;
        }
        lane_state.deferred.entries.insert((first_refused, key));
        if lane_state.deferred.needs_trim() {
            self.trim_deferred(lane);
        }
    }

    /// Puts messages that need not wait any more to the end of those that are routed; the lane's pacer paces them.
    pub(crate) fn release_deferred(&mut self, lane: LaneId, now: Millis) {
        if let Some(until) = self.lane_mut(lane).pacer.released(pacer_time(now)) {
            self.release_until(lane, until);
        }
    }

    /// … those first refused at or before a moment.
    pub(crate) fn release_until(&mut self, lane: LaneId, until: Duration) {
        for _ in 0..RELEASED_AT_ONCE {
            let Some((first_refused, key)) = self.lane_mut(lane).deferred.pop(until) else {
                return;
            };
            if self.is_deferred(first_refused, key, lane) {
                self.requeue(key);
            }
        }
    }

    /// When a message was first put off on this lane.
    pub(crate) fn first_refused(&self, key: MessageKey, lane: LaneId) -> Option<Millis> {
        let slot = self.slices.get(&key.slice)?.slots.get(key.index as usize)?;
        slot.first_refused(&self.lanes[lane.0 as usize].ip)
    }

    fn is_deferred(&self, first_refused: Millis, key: MessageKey, lane: LaneId) -> bool {
        self.is_at(key, Place::Due) && self.first_refused(key, lane) == Some(first_refused)
    }

    fn trim_deferred(&mut self, lane: LaneId) {
        let mut deferred = std::mem::take(&mut self.lane_mut(lane).deferred);
        deferred
            .entries
            .retain(|(first_refused, key)| self.is_deferred(*first_refused, *key, lane));
        deferred.trimmed_to = deferred.entries.len();
        self.lane_mut(lane).deferred = deferred;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::test_bed::{Bed, greylisted};
    use super::*;

    fn entry(number: u64) -> (Millis, MessageKey) {
        let slice = relaypool_spool::SliceNumber::new(1_000 + number);
        (number, MessageKey { slice, index: 0 })
    }

    #[test]
    fn entries_leave_by_their_time() {
        let mut deferred = Deferred::default();
        deferred.entries.extend([entry(3_000), entry(1_000), entry(2_000)]);
        let mut pop = |seconds| deferred.pop(Duration::from_secs(seconds)).map(|(at, _)| at);
        assert_eq!(
            [pop(0), pop(2), pop(2), pop(2), pop(9)],
            [None, Some(1_000), Some(2_000), None, Some(3_000)]
        );
    }

    #[tokio::test]
    async fn stale_entries_are_dropped_before_they_are_many() {
        let mut bed = Bed::new(&["a"]);
        bed.accept("s", 1, "grey.example", json!({})).await;
        let lane = bed.lane("a", "grey.example");
        let stale = (0..FIRST_TRIM as u64 - 1).map(entry);
        bed.dispatcher.lane_mut(lane).deferred.entries.extend(stale);
        bed.answer(|_| greylisted());
        let left = &bed.dispatcher.lane_mut(lane).deferred;
        assert_eq!((left.entries.len(), left.trimmed_to), (1, 1), "the one that waits");
    }

    #[tokio::test]
    async fn a_message_in_its_lane_is_not_deferred() {
        let mut bed = Bed::new(&["a"]);
        bed.accept("s", 5, "grey.example", json!({})).await;
        let lane = bed.lane("a", "grey.example");
        while !bed.flights().is_empty() {
            bed.answer(|_| greylisted());
        }
        assert_eq!(bed.dispatcher.lane_mut(lane).deferred.entries.len(), 5);
        bed.answer_all(|_| Attempt::Accepted);
        bed.pass(600_000);
        bed.answer_all(|_| Attempt::Accepted);
        assert_eq!(bed.slice("s").unfinished, 0);
        assert!(bed.dispatcher.lane_mut(lane).deferred.entries.is_empty());
    }
}
