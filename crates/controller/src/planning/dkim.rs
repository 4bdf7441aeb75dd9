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
    if chosen.is_empty() { KeyChoice::NoKey } else { KeyChoice::Sign(chosen) }
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
