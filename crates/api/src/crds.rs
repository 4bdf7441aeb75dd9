//! The CustomResourceDefinitions, as they are to be installed.
//!
//! What `derive(CustomResource)` makes is put right where API servers would warn or behave differently from the Rust types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{Delivery, DeliverySlice, DkimKey, MxPolicy, RelayPool, SendingIp};

/// Most entries of a map that sets no bound of its own: labels, quantities.
const MAX_PROPERTIES: u32 = 64;

/// All six definitions, in the order in which a reader gets to know them.
pub fn all() -> Vec<CustomResourceDefinition> {
    [
        RelayPool::crd(),
        SendingIp::crd(),
        MxPolicy::crd(),
        DkimKey::crd(),
        Delivery::crd(),
        DeliverySlice::crd(),
    ]
    .into_iter()
    .map(put_right)
    .collect()
}

/// All six definitions as documents to print: like [`all`], with whole numbers written as such.
pub fn documents() -> Vec<Value> {
    all()
        .iter()
        .map(|crd| {
            let mut document = serde_json::to_value(crd).expect("a CRD is JSON");
            write_whole_numbers(&mut document);
            document
        })
        .collect()
}

fn put_right(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let schema = version
            .schema
            .as_mut()
            .and_then(|validation| validation.open_api_v3_schema.as_mut());
        if let Some(schema) = schema {
            let mut value = serde_json::to_value(&*schema).expect("a schema is JSON");
            put_node_right(&mut value);
            *schema = serde_json::from_value(value).expect("a schema with other bounds is a schema");
        }
    }
    crd
}

fn put_node_right(node: &mut Value) {
    let Some(fields) = node.as_object_mut() else {
        return;
    };
    // An API server takes a null away where nothing says nullable, and so does the Rust type: null means absent. With
    // nullable, a null would stay, and `has()` in a rule would count it as set. Free values keep their nulls.
    if fields.contains_key("type") || fields.contains_key("x-kubernetes-int-or-string") {
        fields.remove("nullable");
    }
    // Version 1.20 takes an empty text for null here and refuses it. The Rust type fills it in when it reads.
    if fields.get("default") == Some(&json!("")) {
        fields.remove("default");
    }
    put_format_right(fields);
    if let Some(values) = fields.get_mut("additionalProperties") {
        put_quantities_right(values);
        fields.entry("maxProperties").or_insert(json!(MAX_PROPERTIES));
    }
    for child in children_mut(node) {
        put_node_right(child);
    }
}

/// Version 1.20 cannot build the model that server-side apply merges by when the values of a map are "integer or string",
/// and then replaces every list of the kind as a whole: senders would erase each other's entries. So a quantity is any
/// value to the API server; the Rust type checks it.
fn put_quantities_right(values: &mut Value) {
    if values.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
        *values = json!({
            "description": "A quantity, such as `500m` or `2Gi`.",
            "x-kubernetes-preserve-unknown-fields": true,
        });
    }
}

/// API servers know `int32` and `int64` only, and warn of others. An unsigned number becomes the signed one that holds
/// it; beyond 2^63 - 1 no API server can store a number anyway.
fn put_format_right(fields: &mut serde_json::Map<String, Value>) {
    let (format, largest) = match fields.get("format").and_then(Value::as_str) {
        Some("uint8") => ("int32", Some(f64::from(u8::MAX))),
        Some("uint16") => ("int32", Some(f64::from(u16::MAX))),
        Some("uint32") => ("int64", Some(f64::from(u32::MAX))),
        Some("uint64" | "uint") => ("int64", None),
        _ => return,
    };
    fields.insert("format".into(), json!(format));
    fields.entry("minimum").or_insert(json!(0.0));
    if let Some(largest) = largest {
        fields.entry("maximum").or_insert(json!(largest));
    }
}

/// The schemas directly below a schema.
fn children_mut(node: &mut Value) -> Vec<&mut Value> {
    let Some(fields) = node.as_object_mut() else {
        return Vec::new();
    };
    let mut children = Vec::new();
    for (keyword, value) in fields {
        match keyword.as_str() {
            "properties" => children.extend(value.as_object_mut().into_iter().flat_map(|map| map.values_mut())),
            "items" | "additionalProperties" => children.push(value),
            _ => {}
        }
    }
    children
}

/// `1` for `1.0`: the bounds of a schema are floats in Rust, and no reader expects them so.
fn write_whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole = number
                .as_f64()
                .filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() < 9.0e15);
            if let Some(float) = whole {
                *value = json!(float as i64);
            }
        }
        Value::Array(entries) => entries.iter_mut().for_each(write_whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(write_whole_numbers),
        _ => {}
    }
}
