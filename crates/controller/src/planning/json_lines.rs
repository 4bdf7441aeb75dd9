//! Lists with one JSON object a line.

use std::collections::BTreeMap;

use serde_json::Value;

use super::recipients::{ListReader, RecipientList};

/// Reads a list; lines with nothing but white space are no rows.
pub(super) fn read(text: &[u8]) -> RecipientList {
    let mut reader = ListReader::default();
    for line in text.split(|&byte| byte == b'\n') {
        if !line.trim_ascii().is_empty() {
            row(line, &mut reader);
        }
    }
    reader.finish()
}

fn row(line: &[u8], reader: &mut ListReader) {
    let mut members: BTreeMap<String, Value> = match serde_json::from_slice(line) {
        Ok(members) => members,
        Err(problem) => return reader.malformed(&String::from_utf8_lossy(line), &problem.to_string()),
    };
    let name_of = |wanted: &str| members.keys().find(|name| name.eq_ignore_ascii_case(wanted)).cloned();
    let address = name_of("address")
        .or_else(|| name_of("email"))
        .and_then(|name| members.remove(&name));
    match address {
        Some(Value::String(address)) => reader.row(&address, members),
        Some(other) => reader.malformed(&other.to_string(), "the address is not a string"),
        None => reader.row("", members),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn each_line_is_one_row() {
        let text = concat!(
            "{\"email\": \"ada@example.com\", \"name\": \"Ada\", \"tags\": [1, {\"a\": null}]}\r\n",
            "\n",
            "not json\n",
            "[\"ada@example.com\"]\n",
            "{\"name\": \"nobody\"}\n",
            "{\"address\": 7}\n",
            "{\"Address\": \"bob@example.com\", \"email\": \"kept\"}",
        );
        let list = read(text.as_bytes());
        assert_eq!(list.total, 6);
        assert_eq!(list.rows.len(), 2);
        assert_eq!(
            json!(list.rows[0].recipient.variables),
            json!({ "name": "Ada", "tags": [1, { "a": null }] })
        );
        assert_eq!(list.rows[1].index, 5);
        assert_eq!(json!(list.rows[1].recipient.variables), json!({ "email": "kept" }));
        assert_eq!(
            json!(list.ignored),
            json!({ "Malformed row": 3, "Address not specified": 1 })
        );
    }

    #[test]
    fn deep_nesting_is_a_malformed_row() {
        let deep = format!("{{\"a\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(read(deep.as_bytes()).ignored["Malformed row"], 1);
    }

    proptest! {
        #[test]
        fn any_bytes_add_up(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let list = read(&text);
            prop_assert_eq!(list.total, list.rows.len() as u64 + list.ignored.values().sum::<u64>());
        }
    }
}
