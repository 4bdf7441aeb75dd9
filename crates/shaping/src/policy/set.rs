//! Which policies apply, and in what order.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use relaypool_api::mx_policy::MxPolicySpec;
use relaypool_api::{Domain, Mask};

use super::effective::{Applicable, EffectivePolicy, MatchedBy, Precedence};
use super::index::{MaskIndex, PolicyNumber};
use crate::reply_rules::CompiledRule;

/// All policies of a namespace, ready to be asked.
#[derive(Debug, Default)]
pub struct PolicySet {
    policies: Vec<Policy>,
    domains: MaskIndex,
    mx_hosts: MaskIndex,
}

#[derive(Debug)]
struct Policy {
    name: Arc<str>,
    spec: MxPolicySpec,
    reply_rules: Vec<Arc<CompiledRule>>,
}

/// How narrow a match is: a mask without wildcards is narrower than any with; then the number of characters that are none.
type Narrowness = (bool, usize);

impl PolicySet {
    /// The policies by object name.
    pub fn new(policies: Vec<(String, MxPolicySpec)>) -> Self {
        let mut set = Self::default();
        for (number, (name, spec)) in policies.into_iter().enumerate() {
            for mask in &spec.matches.domains {
                set.domains.insert(mask, number);
            }
            for mask in &spec.matches.mx_hosts {
                set.mx_hosts.insert(mask, number);
            }
            let rules = spec.reply_rules.iter().cloned();
            set.policies.push(Policy {
                name: name.into(),
                reply_rules: rules.map(|rule| Arc::new(CompiledRule::new(rule))).collect(),
                spec,
            });
        }
        set
    }

    /// What applies to mail of `pool` for `domain`, whose MX hosts of the best preference are `hosts`.
    ///
    /// A policy applies when one of its domain masks fits the domain, or when every one of `hosts` fits one of its MX masks.
    /// (Every one: mail goes to any of them, and a limit for one provider must not bind another's hosts. The best
    /// preference only: back-up hosts are often somebody else's.) Of several policies that set the same field, the higher
    /// priority wins; then the narrower match, where a mask without wildcards is narrower than one with, and the longer mask
    /// than the shorter; then the name that comes first in the alphabet.
    pub fn resolve(&self, pool: &str, domain: &Domain, hosts: &[Domain]) -> EffectivePolicy {
        let mut matches: Vec<(Narrowness, Applicable<'_>)> = self
            .candidates(domain, hosts)
            .into_iter()
            .filter_map(|number| self.policies[number].matched(pool, domain, hosts))
            .collect();
        matches.sort_by_cached_key(|(narrowness, policy)| {
            (
                Reverse(policy.spec.priority),
                Reverse(*narrowness),
                Arc::clone(policy.name),
            )
        });
        Precedence(matches.into_iter().map(|(_, policy)| policy).collect()).resolve()
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
    fn matched(&self, pool: &str, domain: &Domain, hosts: &[Domain]) -> Option<(Narrowness, Applicable<'_>)> {
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
            (Some((false, 0)), None) => MatchedBy::EveryDomain,
            (Some(_), None) => MatchedBy::Domain,
            (None, None) => return None,
        };
        let narrowness = by_domain.max(by_hosts)?;
        Some((
            narrowness,
            Applicable {
                name: &self.name,
                spec: &self.spec,
                reply_rules: &self.reply_rules,
                by,
            },
        ))
    }
}

/// The narrowest of the masks that fit the name.
fn narrowest(masks: &[Mask], name: &Domain) -> Option<Narrowness> {
    masks
        .iter()
        .filter(|mask| mask.matches(name.as_str()))
        .map(|mask| (!mask.as_str().contains(['*', '?']), mask.specificity()))
        .max()
}
