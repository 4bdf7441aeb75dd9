use std::fmt;
use std::str::FromStr;

use super::string_schema::{is_name_character, quoted, string_type};
use crate::cel::CelRule;

/// A pattern over a host or domain name: `*` stands for any run of characters, `?` for exactly one.
///
/// `*.mail.example.com` matches every host below that name; `mx?.example.com` matches `mx1.example.com`. Letter case does
/// not matter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mask(String);

/// Characters of the longest mask: those of the longest name.
const MAX_LENGTH: usize = 253;

const RULE: CelRule = CelRule::new(
    r"self.matches('^[*.0-9?A-Z_a-z\\x{80}-\\x{10FFFF}-]+$')",
    "must be a name mask such as *.mail.example.com: letters, digits, hyphens, dots and the wildcards * and ?",
);

/// Why a text is not a [`Mask`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' {fix}", fix = RULE.message)]
pub struct MaskError(String);

impl Mask {
    /// The pattern, lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True when `name` as a whole fits the pattern. Takes time in proportion to the product of the lengths at most.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut at, mut name_at) = (0, 0);
        // Where to go back to: behind the last star, one more character of the name swallowed by it.
        let mut retry: Option<(usize, usize)> = None;
        while name_at < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    retry = Some((at + 1, name_at));
                    at += 1;
                }
                Some(&expected) if expected == b'?' || expected == name[name_at].to_ascii_lowercase() => {
                    at += 1;
                    name_at += 1;
                }
                _ => match retry {
                    Some((behind_star, swallowed)) => {
                        retry = Some((behind_star, swallowed + 1));
                        at = behind_star;
                        name_at = swallowed + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern[at..].iter().all(|&byte| byte == b'*')
    }

    /// How narrow the pattern is: the number of characters that are no wildcard. Of two that match, the higher wins.
    pub fn specificity(&self) -> usize {
        self.0.bytes().filter(|byte| !matches!(byte, b'*' | b'?')).count()
    }
}

impl FromStr for Mask {
    type Err = MaskError;

    fn from_str(text: &str) -> Result<Self, MaskError> {
        let error = || MaskError(quoted(text));
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() || name.chars().count() > MAX_LENGTH || !name.chars().all(is_mask_character) {
            return Err(error());
        }
        let labels: Vec<String> = name
            .split('.')
            .map(|label| label_in_ascii(label).ok_or_else(error))
            .collect::<Result<_, _>>()?;
        let lower = labels.join(".");
        // Again, because the conversion maps characters outside ASCII to any others.
        if lower.len() > MAX_LENGTH
            || !lower
                .chars()
                .all(|character| character.is_ascii() && is_mask_character(character))
        {
            return Err(error());
        }
        Ok(Self(lower))
    }
}

/// What a mask is made of, before labels outside ASCII are converted.
fn is_mask_character(character: char) -> bool {
    is_name_character(character) || "-.*?".contains(character)
}

/// One label as DNS answers have it: lower case, in its A-label form. None for a label outside ASCII with a wildcard:
/// its A-label form could match nothing that the user meant.
fn label_in_ascii(label: &str) -> Option<String> {
    if label.is_ascii() {
        Some(label.to_ascii_lowercase())
    } else if label.contains(['*', '?']) {
        None
    } else {
        idna::domain_to_ascii(label).ok()
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

string_type!(
    Mask,
    name: "Mask",
    max_length: MAX_LENGTH + 1, // a trailing dot may be written
    rule: RULE,
    description: "A name with wildcards: `*` for any run of characters, `?` for one, such as `*.mail.example.com`.",
    examples: ["*", "mx?.example.com", "*.Mail.Example.com", "*.bücher.example"]
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_whole_names() {
        for (mask, name, expected) in [
            ("*", "anything.example", true),
            ("*", "", true),
            ("mx?.example.com", "mx1.example.com", true),
            ("mx?.example.com", "mx12.example.com", false),
            ("mx?.example.com", "mx.example.com", false),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.EXAMPLE.com", "MX.example.COM", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("example.com", "example.com.evil", false),
        ] {
            assert_eq!(
                mask.parse::<Mask>().unwrap().matches(name),
                expected,
                "{mask} against {name}"
            );
        }
    }

    #[test]
    fn refuses_what_is_no_mask() {
        for bad in ["", ".", "a b", "a@b", "mx[12].example.com", "a\n", "bü*.example"] {
            assert!(bad.parse::<Mask>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_hostile_mask_ends() {
        let mask: Mask = "*a".repeat(100).parse().unwrap();
        assert!(!mask.matches(&"a".repeat(99)));
    }
}
