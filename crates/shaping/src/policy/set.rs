//! Which policies apply, and in what order.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use relaypool_api::mx_policy::MxPolicySpec;
use relaypool_api::relay_pool::ProviderProfiles;
use relaypool_api::{Domain, Mask};

use super::effective::{Applicable, EffectivePolicy, MatchedBy, Origin, Precedence};
use super::index::{MaskIndex, PolicyNumber};
use super::profiles::profiles;
use crate::reply_rules::CompiledRule;

/// All policies of a namespace, and the built-in profiles below them, ready to be asked.
#[derive(Debug, Default)]
pub struct PolicySet {
    policies: Vec<Policy>,
    domains: MaskIndex,
    mx_hosts: MaskIndex,
}

#[derive(Debug)]
struct Policy {
    name: Arc<str>,
    is_profile: bool,
    spec: MxPolicySpec,
    reply_rules: Vec<Arc<CompiledRule>>,
}

/// A policy that applies, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Applies<'a> {
    /// Which it is.
    pub origin: Origin,
    /// What it says.
    pub spec: &'a MxPolicySpec,
}

/// How narrow a match is, the narrower the greater.
type Narrowness = (Target, MaskWidth);

/// What a mask speaks of. A domain is narrower than the site that hosts it among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    EveryDomain,
    Site,
    Domain,
}

/// A mask without wildcards is narrower than any with; then the number of characters that are none counts.
type MaskWidth = (bool, usize);

impl PolicySet {
    /// The policies by object name, and the built-in profiles.
    pub fn new(policies: Vec<(String, MxPolicySpec)>) -> Self {
        let mut set = Self::without_profiles(policies);
        for profile in profiles() {
            set.add(Arc::clone(&profile.name), true, profile.spec.clone());
        }
        set
    }

    /// The policies by object name alone.
    pub fn without_profiles(policies: Vec<(String, MxPolicySpec)>) -> Self {
        let mut set = Self::default();
        for (name, spec) in policies {
            set.add(name.into(), false, spec);
        }
        set
    }

    /// What a pool has: the policies by object name, and the built-in profiles unless it does without.
    pub fn of_pool(policies: Vec<(String, MxPolicySpec)>, profiles: ProviderProfiles) -> Self {
        match profiles {
            ProviderProfiles::Enabled => Self::new(policies),
            ProviderProfiles::Disabled => Self::without_profiles(policies),
        }
    }

    fn add(&mut self, name: Arc<str>, is_profile: bool, spec: MxPolicySpec) {
        let number = self.policies.len();
        for mask in &spec.matches.domains {
            self.domains.insert(mask, number);
        }
        for mask in &spec.matches.mx_hosts {
            self.mx_hosts.insert(mask, number);
        }
        let rules = spec.reply_rules.iter().cloned();
        self.policies.push(Policy {
            name,
            is_profile,
            reply_rules: rules.map(|rule| Arc::new(CompiledRule::new(rule))).collect(),
            spec,
        });
    }

    /// What applies to mail of `pool` for `domain`, whose MX hosts of the best preference are `hosts`.
    ///
    /// A policy applies when one of its domain masks fits the domain, or when every one of `hosts` fits one of its MX masks.
    /// (Every one: mail goes to any of them, and a limit for one provider must not bind another's hosts. The best
    /// preference only: back-up hosts are often somebody else's.) Of several policies that set the same field, the higher
    /// priority wins; then the narrower match: a mask that fits the domain is narrower than one that fits its MX hosts, and
    /// that than one that fits every domain; among those, a mask without wildcards is narrower than one with, and the longer
    /// mask than the shorter; then the name that comes first in the alphabet. A built-in profile comes after every policy.
    pub fn resolve(&self, pool: &str, domain: &Domain, hosts: &[Domain]) -> EffectivePolicy {
        Precedence(self.applicable(pool, domain, hosts)).resolve()
    }

    /// The policies that [`resolve`](Self::resolve) goes by, the strongest first.
    pub fn applying(&self, pool: &str, domain: &Domain, hosts: &[Domain]) -> Vec<Applies<'_>> {
        let applicable = self.applicable(pool, domain, hosts).into_iter();
        applicable
            .map(|Applicable { origin, spec, .. }| Applies { origin, spec })
            .collect()
    }

    fn applicable(&self, pool: &str, domain: &Domain, hosts: &[Domain]) -> Vec<Applicable<'_>> {
        let mut matches: Vec<(Narrowness, &Policy, MatchedBy)> = self
            .candidates(domain, hosts)
            .into_iter()
            .map(|number| &self.policies[number])
            .filter_map(|policy| {
                let (narrowness, by) = policy.matched(pool, domain, hosts)?;
                Some((narrowness, policy, by))
            })
            .collect();
        matches.sort_by_key(|(narrowness, policy, _)| {
            (
                policy.is_profile,
                Reverse(policy.spec.priority),
                Reverse(*narrowness),
                &policy.name,
            )
        });
        matches
            .into_iter()
            .map(|(_, policy, by)| policy.applicable(by))
            .collect()
    }

    fn candidates(&self, domain: &Domain, hosts: &[Domain]) -> BTreeSet<PolicyNumber> {
        let mut found = BTreeSet::new();
        self.domains.candidates(domain.as_str(), &mut found);
        // As every host has to match, looking up one is enough.
        if let Some(host) = hosts.first() {
            self.mx_hosts.candidates(host.as_str(), &mut found);
        }
        found
    }
}

impl Policy {
    fn matched(&self, pool: &str, domain: &Domain, hosts: &[Domain]) -> Option<(Narrowness, MatchedBy)> {
        if !self.spec.pools.is_empty() && !self.spec.pools.iter().any(|name| name == pool) {
            return None;
        }
        let by_domain = narrowest(&self.spec.matches.domains, domain);
        // The hosts match as narrowly as the one that matches worst.
        let by_hosts = hosts
            .iter()
            .map(|host| narrowest(&self.spec.matches.mx_hosts, host))
            .min()
            .flatten();
        let by = match (by_domain, by_hosts) {
            (_, Some(_)) => MatchedBy::MxHosts,
            (Some(EVERYTHING), None) => MatchedBy::EveryDomain,
            (Some(_), None) => MatchedBy::Domain,
            (None, None) => return None,
        };
        let target = |width| match width {
            EVERYTHING => Target::EveryDomain,
            _ => Target::Domain,
        };
        let narrowness = by_domain
            .map(|width| (target(width), width))
            .max(by_hosts.map(|width| (Target::Site, width)))?;
        Some((narrowness, by))
    }

    fn applicable(&self, by: MatchedBy) -> Applicable<'_> {
        let name = Arc::clone(&self.name);
        Applicable {
            origin: if self.is_profile {
                Origin::Profile { name }
            } else {
                Origin::Policy { name, by }
            },
            spec: &self.spec,
            reply_rules: &self.reply_rules,
        }
    }
}

/// The width of a mask that fits every name.
const EVERYTHING: MaskWidth = (false, 0);

/// The narrowest of the masks that fit the name.
fn narrowest(masks: &[Mask], name: &Domain) -> Option<MaskWidth> {
    masks
        .iter()
        .filter(|mask| mask.matches(name.as_str()))
        .map(|mask| (!mask.as_str().contains(['*', '?']), mask.specificity()))
        .max()
}
