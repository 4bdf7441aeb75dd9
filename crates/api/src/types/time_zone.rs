use std::sync::LazyLock;

use jiff::tz::{TimeZone, TimeZoneDatabase};

/// The zones that come with the program: the same on every machine and in every image, and nothing is read to look one up.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// The time zone of a name in the IANA database, such as `Europe/Paris`; none for a name that is not in it. Letter case does
/// not matter.
pub fn time_zone(name: &str) -> Option<TimeZone> {
    ZONES.get(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_database_are_known() {
        for name in ["UTC", "Europe/Paris", "europe/paris", "America/New_York", "Etc/GMT+5"] {
            assert!(time_zone(name).is_some(), "{name}");
        }
        for name in ["", "Paris", "Europe/Lutetia", "+02:00", "../../etc/passwd"] {
            assert!(time_zone(name).is_none(), "{name}");
        }
    }
}
