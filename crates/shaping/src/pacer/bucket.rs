//! Rates, by the generic cell rate algorithm (GCRA, ITU-T I.371).

use std::time::Duration;

use relaypool_api::Rate;
use relaypool_api::sending_ip::Binds;

use super::limits::PacerLimits;

/// The rates of a lane: each must allow a message.
#[derive(Debug, Clone)]
pub(super) struct Buckets([Option<Bucket>; 3]);

/// What a lane's rates are called when they bind, in the order of `Buckets`.
const NAMES: [Binds; 3] = [Binds::PolicyRate, Binds::PolicyRate, Binds::PoolShare];

impl Buckets {
    pub(super) fn new(limits: &PacerLimits) -> Self {
        Self(limits.rates().map(|rate| rate.map(Bucket::new)))
    }

    /// New rates; a rate that stays keeps what was taken from it, a new one takes over what was taken before it.
    pub(super) fn change(&mut self, limits: &PacerLimits, now: Duration) {
        let taken = self.snapshot();
        *self = Self::new(limits);
        self.restore(taken, now);
    }

    /// When all of them allow a message and which is the last to; none when they do now.
    pub(super) fn next(&self, now: Duration) -> Option<(Duration, Binds)> {
        self.0
            .iter()
            .zip(NAMES)
            .filter_map(|(bucket, name)| Some((bucket.as_ref()?.next(), name)))
            .filter(|(at, _)| *at > now)
            .max_by_key(|(at, _)| *at)
    }

    pub(super) fn take(&mut self, now: Duration) {
        self.0.iter_mut().flatten().for_each(|bucket| bucket.take(now));
    }

    pub(super) fn snapshot(&self) -> [Option<Duration>; 3] {
        self.0.each_ref().map(|bucket| bucket.as_ref().map(|bucket| bucket.due))
    }

    pub(super) fn restore(&mut self, due: [Option<Duration>; 3], now: Duration) {
        for (bucket, due) in self.0.iter_mut().zip(due) {
            if let (Some(bucket), Some(due)) = (bucket, due) {
                bucket.due = due.min(now + bucket.tolerance + bucket.interval);
            }
        }
    }
}

/// One rate.
///
/// `due` is when the next message would be due if all came evenly (the theoretical arrival time). A message may come up to
/// `tolerance` early, so that a caller that wakes late can catch up. The interval is lengthened by what the tolerance
/// allows: in no span of the rate's unit are there more messages than the rate says, tolerance included.
#[derive(Debug, Clone)]
struct Bucket {
    interval: Duration,
    tolerance: Duration,
    due: Duration,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        let unit = u128::from(rate.unit().seconds()) * 1_000_000_000;
        // A tenth of a second's worth, and a fiftieth of all at most, which is what the interval is lengthened by.
        let early = (rate.messages() / 50).min(rate.messages() / (10 * rate.unit().seconds()));
        let interval = unit.div_ceil(u128::from(rate.messages() - early));
        let interval = Duration::from_nanos(u64::try_from(interval).unwrap_or(u64::MAX));
        Self {
            interval,
            tolerance: interval.mul_f64(early as f64),
            due: Duration::ZERO,
        }
    }

    fn next(&self) -> Duration {
        self.due.saturating_sub(self.tolerance)
    }

    fn take(&mut self, now: Duration) {
        self.due = self.due.max(now).saturating_add(self.interval);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    /// Sends as soon as allowed, each time a little later than that, and returns the moments.
    fn send_eagerly(rate: Rate, messages: usize, late: impl Fn(usize) -> Duration) -> Vec<Duration> {
        let mut bucket = Bucket::new(rate);
        let mut now = Duration::from_secs(1_000_000);
        (0..messages)
            .map(|number| {
                now = now.max(bucket.next()) + late(number);
                bucket.take(now);
                now
            })
            .collect()
    }

    #[test]
    fn a_rate_is_used_nearly_in_full() {
        for text in ["1/s", "10/s", "1000/s", "20000/h", "5000/d", "7/m"] {
            let rate = rate(text);
            let sent = send_eagerly(rate, 2_000, |_| Duration::ZERO);
            let took = (sent[1_999] - sent[0]).as_secs_f64();
            let used = 1_999.0 / took / rate.per_second();
            assert!((0.97..=1.0).contains(&used), "{text}: {used}");
        }
    }

    #[test]
    fn a_caller_that_wakes_late_catches_up() {
        let sent = send_eagerly(rate("1000/s"), 2_000, |number| {
            Duration::from_millis(if number % 10 == 0 { 8 } else { 0 })
        });
        let took = (sent[1_999] - sent[0]).as_secs_f64();
        assert!(took < 2.1, "{took}");
    }

    proptest! {
        #[test]
        fn no_span_of_the_unit_has_more(messages in 1_u64..300, unit in 0_usize..4, late in proptest::collection::vec(0_u64..2_000_000, 1..20)) {
            let rate: Rate = format!("{messages}/{}", ["s", "m", "h", "d"][unit]).parse().unwrap();
            let unit = Duration::from_secs(rate.unit().seconds());
            let sent = send_eagerly(rate, 1_000, |number| Duration::from_nanos(late[number % late.len()]));
            for (number, at) in sent.iter().enumerate() {
                let within = sent[number..].iter().take_while(|later| **later - *at < unit).count();
                prop_assert!(within as u64 <= messages, "{} of {}", within, messages);
            }
        }
    }
}
