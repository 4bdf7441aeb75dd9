use std::fmt;
use std::str::FromStr;

use super::string_schema::{quoted, string_type};
use crate::cel::CelRule;

/// So many messages in one unit of time, written `20000/h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    messages: u64,
    unit: RateUnit,
}

/// The unit of time of a [`Rate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RateUnit {
    /// `s`
    Second,
    /// `m`
    Minute,
    /// `h`
    Hour,
    /// `d`, 24 hours
    Day,
}

/// Characters of the longest text; long enough for every number of messages.
const MAX_LENGTH: usize = 24;

const RULE: CelRule = CelRule::new(
    "self.matches('^0*[1-9][0-9]*/[smhd]$')",
    "must be a rate: messages per s, m, h or d, such as 20000/h; at least 1",
);

/// Why a text is not a [`Rate`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' {fix}", fix = RULE.message)]
pub struct RateError(String);

impl RateUnit {
    /// The unit in seconds.
    pub const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::Second => 's',
            Self::Minute => 'm',
            Self::Hour => 'h',
            Self::Day => 'd',
        }
    }
}

impl Rate {
    /// `messages` per `unit`; none when there would be no message at all, for a rate of zero would hold mail for ever.
    pub const fn new(messages: u64, unit: RateUnit) -> Option<Self> {
        if messages == 0 {
            None
        } else {
            Some(Self { messages, unit })
        }
    }

    /// Messages in one unit of time, never zero.
    pub const fn messages(self) -> u64 {
        self.messages
    }

    /// The unit of time.
    pub const fn unit(self) -> RateUnit {
        self.unit
    }

    /// The rate of so many messages per second, to three digits or so; none for what is no rate.
    pub fn of_messages_per_second(messages: f64) -> Option<Self> {
        let units = [RateUnit::Second, RateUnit::Minute, RateUnit::Hour, RateUnit::Day];
        let enough = |unit: &RateUnit| messages * unit.seconds() as f64 >= 100.0;
        let unit = units.into_iter().find(enough).unwrap_or(RateUnit::Day);
        let messages = (messages * unit.seconds() as f64).round();
        (messages.is_finite() && messages >= 1.0).then(|| Self::new(messages as u64, unit))?
    }

    /// Messages per second.
    pub fn per_second(self) -> f64 {
        self.messages as f64 / self.unit.seconds() as f64
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let error = || RateError(quoted(text));
        if text.len() > MAX_LENGTH {
            return Err(error());
        }
        let (messages, unit) = text.split_once('/').ok_or_else(error)?;
        let unit = match unit {
            "s" => RateUnit::Second,
            "m" => RateUnit::Minute,
            "h" => RateUnit::Hour,
            "d" => RateUnit::Day,
            _ => return Err(error()),
        };
        if !messages.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(error());
        }
        let messages = messages.parse().map_err(|_| error())?;
        Self::new(messages, unit).ok_or_else(error)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.messages, self.unit.letter())
    }
}

string_type!(
    Rate,
    name: "Rate",
    max_length: MAX_LENGTH,
    rule: RULE,
    description: "Messages per unit of time `s`, `m`, `h` or `d`, such as `20000/h`.",
    examples: ["20000/h", "1/s", "5000/d", "600/m"]
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_unit() {
        for (text, per_second) in [("7200/h", 2.0), ("10/s", 10.0), ("60/m", 1.0), ("86400/d", 1.0)] {
            assert_eq!(text.parse::<Rate>().unwrap().per_second(), per_second, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_rate() {
        for bad in [
            "",
            "0/h",
            "h",
            "20000",
            "20000/w",
            "-1/h",
            "+1/h",
            "1.5/h",
            "20000 /h",
            "20000/h ",
            "99999999999999999999999/h",
            "0000000000000000000000001/h",
        ] {
            assert!(bad.parse::<Rate>().is_err(), "{bad:?}");
        }
    }
}
