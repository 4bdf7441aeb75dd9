//! When a message that was refused or has failed comes again.

use std::time::Duration;

use relaypool_bounce::{Action, Verdict};
use relaypool_shaping::retry::{NextAttempt, spread};
use relaypool_spool::MessageKey;

use super::Dispatcher;
use super::attempt::{Decision, Way};
use super::lane::{LaneId, pacer_time};
use crate::ledger::{MessageStatus, Millis};

/// When a message whose path is at fault is tried again, where nothing holds it.
const UNHELD_INTERVAL: Duration = Duration::from_secs(60);

/// When one is that goes again with its lane: never at once, so that a host that refuses quickly is not asked in a loop.
const PAUSE: Duration = Duration::from_secs(1);

impl Dispatcher {
    /// What follows for a message that may come again: up to the pacer of its lane, which was told of the verdict; without a
    /// lane, up to the policies of its domain.
    pub(super) fn next_attempt(
        &mut self,
        key: MessageKey,
        Way { lane, sent }: Way,
        verdict: &Verdict,
        retry_after: Option<Duration>,
        now: Millis,
    ) -> Decision {
        let slot = &self.slices[&key.slice].slots[key.index as usize];
        let (number, seed) = (u32::from(slot.attempts) + 1, seed(key, slot.attempts));
        let schedule = self.retry_of(slot, lane);
        let next = match (lane, sent) {
            (Some(lane), Some(sent)) => {
                let pacer = &mut self.lane_mut(lane).pacer;
                pacer.next_attempt(pacer_time(now), sent, verdict, &schedule, seed)
            }
            _ => schedule.next(verdict, number, seed),
        };
        let not_before = retry_after.map(|time| spread(time, number, seed));
        match (next, not_before) {
            (NextAttempt::Never, _) => Decision::End(MessageStatus::Failed),
            (NextAttempt::After(interval), _) => {
                Decision::RetryAt(now + millis(interval.max(not_before.unwrap_or_default())))
            }
            (NextAttempt::WithLane, Some(not_before)) => Decision::RetryAt(now + millis(not_before)),
            (NextAttempt::WithLane, None) => self.go_with_lane(lane, verdict, seed, now),
        }
    }

    /// A message waits in its lane where the lane really stops. Otherwise it goes again with the others that wait there, but
    /// not at once, and not all that were refused together at one moment.
    fn go_with_lane(&self, lane: Option<LaneId>, verdict: &Verdict, seed: u64, now: Millis) -> Decision {
        let is_suspended = |lane: LaneId| {
            self.lanes[lane.0 as usize]
                .pacer
                .suspended_until(pacer_time(now))
                .is_some()
        };
        if lane.is_some_and(is_suspended) {
            return Decision::Hold;
        }
        let pause = match verdict.action {
            Action::HoldPath => UNHELD_INTERVAL,
            Action::Retry | Action::Fail => PAUSE,
        };
        Decision::WaitUntil(now + millis(pause) + seed % millis(pause))
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX / 2)
}

/// Differs between messages and between the attempts of one, and is the same whenever it is computed again.
fn seed(key: MessageKey, attempts: u16) -> u64 {
    key.slice
        .get()
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(u64::from(key.index) << 16)
        .wrapping_add(u64::from(attempts))
}
