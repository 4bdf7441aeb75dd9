//! The calendar days of a provider.

use std::time::Duration;

use relaypool_simulator::description::{Behaviour, DailyQuota, Provider};

const DAY: u64 = 86_400;

/// Where midnight lies in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days {
    /// Time since midnight when the run starts, less than a day.
    at_start: Duration,
}

impl Days {
    /// Days that a quota counts.
    pub fn of(quota: &DailyQuota) -> Self {
        let offset = i128::from(quota.utc_offset_minutes) * 60_000;
        let start = i128::try_from(quota.time_of_day_at_start.get().as_millis()).unwrap_or_default();
        let since_midnight = (start + offset).rem_euclid(i128::from(DAY) * 1_000);
        Self {
            at_start: Duration::from_millis(u64::try_from(since_midnight).unwrap_or_default()),
        }
    }

    /// Days of the provider's first daily quota; without one, days since the start of the run.
    pub fn of_provider(provider: &Provider) -> Self {
        let quota = provider.behaviours.iter().find_map(|behaviour| match behaviour {
            Behaviour::DailyQuota(quota) => Some(quota),
            _ => None,
        });
        quota.map_or(
            Self {
                at_start: Duration::ZERO,
            },
            Self::of,
        )
    }

    /// Which day it is; the one in which the run starts is 0.
    pub fn number(self, now: Duration) -> i64 {
        let days = (self.at_start + now).as_secs() / DAY;
        i64::try_from(days).unwrap_or(i64::MAX)
    }

    /// The first midnight after `now`.
    pub fn next_midnight(self, now: Duration) -> Duration {
        let seconds = ((self.at_start + now).as_secs() / DAY + 1) * DAY;
        Duration::from_secs(seconds) - self.at_start
    }

    /// True when the run starts at midnight.
    pub fn starts_at_midnight(self) -> bool {
        self.at_start.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn midnight_follows_the_time_zone() {
        let mut quota = DailyQuota::new(1);
        quota.utc_offset_minutes = -7 * 60;
        quota.time_of_day_at_start = "1h".parse().unwrap();
        let days = Days::of(&quota);
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        assert_eq!(days.next_midnight(Duration::ZERO), hours(6));
        assert_eq!(days.number(hours(6) - Duration::from_nanos(1)), 0);
        assert_eq!(days.number(hours(6)), 1);
        assert_eq!(days.next_midnight(hours(6)), hours(30));
    }
}
