//! Which key versions the Secret of a pool holds. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use relaypool_api::names::signing_key_entry;

use crate::progress::{SliceView, slice_finished};

/// How long a version that nobody needs any more stays. A run may have been planned with it a moment before it was
/// replaced, and its message slice may not have been seen yet.
const GRACE: Duration = Duration::from_secs(10 * 60);

/// Entries of the key versions that unfinished runs of a pool must be signed with. `slices` are those of its namespace.
pub(crate) fn entries_in_use<'a>(pool: &str, slices: impl IntoIterator<Item = &'a SliceView>) -> BTreeSet<String> {
    let mut runs = BTreeMap::<&str, (&SliceView, u32)>::new();
    let mut finished = BTreeMap::<&str, u32>::new();
    for slice in slices {
        let fingerprint = slice.spec.fingerprint.as_str();
        match &slice.spec.message {
            Some(run) if slice.spec.pool == pool => {
                runs.insert(fingerprint, (slice, run.slices));
            }
            None if slice_finished(slice) => *finished.entry(fingerprint).or_default() += 1,
            _ => {}
        }
    }
    let unfinished = runs
        .into_iter()
        .filter(|(fingerprint, (_, slices))| finished.get(fingerprint).copied().unwrap_or_default() < *slices);
    unfinished
        .filter_map(|(_, (slice, _))| slice.spec.message.as_ref())
        .flat_map(|run| run.dkim_keys.iter().map(signing_key_entry))
        .collect()
}

/// The entries of `existing` that stay: those that are needed, and those that have not been unneeded for long. `unused`
/// remembers since when an entry is.
pub(crate) fn retained(
    existing: BTreeMap<String, ByteString>,
    needed: &BTreeSet<String>,
    unused: &mut HashMap<String, Instant>,
    now: Instant,
) -> BTreeMap<String, ByteString> {
    unused.retain(|entry, _| existing.contains_key(entry) && !needed.contains(entry));
    let stays = |entry: &String| {
        needed.contains(entry) || {
            let since = *unused.entry(entry.clone()).or_insert(now);
            now.saturating_duration_since(since) < GRACE
        }
    };
    let mut stays = stays;
    existing.into_iter().filter(|(entry, _)| stays(entry)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(spec: Value, phase: Option<&str>) -> SliceView {
        let mut whole = json!({ "delivery": "d", "deliveryUid": "u", "pool": "pool", "fingerprint": "f" });
        for (field, value) in spec.as_object().unwrap() {
            whole[field] = value.clone();
        }
        serde_json::from_value(json!({ "spec": whole, "status": phase.map(|phase| json!({ "phase": phase })) }))
            .unwrap()
    }

    fn run(version: &str, slices: u32) -> Value {
        json!({
            "dkimKeys": [{ "domain": "example.com", "selector": "s", "algorithm": "Rsa", "version": version }],
            "validity": "1h", "fingerprint": "f", "total": 1, "slices": slices,
        })
    }

    #[test]
    fn versions_are_in_use_until_every_slice_has_finished() {
        let message = slice(json!({ "message": run("v1", 2) }), None);
        let of_sender = |phase| slice(json!({ "sender": "pool-0" }), phase);
        let entry = BTreeSet::from(["s._domainkey.example.com.v1.pem".to_owned()]);
        for (phases, expected) in [
            (vec![], &entry),
            (vec![Some("Finished"), Some("Accepted")], &entry),
            (vec![Some("Finished"), None], &entry),
            (vec![Some("Finished"), Some("Finished")], &BTreeSet::new()),
        ] {
            let slices: Vec<_> = phases.into_iter().map(of_sender).chain([message.clone()]).collect();
            assert_eq!(&entries_in_use("pool", &slices), expected);
        }
        assert!(entries_in_use("other", [&message]).is_empty());
    }

    #[test]
    fn an_unneeded_version_stays_for_a_while() {
        let existing: BTreeMap<String, ByteString> = ["old", "new"]
            .map(|entry| (entry.to_owned(), ByteString(entry.into())))
            .into();
        let needed = BTreeSet::from(["new".to_owned()]);
        let mut unused = HashMap::new();
        let start = Instant::now();
        let mut names = |now| -> Vec<String> {
            retained(existing.clone(), &needed, &mut unused, now)
                .into_keys()
                .collect()
        };
        assert_eq!(names(start), ["new", "old"]);
        assert_eq!(names(start + GRACE / 2), ["new", "old"]);
        assert_eq!(names(start + GRACE), ["new"]);
    }
}
