//! Sets of indices in the compact form that status uses: `0-311,313-999`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A set of indices, kept as ranges in ascending order that neither overlap nor touch.
///
/// Its text names each range as `first-last`, or as one number where both are the same, separated by commas; the empty
/// set is the empty text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct IndexRanges(Vec<(u64, u64)>);

/// Why a text is no set of indices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexRangesError {
    /// Something else than a number up to 18446744073709551615 where one must be.
    #[error("'{0}' is not an index: write ranges such as 0-311,313-999")]
    NotAnIndex(String),
    /// A range whose end lies before its start.
    #[error("the range {0}-{1} ends before it starts")]
    Reversed(u64, u64),
}

impl IndexRanges {
    /// The empty set.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds one index. Takes constant time when it lies behind all others.
    pub fn insert(&mut self, index: u64) {
        self.insert_range(index..=index);
    }

    /// Adds all indices of a range; none when it is empty.
    pub fn insert_range(&mut self, range: RangeInclusive<u64>) {
        let (mut first, mut last) = range.into_inner();
        if first > last {
            return;
        }
        // The stored ranges that overlap the new one or touch it are one run of neighbours; it takes their place.
        let start = match self.0.last() {
            Some(&(_, end)) if end.saturating_add(1) < first => self.0.len(),
            _ => self.0.partition_point(|&(_, end)| end.saturating_add(1) < first),
        };
        let joined = self.0[start..]
            .iter()
            .take_while(|&&(begin, _)| begin <= last.saturating_add(1))
            .count();
        if let Some(&(begin, _)) = self.0[start..].first().filter(|_| joined > 0) {
            first = first.min(begin);
            last = last.max(self.0[start + joined - 1].1);
        }
        self.0.splice(start..start + joined, [(first, last)]);
    }

    /// Adds all indices of another set.
    pub fn union(&mut self, other: &Self) {
        for range in other.ranges() {
            self.insert_range(range);
        }
    }

    /// Whether the index is in the set.
    pub fn contains(&self, index: u64) -> bool {
        let at = self.0.partition_point(|&(_, last)| last < index);
        self.0.get(at).is_some_and(|&(first, _)| first <= index)
    }

    /// How many indices there are; of the one set that has more than a `u64` can say, the largest `u64`.
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0, |sum: u64, &(first, last)| {
            sum.saturating_add((last - first).saturating_add(1))
        })
    }

    /// True for the empty set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        self.0.iter().map(|&(first, last)| first..=last)
    }

    /// The indices, ascending. A short text can stand for very many: bound what is taken from a stranger's.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.ranges().flatten()
    }
}

impl FromIterator<u64> for IndexRanges {
    fn from_iter<I: IntoIterator<Item = u64>>(indices: I) -> Self {
        let mut ranges = Self::new();
        ranges.extend(indices);
        ranges
    }
}

impl Extend<u64> for IndexRanges {
    fn extend<I: IntoIterator<Item = u64>>(&mut self, indices: I) {
        for index in indices {
            self.insert(index);
        }
    }
}

impl FromStr for IndexRanges {
    type Err = IndexRangesError;

    /// Accepts ranges in any order, overlapping ones too.
    fn from_str(text: &str) -> Result<Self, IndexRangesError> {
        if text.is_empty() {
            return Ok(Self::new());
        }
        let mut parsed = text.split(',').map(parse_range).collect::<Result<Vec<_>, _>>()?;
        // In order, each insertion is one at the end, so that a long text cannot take more than its share of time.
        parsed.sort_unstable();
        let mut ranges = Self::new();
        for (first, last) in parsed {
            ranges.insert_range(first..=last);
        }
        Ok(ranges)
    }
}

fn parse_range(part: &str) -> Result<(u64, u64), IndexRangesError> {
    let (first, last) = match part.split_once('-') {
        Some((first, last)) => (parse_index(first)?, parse_index(last)?),
        None => (parse_index(part)?, parse_index(part)?),
    };
    if first <= last {
        Ok((first, last))
    } else {
        Err(IndexRangesError::Reversed(first, last))
    }
}

fn parse_index(text: &str) -> Result<u64, IndexRangesError> {
    Some(text)
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| IndexRangesError::NotAnIndex(text.chars().take(40).flat_map(char::escape_debug).collect()))
}

