//! How many of something there were per second, over about the last minute.

use crate::ledger::Millis;

/// Time constant in milliseconds: an event's weight falls to 1/e after this.
const TIME_CONSTANT: f64 = 20_000.0;

/// An exponentially weighted rate: two numbers, however many events.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Meter {
    weight: f64,
    at: Millis,
    started: Millis,
}

impl Meter {
    /// Counts one event.
    pub(crate) fn count(&mut self, now: Millis) {
        self.add(1, now);
    }

    /// Counts several events.
    pub(crate) fn add(&mut self, events: u32, now: Millis) {
        if self.started == 0 {
            self.started = now;
        }
        self.weight = self.weight_at(now) + f64::from(events);
        self.at = now;
    }

    /// Events per second.
    pub(crate) fn per_second(&self, now: Millis) -> f64 {
        if self.started == 0 {
            return 0.0;
        }
        // While the meter is young, not all of the weight's window has been seen: divide by what has.
        let age = now.saturating_sub(self.started).max(1_000) as f64;
        let seen = TIME_CONSTANT * (1.0 - (-age / TIME_CONSTANT).exp());
        let rate = self.weight_at(now) / seen * 1_000.0;
        if rate < 0.01 {
            0.0
        } else {
            (rate * 100.0).round() / 100.0
        }
    }

    fn weight_at(&self, now: Millis) -> f64 {
        self.weight * (-(now.saturating_sub(self.at) as f64) / TIME_CONSTANT).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_read_at_any_age() {
        let mut meter = Meter::default();
        for tick in 0..6_000_u64 {
            meter.count(1_000_000 + tick * 10);
            if tick > 200 && tick % 500 == 0 {
                let rate = meter.per_second(1_000_000 + tick * 10);
                assert!((rate - 100.0).abs() < 5.0, "{rate} after {tick}");
            }
        }
    }

    #[test]
    fn silence_fades_to_zero() {
        let mut meter = Meter::default();
        meter.add(1_000, 1_000);
        assert_eq!(meter.per_second(1_000 + 600_000), 0.0);
        assert_eq!(Meter::default().per_second(5), 0.0);
    }
}
