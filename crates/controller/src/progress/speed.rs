//! Speeds of a Delivery, from how its counts grow.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use relaypool_api::delivery::Speed;

/// What speeds are measured over.
const WINDOW: Duration = Duration::from_secs(60);
/// Samples closer than this replace each other, so that there are at most some sixty.
const SPACING: Duration = Duration::from_secs(1);

/// How many messages reached senders and receiving hosts, so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// In the spools of senders, or further.
    pub relayed: u64,
    /// Accepted by receiving hosts.
    pub delivered: u64,
}

/// Remembers totals of the last minute. After a restart of the process it starts anew.
#[derive(Debug, Default)]
pub struct SpeedMeter {
    samples: VecDeque<(Instant, Totals)>,
}

impl SpeedMeter {
    /// Takes the totals of now; returns the speeds over the last minute, or over the time since the first sample. None
    /// as long as that is less than a second. Speeds are rounded to a tenth, so that noise writes no status.
    pub fn measure(&mut self, now: Instant, totals: Totals) -> Option<Speed> {
        self.take(now, totals);
        let (oldest, first) = *self.samples.front()?;
        let seconds = now.saturating_duration_since(oldest).as_secs_f64();
        let per_second = |now: u64, then: u64| {
            let speed = now.saturating_sub(then) as f64 / seconds;
            (speed * 10.0).round() / 10.0
        };
        (seconds >= 1.0).then(|| Speed {
            relay_per_second: per_second(totals.relayed, first.relayed),
            delivery_per_second: per_second(totals.delivered, first.delivered),
        })
    }

    fn take(&mut self, now: Instant, totals: Totals) {
        let age = |then: Instant| now.saturating_duration_since(then);
        let close = |pair: (Instant, Instant)| pair.1.saturating_duration_since(pair.0) < SPACING;
        // The last sample is replaced while it is close to the one before it; the first one always stays.
        if let Some(before_last) = self.samples.len().checked_sub(2)
            && close((self.samples[before_last].0, self.samples[before_last + 1].0))
        {
            self.samples.pop_back();
        }
        self.samples.push_back((now, totals));
        // One sample at the edge of the window or before it is the base of the measurement.
        while self.samples.get(1).is_some_and(|&(then, _)| age(then) >= WINDOW) {
            self.samples.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(relayed: u64, delivered: u64) -> Totals {
        Totals { relayed, delivered }
    }

    #[test]
    fn speeds_are_growth_over_the_last_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut meter = SpeedMeter::default();
        assert_eq!(meter.measure(at(0), totals(1_000, 0)), None, "nothing to compare with");
        let speed = meter.measure(at(10), totals(2_000, 55)).unwrap();
        assert_eq!((speed.relay_per_second, speed.delivery_per_second), (100.0, 5.5));
        for second in 11..=200 {
            meter.measure(at(second), totals(2_000, 55 + second));
        }
        let speed = meter.measure(at(201), totals(2_000, 55 + 201)).unwrap();
        assert_eq!((speed.relay_per_second, speed.delivery_per_second), (0.0, 1.0));
    }

    #[test]
    fn many_looks_keep_few_samples() {
        let start = Instant::now();
        let mut meter = SpeedMeter::default();
        for tick in 0..100_000_u64 {
            meter.measure(start + Duration::from_millis(10 * tick), totals(tick, 0));
        }
        assert!(meter.samples.len() <= 63, "{}", meter.samples.len());
        let speed = meter
            .measure(start + Duration::from_secs(1_000), totals(100_000, 0))
            .unwrap();
        assert!((95.0..105.0).contains(&speed.relay_per_second), "{speed:?}");
    }

    #[test]
    fn a_quiet_time_counts_as_slow() {
        let start = Instant::now();
        let mut meter = SpeedMeter::default();
        meter.measure(start, totals(0, 0));
        let speed = meter
            .measure(start + Duration::from_secs(600), totals(600, 600))
            .unwrap();
        assert_eq!(speed.delivery_per_second, 1.0);
    }
}
