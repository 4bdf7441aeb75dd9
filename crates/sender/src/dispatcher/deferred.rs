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
