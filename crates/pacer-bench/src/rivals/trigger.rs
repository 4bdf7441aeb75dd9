//! "So many hits within so much time", as rules of mail servers say it.

use std::collections::VecDeque;
use std::time::Duration;

/// Fires at the `count`th hit within a period, and then counts anew.
#[derive(Debug, Clone)]
pub(super) struct Trigger {
    count: usize,
    within: Duration,
    /// Never as many as `count`.
    hits: VecDeque<Duration>,
}

impl Trigger {
    /// `count` is at least 1.
    pub(super) fn new(count: usize, within: Duration) -> Self {
        Self {
            count: count.max(1),
            within,
            hits: VecDeque::new(),
        }
    }

    /// A hit. True when it is the one that fires.
    pub(super) fn hit(&mut self, now: Duration) -> bool {
        while self
            .hits
            .front()
            .is_some_and(|at| now.saturating_sub(*at) > self.within)
        {
            self.hits.pop_front();
        }
        self.hits.push_back(now);
        let fires = self.hits.len() >= self.count;
        if fires {
            self.hits.clear();
        }
        fires
    }
}

/// How often something happened in the last while, in buckets of a second.
#[derive(Debug, Clone, Default)]
pub(super) struct RecentRate {
    /// Second and number, oldest first.
    seconds: VecDeque<(u64, u32)>,
}

/// How far back a rate is measured.
const MEASURED: u64 = 60;

impl RecentRate {
    /// It happened.
    pub(super) fn count(&mut self, now: Duration) {
        let second = now.as_secs();
        match self.seconds.back_mut() {
            Some((last, number)) if *last == second => *number += 1,
            _ => self.seconds.push_back((second, 1)),
        }
        self.forget(second);
    }

    /// How often a second it happened in the last minute, or since it happened first when that is less.
    pub(super) fn per_second(&mut self, now: Duration) -> f64 {
        self.forget(now.as_secs());
        let Some((oldest, _)) = self.seconds.front() else {
            return 0.0;
        };
        let times: u32 = self.seconds.iter().map(|(_, number)| number).sum();
        let span = (now.as_secs_f64() - *oldest as f64).max(1.0);
        f64::from(times) / span
    }

    fn forget(&mut self, second: u64) {
        while self.seconds.front().is_some_and(|(at, _)| at + MEASURED <= second) {
            self.seconds.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_at_the_count_within_the_period_and_counts_anew() {
        let mut trigger = Trigger::new(3, Duration::from_secs(60));
        let fired: Vec<u64> = [0, 10, 61, 65, 66, 67, 68, 69, 200, 261, 300, 301]
            .into_iter()
            .filter(|second| trigger.hit(Duration::from_secs(*second)))
            .collect();
        assert_eq!(fired, [65, 68, 301]);
        assert!(Trigger::new(1, Duration::ZERO).hit(Duration::ZERO));
    }

    #[test]
    fn measures_the_last_minute() {
        let mut rate = RecentRate::default();
        assert_eq!(rate.per_second(Duration::ZERO), 0.0);
        for tenth in 0..1_000 {
            rate.count(Duration::from_millis(tenth * 100));
        }
        let measured = rate.per_second(Duration::from_secs(100));
        assert!((9.0..=10.0).contains(&measured), "{measured}");
        assert_eq!(rate.per_second(Duration::from_secs(200)), 0.0);
        assert!(rate.seconds.is_empty(), "and what is old is forgotten");
    }
}
