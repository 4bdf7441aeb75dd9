//! How long a message is tried.

use crate::types::Duration;

/// The longest time a message is tried, from the moment it reached its sender: 84 hours, three and a half days.
pub const MAX_VALIDITY: Duration = Duration::from_secs(84 * 3_600);

/// The validity in force: what is asked for, unless that is nothing or more than [`MAX_VALIDITY`].
pub fn effective_validity(asked: Option<Duration>) -> Duration {
    asked.map_or(MAX_VALIDITY, |asked| asked.min(MAX_VALIDITY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_84_hours_is_ignored() {
        for (asked, effective) in [
            (None, "84h"),
            (Some("5d"), "84h"),
            (Some("84h"), "84h"),
            (Some("84h0m1s"), "84h"),
            (Some("1h"), "1h"),
            (Some("90s"), "1m30s"),
        ] {
            let asked = asked.map(|text| text.parse().unwrap());
            assert_eq!(effective_validity(asked).to_string(), effective, "{asked:?}");
        }
    }
}
