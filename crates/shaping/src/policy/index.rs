//! Which policies might match a name, without trying them all.

use std::collections::{BTreeSet, HashMap};

use relaypool_api::Mask;

/// Number of a policy in its set.
pub(super) type PolicyNumber = usize;

/// Finds the policies of which a mask might match a name.
///
/// A mask without wildcards is filed under itself. Another is filed under its last labels that have no wildcard, two at
/// most: `*.mail.example.com` under `example.com`, `mx*.com` under `com`, `mx*` under nothing. A name is looked up under
/// itself, its last two labels, its last label, and nothing. Of the masks found, those that begin or end otherwise than the
/// name fall out at once, as there may be thousands of them under `com`.
#[derive(Debug, Default)]
pub(super) struct MaskIndex(HashMap<Box<str>, Vec<Filed>>);

#[derive(Debug)]
struct Filed {
    /// What stands before the first wildcard.
    start: Box<str>,
    /// What stands behind the last wildcard.
    end: Box<str>,
    policy: PolicyNumber,
}

impl MaskIndex {
    pub(super) fn insert(&mut self, mask: &Mask, policy: PolicyNumber) {
        let mask = mask.as_str();
        let wildcards = ['*', '?'];
        let filed = Filed {
            start: mask.split(wildcards).next().unwrap_or_default().into(),
            end: mask.rsplit(wildcards).next().unwrap_or_default().into(),
            policy,
        };
        self.0.entry(key(mask).into()).or_default().push(filed);
    }

    /// Adds to `found` the policies that might match. The name is in lower case, as a [`relaypool_api::Domain`] is.
    pub(super) fn candidates(&self, name: &str, found: &mut BTreeSet<PolicyNumber>) {
        let keys: BTreeSet<&str> = [name, last_labels(name, 2), last_labels(name, 1), ""].into();
        let fits = |filed: &&Filed| name.ends_with(&*filed.end) && name.starts_with(&*filed.start);
        let filed = keys.into_iter().filter_map(|key| self.0.get(key)).flatten();
        found.extend(filed.filter(fits).map(|filed| filed.policy));
    }
}

/// What a mask is filed under; empty where it has no label at its end that is free of wildcards.
fn key(mask: &str) -> &str {
    let Some(wildcard) = mask.rfind(['*', '?']) else {
        return mask;
    };
    match mask[wildcard..].find('.') {
        Some(dot) => last_labels(&mask[wildcard + dot + 1..], 2),
        None => "",
    }
}

fn last_labels(name: &str, count: usize) -> &str {
    match name.rmatch_indices('.').nth(count - 1) {
        Some((dot, _)) => &name[dot + 1..],
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidates(masks: &[&str], name: &str) -> Vec<PolicyNumber> {
        let mut index = MaskIndex::default();
        for (number, mask) in masks.iter().enumerate() {
            index.insert(&mask.parse().unwrap(), number);
        }
        let mut found = BTreeSet::new();
        index.candidates(name, &mut found);
        found.into_iter().collect()
    }

    #[test]
    fn masks_are_filed_by_their_last_labels() {
        for (mask, filed) in [
            ("mail.example.com", "mail.example.com"),
            ("*.mail.example.com", "example.com"),
            ("*.example.com", "example.com"),
            ("*example.com", "com"),
            ("mx?.com", "com"),
            ("*", ""),
            ("mx*", ""),
            ("mail.*", ""),
        ] {
            assert_eq!(key(mask), filed, "{mask}");
        }
    }

    #[test]
    fn few_of_many_are_tried() {
        let masks: Vec<String> = (0..10_000)
            .map(|number| match number % 3 {
                0 => format!("customer{number}.example.com"),
                1 => format!("*.provider{number}.net"),
                _ => format!("*-{number}.co.uk"),
            })
            .collect();
        let masks: Vec<&str> = masks.iter().map(String::as_str).collect();
        assert_eq!(candidates(&masks, "customer3.example.com"), [3]);
        assert_eq!(candidates(&masks, "mx.provider4.net"), [4]);
        assert_eq!(candidates(&masks, "mx-5.co.uk"), [5]);
        assert!(candidates(&masks, "elsewhere.example").is_empty());
    }

    proptest! {
        #[test]
        fn no_match_is_missed(mask in "[ab*?]{1,2}(\\.[ab*?]{1,2}){0,3}", name in "[ab]{1,2}(\\.[ab]{1,2}){0,3}") {
            let matches = mask.parse::<Mask>().unwrap().matches(&name);
            prop_assert!(!matches || candidates(&[&mask], &name) == [0], "{} {}", mask, name);
        }
    }
}
