//! When a message is tried again.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use relaypool_bounce::{Action, Category, Verdict};

/// No interval is shorter, whatever a policy or a host says: a message must not go round in a tight loop.
const SHORTEST: Duration = Duration::from_secs(1);

/// A host cannot ask for more: who asks for a week means "not at all", and the validity of a message is shorter.
const LONGEST_ASKED: Duration = Duration::from_secs(86_400);
/// Far beyond what any message is kept for; longer times are not lengthened, as that could overflow.
const LONGEST_SPREAD: Duration = Duration::from_secs(365 * 86_400);

/// Greylisted messages keep their interval for so many attempts; a host that still refuses is not greylisting.
const GREYLIST_ATTEMPTS: u32 = 6;

/// Retry intervals of one site. They follow from the reason of the refusal; users set only their scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySchedule {
    first: Duration,
    longest: Duration,
}

/// When a message is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAttempt {
    /// Not again: it has failed.
    Never,
    /// After this time. The attempt counts.
    After(Duration),
    /// As soon as its lane sends again. The attempt does not count: the path was refused, not the message, and time under
    /// suspension must not lengthen what comes after it.
    WithLane,
}

/// How the intervals of one kind of refusal run, in multiples of the first interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Course {
    first: u32,
    /// Attempts before the interval begins to double.
    steady: u32,
    /// The host means "not before": the interval is never cut by jitter.
    not_before: bool,
}

impl RetrySchedule {
    /// `first` is the interval after the first temporary failure of no special kind, `longest` what growing intervals reach.
    pub fn new(first: Duration, longest: Duration) -> Self {
        let first = first.max(SHORTEST);
        Self {
            first,
            longest: longest.max(first),
        }
    }

    /// When a message is due after its `attempt`th counted attempt (from 1) ended in `verdict`.
    ///
    /// In multiples of the first interval, each doubling unless it says otherwise:
    ///
    /// | what was refused | first |
    /// |---|---|
    /// | trouble of the host, rate limits, time-outs, nothing recognised | 1 |
    /// | greylisting | 5, steady for six attempts: what is waited for is a fixed time, typically five minutes |
    /// | DNS trouble, routing, broken protocol, a recipient the host cannot verify yet | 5 |
    /// | a recipient that gets too much, TLS that does not come about | 15 |
    /// | what a person must change: content, policy, relaying, a disabled mailbox, blocks | 30 |
    /// | a full mailbox: only its owner can empty it | 60 |
    ///
    /// A time that the host asked for is obeyed, up to a day; no other interval exceeds the longest. Jitter of up to a tenth
    /// is on top, so that messages refused together do not come back together. It depends on `seed` and `attempt` alone,
    /// so give each message a seed of its own.
    pub fn next(&self, verdict: &Verdict, attempt: u32, seed: u64) -> NextAttempt {
        match verdict.action {
            Action::Fail => NextAttempt::Never,
            Action::HoldPath => NextAttempt::WithLane,
            Action::Retry => NextAttempt::After(self.interval(verdict, attempt.max(1), seed)),
        }
    }

    fn interval(&self, verdict: &Verdict, attempt: u32, seed: u64) -> Duration {
        let course = Course::of(verdict.category);
        let (interval, not_before) = match verdict.hint.retry_after {
            Some(asked) => (asked.min(LONGEST_ASKED), true),
            None => (self.growing(course, attempt), course.not_before),
        };
        let factor = if not_before { 1.0 } else { 0.95 } + jitter(attempt, seed);
        interval.mul_f64(factor).max(SHORTEST)
    }

    fn growing(&self, course: Course, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(course.steady).min(31);
        let factor = course.first.saturating_mul(1 << doublings);
        self.first.saturating_mul(factor).min(self.longest)
    }
}

/// A time that a user set, lengthened by up to a tenth so that messages refused together do not come back together. The
/// schedule's longest interval does not bound it.
pub fn spread(time: Duration, attempt: u32, seed: u64) -> Duration {
    let longer = time.min(LONGEST_SPREAD).mul_f64(1.0 + jitter(attempt, seed));
    longer.max(time).max(SHORTEST)
}

fn jitter(attempt: u32, seed: u64) -> f64 {
    StdRng::seed_from_u64(seed.rotate_left(32) ^ u64::from(attempt)).random_range(0.0..0.1)
}

