//! Which keys sign a run.

use kube::{Resource as _, ResourceExt as _};
use relaypool_api::DkimKey;
use relaypool_api::message::SigningKeyRef;
use relaypool_api::types::Domain;

use crate::conditions::ready;

/// Which keys sign a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChoice {
    /// These, all of them.
    Sign(Vec<SigningKeyRef>),
    /// There is no key for the domain.
    NoKey,
    /// A key is meant for the domain but cannot be used yet, and without it the mail would be less signed than wanted.
    Wait {
        /// The DkimKey, by name.
        key: String,
        /// What it says about itself.
        message: String,
    },
}

/// The keys for mail from `domain`: those of the domain itself, else those of its nearest parent that has any (relaxed
/// alignment, RFC 7489 section 3.1.1).
pub fn choose_keys<'a>(domain: &Domain, keys: impl IntoIterator<Item = &'a DkimKey>) -> KeyChoice {
    let mut fitting: Vec<&DkimKey> = keys
        .into_iter()
        .filter(|key| domain.is_within(&key.spec.domain) && key.meta().deletion_timestamp.is_none())
        .collect();
    // All of them are the domain or a parent of it, so the longest is the nearest.
    let nearest = fitting.iter().map(|key| key.spec.domain.as_str().len()).max();
    fitting.retain(|key| Some(key.spec.domain.as_str().len()) == nearest);
    fitting.sort_by_key(|key| key.name_any());

    let mut chosen = Vec::new();
    for key in fitting {
        match signing_key(key) {
            Some(reference) => chosen.push(reference),
            None => {
                return KeyChoice::Wait {
                    key: key.name_any(),
                    message: why_not_ready(key),
                };
            }
        }
    }
    if chosen.is_empty() {
        KeyChoice::NoKey
    } else {
        KeyChoice::Sign(chosen)
    }
}

/// The version that signs now, of a key that is ready.
pub fn signing_key(key: &DkimKey) -> Option<SigningKeyRef> {
    let status = key.status.as_ref()?;
    let up_to_date = status.observed_generation == key.meta().generation;
    let version = status.key_version.clone()?;
    (up_to_date && ready(&status.conditions)).then(|| SigningKeyRef {
        domain: key.spec.domain.clone(),
        selector: key.spec.selector.clone(),
        algorithm: key.spec.algorithm,
        version,
    })
}

fn why_not_ready(key: &DkimKey) -> String {
    let conditions = key.status.iter().flat_map(|status| &status.conditions);
    conditions
        .filter(|condition| condition.type_ == "Ready")
        .map(|condition| condition.message.clone())
        .next()
        .unwrap_or_else(|| "it has not been looked at yet".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dkim_key(name: &str, domain: &str, ready: bool) -> DkimKey {
        let status = if ready { "True" } else { "False" };
        serde_json::from_value(json!({
            "apiVersion": "relaypool.dev/v1alpha1",
            "kind": "DkimKey",
            "metadata": { "name": name, "generation": 1 },
            "spec": { "domain": domain, "selector": name },
            "status": {
                "observedGeneration": 1,
                "keyVersion": "v1",
                "conditions": [{
                    "type": "Ready", "status": status, "reason": "R", "message": "why", "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn keys_of_the_domain_sign_or_those_of_its_nearest_parent() {
        let from = |domain: &str| domain.parse::<Domain>().unwrap();
        let keys = [
            dkim_key("a", "example.com", true),
            dkim_key("b", "news.example.com", true),
            dkim_key("c", "news.example.com", true),
            dkim_key("d", "example.org", false),
        ];
        let selectors = |domain: &str| match choose_keys(&from(domain), &keys) {
            KeyChoice::Sign(keys) => keys.iter().map(|key| key.selector.to_string()).collect::<Vec<_>>(),
            KeyChoice::NoKey => vec![],
            KeyChoice::Wait { key, .. } => vec![format!("wait for {key}")],
        };
        assert_eq!(selectors("example.com"), ["a"]);
        assert_eq!(selectors("news.example.com"), ["b", "c"]);
        assert_eq!(selectors("x.news.example.com"), ["b", "c"]);
        assert_eq!(selectors("other.example.com"), ["a"]);
        assert_eq!(selectors("example.net"), [""; 0]);
        assert_eq!(selectors("example.org"), ["wait for d"]);
    }

    #[test]
    fn one_key_that_is_not_ready_holds_the_mail() {
        let mut stale = dkim_key("stale", "example.com", true);
        stale.metadata.generation = Some(2);
        let keys = [dkim_key("good", "example.com", true), stale];
        let choice = choose_keys(&"example.com".parse().unwrap(), &keys);
        assert!(matches!(choice, KeyChoice::Wait { key, .. } if key == "stale"));
    }
}
