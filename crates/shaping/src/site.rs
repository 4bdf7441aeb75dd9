//! MX sites.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use relaypool_api::Domain;
use serde::{Deserialize, Serialize};

/// Provider groups that a name lists; of more, the rest is a digest.
const MOST_NAMED: usize = 3;

/// Second-level labels under which countries register names, as in `example.co.uk`.
const SECOND_LEVEL: [&str; 22] = [
    "ac", "asn", "co", "com", "edu", "go", "gob", "gouv", "gov", "gv", "id", "ltd", "mil", "ne", "net", "nhs", "nom",
    "or", "org", "plc", "sch", "web",
];

/// The hosts that take a domain's mail, as one name that all domains of one provider share.
///
/// A receiving provider counts connections and messages by sending IP over all domains it hosts, so what is learned with one
/// domain holds for all. The name is made of the hosts of the best preference (those of a worse one are often somebody
/// else's back-up):
///
/// 1. of each host the first label goes, as it names the machine or the customer, but never so far that less than a
///    registrable domain is left: `alt1.aspmx.l.google.com` → `aspmx.l.google.com`,
///    `example-com.mail.protection.outlook.com` → `mail.protection.outlook.com`, `mx.example.co.uk` → `example.co.uk`;
/// 2. what is left of hosts under one registrable domain is cut to the labels they have in common;
/// 3. hosts under several registrable domains make a combined name, in alphabetical order: `example.com+example.net`.
///
/// A host that is an IPv4 address (a common mistake in MX records) stays whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Site(Arc<str>);

impl Site {
    /// The site of a domain with these MX hosts of the best preference, in any order. A domain without any is nobody's: `-`.
    pub fn of(hosts: &[Domain]) -> Self {
        let mut groups: BTreeMap<&str, &str> = BTreeMap::new();
        for host in hosts {
            let stem = stem(host.as_str());
            groups
                .entry(registrable(stem))
                .and_modify(|common| *common = common_suffix(common, stem))
                .or_insert(stem);
        }
        let mut names: Vec<&str> = groups.into_values().collect();
        names.sort_unstable();
        let name = match &names[..] {
            [] => "-".to_owned(),
            [named @ .., _] if named.len() >= MOST_NAMED => {
                let (named, rest) = names.split_at(MOST_NAMED);
                format!("{}+{:016x}", named.join("+"), digest(rest))
            }
            _ => names.join("+"),
        };
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Site {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The hosts of the best (lowest) preference among `(preference, host)`.
pub fn best_preference<'a>(hosts: impl IntoIterator<Item = (u16, &'a Domain)>) -> Vec<Domain> {
    let hosts: Vec<_> = hosts.into_iter().collect();
    let best = hosts.iter().map(|(preference, _)| *preference).min();
    hosts
        .into_iter()
        .filter(|(preference, _)| Some(*preference) == best)
        .map(|(_, host)| host.clone())
        .collect()
}

/// The host without its first label, or all of it where less than a registrable domain would be left.
fn stem(host: &str) -> &str {
    match host.split_once('.') {
        Some((_, rest)) if rest.len() >= registrable(host).len() => rest,
        _ => host,
    }
}

/// The part of a name that somebody registered: its last two labels, or three under a country's second level. An address
/// is whole. An estimate: it need not be right for every registry, only the same for all hosts of one provider.
fn registrable(name: &str) -> &str {
    if name.parse::<Ipv4Addr>().is_ok() {
        return name;
    }
    let mut labels = name.rsplit('.');
    let (top, second) = (labels.next().unwrap_or_default(), labels.next().unwrap_or_default());
    let labels = if top.len() == 2 && SECOND_LEVEL.contains(&second) {
        3
    } else {
        2
    };
    match name.rmatch_indices('.').nth(labels - 1) {
        Some((dot, _)) => &name[dot + 1..],
        None => name,
    }
}

/// The last labels that both names have.
fn common_suffix<'a>(one: &'a str, other: &str) -> &'a str {
    let labels = one
        .rsplit('.')
        .zip(other.rsplit('.'))
        .take_while(|(one, other)| one == other)
        .count();
    match one.rmatch_indices('.').nth(labels.saturating_sub(1)) {
        Some((dot, _)) => &one[dot + 1..],
        None => one,
    }
}

/// FNV-1a: the same on every machine and in every version, as a name must be.
fn digest(names: &[&str]) -> u64 {
    names
        .iter()
        .flat_map(|name| name.bytes().chain([b'+']))
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hosts(names: &[&str]) -> Vec<Domain> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn hosts_of_one_provider_are_one_site() {
        for (names, site) in [
            // A large provider, with and without its alternatives.
            (&["aspmx.l.google.com"][..], "l.google.com"),
            (&["aspmx.l.google.com", "alt1.aspmx.l.google.com"], "l.google.com"),
            (&["gmail-smtp-in.l.google.com"], "l.google.com"),
            // One host for each customer.
            (
                &["example-com.mail.protection.outlook.com"],
                "mail.protection.outlook.com",
            ),
            (
                &["example-org.mail.protection.outlook.com"],
                "mail.protection.outlook.com",
            ),
            // Numbered hosts.
            (
                &[
                    "mta5.am0.yahoodns.net",
                    "mta6.am0.yahoodns.net",
                    "mta7.am0.yahoodns.net",
                ],
                "am0.yahoodns.net",
            ),
            // Self-hosted.
            (&["mx1.example.org", "mx2.example.org"], "example.org"),
            (&["mail.example.org"], "example.org"),
            (&["example.org"], "example.org"),
            (&["MAIL.Example.co.uk"], "example.co.uk"),
            (&["example.co.uk"], "example.co.uk"),
            (&["mx.gmx.de", "mx2.gmx.de"], "gmx.de"),
            // Clusters of one provider.
            (&["mx1.eu.example.net", "mx1.us.example.net"], "example.net"),
            // Several providers, in any order.
            (&["mx.b.example", "mx.a.example"], "a.example+b.example"),
            (&["mx.a.example", "mx.b.example"], "a.example+b.example"),
            // Addresses and single labels.
            (&["192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.1", "192.0.2.2"], "192.0.2.1+192.0.2.2"),
            (&["localhost"], "localhost"),
            (&[], "-"),
        ] {
            assert_eq!(Site::of(&hosts(names)).as_str(), site, "{names:?}");
        }
    }

    #[test]
    fn a_name_stays_short_and_apart() {
        let many: Vec<String> = (0..40).map(|number| format!("mx.provider{number}.example")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let (all, fewer) = (Site::of(&hosts(&many)), Site::of(&hosts(&many[..39])));
        assert_ne!(all, fewer);
        assert!(all.as_str().len() < 100, "{all}");
    }

    #[test]
    fn only_the_best_preference_counts() {
        let (main, second, backup): (Domain, Domain, Domain) = (
            "mx1.example.org".parse().unwrap(),
            "mx2.example.org".parse().unwrap(),
            "backup.example.net".parse().unwrap(),
        );
        let best = best_preference([(20, &backup), (10, &main), (10, &second)]);
        assert_eq!(best, [main, second]);
        assert_eq!(best_preference([]), []);
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(names in proptest::collection::vec("[a-c]{1,2}(\\.[a-c]{1,2}){0,4}", 1..8), turn in 0_usize..8) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut other = hosts(&names);
            other.rotate_left(turn % names.len());
            other.push(other[0].clone());
            prop_assert_eq!(Site::of(&hosts(&names)), Site::of(&other));
        }
    }
}
