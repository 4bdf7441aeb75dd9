//! One table of objects, run through the CEL rules of the CRDs and through the plain functions: both must find the same.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use kube::core::cel::{ErrorKind, Validator};
use relaypool_api::{Delivery, DeliverySlice, DkimKey, MxPolicy, Problem, RelayPool, SendingIp, Validate, schema};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    kind: String,
    valid: Value,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    change: Value,
    #[serde(default)]
    step: Option<Value>,
    #[serde(default)]
    unreadable: bool,
    #[serde(default)]
    problems: Vec<String>,
}

fn table() -> Vec<Group> {
    let mut document: serde_yaml::Value = serde_yaml::from_str(include_str!("data/validation.yaml")).unwrap();
    document.apply_merge().unwrap();
    serde_yaml::from_value(document).unwrap()
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        if !patch.is_null() {
            *target = patch.clone();
        }
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let fields = target.as_object_mut().unwrap();
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

fn object(kind: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "relaypool.dev/v1alpha1", "kind": kind, "metadata": { "name": "a" }, "spec": spec })
}

/// What an API server that knows CEL would say.
fn by_cel(kind: &str, new: &Value, old: Option<&Value>) -> BTreeSet<Problem> {
    let errors = match Validator::new().validate(schema::of_kind(kind).unwrap(), new, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec(),
    };
    errors
        .into_iter()
        .map(|error| {
            assert_eq!(error.kind, ErrorKind::ValidationFailure, "{error:?}");
            Problem {
                field: error.field_path,
                message: error.message,
            }
        })
        .collect()
}

/// What the plain functions say, or why the object cannot be read.
fn by_functions(kind: &str, new: &Value, old: Option<&Value>) -> Result<BTreeSet<Problem>, String> {
    fn check<K: Validate + DeserializeOwned>(new: &Value, old: Option<&Value>) -> Result<BTreeSet<Problem>, String> {
        let read = |value: &Value| serde_json::from_value::<K>(value.clone()).map_err(|error| error.to_string());
        let new = read(new)?;
        let mut problems = new.problems();
        if let Some(old) = old {
            problems.extend(K::update_problems(&read(old)?, &new));
        }
        let count = problems.len();
        let set: BTreeSet<Problem> = problems.into_iter().collect();
        assert_eq!(set.len(), count, "nothing is said twice");
        Ok(set)
    }
    match kind {
        "RelayPool" => check::<RelayPool>(new, old),
        "SendingIp" => check::<SendingIp>(new, old),
        "MxPolicy" => check::<MxPolicy>(new, old),
        "DkimKey" => check::<DkimKey>(new, old),
        "Delivery" => check::<Delivery>(new, old),
        "DeliverySlice" => check::<DeliverySlice>(new, old),
        other => panic!("no such kind: {other}"),
    }
}

fn assert_expected(what: &str, found: &BTreeSet<Problem>, expected: &[String]) {
    let found: Vec<String> = found.iter().map(Problem::to_string).collect();
    let fits = found.len() == expected.len()
        && expected
            .iter()
            .all(|expected| found.iter().filter(|found| found.starts_with(expected)).count() == 1);
    assert!(fits, "{what}\nexpected {expected:#?}\nfound {found:#?}");
}

#[test]
fn cel_and_functions_agree() {
    for group in table() {
        for case in &group.cases {
            let what = format!("{}: {}", group.kind, case.name);
            let mut spec = group.valid.clone();
            merge(&mut spec, &case.change);
            let first = object(&group.kind, &spec);
            let (new, old) = match &case.step {
                None => (first, None),
                Some(step) => {
                    merge(&mut spec, step);
                    (object(&group.kind, &spec), Some(first))
                }
            };

            let cel = by_cel(&group.kind, &new, old.as_ref());
            assert_expected(&what, &cel, &case.problems);
            match by_functions(&group.kind, &new, old.as_ref()) {
                Ok(problems) => {
                    assert!(!case.unreadable, "{what} was read");
                    assert_eq!(problems, cel, "{what}");
                }
                // An address of the standard library has its own error; all others say what the rule says.
                Err(error) => assert!(
                    case.unreadable && (error.contains("IP address") || cel.iter().any(|p| error.contains(&p.message))),
                    "{what}: {error}\n{cel:#?}"
                ),
            }
            assert_eq!(schema::unknown_fields(&group.kind, &new), [], "{what}");
            assert_eq!(schema::violations(&group.kind, &new), [], "{what}");
        }
    }
}

