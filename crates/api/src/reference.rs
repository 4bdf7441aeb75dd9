//! The reference documentation, made from the CRDs and the conditions, so that it cannot say anything else than they do.

use std::fmt::Write;

use serde_json::Value;

use crate::conditions::{
    ConditionType, DeliveryReason, DeliverySliceReason, DkimKeyReason, MxPolicyReason, RelayPoolReason, SendingIpReason,
};
use crate::crds;

/// Kubernetes' own types, which its documentation describes: by the name of the field that holds one.
const FOREIGN: [(&str, &str); 7] = [
    ("affinity", "Kubernetes `Affinity`"),
    ("conditions", "list of Kubernetes `Condition`"),
    ("imagePullSecrets", "list of Kubernetes `LocalObjectReference`"),
    ("ipAffinity", "Kubernetes `LabelSelector`"),
    ("resources", "Kubernetes `ResourceRequirements`"),
    ("tolerations", "list of Kubernetes `Toleration`"),
    (
        "topologySpreadConstraints",
        "list of Kubernetes `TopologySpreadConstraint`",
    ),
];

/// The whole reference as Markdown.
pub fn markdown() -> String {
    let crds = crds::documents();
    let mut text = String::from(
        "# Reference of the resources\n\n\
         All kinds are namespaced, in the group `relaypool.dev`, version `v1alpha1`, and in the category `relaypool` \
         (`kubectl get relaypool`).\n\n\
         This file is generated from the types; do not edit it.\n\n\
         | Kind | Short name | It is |\n| --- | --- | --- |\n",
    );
    for crd in &crds {
        let kind = text_at(crd, "/spec/names/kind");
        let _ = writeln!(
            text,
            "| [{kind}](#{}) | `{}` | {} |",
            kind.to_lowercase(),
            text_at(crd, "/spec/names/shortNames/0"),
            text_at(crd, "/spec/versions/0/schema/openAPIV3Schema/description"),
        );
    }
    for crd in &crds {
        write_kind(&mut text, crd);
    }
    text
}

fn write_kind(text: &mut String, crd: &Value) {
    let kind = text_at(crd, "/spec/names/kind");
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let spec = &schema["properties"]["spec"];
    let _ = write!(
        text,
        "\n## {kind}\n\nShort name `{}`, plural `{}`.\n\n{}\n",
        text_at(crd, "/spec/names/shortNames/0"),
        text_at(crd, "/spec/names/plural"),
        one_line(text_at(spec, "/description")),
    );
    let rules = messages(spec);
    if !rules.is_empty() {
        text.push_str("\nRules between fields:\n\n");
        for rule in rules {
            let _ = writeln!(text, "- {rule}");
        }
    }
    write_fields(text, "Fields of the spec", spec, "spec");
    write_fields(text, "Fields of the status", &schema["properties"]["status"], "status");
    write_conditions(text, kind);
}

fn write_fields(text: &mut String, title: &str, schema: &Value, path: &str) {
    let _ = write!(
        text,
        "\n### {title}\n\n| Field | Type | Default | Constraints | Description |\n| --- | --- | --- | --- | --- |\n"
    );
    let mut rows = Vec::new();
    collect_rows(&mut rows, schema, path);
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
}

/// One row for each field below `schema`, depth first; each object after its own row.
fn collect_rows(rows: &mut Vec<[String; 5]>, schema: &Value, path: &str) {
    let properties = schema["properties"].as_object();
    for (name, field) in properties.into_iter().flatten() {
        let path = format!("{path}.{name}");
        let required = schema["required"]
            .as_array()
            .is_some_and(|required| required.iter().any(|other| other == name));
        rows.push(row(&path, name, field, required));
        if foreign(name).is_none() {
            match (field["items"].is_object(), field["additionalProperties"].is_object()) {
                (true, _) => collect_rows(rows, &field["items"], &format!("{path}[]")),
                (_, true) => collect_rows(rows, &field["additionalProperties"], &format!("{path}.*")),
                _ => collect_rows(rows, field, &path),
            }
        }
    }
}

fn row(path: &str, name: &str, field: &Value, required: bool) -> [String; 5] {
    let kind = foreign(name).map_or_else(|| type_name(field), str::to_owned);
    let default = match &field["default"] {
        Value::Null => String::new(),
        Value::Object(fields) if fields.is_empty() => String::new(),
        Value::String(text) => code(text),
        other => code(&other.to_string()),
    };
    let mut constraints = Vec::new();
    if required {
        constraints.push("required".to_owned());
    }
    constraints.extend(bounds(field));
    constraints.extend(bounds(&field["items"]).into_iter().map(|bound| format!("each {bound}")));
    constraints.extend(messages(field));
    constraints.extend(
        messages(&field["items"])
            .into_iter()
            .filter(|_| field["items"]["properties"].is_null()),
    );
    [
        code(path),
        cell(&kind),
        default,
        cell(&constraints.join("; ")),
        cell(&one_line(text_at(field, "/description"))),
    ]
}

