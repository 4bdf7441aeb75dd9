//! How a site took mail from a sending IP over the last week.

use relaypool_api::sending_ip::SiteReputation;
use serde::{Deserialize, Serialize};

use super::significant::to_three_digits;
use crate::ledger::Millis;

/// Days that count, today included.
const DAYS: u64 = 7;

const DAY: Millis = 86_400_000;

/// Counts of each of the last days (UTC) on which there was something to count.
///
/// Days rather than a decaying average: the counts are whole numbers that a person can compare with other reports, and what
/// is older than a week is gone altogether. The price is a step at midnight.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reputation {
    /// Oldest first.
    days: Vec<Day>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Day {
    /// Days since the Unix epoch.
    day: u64,
    accepted: u64,
    refused: u64,
}

impl Reputation {
    /// Counts a message that was accepted.
    pub(crate) fn accepted(&mut self, now: Millis) {
        let day = self.today(now);
        day.accepted = day.accepted.saturating_add(1);
    }

    /// Counts a reply that refused mail for what the site thinks of the path.
    pub(crate) fn refused(&mut self, now: Millis) {
        let day = self.today(now);
        day.refused = day.refused.saturating_add(1);
    }

    /// The sums over the last days; none when there was nothing.
    pub(crate) fn summary(&self, now: Millis) -> Option<SiteReputation> {
        let today = now / DAY;
        let (accepted, refused) =
            self.days
                .iter()
                .filter(|day| counts(day.day, today))
                .fold((0_u64, 0_u64), |(accepted, refused), day| {
                    (
                        accepted.saturating_add(day.accepted),
                        refused.saturating_add(day.refused),
                    )
                });
        let total = accepted.saturating_add(refused);
        (total > 0).then(|| SiteReputation {
            accepted_share: to_three_digits(accepted as f64 / total as f64),
            accepted,
            refused,
        })
    }

    /// The entry of today. When the clock was set back, its last day goes on being today.
    fn today(&mut self, now: Millis) -> &mut Day {
        let today = now / DAY;
        if self.days.last().is_none_or(|last| last.day < today) {
            self.days.retain(|day| counts(day.day, today));
            self.days.push(Day {
                day: today,
                accepted: 0,
                refused: 0,
            });
        }
        self.days.last_mut().expect("there is a day, or one was just added")
    }
}

fn counts(day: u64, today: u64) -> bool {
    day.saturating_add(DAYS) > today
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_counts_and_what_is_older_goes() {
        let mut reputation = Reputation::default();
        assert_eq!(reputation.summary(0), None);
        for day in 100..120 {
            for _ in 0..9 {
                reputation.accepted(day * DAY + 5);
            }
            reputation.refused(day * DAY + 6);
            assert!(reputation.days.len() <= 7);
        }
        let summary = reputation.summary(119 * DAY + 7).unwrap();
        assert_eq!((summary.accepted, summary.refused), (63, 7));
        assert_eq!(summary.accepted_share, 0.9);

        // Nothing comes any more: day after day there is less to count.
        let later = |days: u64| reputation.summary((119 + days) * DAY).map(|summary| summary.accepted);
        assert_eq!([later(1), later(6), later(7)], [Some(54), Some(9), None]);
    }

    #[test]
    fn a_clock_that_is_set_back_adds_no_days() {
        let mut reputation = Reputation::default();
        reputation.accepted(200 * DAY);
        for day in (100..200).rev() {
            reputation.accepted(day * DAY);
        }
        assert_eq!(reputation.days.len(), 1);
        assert_eq!(reputation.summary(200 * DAY).unwrap().accepted, 101);
    }
}
