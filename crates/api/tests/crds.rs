//! The CRDs as API servers want them: structural schemas, bounded rules, nothing to warn about.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use kube::core::cel::{ScopeContext, WarningKind, analyze_rule, compile_schema};
use relaypool_api::{crds, schema};
use serde_json::Value;

const KINDS: [&str; 6] = [
    "RelayPool",
    "SendingIp",
    "MxPolicy",
    "DkimKey",
    "Delivery",
    "DeliverySlice",
];

/// Calls `visit` for each schema with its path and the schemas above it, the outermost first.
fn walk<'a>(
    path: &str,
    node: &'a Value,
    above: &mut Vec<&'a Value>,
    visit: &mut impl FnMut(&str, &'a Value, &[&'a Value]),
) {
    visit(path, node, above);
    above.push(node);
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), child, above, visit);
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(child) = node.get(keyword) {
            walk(&format!("{path}[]"), child, above, visit);
        }
    }
    above.pop();
}

fn for_each_node(mut visit: impl FnMut(&str, &'static Value, &[&'static Value])) {
    for kind in KINDS {
        walk(kind, schema::of_kind(kind).unwrap(), &mut Vec::new(), &mut visit);
    }
}

fn is_true(node: &Value, keyword: &str) -> bool {
    node.get(keyword) == Some(&Value::Bool(true))
}

#[test]
fn all_six_are_there() {
    let crds = crds::all();
    let kinds: Vec<&str> = crds.iter().map(|crd| crd.spec.names.kind.as_str()).collect();
    assert_eq!(kinds, KINDS);
    assert_eq!(schema::kinds().collect::<BTreeSet<_>>(), KINDS.into_iter().collect());
    for crd in &crds {
        assert_eq!(crd.spec.group, "relaypool.dev");
        assert_eq!(crd.spec.scope, "Namespaced");
        assert_eq!(crd.spec.names.categories, Some(vec!["relaypool".to_owned()]));
        assert_eq!(crd.spec.versions.len(), 1);
        assert!(crd.spec.versions[0].subresources.as_ref().unwrap().status.is_some());
    }
    let names: BTreeSet<_> = crds
        .iter()
        .flat_map(|crd| crd.spec.names.short_names.clone().unwrap())
        .collect();
    assert_eq!(names.len(), 6);
}

/// Equal, whichever way a number is written.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(name, one)| other.get(name).is_some_and(|other| same(one, other)))
        }
        _ => one == other,
    }
}

#[test]
fn documents_say_the_same_as_the_types() {
    for (crd, document) in crds::all().iter().zip(crds::documents()) {
        assert!(same(&serde_json::to_value(crd).unwrap(), &document));
        let yaml = serde_yaml::to_string(&document).unwrap();
        assert!(
            !yaml.lines().any(|line| line.ends_with(".0") && line.contains("imum: ")),
            "{yaml}"
        );
        // `kubectl apply` keeps a copy in an annotation, which may have 256 KiB.
        assert!(document.to_string().len() < 200_000, "{}", document["metadata"]["name"]);
    }
}

/// The rules for structural schemas, and keywords that an API server refuses or drops.
#[test]
fn schemas_are_structural() {
    const KNOWN: [&str; 24] = [
        "type",
        "format",
        "description",
        "title",
        "default",
        "enum",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "pattern",
        "properties",
        "items",
        "required",
        "additionalProperties",
        "nullable",
        "x-kubernetes-int-or-string",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
        "x-kubernetes-map-type",
    ];
    for_each_node(|path, node, above| {
        let free = is_true(node, "x-kubernetes-int-or-string") || is_true(node, "x-kubernetes-preserve-unknown-fields");
        assert!(
            node["type"].is_string() != is_true(node, "x-kubernetes-int-or-string") || free,
            "{path} has no type"
        );
        assert!(node["type"].is_string() || free, "{path} has no type");
        for keyword in node.as_object().unwrap().keys() {
            let list = ["x-kubernetes-list-type", "x-kubernetes-list-map-keys"].contains(&keyword.as_str());
            assert!(list || KNOWN.contains(&keyword.as_str()), "{path} has {keyword}");
        }
        assert!(
            node.get("properties").is_none() || node.get("additionalProperties").is_none(),
            "{path} has both properties and additionalProperties"
        );
        assert!(
            node["additionalProperties"].is_object() || node.get("additionalProperties").is_none(),
            "{path}"
        );
        assert_eq!(node["type"] == "array", node["items"].is_object(), "{path}");
        if above.is_empty() {
            assert_eq!(node["required"], serde_json::json!(["spec"]), "{path}");
        }
        for name in node["required"].as_array().into_iter().flatten() {
            let field = &node["properties"][name.as_str().unwrap()];
            assert!(field.is_object(), "{path} requires {name}, which it does not have");
            assert!(
                field.get("default").is_none(),
                "{path}.{name} is required and has a default"
            );
        }
    });
}

#[test]
fn nothing_to_warn_about() {
    for_each_node(|path, node, _| {
        if let Some(format) = node["format"].as_str() {
            assert!(
                ["int32", "int64", "double", "date-time"].contains(&format),
                "{path} has format {format}"
            );
        }
        assert!(
            !node["enum"]
                .as_array()
                .is_some_and(|values| values.contains(&Value::Null)),
            "{path} allows null"
        );
        for refused in [Value::Null, Value::from("")] {
            assert_ne!(node.get("default"), Some(&refused), "{path} has {refused} as default");
        }
        // Null is for template variables only; elsewhere it means absent.
        let is_variable = path.ends_with(".variables[]");
        assert_eq!(is_true(node, "nullable"), is_variable, "{path}");
        if node.get("additionalProperties").is_some() {
            assert!(node["maxProperties"].is_u64(), "{path} has no bound");
        }
        if let (Some(default), Some(allowed)) = (node.get("default"), node["enum"].as_array()) {
            assert!(allowed.contains(default), "{path} has {default} as default");
        }
    });
}

