//! Objects that may not be what they should be.

use std::borrow::Cow;
use std::sync::Arc;

use kube::Resource;
use kube::api::ObjectMeta;
use kube::core::PartialObjectMeta;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Longest problem that is kept, in characters. It may quote the bad value.
const MAX_PROBLEM: usize = 512;

/// An object of kind `K`, or one that calls itself so but has a field that cannot be read. A watch of `Guarded<K>` goes on
/// where a watch of `K` would stop at one bad object, as an API server without CEL, or with an older schema, may have it.
#[derive(Debug, Clone)]
pub enum Guarded<K> {
    /// An object as it should be.
    Sound(Arc<K>),
    /// An object with a field that cannot be read.
    Malformed(Box<Malformed>),
}

/// An object with a field that cannot be read.
#[derive(Debug, Clone)]
pub struct Malformed {
    /// Its metadata, which the API server itself checks.
    pub metadata: ObjectMeta,
    /// Path of the field and what is wrong with it, such as `spec.pool: invalid type: integer …`.
    pub problem: String,
    /// The whole object.
    pub raw: Value,
}

impl<K> Guarded<K> {
    /// The object, when it is sound.
    pub fn sound(&self) -> Option<&Arc<K>> {
        match self {
            Self::Sound(object) => Some(object),
            Self::Malformed(_) => None,
        }
    }
}

impl<'de, K: Resource + DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Value::deserialize(deserializer)?;
        match serde_path_to_error::deserialize(&raw) {
            Ok(object) => Ok(Self::Sound(Arc::new(object))),
            Err(problem) => {
                let partial = PartialObjectMeta::<K>::deserialize(&raw).map_err(D::Error::custom)?;
                Ok(Self::Malformed(Box::new(Malformed {
                    metadata: partial.metadata,
                    problem: problem.to_string().chars().take(MAX_PROBLEM).collect(),
                    raw,
                })))
            }
        }
    }
}

impl<K: Resource + Clone> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(kind)
    }

    fn group(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::group(kind)
    }

    fn version(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::version(kind)
    }

    fn plural(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(kind)
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Sound(object) => object.meta(),
            Self::Malformed(malformed) => &malformed.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Sound(object) => Arc::make_mut(object).meta_mut(),
            Self::Malformed(malformed) => &mut malformed.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt as _;
    use relaypool_api::SendingIp;
    use serde_json::json;

    use super::*;

    #[test]
    fn keeps_metadata_and_the_path_of_the_bad_field() {
        let guarded: Guarded<SendingIp> = serde_json::from_value(json!({
            "metadata": { "name": "bad", "namespace": "mail", "generation": 3 },
            "spec": { "pool": "pool", "address": "192.0.2.1", "ehloName": "not a name" },
        }))
        .unwrap();
        assert_eq!(guarded.name_any(), "bad");
        let Guarded::Malformed(malformed) = guarded else {
            panic!("{guarded:?}")
        };
        assert!(
            malformed.problem.starts_with("spec.ehloName: 'not a name'"),
            "{}",
            malformed.problem
        );
        assert_eq!(malformed.metadata.generation, Some(3));
    }

    #[test]
    fn lets_sound_objects_through() {
        let guarded: Guarded<SendingIp> = serde_json::from_value(json!({
            "metadata": { "name": "good" },
            "spec": { "pool": "pool", "address": "192.0.2.1", "ehloName": "mx.example.com" },
        }))
        .unwrap();
        assert_eq!(guarded.sound().unwrap().spec.pool, "pool");
    }
}
