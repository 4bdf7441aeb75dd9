//! Serde and JSON schema for types that are one string outside.

/// Implements `Serialize`, `Deserialize` and `JsonSchema` for a type with `Display` and `FromStr`.
///
/// `$rule` is a CEL rule over `self` (the string) that an API server can check; it may accept more than the parser,
/// never less, and the parser's error says the same words. The longest string is bounded so that the rule's estimated
/// cost stays within the API server's budget; the parser refuses what is longer.
macro_rules! string_type {
    ($type:ty, name: $name:literal, max_length: $max:expr, rule: $rule:expr, description: $description:literal, examples: [$($example:literal),+]) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "description": $description,
                    "minLength": 1,
                    "maxLength": $max,
                    "x-kubernetes-validations": [{ "rule": $rule.rule, "message": $rule.message }],
                })
            }
        }

        #[cfg(test)]
        mod string_form {
            use super::*;

            #[test]
            fn examples_survive_a_round_trip() {
                for example in [$($example),+] {
                    let value: $type = example.parse().expect(example);
                    let json = serde_json::to_value(&value).expect("serialises");
                    assert_eq!(serde_json::from_value::<$type>(json).expect("parses again"), value);
                }
            }
        }
    };
}

pub(crate) use string_type;

/// Characters of a bad value that an error quotes at most: enough to find it, and no room for a stranger's essay.
const QUOTED_CHARACTERS: usize = 80;

/// A bad value as an error shows it: one line, control characters escaped, cut to a bounded length.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(QUOTED_CHARACTERS)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(QUOTED_CHARACTERS).is_some() {
        shown.push('…');
    }
    shown
}

/// Letters, digits and underscore, and all that lies outside ASCII: what labels of a name are made of before
/// internationalised ones are converted (RFC 5890). Underscores occur in real MX targets and DKIM names.
pub(super) fn is_name_character(character: char) -> bool {
    !character.is_ascii() || character.is_ascii_alphanumeric() || character == '_'
}

/// The regular expression of a domain name, without anchors: the same shape that [`Domain`](super::Domain) checks before
/// conversion.
macro_rules! domain_pattern {
    () => {
        r"[0-9A-Z_a-z\\x{80}-\\x{10FFFF}]+(-+[0-9A-Z_a-z\\x{80}-\\x{10FFFF}]+)*([.][0-9A-Z_a-z\\x{80}-\\x{10FFFF}]+(-+[0-9A-Z_a-z\\x{80}-\\x{10FFFF}]+)*)*[.]?"
    };
}

pub(super) use domain_pattern;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_one_bounded_line() {
        assert_eq!(quoted("a\r\nb"), r"a\r\nb");
        assert_eq!(quoted(&"a".repeat(80)), "a".repeat(80));
        assert_eq!(quoted(&"a".repeat(100_000)), format!("{}…", "a".repeat(80)));
    }
}
