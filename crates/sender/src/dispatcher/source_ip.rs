//! The sending IPs of this sender, and which of them a message leaves from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use relaypool_api::{Domain, SendingIp};
use relaypool_spool::MessageKey;

use super::warm_up::WarmUpStart;
use crate::connect::same_family;
use crate::resolver::Route;

/// A sending IP that this sender owns.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceIp {
    /// Name of the SendingIp.
    pub name: String,
    /// The address that connections are bound to.
    pub bind: IpAddr,
    /// The address that receiving hosts see.
    pub address: IpAddr,
    /// The name for EHLO.
    pub ehlo_name: Domain,
    /// Share relative to other IPs.
    pub weight: u32,
    /// Nothing leaves from it.
    pub suspended: bool,
    /// Labels of the SendingIp, for the affinity of Deliveries.
    pub labels: BTreeMap<String, String>,
    /// Its warm-up; none for one that is warm.
    pub warm_up: Option<WarmUpStart>,
}

impl From<&SendingIp> for SourceIp {
    fn from(object: &SendingIp) -> Self {
        let spec = &object.spec;
        Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            bind: spec
                .egress
                .as_ref()
                .and_then(|egress| egress.bind)
                .unwrap_or(spec.address),
            address: spec.address,
            ehlo_name: spec.ehlo_name.clone(),
            weight: spec.weight,
            suspended: spec.suspend,
            labels: object.metadata.labels.clone().unwrap_or_default(),
            warm_up: WarmUpStart::of(object),
        }
    }
}

/// The IP for a message: among those that its affinity allows and that reach the route's hosts, by weight; one that is
/// not suspended if there is any.
///
/// The choice is a weighted rendezvous hash of the message: it stays the same at every attempt as long as the same IPs
/// are there, which is what a greylisting host remembers.
pub(crate) fn choose<'a>(
    ips: impl Iterator<Item = &'a SourceIp>,
    affinity: Option<&LabelSelector>,
    route: &Route,
    key: MessageKey,
) -> Option<&'a SourceIp> {
    let selector = affinity.map(|affinity| Selector::try_from(affinity.clone()));
    ips.filter(|ip| match &selector {
        None => ip.weight > 0,
        Some(Ok(selector)) => selector.matches(&ip.labels),
        Some(Err(_)) => false,
    })
    .filter(|ip| reaches(ip, route))
    .max_by(|one, other| {
        (!one.suspended)
            .cmp(&!other.suspended)
            .then_with(|| score(one, key).total_cmp(&score(other, key)))
    })
}

fn reaches(ip: &SourceIp, route: &Route) -> bool {
    route
        .hosts
        .iter()
        .flat_map(|host| &host.addresses)
        .any(|address| same_family(ip.bind, *address))
}

/// `-weight / ln(u)` with `u` uniform in (0, 1) from the hash of IP and message: the IP with the highest score wins with a
/// probability in proportion to its weight.
fn score(ip: &SourceIp, key: MessageKey) -> f64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in ip
        .name
        .bytes()
        .chain(key.slice.get().to_be_bytes())
        .chain(key.index.to_be_bytes())
    {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // FNV alone mixes the last bytes badly into the high bits: finish as splitmix64 does.
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    let uniform = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(ip.weight.max(1)) / uniform.ln()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use relaypool_spool::SliceNumber;

    use super::*;
    use crate::resolver::MxHost;

    fn ip(name: &str, weight: u32) -> SourceIp {
        SourceIp {
            name: name.to_owned(),
            bind: "127.0.0.1".parse().unwrap(),
            address: "127.0.0.1".parse().unwrap(),
            ehlo_name: "mail.example".parse().unwrap(),
            weight,
            suspended: false,
            labels: BTreeMap::from([("tier".to_owned(), name.to_owned())]),
            warm_up: None,
        }
    }

    fn route(address: &str) -> Route {
        let host = MxHost {
            name: "mx.example".parse().unwrap(),
            preference: 0,
            addresses: vec![address.parse().unwrap()],
        };
        Route {
            hosts: vec![host],
            valid_until: Instant::now(),
        }
    }

    fn key(index: u32) -> MessageKey {
        MessageKey {
            slice: SliceNumber::new(3),
            index,
        }
    }

    #[test]
    fn weights_share_the_mail() {
        let ips = [ip("a", 5), ip("b", 5), ip("c", 1)];
        let mut counts = BTreeMap::new();
        for index in 0..11_000 {
            let chosen = choose(ips.iter(), None, &route("127.0.0.2"), key(index)).unwrap();
            *counts.entry(chosen.name.clone()).or_insert(0_i32) += 1;
        }
        for (name, expected) in [("a", 5_000), ("b", 5_000), ("c", 1_000)] {
            assert!((counts[name] - expected).abs() < 250, "{counts:?}");
        }
    }

    #[test]
    fn a_message_keeps_its_ip_when_another_leaves() {
        let ips = [ip("a", 1), ip("b", 1), ip("c", 1)];
        for index in 0..100 {
            let before = choose(ips.iter(), None, &route("127.0.0.2"), key(index)).unwrap();
            let after = choose(
                ips.iter().filter(|ip| ip.name != "c"),
                None,
                &route("127.0.0.2"),
                key(index),
            )
            .unwrap();
            assert!(before.name == "c" || before == after);
        }
    }

    #[test]
    fn affinity_family_suspension_and_zero_weight() {
        let (mut a, b) = (ip("a", 1), ip("b", 0));
        let affinity: LabelSelector =
            serde_json::from_value(serde_json::json!({ "matchLabels": { "tier": "b" } })).unwrap();
        let ips = [a.clone(), b.clone()];
        assert_eq!(
            choose(ips.iter(), Some(&affinity), &route("127.0.0.2"), key(1))
                .unwrap()
                .name,
            "b"
        );
        assert_eq!(choose(ips.iter(), None, &route("127.0.0.2"), key(1)).unwrap().name, "a");
        assert!(choose(ips.iter(), None, &route("::1"), key(1)).is_none());
        a.suspended = true;
        let ips = [a, ip("c", 1)];
        assert_eq!(choose(ips.iter(), None, &route("127.0.0.2"), key(1)).unwrap().name, "c");
    }
}
