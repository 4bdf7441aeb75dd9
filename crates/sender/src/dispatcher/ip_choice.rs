//! Which of the sending IPs a message leaves from.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use relaypool_spool::MessageKey;

use super::path_state::PathState;
use super::source_ip::SourceIp;
use crate::connect::same_family;
use crate::resolver::Route;

/// A message that looks for its IP.
pub(crate) struct Seeker<'a> {
    pub(crate) key: MessageKey,
    /// IPs that its Delivery allows.
    pub(crate) affinity: Option<&'a LabelSelector>,
    /// The IP it was tried from, if it was.
    pub(crate) tried: Option<&'a str>,
    /// Whether it leaves from another IP when that one is blocked.
    pub(crate) moves: bool,
}

/// What a message would meet on the lane of an IP.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outlook {
    pub(crate) path: PathState,
    /// The IP is warm, or its warm-up has room for the site.
    pub(crate) has_room: bool,
}

impl Outlook {
    fn is_open(self) -> bool {
        self.path == PathState::Open
    }
}

/// The IP for a message: of its [`candidates`], one by weight.
///
/// The choice is a weighted rendezvous hash of the message: among the same candidates it is the same whenever it is made,
/// and when an IP comes or goes, only the messages that it wins or loses change.
pub(crate) fn choose<'a>(
    ips: impl Iterator<Item = &'a SourceIp>,
    seeker: &Seeker<'_>,
    route: &Route,
    outlook: impl Fn(&SourceIp) -> Outlook,
) -> Option<&'a SourceIp> {
    candidates(ips, seeker, route, outlook)
        .into_iter()
        .max_by(|one, other| score(one, seeker.key).total_cmp(&score(other, seeker.key)))
}

/// The IPs that a message may leave from now. Each step looks at what the one before has left:
///
/// 1. Those that its affinity allows and that reach a host of the route. Without an affinity those of weight 0 are for
///    nobody, but for a message that was tried from one already.
/// 2. The one it was tried from, and no other: greylisting hosts remember the address, and a refused message that comes from
///    one address after the other looks like an attempt to get around the refusal. Not when a person suspended that IP and
///    there is another, not when it is blocked there, the message may move, and another's path is open, and not when its
///    warm-up has no room and another has.
/// 3. Those that no person suspended; all, if there is no such one.
/// 4. Those whose path to the site is open; all, if there is no such one.
/// 5. Those whose warm-up has room; all, if there is no such one: then the message waits for the next day.
///
/// What is left shares by weight.
fn candidates<'a>(
    ips: impl Iterator<Item = &'a SourceIp>,
    seeker: &Seeker<'_>,
    route: &Route,
    outlook: impl Fn(&SourceIp) -> Outlook,
) -> Vec<&'a SourceIp> {
    let selector = seeker.affinity.map(|affinity| Selector::try_from(affinity.clone()));
    let is_allowed = |ip: &SourceIp| match &selector {
        None => ip.weight > 0 || seeker.tried == Some(ip.name.as_str()),
        Some(Ok(selector)) => selector.matches(&ip.labels),
        Some(Err(_)) => false,
    };
    let mut candidates: Vec<&SourceIp> = ips.filter(|ip| is_allowed(ip) && reaches(ip, route)).collect();
    let is_open = |ip: &SourceIp| !ip.suspended && outlook(ip).is_open();
    let has_room = |ip: &SourceIp| outlook(ip).has_room;
    if let Some(tried) = seeker.tried
        && let Some(index) = candidates.iter().position(|ip| ip.name == tried)
    {
        let tried = candidates[index];
        let may_leave = if tried.suspended {
            candidates.iter().any(|ip| !ip.suspended)
        } else {
            let is_blocked = seeker.moves && outlook(tried).path == PathState::Blocked;
            is_blocked && candidates.iter().any(|ip| is_open(ip))
                || !has_room(tried) && candidates.iter().any(|ip| is_open(ip) && has_room(ip))
        };
        if !may_leave {
            return vec![tried];
        }
        // One of weight 0 was here for this message's sake alone.
        candidates.retain(|ip| ip.weight > 0 || selector.is_some());
    }
    prefer(&mut candidates, |ip| !ip.suspended);
    prefer(&mut candidates, |ip| outlook(ip).is_open());
    prefer(&mut candidates, has_room);
    candidates
}

