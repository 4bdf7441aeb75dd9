//! A share of a rate that several lanes have together, by the generic cell rate algorithm (GCRA, ITU-T I.371).

use std::time::Duration;

use relaypool_api::types::RateUnit;

/// Messages in any span of one unit of time, over all lanes that take from it; zero while there is no share.
///
/// `due` is when the next message would be due if all came evenly. A message may come up to `tolerance` early, so that who
/// wakes late can catch up; the interval is lengthened by what that allows.
#[derive(Debug, Clone)]
pub struct SharedRate {
    unit: RateUnit,
    messages: u64,
    interval: Duration,
    tolerance: Duration,
    due: Duration,
    /// The rate before the last cut, and until when messages that left under it still take up their time.
    before: Option<(u64, Duration)>,
}

impl SharedRate {
    /// No share yet.
    pub fn new(unit: RateUnit) -> Self {
        Self {
            unit,
            messages: 0,
            interval: Duration::ZERO,
            tolerance: Duration::ZERO,
            due: Duration::ZERO,
            before: None,
        }
    }

    /// A new share, from now on. What was sent under a higher one is waited for at the lower one's pace.
    pub fn change(&mut self, messages: u64, now: Duration) {
        if messages == self.messages {
            return;
        }
        let (held, was) = (self.held(now), self.interval);
        let is_cut = messages < self.messages;
        self.messages = messages;
        if messages > 0 {
            let unit = u128::from(self.unit.seconds()) * 1_000_000_000;
            // A tenth of a second's worth, and a fiftieth of all at most.
            let early = (messages / 50).min(messages / (10 * self.unit.seconds()));
            let interval = unit.div_ceil(u128::from(messages - early));
            self.interval = Duration::from_nanos(u64::try_from(interval).unwrap_or(u64::MAX));
            self.tolerance = self.interval.mul_f64(early as f64);
        }
        if is_cut && self.due > now {
            self.due += self.interval.saturating_sub(was);
            self.before = Some((held, self.due));
        }
    }

    /// The most that can have been sent in the unit of time up to now, as a rate: after a cut, what it was before, until the
    /// messages that left under it have had their time.
    pub fn held(&self, now: Duration) -> u64 {
        match self.before {
            Some((before, until)) if now < until => before.max(self.messages),
            _ => self.messages,
        }
    }

    /// When the next message may leave; none while there is no share.
    pub fn next(&self) -> Option<Duration> {
        (self.messages > 0).then(|| self.due.saturating_sub(self.tolerance))
    }

    /// A message leaves.
    pub fn take(&mut self, now: Duration) {
        self.due = self.due.max(now).saturating_add(self.interval);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs(1_000) + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_cut_is_over_when_the_messages_before_it_have_had_their_time() {
        let mut rate = SharedRate::new(RateUnit::Second);
        assert_eq!(rate.next(), None);
        rate.change(4, seconds(0.0));
        rate.take(seconds(0.0));
        rate.change(1, seconds(0.1));
        assert_eq!(rate.next(), Some(seconds(1.0)), "one second after the last");
        assert_eq!((rate.held(seconds(0.9)), rate.held(seconds(1.0))), (4, 1));

        rate.take(seconds(1.0));
        rate.change(0, seconds(1.1));
        assert_eq!(rate.next(), None);
        assert_eq!((rate.held(seconds(1.9)), rate.held(seconds(2.0))), (1, 0));
        rate.change(0, seconds(3.0));
        assert_eq!(rate.held(seconds(3.0)), 0, "what is at rest owes nothing");
    }

    proptest! {
        /// A unit that is passed to and fro: the second has what the first has not, once the first holds it no more.
        #[test]
        fn two_shares_never_exceed_their_sum_by_more_than_the_rounding_of_a_move(
            limit in 1_u64..40,
            moves in proptest::collection::vec((0_u64..40, 10_u64..3_000), 1..20),
        ) {
            let mut shares = [SharedRate::new(RateUnit::Second), SharedRate::new(RateUnit::Second)];
            let mut now = seconds(0.0);
            shares[0].change(limit, now);
            let mut sent: Vec<Duration> = Vec::new();
            let mut steady_since = now;
            for (first, millis) in moves {
                let first = first.min(limit);
                let until = now + Duration::from_millis(millis);
                while now < until {
                    for (share, wanted) in shares.iter_mut().zip([first, limit - first]) {
                        if wanted < share.messages {
                            share.change(wanted, now);
                            steady_since = now;
                        }
                    }
                    let held = [shares[0].held(now), shares[1].held(now)];
                    for (index, wanted) in [first, limit - first].into_iter().enumerate() {
                        if wanted > shares[index].messages && held[1 - index] + wanted <= limit {
                            shares[index].change(wanted, now);
                            steady_since = now;
                        }
                    }
                    for share in &mut shares {
                        while share.next().is_some_and(|next| next <= now) {
                            share.take(now);
                            sent.push(now);
                        }
                    }
                    let span = now.saturating_sub(Duration::from_secs(1));
                    let within = sent.iter().rev().take_while(|at| **at > span).count() as u64;
                    let moved = u64::from(steady_since > span);
                    prop_assert!(within <= limit + 2 * moved, "{within} of {limit}");
                    now += Duration::from_millis(1);
                }
            }
        }
    }
}
