use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::Value;
use minijinja::value::Object;
use relaypool_api::EmailAddress;

use super::language::LARGEST_VARIABLE;
use crate::error::ComposeError;

/// What templates see of one recipient: the variables, and `address`, `local_part` and `domain`.
///
/// A recipient's own variable named `local_part` or `domain` goes before the part of the address; `address` always is the
/// address. A variable that is null counts as unknown, so that nobody is greeted as "None".
#[derive(Debug)]
pub(crate) struct Variables {
    values: BTreeMap<String, Value>,
    /// The name that was last asked for, if it is unknown: what an error that follows is about.
    unknown: Mutex<Option<String>>,
}

impl Variables {
    pub(crate) fn new(
        to: &EmailAddress,
        variables: &BTreeMap<String, serde_json::Value>,
    ) -> Result<Arc<Self>, ComposeError> {
        let mut values = BTreeMap::from([
            ("local_part".to_owned(), Value::from(to.local_part())),
            ("domain".to_owned(), Value::from(to.domain().as_str())),
        ]);
        for (name, value) in variables {
            if weight(value) > LARGEST_VARIABLE {
                return Err(ComposeError::LargeVariable {
                    name: name.clone(),
                    limit: LARGEST_VARIABLE,
                });
            }
            if value.is_null() {
                values.remove(name);
            } else {
                values.insert(name.clone(), Value::from_serialize(value));
            }
        }
        values.insert("address".to_owned(), Value::from(to.to_string()));
        Ok(Arc::new(Self {
            values,
            unknown: Mutex::new(None),
        }))
    }

    /// Takes the name that was last asked for, if it is unknown.
    pub(super) fn take_unknown(&self) -> Option<String> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Object for Variables {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let value = self.values.get(key).cloned();
        // Functions are looked for here first.
        let unknown = (value.is_none() && key != "range").then(|| key.to_owned());
        *self.unknown.lock().unwrap_or_else(PoisonError::into_inner) = unknown;
        value
    }
}

/// About the bytes that the text form of a value takes.
fn weight(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::String(text) => text.len(),
        serde_json::Value::Array(items) => items.iter().map(|item| 4 + weight(item)).sum(),
        serde_json::Value::Object(members) => members
            .iter()
            .map(|(name, member)| 8 + name.len() + weight(member))
            .sum(),
        serde_json::Value::Null | serde_json::Value::Bool(_) => 5,
        serde_json::Value::Number(_) => 24,
    }
}
