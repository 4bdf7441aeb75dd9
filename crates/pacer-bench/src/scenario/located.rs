//! Behaviours whose errors name the field and the line.
//!
//! A behaviour is known by its `kind`, which may stand behind its other fields. So all of them are read before any is
//! understood, and an error found then has lost its place.

use std::fmt;

use relaypool_simulator::description::Behaviour;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_yaml::{Mapping, Value};

/// Reads a list of behaviours.
pub(super) fn behaviours<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Behaviour>, D::Error> {
    let located = Vec::<Located>::deserialize(deserializer)?;
    Ok(located.into_iter().map(|located| located.0).collect())
}

struct Located(Behaviour);

impl<'de> Deserialize<'de> for Located {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LocatedVisitor)
    }
}

struct LocatedVisitor;

impl<'de> Visitor<'de> for LocatedVisitor {
    type Value = Located;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a behaviour, such as { kind: connectionLimit, limit: 5 }")
    }

    /// An error from here gets the line on which the behaviour begins.
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Located, A::Error> {
        let fields = Mapping::deserialize(MapAccessDeserializer::new(map))?;
        understand(&fields)
            .map(Located)
            .map_err(|problem| A::Error::custom(explain(&fields, &problem)))
    }
}

fn understand(fields: &Mapping) -> Result<Behaviour, String> {
    serde_yaml::from_value(Value::Mapping(fields.clone())).map_err(|error| error.to_string())
}

/// Names the field that a problem is about: the one without which it would be another problem, or none.
fn explain(fields: &Mapping, problem: &str) -> String {
    let is_about = |field: &str| {
        let mut others = fields.clone();
        others.remove(field);
        understand(&others).err().as_deref() != Some(problem)
    };
    let names = fields.keys().filter_map(Value::as_str);
    match names.filter(|field| *field != "kind").find(|field| is_about(field)) {
        Some(field) if !problem.contains(&format!("`{field}`")) => format!("{field}: {problem}"),
        _ => problem.to_owned(),
    }
}
