//! Fixed limits for each provider, as the rules of campaign servers have them: connections, and messages an hour.

use std::time::Duration;

use relaypool_bounce::Verdict;
use relaypool_shaping::pacer::Grant;

use super::{Knowledge, retries};
use crate::controller::{Controller, Message, Retry, Ticket, View};

/// Name of [`Fixed::generic`].
pub const GENERIC: &str = "fixed-generic";
/// Name of [`Fixed::tuned`].
pub const TUNED: &str = "fixed-tuned";

/// The hour's quota is cut into so many slots.
const SLOTS_PER_HOUR: u64 = 12;
const SLOT_SECONDS: u64 = 3_600 / SLOTS_PER_HOUR;

/// The one rule for every provider nobody wrote a rule for.
const GENERIC_CONNECTIONS: u32 = 20;
const GENERIC_PER_HOUR: u64 = 10_000;

/// One rule: at most so many connections, and so many messages an hour.
///
/// The hour is cut into twelve slots of five minutes, each with a twelfth of the quota (10 000 an hour: 833). Within a slot
/// mail goes as fast as the connections allow; what is left of a slot is lost. Every attempt takes a token, refused or not.
///
/// A refused message waits. The original waits an hour between the first attempts, which would make every refusal cost
/// what it need not; here it is tried again as with the pacer, so that what is compared is pacing. The original's breaker
/// (300 messages with 90 % errors block the path for three hours) is left out: it could only make things worse here.
#[derive(Debug, Clone)]
pub struct Fixed {
    name: &'static str,
    connections: u32,
    /// Tokens of a slot; none where the messages are not limited.
    per_slot: Option<u64>,
    open: u32,
    slot: u64,
    used: u64,
}

impl Fixed {
    /// The generic rule: 20 connections (`cap` at most), 10 000 messages an hour.
    pub fn generic(cap: u32) -> Self {
        Self::new(GENERIC, GENERIC_CONNECTIONS.min(cap), Some(GENERIC_PER_HOUR))
    }

    /// The rule that an expert writes who knows the provider.
    ///
    /// - Connections: what the provider bears.
    /// - Messages an hour: the lesser of the rate and of a 24th of what it takes a day, rounded down. The time zone of the
    ///   provider's day does not matter then.
    /// - The rule has no limit for a second, and within a slot mail goes as fast as it can. So where the provider limits
    ///   messages a second, and how long a message takes is known, there are no more connections than that rate keeps
    ///   busy.
    pub fn tuned(cap: u32, knowledge: &Knowledge) -> Self {
        let busy = knowledge
            .messages_per_second
            .zip(knowledge.time_per_message)
            .map(|(rate, time)| (rate * time.as_secs_f64()).floor() as u32);
        let connections = [knowledge.connections, busy].into_iter().flatten().fold(cap, u32::min);
        let by_rate = knowledge
            .messages_per_second
            .map(|rate| (rate * 3_600.0).floor() as u64);
        let by_day = knowledge.per_day.map(|messages| messages / 24);
        Self::new(TUNED, connections, by_rate.into_iter().chain(by_day).min())
    }

    fn new(name: &'static str, connections: u32, per_hour: Option<u64>) -> Self {
        Self {
            name,
            connections: connections.max(1),
            per_slot: per_hour.map(|messages| (messages / SLOTS_PER_HOUR).max(1)),
            open: 0,
            slot: 0,
            used: 0,
        }
    }

    /// A new slot begins with all of its tokens. Slots count from the start of the run.
    fn enter_slot(&mut self, now: Duration) {
        let slot = now.as_secs() / SLOT_SECONDS;
        if slot != self.slot {
            self.slot = slot;
            self.used = 0;
        }
    }
}

