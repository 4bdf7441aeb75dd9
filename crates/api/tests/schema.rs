//! Objects against the schemas without an API server: unknown fields, types and bounds.

#![allow(clippy::unwrap_used, clippy::panic)]

use relaypool_api::schema::{unknown_fields, violations};
use serde_json::{Value, json};

fn delivery(change: impl FnOnce(&mut Value)) -> Value {
    let mut object = json!({
        "apiVersion": "relaypool.dev/v1alpha1",
        "kind": "Delivery",
        "metadata": { "name": "spring", "labels": { "any": "thing" } },
        "spec": {
            "pool": "main",
            "sender": { "address": "news@example.com" },
            "message": { "subject": "Hello", "text": "Hello", "headers": [{ "name": "X-A", "value": "a" }] },
            "recipients": { "inline": [{ "address": "ada@example.com", "variables": { "any": { "thing": [1] }, "none": null } }] },
            "ipAffinity": { "matchLabels": { "any": "label" } },
        },
    });
    change(&mut object);
    object
}

fn told(object: &Value) -> Vec<String> {
    unknown_fields("Delivery", object)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn known_fields_and_free_values_pass() {
    let object = delivery(|_| {});
    assert_eq!(told(&object), Vec::<String>::new());
    assert_eq!(violations("Delivery", &object), []);
}

#[test]
fn typing_errors_are_pointed_at() {
    for (pointer, name, expected) in [
        (
            "/spec/message",
            "subjct",
            "spec.message.subjct: there is no such field; did you mean subject?",
        ),
        ("/spec", "Pool", "spec.Pool: there is no such field; did you mean pool?"),
        (
            "/spec",
            "emailfeedback",
            "spec.emailfeedback: there is no such field; did you mean emailFeedback?",
        ),
        ("/spec", "zzz", "spec.zzz: there is no such field"),
        (
            "/spec/message/headers/0",
            "vlaue",
            "spec.message.headers[0].vlaue: there is no such field; did you mean value?",
        ),
        (
            "/spec/recipients/inline/0",
            "adress",
            "spec.recipients.inline[0].adress: there is no such field; did you mean address?",
        ),
        (
            "/spec/ipAffinity",
            "matchLabel",
            "spec.ipAffinity.matchLabel: there is no such field; did you mean matchLabels?",
        ),
        ("", "sepc", "sepc: there is no such field; did you mean spec?"),
    ] {
        let object = delivery(|object| object.pointer_mut(pointer).unwrap()[name] = json!("a"));
        assert_eq!(told(&object), [expected]);
    }
}

#[test]
fn a_long_name_gets_no_suggestion_and_takes_no_time() {
    let name = "subject".repeat(100_000);
    let object = delivery(|object| object["spec"][&name] = json!(1));
    let unknown = unknown_fields("Delivery", &object);
    assert_eq!((unknown.len(), &unknown[0].suggestion), (1, &None));
}

#[test]
fn other_kinds_and_other_values_are_left_alone() {
    assert_eq!(unknown_fields("ConfigMap", &json!({ "data": {} })), []);
    assert_eq!(violations("ConfigMap", &json!({ "data": {} })), []);
    for value in [
        json!(null),
        json!([]),
        json!("a"),
        json!({ "spec": "a" }),
        json!({ "spec": [{ "pool": 1 }] }),
    ] {
        assert_eq!(unknown_fields("Delivery", &value), []);
    }
}

#[test]
fn bounds_and_types_are_checked() {
    type Change = fn(&mut Value);
    let table: [(Change, &[&str]); 14] = [
        (
            |o| o["spec"]["pool"] = json!(""),
            &["spec.pool: must have at least 1 characters"],
        ),
        (
            |o| o["spec"]["pool"] = json!("ü".repeat(254)),
            &["spec.pool: must have at most 253 characters"],
        ),
        (|o| o["spec"]["pool"] = json!("ü".repeat(253)), &[]),
        (
            |o| o["spec"]["pool"] = json!(5),
            &["spec.pool: must be a text: put it in quotes"],
        ),
        (
            |o| o["spec"]["suspend"] = json!("yes"),
            &["spec.suspend: must be true or false"],
        ),
        (|o| o["spec"]["suspend"] = json!(null), &[]),
        (|o| o["spec"]["pool"] = json!(null), &["spec.pool: is required"]),
        (
            |o| o["spec"]["priority"] = json!("Urgent"),
            &["spec.priority: must be one of High, Normal, Low"],
        ),
        (
            |o| o["spec"]["guard"] = json!({ "maxHardBouncePercent": 0 }),
            &["spec.guard.maxHardBouncePercent: must be at least 1"],
        ),
        (
            |o| o["spec"]["guard"] = json!({ "maxHardBouncePercent": 101 }),
            &["spec.guard.maxHardBouncePercent: must be at most 100"],
        ),
        (
            |o| o["spec"]["guard"] = json!({ "maxHardBouncePercent": 1.5 }),
            &["spec.guard.maxHardBouncePercent: must be a whole number"],
        ),
        (
            |o| o["spec"]["recipients"]["inline"] = json!([]),
            &["spec.recipients.inline: must have at least 1 entries"],
        ),
        (
            |o| o["spec"]["recipients"]["inline"] = json!([{ "variables": [] }]),
            &[
                "spec.recipients.inline[0].address: is required",
                "spec.recipients.inline[0].variables: must be an object",
            ],
        ),
        (|o| *o = json!([]), &[": must be an object"]),
    ];
    for (change, expected) in table {
        let object = delivery(change);
        let told: Vec<String> = violations("Delivery", &object)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(told, expected, "{object}");
    }
}

#[test]
fn quantities_may_be_numbers_or_texts() {
    let pool = |cpu: Value| json!({ "spec": { "pod": { "resources": { "limits": { "cpu": cpu } } } } });
    for good in [json!(2), json!("500m")] {
        assert_eq!(violations("RelayPool", &pool(good)), []);
    }
    // To the API server a quantity is any value; the type is what refuses others.
    let parsed = |cpu: Value| serde_json::from_value::<relaypool_api::RelayPoolSpec>(pool(cpu)["spec"].clone());
    assert!(parsed(json!([])).is_err());
    assert!(parsed(json!(2)).is_ok());
    assert_eq!(violations("RelayPool", &json!({})).len(), 1, "spec is required");
}
