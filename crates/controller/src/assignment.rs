//! Which sender owns which SendingIp. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource as _, ResourceExt as _};
use relaypool_api::SendingIp;
use relaypool_api::names::sender_name;

/// What is decided for one SendingIp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assignment {
    /// It belongs to this sender: already, or from now on.
    Sender(String),
    /// Another SendingIp, named here, has the same address and came first.
    Duplicate(String),
    /// The pool has no senders.
    NoSenders,
}

/// Decides for every SendingIp of a pool, by name.
///
/// `ips` are the valid SendingIps of one namespace, those of other pools too: an address has one reputation, so only one
/// SendingIp of the namespace may use it. An assignment once made is kept, whatever happens to the pool; a new one goes to
/// the sender with the fewest addresses, the lowest ordinal among equals, and older objects choose first. The decision for
/// one depends only on the objects, so it is the same whichever of them is looked at.
pub fn assign(pool: &str, replicas: u32, ips: &[&SendingIp]) -> BTreeMap<String, Assignment> {
    let holders = holders(ips);
    let mut load: BTreeMap<u32, usize> = (0..replicas).map(|ordinal| (ordinal, 0)).collect();
    let ordinals: BTreeMap<String, u32> = (0..replicas)
        .map(|ordinal| (sender_name(pool, ordinal), ordinal))
        .collect();
    let mut decided = BTreeMap::new();
    let mut waiting = Vec::new();

    for ip in ips.iter().filter(|ip| ip.spec.pool == pool) {
        let holder = holders
            .get(&ip.spec.address)
            .map_or_else(|| ip.name_any(), |holder| holder.name_any());
        if holder != ip.name_any() {
            decided.insert(ip.name_any(), Assignment::Duplicate(holder));
        } else if let Some(sender) = sender_of(ip) {
            if let Some(count) = ordinals.get(sender).and_then(|ordinal| load.get_mut(ordinal)) {
                *count += 1;
            }
            decided.insert(ip.name_any(), Assignment::Sender(sender.to_owned()));
        } else {
            waiting.push(*ip);
        }
    }

    waiting.sort_by_key(|ip| age(ip));
    for ip in waiting {
        let assignment = match load.iter_mut().min_by_key(|(ordinal, count)| (**count, **ordinal)) {
            Some((ordinal, count)) => {
                *count += 1;
                Assignment::Sender(sender_name(pool, *ordinal))
            }
            None => Assignment::NoSenders,
        };
        decided.insert(ip.name_any(), assignment);
    }
    decided
}

/// Which SendingIp may use each address: one that has a sender before one that has none, then the older.
fn holders<'a>(ips: &[&'a SendingIp]) -> BTreeMap<IpAddr, &'a SendingIp> {
    let mut holders = BTreeMap::<IpAddr, &SendingIp>::new();
    let rank = |ip: &SendingIp| (sender_of(ip).is_none(), age(ip));
    for &ip in ips {
        holders
            .entry(ip.spec.address)
            .and_modify(|holder| {
                if rank(ip) < rank(holder) {
                    *holder = ip;
                }
            })
            .or_insert(ip);
    }
    holders
}

fn sender_of(ip: &SendingIp) -> Option<&str> {
    ip.status.as_ref()?.sender.as_deref()
}