impl Controller for Fixed {
    fn name(&self) -> &'static str {
        self.name
    }

    fn may_start(&mut self, now: Duration) -> Grant {
        self.enter_slot(now);
        if self.per_slot.is_some_and(|tokens| self.used >= tokens) {
            Grant::At(Duration::from_secs((self.slot + 1) * SLOT_SECONDS))
        } else if self.open >= self.connections {
            Grant::No
        } else {
            Grant::Now
        }
    }

    fn started(&mut self, now: Duration, message: Message) -> Ticket {
        self.enter_slot(now);
        self.used += 1;
        self.open += 1;
        Ticket {
            started: now,
            message,
            sent: None,
        }
    }

    fn accepted(&mut self, _now: Duration, _ticket: Ticket) {
        self.open = self.open.saturating_sub(1);
    }

    fn refused(&mut self, now: Duration, ticket: Ticket, verdict: &Verdict) -> Retry {
        self.open = self.open.saturating_sub(1);
        retries::as_by_pacer(now, &ticket, verdict)
    }

    fn view(&self, _now: Duration) -> View {
        View {
            window: f64::from(self.connections),
            rate: self.per_slot.map(|tokens| tokens as f64 / SLOT_SECONDS as f64),
            is_suspended: false,
            cuts: 0,
            cuts_undone: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use relaypool_bounce::{Action, Category};
    use relaypool_simulator::scenarios::Scenario;

    use super::*;
    use crate::rivals::playground::Playground;

    const MESSAGE: Message = Message {
        number: 0,
        attempt: 1,
        first_refused: None,
    };

    /// Starts and ends attempts at `now` until no more may start, every third refused. Returns how many, and the grant.
    fn spend(fixed: &mut Fixed, now: Duration) -> (u64, Grant) {
        let refusal = Verdict::of(Category::Transient, Action::Retry);
        let mut attempts = 0;
        loop {
            match fixed.may_start(now) {
                Grant::Now => {
                    let ticket = fixed.started(now, MESSAGE);
                    attempts += 1;
                    if attempts % 3 == 0 {
                        fixed.refused(now, ticket, &refusal);
                    } else {
                        fixed.accepted(now, ticket);
                    }
                }
                grant => return (attempts, grant),
            }
        }
    }

    #[test]
    fn a_slot_has_a_twelfth_of_the_hour_for_attempts_of_all_kinds() {
        let mut fixed = Fixed::generic(50);
        let next = |seconds| Grant::At(Duration::from_secs(seconds));
        assert_eq!(spend(&mut fixed, Duration::from_secs(10)), (833, next(300)));
        assert_eq!(spend(&mut fixed, Duration::from_millis(299_999)), (0, next(300)));
        assert_eq!(spend(&mut fixed, Duration::from_secs(300)), (833, next(600)));
        // What a slot leaves over does not go into the next.
        assert_eq!(spend(&mut fixed, Duration::from_secs(1_500)), (833, next(1_800)));
    }

    #[test]
    fn connections_are_limited_too() {
        let mut fixed = Fixed::generic(50);
        let tickets: Vec<Ticket> = (0..20).map(|_| fixed.started(Duration::ZERO, MESSAGE)).collect();
        assert_eq!(fixed.may_start(Duration::ZERO), Grant::No);
        fixed.accepted(Duration::ZERO, tickets[0]);
        assert_eq!(fixed.may_start(Duration::ZERO), Grant::Now);
        assert_eq!(Fixed::generic(4).view(Duration::ZERO).window, 4.0);
    }

    #[test]
    fn an_expert_writes_what_the_rule_can_say() {
        let known = Knowledge::default();
        let rate = Knowledge {
            messages_per_second: Some(10.0),
            ..known
        };
        for (knowledge, connections, per_slot) in [
            (known, 20, None),
            (
                Knowledge {
                    connections: Some(5),
                    ..known
                },
                5,
                None,
            ),
            (rate, 20, Some(3_000)),
            (
                Knowledge {
                    time_per_message: Some(Duration::from_millis(500)),
                    ..rate
                },
                5,
                Some(3_000),
            ),
            (
                Knowledge {
                    per_day: Some(5_000),
                    ..known
                },
                20,
                Some(17),
            ),
            (
                Knowledge {
                    per_day: Some(5_000),
                    connections: Some(0),
                    ..rate
                },
                1,
                Some(17),
            ),
        ] {
            let fixed = Fixed::tuned(20, &knowledge);
            assert_eq!(
                (fixed.connections, fixed.per_slot),
                (connections, per_slot),
                "{knowledge:?}"
            );
        }
    }

    #[test]
    fn an_expert_copes_with_a_rate_that_nobody_else_knows() {
        let known = Knowledge {
            messages_per_second: Some(10.0),
            time_per_message: Some(Duration::from_millis(500)),
            ..Knowledge::default()
        };
        let provider = Scenario::C.provider();
        let [tuned, generic] = [Fixed::tuned(20, &known), Fixed::generic(20)]
            .map(|mut fixed| Playground::new(&provider, 1).play(&mut fixed, Duration::from_secs(300)));
        assert!(tuned.accepted > 2_800 && tuned.refused < 100, "{tuned:?}");
        assert!(generic.accepted < 100, "{generic:?}");
    }
}
