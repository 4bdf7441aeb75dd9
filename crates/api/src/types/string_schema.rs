//! Serde and JSON schema for types that are one string outside.

/// Implements `Serialize`, `Deserialize` and `JsonSchema` for a type with `Display` and `FromStr`.
///
/// `$rule` is a CEL expression over `self` (the string) that an API server can check; it may accept more than the
/// parser, never less. The longest string is bounded so that the rule's estimated cost stays within the API server's budget.
macro_rules! string_type {
    ($type:ty, name: $name:literal, max_length: $max:literal, rule: $rule:literal, message: $message:literal, description: $description:literal, examples: [$($example:literal),+]) => {
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
                    "x-kubernetes-validations": [{ "rule": $rule, "message": $message }],
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
