//! A CEL rule and the words that say how to fix what it refuses.

/// One rule of a CRD. The same text is what the plain check of the rule reports, so that an API server that knows CEL
/// and every other reader of an object say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CelRule {
    /// The expression over `self`, and over `oldSelf` in a rule for updates.
    pub(crate) rule: &'static str,
    /// What to tell the user.
    pub(crate) message: &'static str,
}

impl CelRule {
    pub(crate) const fn new(rule: &'static str, message: &'static str) -> Self {
        Self { rule, message }
    }
}

impl From<CelRule> for kube::core::Rule {
    fn from(rule: CelRule) -> Self {
        Self::new(rule.rule).message(rule.message)
    }
}

/// Evaluation of rules as an API server does it, for tests.
#[cfg(test)]
pub(crate) mod evaluation {
    use kube::core::cel::Validator;
    use serde_json::{Value, json};

    use super::CelRule;

    /// Whether one rule holds for a value.
    pub(crate) fn holds(rule: CelRule, value: &Value) -> bool {
        let schema = json!({ "x-kubernetes-validations": [{ "rule": rule.rule, "message": rule.message }] });
        Validator::new().validate(&schema, value, None).is_ok()
    }

    /// The messages of the rules of `T`'s schema that do not hold for a text; its bounds of length count as rules.
    pub(crate) fn refusals<T: schemars::JsonSchema>(text: &str) -> Vec<String> {
        let schema = Value::from(schemars::SchemaGenerator::default().root_schema_for::<T>());
        let length = text.chars().count() as u64;
        let within = |keyword: &str, fits: fn(u64, u64) -> bool| fits(length, schema[keyword].as_u64().unwrap());
        let mut refusals = Vec::new();
        if !within("minLength", |length, least| length >= least) || !within("maxLength", |length, most| length <= most)
        {
            refusals.push("length".to_owned());
        }
        if let Err(errors) = Validator::new().validate(&schema, &json!(text), None) {
            refusals.extend(errors.into_iter().map(|error| error.message));
        }
        refusals
    }
}
