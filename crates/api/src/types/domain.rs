use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::string_schema::{domain_pattern, is_name_character, quoted, string_type};
use crate::cel::CelRule;

/// A DNS domain name as mail uses it: lower case, in its ASCII form, without a trailing dot.
///
/// An internationalised name is converted to its A-labels (RFC 5891) on parsing, so two spellings of one domain are equal.
/// Cloning is cheap: names are shared by every message to a domain.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Arc<str>);

/// Octets of the longest name in its ASCII form, without the trailing dot (RFC 1035 section 2.3.4).
const MAX_OCTETS: usize = 253;

pub(super) const RULE: CelRule = CelRule::new(
    concat!("self.matches('^", domain_pattern!(), "$')"),
    "must be a domain name such as mail.example.com: labels of letters, digits and inner hyphens, separated by dots",
);

/// Why a text is not a [`Domain`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// Nothing but an optional dot.
    #[error("a domain name must not be empty")]
    Empty,
    /// Longer than 253 octets (RFC 1035 section 2.3.4).
    #[error("domain name '{0}' is longer than 253 characters")]
    TooLong(String),
    /// A label that is empty, over 63 octets, or has a character or hyphen where none may be.
    #[error("'{0}' {fix}", fix = RULE.message)]
    BadLabel(String),
}

impl Domain {
    /// The name in ASCII, lower case, without a trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for `other` itself and every name below it.
    pub fn is_within(&self, other: &Domain) -> bool {
        self.0
            .strip_suffix(other.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

impl FromStr for Domain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(DomainError::Empty);
        }
        // Before the conversion, so that nothing of unbounded length is converted.
        if name.chars().count() > MAX_OCTETS {
            return Err(DomainError::TooLong(quoted(text)));
        }
        let bad_label = || DomainError::BadLabel(quoted(text));
        if !name.split('.').all(has_label_shape) {
            return Err(bad_label());
        }
        let ascii = idna::domain_to_ascii(name).map_err(|_| bad_label())?;
        if ascii.len() > MAX_OCTETS {
            return Err(DomainError::TooLong(quoted(text)));
        }
        // Again, because the conversion maps characters outside ASCII to any others.
        if !ascii
            .split('.')
            .all(|label| label.len() <= 63 && label.is_ascii() && has_label_shape(label))
        {
            return Err(bad_label());
        }
        Ok(Self(ascii.into()))
    }
}

/// Not empty, made of name characters and hyphens, without a hyphen at either end.
fn has_label_shape(label: &str) -> bool {
    !label.is_empty()
        && label
            .chars()
            .all(|character| is_name_character(character) || character == '-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl fmt::Display for Domain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

string_type!(
    Domain,
    name: "Domain",
    max_length: MAX_OCTETS + 1, // a trailing dot may be written
    rule: RULE,
    description: "A domain name, such as `mail.example.com`. Internationalised names are accepted and stored in ASCII.",
    examples: ["example.com", "MAIL.Example.COM.", "bücher.example"]
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_domain_are_equal() {
        let plain: Domain = "xn--bcher-kva.example".parse().unwrap();
        for spelling in ["bücher.example", "BÜCHER.example.", "XN--BCHER-KVA.EXAMPLE"] {
            assert_eq!(spelling.parse::<Domain>().unwrap(), plain);
        }
    }

    #[test]
    fn refuses_what_is_no_domain() {
        for bad in [
            "",
            ".",
            "a..b",
            "-a.example",
            "a-.example",
            "a b.example",
            "a@b",
            "exa\r\nmple.com",
            "-ü.example",
            "a<\u{338}.example",
            "a。。b",
            &"a".repeat(64),
            &"a.".repeat(130),
        ] {
            assert!(bad.parse::<Domain>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn within_counts_labels_not_letters() {
        let parent: Domain = "example.com".parse().unwrap();
        assert!("mx.example.com".parse::<Domain>().unwrap().is_within(&parent));
        assert!(parent.is_within(&parent));
        assert!(!"badexample.com".parse::<Domain>().unwrap().is_within(&parent));
    }
}
