//! Warm-up days.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::plan::Zone;

/// After a change of time zone, a day is this long at least: otherwise the new midnight could come an hour after the old one
/// and bring another day's room with it.
const AFTER_CHANGE: Duration = Duration::from_secs(23 * 3_600);

/// No day ends later than this. One that seems to was begun while the clock was wrong.
const LONGEST: Duration = Duration::from_secs(72 * 3_600);

/// A day where the calendar has no answer, at the end of the world that it knows.
const PLAIN: Duration = Duration::from_secs(24 * 3_600);

/// One day, from midnight to midnight of a time zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Day {
    /// Date, such as `2026-11-20`.
    pub(super) date: String,
    /// When it ends.
    pub(super) ends: Duration,
    /// Name of the time zone; empty where that is not known.
    pub(super) zone: String,
}

impl Day {
    /// The day that it is.
    pub(super) fn at(now: Duration, zone: &Zone) -> Self {
        let date = date(now, zone);
        let ends = date
            .and_then(|date| start_of_next(date, zone))
            .filter(|ends| *ends > now);
        Self {
            date: date.map(|date| date.to_string()).unwrap_or_default(),
            ends: ends.unwrap_or(now + PLAIN),
            zone: zone.name.clone(),
        }
    }

    /// The day that follows this one, which is over.
    pub(super) fn next(&self, now: Duration, zone: &Zone) -> Self {
        let next = Self::at(now, zone);
        if self.zone.is_empty() || self.zone == zone.name {
            return next;
        }
        Self {
            ends: Self::at(now + AFTER_CHANGE, zone).ends,
            ..next
        }
    }

    pub(super) fn is_over(&self, now: Duration) -> bool {
        now >= self.ends
    }

    /// True for a day that cannot have begun yet: the clock was set back by days.
    pub(super) fn is_far_ahead(&self, now: Duration) -> bool {
        self.ends > now + LONGEST
    }
}

fn date(now: Duration, zone: &Zone) -> Option<Date> {
    let now = i64::try_from(now.as_millis()).ok()?;
    let now = Timestamp::from_millisecond(now).ok()?;
    Some(now.to_zoned(zone.zone.clone()).date())
}

/// The first moment of the day after. Where a clock change leaves midnight out, that is the first moment behind the gap.
fn start_of_next(date: Date, zone: &Zone) -> Option<Duration> {
    let midnight = date.tomorrow().ok()?.to_zoned(zone.zone.clone()).ok()?;
    u64::try_from(midnight.timestamp().as_millisecond())
        .ok()
        .map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use relaypool_api::types::time_zone;

    use super::*;

    fn zone(name: &str) -> Zone {
        Zone {
            name: name.to_owned(),
            zone: time_zone(name).unwrap(),
        }
    }

    fn at(text: &str) -> Duration {
        let at: Timestamp = text.parse().unwrap();
        Duration::from_millis(at.as_millisecond().try_into().unwrap())
    }

    #[test]
    fn days_end_at_midnight_of_their_zone() {
        for (zone_name, now, date, ends) in [
            ("UTC", "2026-11-20T00:00:00Z", "2026-11-20", "2026-11-21T00:00:00Z"),
            ("UTC", "2026-11-20T23:59:59.999Z", "2026-11-20", "2026-11-21T00:00:00Z"),
            ("UTC", "2028-02-28T12:00:00Z", "2028-02-28", "2028-02-29T00:00:00Z"),
            (
                "Europe/Paris",
                "2026-11-20T22:59:59Z",
                "2026-11-20",
                "2026-11-20T23:00:00Z",
            ),
            (
                "Europe/Paris",
                "2026-11-20T23:00:00Z",
                "2026-11-21",
                "2026-11-21T23:00:00Z",
            ),
            // Clocks go forward: a day of 23 hours.
            (
                "Europe/Paris",
                "2026-03-28T23:00:00Z",
                "2026-03-29",
                "2026-03-29T22:00:00Z",
            ),
            // Clocks go back: a day of 25 hours.
            (
                "Europe/Paris",
                "2026-10-24T22:00:00Z",
                "2026-10-25",
                "2026-10-25T23:00:00Z",
            ),
            (
                "America/New_York",
                "2026-11-01T04:00:00Z",
                "2026-11-01",
                "2026-11-02T05:00:00Z",
            ),
            (
                "Asia/Kathmandu",
                "2026-11-20T18:15:00Z",
                "2026-11-21",
                "2026-11-21T18:15:00Z",
            ),
            // Clocks go from 23:59:59 to 01:00:00: the day begins at one.
            (
                "Africa/Cairo",
                "2026-04-23T12:00:00Z",
                "2026-04-23",
                "2026-04-23T22:00:00Z",
            ),
            // Clocks go from 24:00 back to 23:00: the last hour of the day comes twice.
            (
                "Africa/Cairo",
                "2026-10-29T20:30:00Z",
                "2026-10-29",
                "2026-10-29T22:00:00Z",
            ),
            (
                "Africa/Cairo",
                "2026-10-29T21:30:00Z",
                "2026-10-29",
                "2026-10-29T22:00:00Z",
            ),
            // Midnight comes twice: the day begins with the first.
            (
                "America/Havana",
                "2026-10-31T12:00:00Z",
                "2026-10-31",
                "2026-11-01T04:00:00Z",
            ),
            (
                "America/Havana",
                "2026-11-01T05:30:00Z",
                "2026-11-01",
                "2026-11-02T05:00:00Z",
            ),
            // A date that an island left out.
            (
                "Pacific/Apia",
                "2011-12-30T09:00:00Z",
                "2011-12-29",
                "2011-12-30T10:00:00Z",
            ),
        ] {
            let day = Day::at(at(now), &zone(zone_name));
            assert_eq!((day.date.as_str(), day.ends), (date, at(ends)), "{zone_name} {now}");
        }
    }

    #[test]
    fn a_change_of_zone_never_makes_a_short_day() {
        let utc = Day::at(at("2026-11-20T12:00:00Z"), &zone("UTC"));
        let now = utc.ends;
        for name in [
            "Atlantic/Azores",
            "Asia/Tokyo",
            "America/New_York",
            "Pacific/Kiritimati",
        ] {
            let first = utc.next(now, &zone(name));
            let length = first.ends - now;
            assert!(length >= AFTER_CHANGE && length < 2 * PLAIN, "{name}: {length:?}");
            let second = first.next(first.ends, &zone(name));
            assert_eq!(second.ends - first.ends, PLAIN, "{name}");
        }
    }

    #[test]
    fn moments_beyond_the_calendar_have_days_too() {
        let far = Duration::from_secs(u64::from(u32::MAX) * 1_000);
        let day = Day::at(far, &zone("UTC"));
        assert_eq!(day.ends, far + PLAIN);
    }
}