/// Every rule of every kind is broken by some case: a rule that nothing can break is not tested.
#[test]
fn every_rule_of_a_spec_is_broken_somewhere() {
    for group in table() {
        let mut said = BTreeSet::new();
        for case in &group.cases {
            let mut spec = group.valid.clone();
            merge(&mut spec, &case.change);
            let first = object(&group.kind, &spec);
            merge(&mut spec, case.step.as_ref().unwrap_or(&Value::Null));
            let old = case.step.as_ref().map(|_| &first);
            said.extend(
                by_cel(&group.kind, &object(&group.kind, &spec), old)
                    .into_iter()
                    .map(|problem| problem.message),
            );
        }
        let mut rules = BTreeSet::new();
        collect_messages(&schema::of_kind(&group.kind).unwrap()["properties"]["spec"], &mut rules);
        if group.kind == "DeliverySlice" {
            // Its message is a Delivery's, and is tested there.
            rules.retain(|message| message.contains("slice") || message.contains("Slice"));
        }
        // What reads the same wherever it stands: one case of it is enough.
        let missing: Vec<_> = rules
            .difference(&said)
            .filter(|message| !is_of_a_string_type(message))
            .collect();
        assert!(missing.is_empty(), "{}: {missing:#?}", group.kind);
    }
}

fn is_of_a_string_type(message: &str) -> bool {
    [
        "must be a domain",
        "must be a duration",
        "must be an address such",
        "must be a rate",
        "must be a name mask",
    ]
    .iter()
    .any(|start| message.starts_with(start))
}

fn collect_messages(node: &Value, messages: &mut BTreeSet<String>) {
    match node {
        Value::Object(fields) => {
            for rule in fields
                .get("x-kubernetes-validations")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                messages.insert(rule["message"].as_str().unwrap().to_owned());
            }
            fields.values().for_each(|child| collect_messages(child, messages));
        }
        Value::Array(entries) => entries.iter().for_each(|child| collect_messages(child, messages)),
        _ => {}
    }
}

#[test]
fn every_reserved_header_is_refused_by_both() {
    let names = [
        "From",
        "Sender",
        "Reply-To",
        "To",
        "Cc",
        "Bcc",
        "Subject",
        "Date",
        "Message-ID",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
        "Content-Disposition",
        "Content-ID",
        "DKIM-Signature",
        "Return-Path",
        "Received",
        "List-Unsubscribe",
        "List-Unsubscribe-Post",
    ];
    let headers: Vec<Value> = names.iter().map(|name| json!({ "name": name, "value": "a" })).collect();
    let spec = json!({
        "pool": "main",
        "sender": { "address": "news@example.com" },
        "message": { "subject": "s", "text": "t", "headers": headers },
        "recipients": { "inline": [{ "address": "ada@example.com" }] },
    });
    let delivery = object("Delivery", &spec);
    let cel = by_cel("Delivery", &delivery, None);
    assert_eq!(cel.len(), names.len());
    assert_eq!(by_functions("Delivery", &delivery, None), Ok(cel));
}

/// With a field written as null, an API server drops the null before it evaluates rules, because nothing is nullable;
/// the Rust types read it as absent.
#[test]
fn null_means_absent() {
    let spec = json!({
        "pool": "main",
        "sender": { "address": "news@example.com", "name": null },
        "message": null,
        "recipients": null,
        "relay": {},
        "schedule": null,
    });
    assert_eq!(
        by_functions("Delivery", &object("Delivery", &spec), None),
        Ok(BTreeSet::new())
    );
    assert_eq!(schema::violations("Delivery", &object("Delivery", &spec)), []);
}