/// Older first; the name decides within one second. An object without a time, which no API server returns, is the oldest.
fn age(ip: &SendingIp) -> (Option<Time>, String) {
    (ip.meta().creation_timestamp.clone(), ip.name_any())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn ip(name: &str, pool: &str, address: &str, second: u32, sender: Option<&str>) -> SendingIp {
        serde_json::from_value(json!({
            "apiVersion": "relaypool.dev/v1alpha1",
            "kind": "SendingIp",
            "metadata": { "name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z") },
            "spec": { "pool": pool, "address": address, "ehloName": "mx.example.com" },
            "status": { "sender": sender },
        }))
        .unwrap()
    }

    fn decide(pool: &str, replicas: u32, ips: &[SendingIp]) -> BTreeMap<String, Assignment> {
        assign(pool, replicas, &ips.iter().collect::<Vec<_>>())
    }

    fn sender(name: &str) -> Assignment {
        Assignment::Sender(name.to_owned())
    }

    #[test]
    fn older_addresses_choose_first_and_senders_fill_evenly() {
        let ips = [
            ip("d", "pool", "192.0.2.4", 9, None),
            ip("c", "pool", "192.0.2.3", 1, None),
            ip("b", "pool", "192.0.2.2", 5, None),
            ip("a", "pool", "192.0.2.1", 5, None),
        ];
        let decided = decide("pool", 2, &ips);
        assert_eq!(decided["c"], sender("pool-0"));
        assert_eq!(decided["a"], sender("pool-1"));
        assert_eq!(decided["b"], sender("pool-0"));
        assert_eq!(decided["d"], sender("pool-1"));
    }

    #[test]
    fn an_assignment_is_kept_even_when_its_sender_is_gone() {
        let ips = [
            ip("a", "pool", "192.0.2.1", 1, Some("pool-7")),
            ip("b", "pool", "192.0.2.2", 2, Some("pool-0")),
            ip("c", "pool", "192.0.2.3", 3, None),
        ];
        let decided = decide("pool", 2, &ips);
        assert_eq!(decided["a"], sender("pool-7"));
        assert_eq!(decided["b"], sender("pool-0"));
        assert_eq!(decided["c"], sender("pool-1"));
    }

    #[test]
    fn one_address_has_one_holder_in_the_namespace() {
        let ips = [
            ip("young", "pool", "192.0.2.1", 9, None),
            ip("old", "pool", "192.0.2.1", 1, None),
            ip("older-but-late", "pool", "2001:db8::1", 1, None),
            ip("assigned", "pool", "2001:db8::1", 9, Some("pool-0")),
            ip("elsewhere", "other", "192.0.2.9", 1, None),
            ip("here", "pool", "192.0.2.9", 2, None),
        ];
        let decided = decide("pool", 1, &ips);
        assert_eq!(decided["young"], Assignment::Duplicate("old".into()));
        assert_eq!(decided["old"], sender("pool-0"));
        assert_eq!(decided["older-but-late"], Assignment::Duplicate("assigned".into()));
        assert_eq!(decided["here"], Assignment::Duplicate("elsewhere".into()));
        assert!(!decided.contains_key("elsewhere"), "of another pool");
    }

    #[test]
    fn a_pool_without_senders_assigns_nothing_new() {
        let ips = [
            ip("a", "pool", "192.0.2.1", 1, None),
            ip("b", "pool", "192.0.2.2", 1, Some("pool-0")),
        ];
        let decided = decide("pool", 0, &ips);
        assert_eq!(decided["a"], Assignment::NoSenders);
        assert_eq!(decided["b"], sender("pool-0"));
    }

    proptest! {
        /// Whatever order objects come in, the decision is the same, and new ones differ by one address at most.
        #[test]
        fn balanced_and_independent_of_order(
            seconds in proptest::collection::vec(0_u32..60, 1..40),
            replicas in 1_u32..9,
            rotation in 0_usize..40,
        ) {
            let mut ips: Vec<_> = seconds
                .iter()
                .enumerate()
                .map(|(index, &second)| ip(&format!("ip-{index}"), "pool", &format!("192.0.2.{index}"), second, None))
                .collect();
            let decided = decide("pool", replicas, &ips);
            let middle = rotation % ips.len();
            ips.rotate_left(middle);
            prop_assert_eq!(&decide("pool", replicas, &ips), &decided);

            let mut counts = vec![0_i64; replicas as usize];
            for assignment in decided.values() {
                let Assignment::Sender(name) = assignment else { panic!("{assignment:?}") };
                counts[name.strip_prefix("pool-").unwrap().parse::<usize>().unwrap()] += 1;
            }
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }
    }
}
