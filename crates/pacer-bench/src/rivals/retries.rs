//! When a refused message is tried again.

use std::time::Duration;

use relaypool_bounce::{Action, Verdict};
use relaypool_shaping::retry::{NextAttempt, RetrySchedule};

use crate::controller::{Retry, Ticket};

/// The intervals of this project's own schedule with its defaults: a minute, doubling, up to four hours.
const FIRST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(4 * 3_600);

/// When a message is tried again by a rival whose own schedule is not compared.
///
/// A refusal that blames the path waits like any other: these rivals have no half-open path that would let a single
/// message go ahead, and without a wait the same messages would knock without end.
pub(super) fn as_by_pacer(now: Duration, ticket: &Ticket, verdict: &Verdict) -> Retry {
    let mut verdict = verdict.clone();
    if verdict.action == Action::HoldPath {
        verdict.action = Action::Retry;
    }
    let message = ticket.message;
    match RetrySchedule::new(FIRST, LONGEST).next(&verdict, message.attempt, message.number) {
        NextAttempt::After(interval) => Retry::At(now + interval),
        NextAttempt::WithLane => Retry::At(now + FIRST),
        NextAttempt::Never => Retry::Never,
    }
}

/// Postfix's `minimal_backoff_time` and `maximal_backoff_time`.
pub(super) const MINIMAL_BACKOFF: Duration = Duration::from_secs(300);
const MAXIMAL_BACKOFF: Duration = Duration::from_secs(4_000);

/// When Postfix tries a deferred message again: the message waits for as long as it has waited already, within the two
/// limits, which doubles its age each time.
///
/// Kinder than the original in two ways: its age counts from the first refusal and not from when it was queued, and it goes
/// when it is due and not at the next scan of the queue, up to five minutes later.
pub(super) fn as_by_postfix(now: Duration, ticket: &Ticket, verdict: &Verdict) -> Retry {
    if verdict.action == Action::Fail {
        return Retry::Never;
    }
    let age = now.saturating_sub(ticket.message.first_refused.unwrap_or(now));
    Retry::At(now + age.clamp(MINIMAL_BACKOFF, MAXIMAL_BACKOFF))
}

#[cfg(test)]
mod tests {
    use relaypool_bounce::Category;

    use super::*;
    use crate::controller::Message;

    fn ticket(attempt: u32, first_refused: Option<u64>) -> Ticket {
        Ticket {
            started: Duration::ZERO,
            message: Message {
                number: 7,
                attempt,
                first_refused: first_refused.map(Duration::from_secs),
            },
            sent: None,
        }
    }

    fn seconds(retry: Retry) -> f64 {
        match retry {
            Retry::At(at) => at.as_secs_f64(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn postfix_waits_as_long_as_it_has_waited() {
        let refusal = Verdict::of(Category::Transient, Action::Retry);
        let mut now = 1_000;
        let mut waits = Vec::new();
        for attempt in 1..=7 {
            let first_refused = (attempt > 1).then_some(1_000);
            let at = as_by_postfix(Duration::from_secs(now), &ticket(attempt, first_refused), &refusal);
            waits.push(seconds(at) as u64 - now);
            now = seconds(at) as u64;
        }
        assert_eq!(waits, [300, 300, 600, 1_200, 2_400, 4_000, 4_000]);
        let failure = Verdict::of(Category::InvalidRecipient, Action::Fail);
        assert_eq!(as_by_postfix(Duration::ZERO, &ticket(1, None), &failure), Retry::Never);
    }

    #[test]
    fn others_wait_as_with_the_pacer_and_never_without_a_wait() {
        for action in [Action::Retry, Action::HoldPath] {
            let refusal = Verdict::of(Category::Transient, action);
            for (attempt, nominal) in [(1, 60.0), (2, 120.0), (3, 240.0)] {
                let wait = seconds(as_by_pacer(Duration::ZERO, &ticket(attempt, None), &refusal));
                assert!((0.94..1.11).contains(&(wait / nominal)), "{attempt}: {wait}");
            }
        }
        let failure = Verdict::of(Category::InvalidRecipient, Action::Fail);
        assert_eq!(as_by_pacer(Duration::ZERO, &ticket(1, None), &failure), Retry::Never);
    }
}