fn foreign(name: &str) -> Option<&'static str> {
    FOREIGN
        .iter()
        .find(|(field, _)| *field == name)
        .map(|(_, foreign)| *foreign)
}

fn type_name(field: &Value) -> String {
    match field["type"].as_str() {
        Some("array") => format!("list of {}", type_name(&field["items"])),
        Some("object") if field["additionalProperties"].is_object() => {
            format!("map of {}", type_name(&field["additionalProperties"]))
        }
        Some("string") if field["format"] == "date-time" => "time (RFC 3339)".to_owned(),
        Some("string") if field["enum"].is_array() => "enumeration".to_owned(),
        Some(kind) => kind.to_owned(),
        None if field["x-kubernetes-int-or-string"] == true => "integer or string".to_owned(),
        None => "any value".to_owned(),
    }
}

/// The bounds of one schema in words.
fn bounds(schema: &Value) -> Vec<String> {
    let mut bounds = Vec::new();
    if let Some(allowed) = schema["enum"].as_array() {
        let names: Vec<String> = allowed.iter().filter_map(Value::as_str).map(code).collect();
        bounds.push(names.join(", "));
    }
    for (least, most, unit) in [
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " entries"),
        ("minProperties", "maxProperties", " entries"),
    ] {
        match (&schema[least], &schema[most]) {
            (Value::Number(least), Value::Number(most)) if least == most => bounds.push(format!("{least}{unit}")),
            (Value::Number(least), Value::Number(most)) => bounds.push(format!("{least} to {most}{unit}")),
            (Value::Number(least), _) => bounds.push(format!("at least {least}{unit}")),
            (_, Value::Number(most)) => bounds.push(format!("at most {most}{unit}")),
            _ => {}
        }
    }
    bounds
}

/// What the rules of one schema say when they are broken.
fn messages(schema: &Value) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"].as_array();
    rules
        .into_iter()
        .flatten()
        .map(|rule| text_at(rule, "/message").to_owned())
        .collect()
}

fn write_conditions(text: &mut String, kind: &str) {
    text.push_str("\n### Conditions\n\n| Type | True means |\n| --- | --- |\n");
    for condition in ConditionType::of_kind(kind) {
        let _ = writeln!(text, "| `{condition}` | {} |", cell(condition.description()));
    }
    text.push_str("\n| Reason | Meaning |\n| --- | --- |\n");
    for (name, meaning) in reasons(kind) {
        let _ = writeln!(text, "| `{name}` | {} |", cell(meaning));
    }
}

fn reasons(kind: &str) -> Vec<(&'static str, &'static str)> {
    macro_rules! list {
        ($reason:ty) => {
            <$reason>::ALL
                .iter()
                .map(|reason| (reason.as_str(), reason.description()))
                .collect()
        };
    }
    match kind {
        "RelayPool" => list!(RelayPoolReason),
        "SendingIp" => list!(SendingIpReason),
        "MxPolicy" => list!(MxPolicyReason),
        "DkimKey" => list!(DkimKeyReason),
        "Delivery" => list!(DeliveryReason),
        "DeliverySlice" => list!(DeliverySliceReason),
        _ => Vec::new(),
    }
}

fn text_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn code(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("`{}`", cell(text))
    }
}

/// What may stand in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_and_reason_is_there() {
        let text = markdown();
        for expected in [
            "## RelayPool",
            "## DeliverySlice",
            "| [Delivery](#delivery) | `dlv` |",
            "| `spec.replicas` | integer | `1` | 0 to 1000 |",
            "| `spec.mode` | enumeration | `Adaptive` | `Adaptive`, `Static` |",
            "| `spec.message.headers[].name` | string |  | required; 1 to 76 characters; a header name is",
            "| `spec.pod.affinity` | Kubernetes `Affinity` |",
            "| `spec.warmUp.schedule` | list of integer |  | 1 to 120 entries; each at least 1 |",
            "- set exactly one of recipients (a mail merge) and relay (messages relayed in)",
            "| `status.ranges.sent` | string |",
            "| `Planned` | Accepted and planned. |",
            "| `Published` | The DNS record of the key is there and right. |",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(!text.contains("spec.pod.affinity."), "foreign types are not spelt out");
    }

    #[test]
    fn every_row_has_the_columns_of_its_table() {
        let mut columns = 0;
        for line in markdown().lines() {
            let pipes = line.replace("\\|", "").matches('|').count();
            if line.starts_with("| ---") {
                columns = pipes;
            } else if line.starts_with('|') && columns > 0 {
                assert_eq!(pipes, columns, "{line}");
            } else if !line.starts_with('|') {
                columns = 0;
            }
        }
    }

    #[test]
    fn foreign_types_are_in_use_and_every_field_is_described() {
        let text = markdown();
        for (field, foreign) in FOREIGN {
            assert!(text.contains(&format!(".{field}` | {foreign} |")), "{field}");
        }
        for line in text
            .lines()
            .filter(|line| line.starts_with("| `spec.") || line.starts_with("| `status."))
        {
            assert!(!line.ends_with("|  |"), "no description: {line}");
        }
    }
}