#[test]
fn lists_with_keys_have_their_keys() {
    let mut lists = 0;
    for_each_node(|path, node, _| {
        if node["x-kubernetes-list-type"] == "map" {
            lists += 1;
            for key in node["x-kubernetes-list-map-keys"].as_array().unwrap() {
                let required = node["items"]["required"].as_array().unwrap();
                assert!(required.contains(key), "{path} lacks {key}");
            }
        } else {
            assert!(node.get("x-kubernetes-list-map-keys").is_none(), "{path}");
        }
    });
    assert_eq!(
        lists,
        6 + 2,
        "conditions of each kind, senders of a pool, sites of an address"
    );
}

fn rules(node: &Value) -> impl Iterator<Item = (&str, &str)> {
    let rules = node["x-kubernetes-validations"].as_array();
    rules
        .into_iter()
        .flatten()
        .map(|rule| (rule["rule"].as_str().unwrap(), rule["message"].as_str().unwrap()))
}

/// The largest number of entries or characters; none where there is no bound.
fn bound(node: &Value) -> Option<u64> {
    if is_true(node, "x-kubernetes-preserve-unknown-fields") {
        return None;
    }
    match node["type"].as_str() {
        Some("string") => node["maxLength"].as_u64(),
        Some("array") => node["maxItems"].as_u64(),
        Some("object") if node.get("additionalProperties").is_some() => node["maxProperties"].as_u64(),
        _ => Some(1),
    }
}

/// The schemas of the fields whose values a rule looks at, such as `self.min.connections`; not of those it only asks for
/// with `has()`.
fn read_by<'a>(rule: &str, node: &'a Value) -> Vec<&'a Value> {
    let mut read = vec![node, &node["items"]];
    for (at, _) in rule.match_indices("self.") {
        if rule[..at].ends_with("has(") {
            continue;
        }
        let path: String = rule[at + 5..]
            .chars()
            .take_while(|&c| c.is_ascii_alphanumeric() || c == '.')
            .collect();
        let mut below = node;
        for name in path.split('.') {
            match below["properties"].get(name) {
                Some(field) => below = field,
                None => break, // a function such as size()
            }
        }
        if !read.iter().any(|known| std::ptr::eq(*known, below)) {
            read.push(below);
        }
    }
    read
}

/// An API server refuses a CRD when it cannot bound what a rule costs: what the rule reads and how often it is run.
#[test]
fn every_rule_is_bounded() {
    const BUDGET_OF_A_RULE: u64 = 10_000_000;
    const BUDGET_OF_A_CRD: u64 = 100_000_000;
    let mut count = 0;
    for kind in KINDS {
        let mut total = 0;
        walk(
            kind,
            schema::of_kind(kind).unwrap(),
            &mut Vec::new(),
            &mut |path, node, above| {
                for (rule, message) in rules(node) {
                    count += 1;
                    assert!(!message.is_empty() && !message.contains('\n'), "{path}: {message:?}");
                    let runs: u64 = above
                        .iter()
                        .map(|above| bound(above).unwrap_or_else(|| panic!("{path}: {rule}: runs without a bound")))
                        .product();
                    // Comparing a whole spec with the one before is for what one object can hold; all else reads fields.
                    let size: u64 = if rule == "self == oldSelf" {
                        1
                    } else {
                        read_by(rule, node)
                            .iter()
                            .map(|read| bound(read).unwrap_or_else(|| panic!("{path}: {rule}: reads without a bound")))
                            .product()
                    };
                    // A regular expression costs a quarter of its length for each tenth of a character, at most.
                    let cost = runs * (1 + size * rule.len() as u64 / 40);
                    assert!(cost < BUDGET_OF_A_RULE, "{path}: {rule}: {cost}");
                    total += cost;
                    let warnings = analyze_rule(rule, &compile_schema(node), ScopeContext::CrdValidation);
                    // A variable of all() or map() is taken for one out of scope.
                    let of_cost = warnings
                        .iter()
                        .filter(|warning| warning.kind != WarningKind::WrongScope)
                        .count();
                    assert_eq!(of_cost, 0, "{path}: {warnings:?}");
                }
            },
        );
        assert!(total < BUDGET_OF_A_CRD, "{kind}: {total}");
    }
    assert!(count > 60, "{count} rules were found");
}

/// What is printed in columns exists.
#[test]
fn columns_show_fields_that_exist() {
    for crd in crds::all() {
        let schema = schema::of_kind(&crd.spec.names.kind).unwrap();
        for column in crd.spec.versions[0].additional_printer_columns.as_ref().unwrap() {
            let path = &column.json_path;
            if path.starts_with(".metadata.") {
                continue;
            }
            let mut below = schema;
            for name in path
                .trim_start_matches('.')
                .split('.')
                .map(|name| name.split('[').next().unwrap())
            {
                below = if below["type"] == "array" {
                    &below["items"]["properties"][name]
                } else {
                    &below["properties"][name]
                };
                if name == "conditions" {
                    break;
                }
            }
            assert!(below.is_object(), "{} shows {path}", crd.spec.names.kind);
        }
    }
}
