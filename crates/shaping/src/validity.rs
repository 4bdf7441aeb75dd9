//! How long a message is tried.

use std::time::Duration;

/// The longest time a message is tried, from the moment it reached its sender: three and a half days.
pub const LONGEST: Duration = Duration::from_secs(84 * 3_600);

/// How long a message is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From the moment it reached its sender.
    pub duration: Duration,
    /// A longer time was wanted and is ignored.
    pub clamped: bool,
}

/// The validity that applies: the wanted one where it is at most 84 hours, else 84 hours.
pub fn effective_validity(wanted: Option<Duration>) -> Validity {
    match wanted {
        Some(duration) if duration <= LONGEST => Validity {
            duration,
            clamped: false,
        },
        _ => Validity {
            duration: LONGEST,
            clamped: wanted.is_some(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_84_hours_is_ignored() {
        const HOUR: u64 = 3_600;
        for (wanted, seconds, clamped) in [
            (None, 84 * HOUR, false),
            (Some(0), 0, false),
            (Some(HOUR), HOUR, false),
            (Some(84 * HOUR), 84 * HOUR, false),
            (Some(84 * HOUR + 1), 84 * HOUR, true),
            (Some(u64::MAX), 84 * HOUR, true),
        ] {
            let validity = effective_validity(wanted.map(Duration::from_secs));
            assert_eq!(
                (validity.duration.as_secs(), validity.clamped),
                (seconds, clamped),
                "{wanted:?}"
            );
        }
    }
}
