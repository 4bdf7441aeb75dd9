//! Checking an object against the schema of its CRD without an API server: for local mode, and for pointing at typing
//! errors that an API server would drop in silence.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::crds;
use crate::validation::Problem;

/// The schema of each kind, made once.
static SCHEMAS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
    crds::documents()
        .into_iter()
        .filter_map(|mut crd| {
            let kind = crd.pointer("/spec/names/kind")?.as_str()?.to_owned();
            let schema = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema")?.take();
            Some((kind, schema))
        })
        .collect()
});

/// The OpenAPI schema of a kind; none for a kind that is not ours.
pub fn of_kind(kind: &str) -> Option<&'static Value> {
    SCHEMAS.get(kind)
}

/// Our kinds.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    SCHEMAS.keys().map(String::as_str)
}

/// A field that the schema does not know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnknownField {
    /// Its path, such as `spec.message.subjct`.
    pub path: String,
    /// The known field of the same object that is spelt most like it, where one is close.
    pub suggestion: Option<String>,
}

impl fmt::Display for UnknownField {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: there is no such field", self.path)?;
        match &self.suggestion {
            Some(suggestion) => write!(formatter, "; did you mean {suggestion}?"),
            None => Ok(()),
        }
    }
}

/// The fields of an object that its kind does not have. None for a kind that is not ours: there is nothing to compare with.
pub fn unknown_fields(kind: &str, object: &Value) -> Vec<UnknownField> {
    let mut unknown = Vec::new();
    if let (Some(schema), Some(fields)) = (of_kind(kind), object.as_object()) {
        // The definition leaves the parts that all objects have to the API server.
        for (name, value) in fields {
            match property(schema, name) {
                Some(below) => find_unknown(below, value, name, &mut unknown),
                None if ["apiVersion", "kind", "metadata"].contains(&name.as_str()) => {}
                None => unknown.push(unknown_field(schema, "", name)),
            }
        }
    }
    unknown
}

fn find_unknown(schema: &Value, value: &Value, path: &str, unknown: &mut Vec<UnknownField>) {
    match value {
        Value::Object(fields) if is_free(schema) => {
            // Nothing is unknown here, but what is known has a schema of its own.
            for (name, value) in fields {
                if let Some(below) = property(schema, name) {
                    find_unknown(below, value, &format!("{path}.{name}"), unknown);
                }
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                match property(schema, name).or_else(|| schema.get("additionalProperties")) {
                    Some(below) => find_unknown(below, value, &format!("{path}.{name}"), unknown),
                    None => unknown.push(unknown_field(schema, path, name)),
                }
            }
        }
        Value::Array(entries) => {
            if let Some(items) = schema.get("items") {
                for (index, entry) in entries.iter().enumerate() {
                    find_unknown(items, entry, &format!("{path}[{index}]"), unknown);
                }
            }
        }
        _ => {}
    }
}

fn property<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema.get("properties")?.get(name)
}

/// Anything may stand here.
fn is_free(schema: &Value) -> bool {
    schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true))
}

