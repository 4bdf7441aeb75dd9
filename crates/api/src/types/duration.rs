use std::fmt;
use std::str::FromStr;

use super::string_schema::{quoted, string_type};
use crate::cel::CelRule;

/// A span of time as users write it: `90s`, `15m`, `1h30m`, `3.5d`, `250ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Duration(std::time::Duration);

/// Characters of the longest text; long enough for every unit with a full number.
const MAX_LENGTH: usize = 32;

const RULE: CelRule = CelRule::new(
    "self.matches('^([0-9]+([.][0-9]{1,6})?(ms|s|m|h|d))+$')",
    "must be a duration: numbers with units ms, s, m, h or d, such as 90s, 1h30m or 3.5d",
);

/// Why a text is not a [`Duration`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' {fix}", fix = RULE.message)]
pub struct DurationError(String);

/// Longest first within a letter, so that `ms` is not read as `m`.
const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

impl Duration {
    /// A number of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }

    /// A number of whole milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(std::time::Duration::from_millis(milliseconds))
    }

    /// The standard library's form.
    pub const fn get(self) -> std::time::Duration {
        self.0
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl From<std::time::Duration> for Duration {
    /// Keeps whole milliseconds: that is what the text form can say.
    fn from(duration: std::time::Duration) -> Self {
        Self::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let error = || DurationError(quoted(text));
        if text.is_empty() || text.len() > MAX_LENGTH {
            return Err(error());
        }
        let mut rest = text;
        let mut total = 0_u64;
        while !rest.is_empty() {
            let unit_at = rest
                .find(|character: char| !character.is_ascii_digit() && character != '.')
                .ok_or_else(error)?;
            let (number, behind) = rest.split_at(unit_at);
            let (name, unit) = UNITS
                .into_iter()
                .find(|(name, _)| behind.starts_with(name))
                .ok_or_else(error)?;
            let part = milliseconds(number, unit).ok_or_else(error)?;
            total = total.checked_add(part).ok_or_else(error)?;
            rest = &behind[name.len()..];
        }
        Ok(Self::from_millis(total))
    }
}

/// `number` (digits with at most one point) times `unit` milliseconds, in whole numbers: no float can round a second away.
fn milliseconds(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 6 || number.ends_with('.') {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    if fraction.is_empty() {
        return Some(whole);
    }
    let scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_add(fraction.parse::<u64>().ok()?.checked_mul(unit)? / scale)
}

impl fmt::Display for Duration {
    /// The shortest form in whole units, such as `1h30m`; zero is `0s`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return formatter.write_str("0s");
        }
        for (name, unit) in [UNITS[4], UNITS[3], UNITS[2], UNITS[1], UNITS[0]] {
            // Days are written as hours up to 99 of them: "84h" is how the field speaks of validity.
            if name == "d" && (rest % unit != 0 || rest < 100 * 3_600_000) {
                continue;
            }
            if rest >= unit {
                write!(formatter, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

string_type!(
    Duration,
    name: "Duration",
    max_length: MAX_LENGTH,
    rule: RULE,
    description: "A span of time: numbers with units `ms`, `s`, `m`, `h` or `d`, such as `90s`, `1h30m` or `3.5d`.",
    examples: ["90s", "1h30m", "3.5d", "250ms", "0s"]
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for (text, seconds, written) in [
            ("90s", 90.0, "1m30s"),
            ("1h30m", 5_400.0, "1h30m"),
            ("3.5d", 302_400.0, "84h"),
            ("84h", 302_400.0, "84h"),
            ("250ms", 0.25, "250ms"),
            ("5d", 432_000.0, "5d"),
            ("0s", 0.0, "0s"),
            ("0.1s", 0.1, "100ms"),
        ] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(duration.get().as_secs_f64(), seconds, "{text}");
            assert_eq!(duration.to_string(), written);
        }
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for bad in [
            "",
            "5",
            "s",
            "-5s",
            "5 s",
            "5w",
            "1.s",
            ".5h",
            "1.2.3s",
            "1h\n",
            "99999999999999999999s",
            "18446744073709551615d",
            "0000000000000000000000000000000000001s",
        ] {
            assert!(bad.parse::<Duration>().is_err(), "{bad:?}");
        }
    }
}