impl fmt::Display for IndexRanges {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, &(first, last)) in self.0.iter().enumerate() {
            if position > 0 {
                formatter.write_str(",")?;
            }
            if first == last {
                write!(formatter, "{first}")?;
            } else {
                write!(formatter, "{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for IndexRanges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IndexRanges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_read_and_written_compactly() {
        for (text, written, count) in [
            ("", "", 0),
            ("5", "5", 1),
            ("0-311,313-999", "0-311,313-999", 999),
            ("3,1,2", "1-3", 3),
            ("1-5,3-9", "1-9", 9),
            ("1-9,3-4", "1-9", 9),
            ("7-7", "7", 1),
            ("1-2,4-5,3", "1-5", 5),
            ("007", "7", 1),
            ("18446744073709551615", "18446744073709551615", 1),
            ("0-18446744073709551615", "0-18446744073709551615", u64::MAX),
        ] {
            let ranges: IndexRanges = text.parse().unwrap();
            assert_eq!(ranges.to_string(), written, "{text}");
            assert_eq!(ranges.count(), count, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_set() {
        for bad in [
            ",",
            "1,",
            "a",
            "1-",
            "-1",
            "1--2",
            " 1",
            "1, 2",
            "+1",
            "1-2-3",
            "18446744073709551616",
        ] {
            assert!(
                matches!(bad.parse::<IndexRanges>(), Err(IndexRangesError::NotAnIndex(_))),
                "{bad:?}"
            );
        }
        assert_eq!("5-3".parse::<IndexRanges>(), Err(IndexRangesError::Reversed(5, 3)));
    }

    #[test]
    fn an_empty_range_adds_nothing() {
        let mut ranges = IndexRanges::new();
        #[expect(clippy::reversed_empty_ranges, reason = "that is what is tested")]
        ranges.insert_range(5..=3);
        assert!(ranges.is_empty());
    }

    fn pieces() -> impl Strategy<Value = Vec<(u64, u64)>> {
        // Close together, so that they overlap and touch; some at the upper end, where arithmetic could overflow.
        let near = |base: u64| (0..40_u64, 0..8_u64).prop_map(move |(start, length)| (base + start, length));
        prop::collection::vec(prop_oneof![near(0), near(u64::MAX - 60)], 0..20).prop_map(|pieces| {
            pieces
                .into_iter()
                .map(|(first, length)| (first, first + length))
                .collect()
        })
    }

    fn reference(pieces: &[(u64, u64)]) -> BTreeSet<u64> {
        pieces.iter().flat_map(|&(first, last)| first..=last).collect()
    }

    fn built(pieces: &[(u64, u64)]) -> IndexRanges {
        let mut ranges = IndexRanges::new();
        for &(first, last) in pieces {
            ranges.insert_range(first..=last);
        }
        ranges
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(pieces in pieces()) {
            let (set, ranges) = (reference(&pieces), built(&pieces));
            prop_assert_eq!(ranges.iter().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(ranges.count(), set.len() as u64);
            prop_assert_eq!(&set.iter().copied().collect::<IndexRanges>(), &ranges);
            for index in (0..60).chain(u64::MAX - 60..=u64::MAX) {
                prop_assert_eq!(ranges.contains(index), set.contains(&index));
            }
            let all: Vec<_> = ranges.ranges().collect();
            prop_assert!(all.windows(2).all(|pair| pair[0].end() + 1 < *pair[1].start()));
        }

        #[test]
        fn the_text_says_the_set(pieces in pieces()) {
            let ranges = built(&pieces);
            prop_assert_eq!(ranges.to_string().parse::<IndexRanges>(), Ok(ranges.clone()));
            let json = serde_json::to_string(&ranges).unwrap();
            prop_assert_eq!(serde_json::from_str::<IndexRanges>(&json).unwrap(), ranges);
        }

        #[test]
        fn union_has_both(one in pieces(), other in pieces()) {
            let mut union = built(&one);
            union.union(&built(&other));
            let set: BTreeSet<u64> = reference(&one).union(&reference(&other)).copied().collect();
            prop_assert_eq!(union.iter().collect::<Vec<_>>(), set.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn no_text_breaks_the_parser(text in "[-0-9,a ]{0,40}") {
            if let Ok(ranges) = text.parse::<IndexRanges>() {
                prop_assert_eq!(ranges.to_string().parse::<IndexRanges>(), Ok(ranges));
            }
        }
    }
}