fn unknown_field(schema: &Value, path: &str, name: &str) -> UnknownField {
    let known = schema.get("properties").and_then(Value::as_object);
    UnknownField {
        path: join(path, name),
        suggestion: known.and_then(|known| nearest(name, known)),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Characters of the longest name that is compared: the time that takes grows with the product of the lengths.
const MAX_COMPARED: usize = 64;

fn nearest(name: &str, known: &Map<String, Value>) -> Option<String> {
    let name: Vec<char> = name
        .chars()
        .flat_map(char::to_lowercase)
        .take(MAX_COMPARED + 1)
        .collect();
    if name.len() > MAX_COMPARED {
        return None;
    }
    let allowed = (name.len() / 3).max(1);
    known
        .keys()
        .map(|candidate| {
            let lower: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
            (edit_distance(&name, &lower), candidate)
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate.clone())
}

/// How many characters must be added, removed, replaced or swapped with their neighbour to make one word of the other
/// (optimal string alignment).
fn edit_distance(one: &[char], other: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut distance = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                distance = distance.min(before_last[j - 1] + 1);
            }
            row.push(distance);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

/// What an API server would refuse in an object by types, required fields, enumerations and bounds alone: everything in
/// the schema except the rules in CEL, which [`Validate`](crate::Validate) checks, and the form of times.
///
/// As there, null counts as absent. Empty for a kind that is not ours.
pub fn violations(kind: &str, object: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(schema) = of_kind(kind) {
        check(schema, object, "", &mut problems);
    }
    problems
}

fn check(schema: &Value, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    if let Some(message) = type_violation(schema, value) {
        problems.push(problem(path, message));
        return;
    }
    problems.extend(
        bound_violations(schema, value)
            .into_iter()
            .map(|message| problem(path, message)),
    );
    match value {
        Value::Object(fields) => check_fields(schema, fields, path, problems),
        Value::Array(entries) => {
            if let Some(items) = schema.get("items") {
                for (index, entry) in entries.iter().enumerate() {
                    check(items, entry, &format!("{path}[{index}]"), problems);
                }
            }
        }
        _ => {}
    }
}

fn check_fields(schema: &Value, fields: &Map<String, Value>, path: &str, problems: &mut Vec<Problem>) {
    let is_null_for_absent = |below: &Value, value: &Value| value.is_null() && below.get("nullable").is_none();
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        if fields.get(name).is_none_or(Value::is_null) {
            problems.push(problem(&join(path, name), "is required".to_owned()));
        }
    }
    for (name, value) in fields {
        let below = property(schema, name).or_else(|| schema.get("additionalProperties"));
        if let Some(below) = below.filter(|below| !is_null_for_absent(below, value)) {
            check(below, value, &join(path, name), problems);
        }
    }
}

fn problem(path: &str, message: String) -> Problem {
    Problem {
        field: path.to_owned(),
        message,
    }
}

fn type_violation(schema: &Value, value: &Value) -> Option<String> {
    let fits = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => true,
    };
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        return (!fits("integer") && !fits("string")).then(|| "must be a whole number or a text".to_owned());
    }
    let kind = schema.get("type")?.as_str()?;
    (!fits(kind)).then(|| match kind {
        "object" => "must be an object".to_owned(),
        "array" => "must be a list".to_owned(),
        "string" => "must be a text: put it in quotes".to_owned(),
        "boolean" => "must be true or false".to_owned(),
        "integer" => "must be a whole number".to_owned(),
        _ => "must be a number".to_owned(),
    })
}

fn bound_violations(schema: &Value, value: &Value) -> Vec<String> {
    let (size, unit) = match value {
        Value::String(text) => (text.chars().count(), "Length"),
        Value::Array(entries) => (entries.len(), "Items"),
        Value::Object(fields) => (fields.len(), "Properties"),
        Value::Number(number) => return number_violations(schema, number),
        _ => return Vec::new(),
    };
    let what = if unit == "Length" { "characters" } else { "entries" };
    let mut messages = Vec::new();
    if let Some(least) = bound(schema, &format!("min{unit}")).filter(|least| size < *least) {
        messages.push(format!("must have at least {least} {what}"));
    }
    if let Some(most) = bound(schema, &format!("max{unit}")).filter(|most| size > *most) {
        messages.push(format!("must have at most {most} {what}"));
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let names: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
        messages.push(format!("must be one of {}", names.join(", ")));
    }
    messages
}

fn bound(schema: &Value, keyword: &str) -> Option<usize> {
    schema
        .get(keyword)?
        .as_u64()
        .and_then(|bound| usize::try_from(bound).ok())
}

fn number_violations(schema: &Value, number: &serde_json::Number) -> Vec<String> {
    let Some(value) = number.as_f64() else {
        return Vec::new();
    };
    let limit = |keyword: &str| schema.get(keyword).filter(|limit| limit.is_number());
    let mut messages = Vec::new();
    if let Some(least) = limit("minimum").filter(|least| least.as_f64().is_some_and(|least| value < least)) {
        messages.push(format!("must be at least {least}"));
    }
    if let Some(most) = limit("maximum").filter(|most| most.as_f64().is_some_and(|most| value > most)) {
        messages.push(format!("must be at most {most}"));
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (one, other, distance) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("subject", "subject", 0),
            ("subjct", "subject", 1),
            ("vlaue", "value", 1),
            ("kitten", "sitting", 3),
            ("ca", "abc", 3),
        ] {
            let letters = |word: &str| word.chars().collect::<Vec<_>>();
            assert_eq!(edit_distance(&letters(one), &letters(other)), distance, "{one} {other}");
        }
    }
}