impl Course {
    fn of(category: Category) -> Self {
        use Category as C;
        let doubling = |first| Self {
            first,
            steady: 1,
            not_before: false,
        };
        match category {
            C::Transient | C::Timeout | C::RateLimited | C::Undetermined => doubling(1),
            C::Greylisted => Self {
                first: 5,
                steady: GREYLIST_ATTEMPTS,
                not_before: true,
            },
            C::InvalidDomain | C::RoutingError | C::ProtocolError | C::InvalidRecipient => doubling(5),
            C::RecipientRateLimited | C::TlsRequired => doubling(15),
            C::InactiveMailbox
            | C::MessageTooLarge
            | C::ReputationDeferral
            | C::ReputationBlock
            | C::MailBlock
            | C::SpamContent
            | C::MalwareOrAttachment
            | C::RelayDenied
            | C::AuthFailure
            | C::RdnsRequired
            | C::InvalidSender
            | C::PolicyRejected => doubling(30),
            C::MailboxFull => doubling(60),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use relaypool_bounce::{Failure, classify_failure};

    use super::*;

    const MINUTE: u64 = 60;
    const HOUR: u64 = 3_600;

    fn schedule() -> RetrySchedule {
        RetrySchedule::new(Duration::from_secs(MINUTE), Duration::from_secs(4 * HOUR))
    }

    fn verdict(category: Category) -> Verdict {
        Verdict::of(category, Action::Retry)
    }

    fn seconds(schedule: RetrySchedule, verdict: &Verdict, attempt: u32, seed: u64) -> f64 {
        match schedule.next(verdict, attempt, seed) {
            NextAttempt::After(interval) => interval.as_secs_f64(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn intervals_follow_the_reason() {
        for (category, expected) in [
            (Category::Transient, [1, 2, 4, 8]),
            (Category::Timeout, [1, 2, 4, 8]),
            (Category::RateLimited, [1, 2, 4, 8]),
            (Category::Undetermined, [1, 2, 4, 8]),
            (Category::Greylisted, [5, 5, 5, 5]),
            (Category::InvalidDomain, [5, 10, 20, 40]),
            (Category::RoutingError, [5, 10, 20, 40]),
            (Category::InvalidRecipient, [5, 10, 20, 40]),
            (Category::RecipientRateLimited, [15, 30, 60, 120]),
            (Category::TlsRequired, [15, 30, 60, 120]),
            (Category::SpamContent, [30, 60, 120, 240]),
            (Category::PolicyRejected, [30, 60, 120, 240]),
            (Category::MailBlock, [30, 60, 120, 240]),
            (Category::RelayDenied, [30, 60, 120, 240]),
            (Category::MailboxFull, [60, 120, 240, 240]),
        ] {
            let expected = expected.map(|minutes| minutes * MINUTE);
            for (attempt, nominal) in (1..).zip(expected) {
                for seed in 0..20 {
                    let interval = seconds(schedule(), &verdict(category), attempt, seed);
                    let off = interval / nominal as f64;
                    assert!((0.949..1.101).contains(&off), "{category} {attempt}: {interval}");
                }
            }
        }
    }

    #[test]
    fn a_policy_scales_everything() {
        let quick = RetrySchedule::new(Duration::from_secs(2), Duration::from_secs(30));
        for (category, attempt, nominal) in [
            (Category::Transient, 1, 2.0),
            (Category::Greylisted, 1, 10.0),
            (Category::MailboxFull, 1, 30.0),
            (Category::Transient, 9, 30.0),
        ] {
            let interval = seconds(quick, &verdict(category), attempt, 7);
            assert!((0.949..1.101).contains(&(interval / nominal)), "{category}: {interval}");
        }
    }

    #[test]
    fn a_wait_that_the_host_asks_for_is_never_cut_short() {
        let mut asked = verdict(Category::Transient);
        asked.hint.retry_after = Some(Duration::from_secs(20 * MINUTE));
        let greylisted = verdict(Category::Greylisted);
        for seed in 0..100 {
            assert!(seconds(schedule(), &asked, 1, seed) >= 1_200.0);
            assert!(seconds(schedule(), &greylisted, 1, seed) >= 300.0);
        }
        for (asked_for, least) in [(9 * HOUR, 9 * HOUR), (24 * HOUR, 24 * HOUR), (7 * 24 * HOUR, 24 * HOUR)] {
            asked.hint.retry_after = Some(Duration::from_secs(asked_for));
            let interval = seconds(schedule(), &asked, 1, 0);
            assert!((1.0..1.1).contains(&(interval / least as f64)), "{interval}");
        }
    }

    #[test]
    fn failures_end_and_held_messages_wait_with_their_lane() {
        let never = Verdict::of(Category::InvalidRecipient, Action::Fail);
        assert_eq!(schedule().next(&never, 1, 0), NextAttempt::Never);
        let held = Verdict::of(Category::ReputationBlock, Action::HoldPath);
        assert_eq!(schedule().next(&held, 1, 0), NextAttempt::WithLane);
        let dns = classify_failure(Failure::DnsServerFailure);
        assert!(matches!(schedule().next(&dns, 1, 0), NextAttempt::After(_)));
        let domain = classify_failure(Failure::DomainNotFound);
        assert_eq!(schedule().next(&domain, 1, 0), NextAttempt::Never);
    }

    #[test]
    fn greylisting_that_goes_on_is_something_else() {
        let greylisted = verdict(Category::Greylisted);
        for (attempt, minutes) in [(5, 5), (6, 5), (7, 10), (8, 20), (20, 240)] {
            let interval = seconds(schedule(), &greylisted, attempt, 3);
            let off = interval / (minutes * MINUTE) as f64;
            assert!((1.0..1.1).contains(&off), "{attempt}: {interval}");
        }
    }

    #[test]
    fn messages_refused_together_come_back_apart() {
        let transient = verdict(Category::Transient);
        let mut intervals: Vec<u64> = (0..50)
            .map(|seed| (seconds(schedule(), &transient, 3, seed) * 1_000.0) as u64)
            .collect();
        intervals.sort_unstable();
        intervals.dedup();
        assert!(intervals.len() > 45, "{intervals:?}");
        assert_eq!(
            schedule().next(&transient, 3, 5),
            schedule().next(&transient, 3, 5),
            "and each at the same time whenever it is computed"
        );
    }

    proptest! {
        #[test]
        fn intervals_stay_within_bounds(
            category in 0..Category::ALL.len(),
            first in 0_u64..100_000,
            longest in 0_u64..1_000_000,
            attempt: u32,
            seed: u64,
            hint in proptest::option::of(0_u64..1_000_000),
        ) {
            let schedule = RetrySchedule::new(Duration::from_secs(first), Duration::from_secs(longest));
            let mut verdict = verdict(Category::ALL[category]);
            verdict.hint.retry_after = hint.map(Duration::from_secs);
            let interval = seconds(schedule, &verdict, attempt, seed);
            let longest = match hint {
                Some(asked) => asked.clamp(1, 86_400),
                None => longest.max(first).max(1),
            } as f64;
            prop_assert!((1.0..=longest * 1.1 + 0.001).contains(&interval), "{}", interval);
        }
    }
}