/// Leaves those that are `good`, if there is any.
fn prefer(candidates: &mut Vec<&SourceIp>, good: impl Fn(&SourceIp) -> bool) {
    if candidates.iter().any(|ip| good(ip)) {
        candidates.retain(|ip| good(ip));
    }
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
    use std::collections::BTreeMap;
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

    fn seeker(index: u32) -> Seeker<'static> {
        Seeker {
            key: key(index),
            affinity: None,
            tried: None,
            moves: false,
        }
    }

    fn open(_: &SourceIp) -> Outlook {
        Outlook {
            path: PathState::Open,
            has_room: true,
        }
    }

    #[test]
    fn weights_share_the_mail() {
        let ips = [ip("a", 5), ip("b", 5), ip("c", 1)];
        let mut counts = BTreeMap::new();
        for index in 0..11_000 {
            let chosen = choose(ips.iter(), &seeker(index), &route("127.0.0.2"), open).unwrap();
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
            let before = choose(ips.iter(), &seeker(index), &route("127.0.0.2"), open).unwrap();
            let rest = ips.iter().filter(|ip| ip.name != "c");
            let after = choose(rest, &seeker(index), &route("127.0.0.2"), open).unwrap();
            assert!(before.name == "c" || before == after);
        }
    }

    /// Names of IPs: those that are allowed by weight, and what is known of each.
    #[derive(Default)]
    struct Case {
        affinity: Option<&'static str>,
        tried: Option<&'static str>,
        moves: bool,
        /// By a person.
        suspended: &'static [&'static str],
        /// By its pacer.
        paused: &'static [&'static str],
        blocked: &'static [&'static str],
        full: &'static [&'static str],
    }

    impl Case {
        /// The candidates among `a` and `b`, and `zero`, which has no weight.
        fn candidates(&self) -> String {
            let ips = [("a", 1), ("b", 1), ("zero", 0)].map(|(name, weight)| SourceIp {
                suspended: self.suspended.contains(&name),
                ..ip(name, weight)
            });
            let affinity: Option<LabelSelector> = self.affinity.map(|tiers| {
                let tiers: Vec<&str> = tiers.split(' ').collect();
                let expression = serde_json::json!({ "key": "tier", "operator": "In", "values": tiers });
                serde_json::from_value(serde_json::json!({ "matchExpressions": [expression] })).unwrap()
            });
            let seeker = Seeker {
                affinity: affinity.as_ref(),
                tried: self.tried,
                moves: self.moves,
                ..seeker(1)
            };
            let outlook = |ip: &SourceIp| Outlook {
                path: match ip.name.as_str() {
                    name if self.blocked.contains(&name) => PathState::Blocked,
                    name if self.paused.contains(&name) => PathState::Suspended,
                    _ => PathState::Open,
                },
                has_room: !self.full.contains(&ip.name.as_str()),
            };
            let names = candidates(ips.iter(), &seeker, &route("127.0.0.2"), outlook);
            names.iter().map(|ip| ip.name.as_str()).collect::<Vec<_>>().join(" ")
        }
    }

    #[test]
    fn what_finds_no_room_in_a_warm_up_goes_to_another_ip_or_waits() {
        let base = Case::default;
        for (full, tried, expected) in [
            (&["a"][..], None, "b"),
            (&["a", "b"], None, "a b"),
            (&["a"], Some("a"), "b"),
            (&["a", "b"], Some("a"), "a"),
            (&["b"], Some("a"), "a"),
        ] {
            let case = Case { full, tried, ..base() };
            assert_eq!(case.candidates(), expected, "{full:?} {tried:?}");
        }
    }

    #[test]
    fn new_messages_pass_over_what_does_not_send() {
        let base = Case::default;
        for (case, expected) in [
            (base(), "a b"),
            (
                Case {
                    suspended: &["a"],
                    ..base()
                },
                "b",
            ),
            (
                Case {
                    paused: &["a"],
                    ..base()
                },
                "b",
            ),
            (
                Case {
                    blocked: &["b"],
                    ..base()
                },
                "a",
            ),
            (
                Case {
                    suspended: &["a"],
                    paused: &["b"],
                    ..base()
                },
                "b",
            ),
            (
                Case {
                    paused: &["a"],
                    blocked: &["b"],
                    ..base()
                },
                "a b",
            ),
            (
                Case {
                    suspended: &["a", "b"],
                    ..base()
                },
                "a b",
            ),
            (
                Case {
                    affinity: Some("zero"),
                    ..base()
                },
                "zero",
            ),
            (
                Case {
                    affinity: Some("zero b"),
                    paused: &["b"],
                    ..base()
                },
                "zero",
            ),
            (
                Case {
                    affinity: Some("nobody"),
                    ..base()
                },
                "",
            ),
        ] {
            assert_eq!(case.candidates(), expected);
        }
    }

    #[test]
    fn a_message_that_was_tried_keeps_its_ip() {
        let tried = || Case {
            tried: Some("a"),
            ..Case::default()
        };
        let moving = || Case { moves: true, ..tried() };
        for (case, expected) in [
            (tried(), "a"),
            (
                Case {
                    paused: &["a"],
                    ..tried()
                },
                "a",
            ),
            (
                Case {
                    blocked: &["a"],
                    ..tried()
                },
                "a",
            ),
            (
                Case {
                    tried: Some("gone"),
                    ..tried()
                },
                "a b",
            ),
            (
                Case {
                    tried: Some("zero"),
                    ..tried()
                },
                "zero",
            ),
            (
                Case {
                    affinity: Some("b"),
                    ..tried()
                },
                "b",
            ),
            // A person takes it out of service.
            (
                Case {
                    suspended: &["a"],
                    ..tried()
                },
                "b",
            ),
            (
                Case {
                    suspended: &["a", "b"],
                    ..tried()
                },
                "a",
            ),
            // It may move, but only from a block, and only to where the way is open.
            (moving(), "a"),
            (
                Case {
                    paused: &["a"],
                    ..moving()
                },
                "a",
            ),
            (
                Case {
                    blocked: &["a"],
                    ..moving()
                },
                "b",
            ),
            (
                Case {
                    blocked: &["a", "b"],
                    ..moving()
                },
                "a",
            ),
            (
                Case {
                    blocked: &["a"],
                    paused: &["b"],
                    ..moving()
                },
                "a",
            ),
            (
                Case {
                    blocked: &["a"],
                    suspended: &["b"],
                    ..moving()
                },
                "a",
            ),
            (
                Case {
                    blocked: &["a"],
                    affinity: Some("a"),
                    ..moving()
                },
                "a",
            ),
            (
                Case {
                    blocked: &["zero"],
                    tried: Some("zero"),
                    ..moving()
                },
                "a b",
            ),
        ] {
            assert_eq!(case.candidates(), expected);
        }
    }

    #[test]
    fn only_what_reaches_the_host_is_a_candidate() {
        let ips = [ip("a", 1)];
        assert!(choose(ips.iter(), &seeker(1), &route("::1"), open).is_none());
        let tried = Seeker {
            tried: Some("a"),
            ..seeker(1)
        };
        assert!(choose(ips.iter(), &tried, &route("::1"), open).is_none());
    }
}
