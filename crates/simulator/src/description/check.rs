use std::collections::HashSet;

use relaypool_api::Domain;
use relaypool_api::reply::Phase;

use super::{Answer, Behaviour, DailyQuota, Disconnects, Provider, RateLimit, Refusals, World, Zone};

/// Why a [`World`] cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    /// A provider that could never be reached.
    #[error("provider '{0}' has no MX host: list at least one under mxHosts")]
    NoMxHost(String),
    /// Two providers of one name: the books could not tell them apart.
    #[error("two providers are named '{0}': give each its own name")]
    ProviderTwice(String),
    /// A host has one address, so it is listed once.
    #[error("the MX host '{0}' is listed twice: give every provider hosts of its own")]
    HostTwice(Domain),
    /// Two providers would both be responsible.
    #[error("the domain '{0}' belongs to two providers: list it under one")]
    DomainTwice(Domain),
    /// One name, two facts.
    #[error("'{0}' is listed twice under zones: keep one entry")]
    ZoneTwice(Domain),
    /// The name is an MX host of a provider, so its DNS facts are given already.
    #[error("'{0}' is an MX host of a provider: it cannot be listed under zones as well")]
    ZoneIsHost(Domain),
    /// A record that points at nothing known is most likely a misspelling.
    #[error(
        "'{zone}' points at '{host}', which is no provider's MX host: add it to a provider, or to zones as unreachable, servFail or missing"
    )]
    UnknownHost {
        /// The zone entry.
        zone: Domain,
        /// The host it names.
        host: Domain,
    },
    /// Something in the description of a provider does not go together.
    #[error("provider '{provider}': {problem}")]
    BadProvider {
        /// The provider's name.
        provider: String,
        /// What is wrong and how to put it right.
        problem: String,
    },
}

impl World {
    /// Checks what the single fields cannot say about themselves.
    ///
    /// # Errors
    ///
    /// The first contradiction found.
    pub fn check(&self) -> Result<(), WorldError> {
        self.check_providers()?;
        self.check_zones()
    }

    fn check_providers(&self) -> Result<(), WorldError> {
        let (mut names, mut hosts, mut domains) = (HashSet::new(), HashSet::new(), HashSet::new());
        for provider in &self.providers {
            if !names.insert(&provider.name) {
                return Err(WorldError::ProviderTwice(provider.name.clone()));
            }
            if provider.mx_hosts.is_empty() {
                return Err(WorldError::NoMxHost(provider.name.clone()));
            }
            if let Some(host) = provider.mx_hosts.iter().find(|host| !hosts.insert(&host.name)) {
                return Err(WorldError::HostTwice(host.name.clone()));
            }
            if let Some(domain) = provider.domains.iter().find(|domain| !domains.insert(*domain)) {
                return Err(WorldError::DomainTwice(domain.clone()));
            }
            if let Some(problem) = provider.problem() {
                return Err(WorldError::BadProvider {
                    provider: provider.name.clone(),
                    problem,
                });
            }
        }
        Ok(())
    }

    fn check_zones(&self) -> Result<(), WorldError> {
        let hosts: HashSet<&Domain> = self.mx_hosts().collect();
        let named: HashSet<&Domain> = self
            .zones
            .iter()
            .filter(|zone| {
                matches!(
                    zone,
                    Zone::Unreachable { .. } | Zone::ServFail { .. } | Zone::Missing { .. }
                )
            })
            .map(Zone::name)
            .collect();
        let mut seen = HashSet::new();
        for zone in &self.zones {
            let name = zone.name();
            if !seen.insert(name) {
                return Err(WorldError::ZoneTwice(name.clone()));
            }
            if hosts.contains(name) {
                return Err(WorldError::ZoneIsHost(name.clone()));
            }
            let unknown = match zone {
                Zone::Mx { hosts: listed, .. } => listed
                    .iter()
                    .map(|host| &host.name)
                    .find(|host| !hosts.contains(host) && !named.contains(host)),
                Zone::ImplicitMx { host, .. } if !hosts.contains(host) => Some(host),
                _ => None,
            };
            if let Some(host) = unknown {
                return Err(WorldError::UnknownHost {
                    zone: name.clone(),
                    host: host.clone(),
                });
            }
        }
        Ok(())
    }

    /// The names of all MX hosts of all providers.
    pub(crate) fn mx_hosts(&self) -> impl Iterator<Item = &Domain> {
        self.providers
            .iter()
            .flat_map(|provider| &provider.mx_hosts)
            .map(|host| &host.name)
    }
}

impl Provider {
    /// What makes the provider impossible, in words that say how to put it right.
    fn problem(&self) -> Option<String> {
        if !self.accepted.code().is_positive() {
            return Some("accepted must have a 2xx code".into());
        }
        let refusals = self.mailboxes.iter().map(|rule| &rule.reply).chain([&self.not_hosted]);
        if let Some(reply) = refusals.into_iter().find(|reply| reply.is_acceptance()) {
            return Some(format!("'{reply}' must be a refusal: give it a 4xx or 5xx code"));
        }
        self.behaviours.iter().find_map(Behaviour::problem)
    }
}

impl Behaviour {
    /// What it says when it refuses, if it ever speaks.
    fn refusal(&self) -> Option<&Answer> {
        match self {
            Self::ConnectionLimit(limit) => Some(&limit.reply),
            Self::RateLimit(limit) => Some(&limit.reply),
            Self::BlockAfterRefusals(block) => Some(&block.reply),
            Self::DailyQuota(quota) => Some(&quota.reply),
            Self::Greylisting(greylisting) => Some(&greylisting.reply),
            Self::BrokenBackends(pool) => Some(&pool.reply),
            Self::MessagesPerConnection(limit) => Some(&limit.reply),
            Self::Refusals(refusals) => Some(&refusals.reply),
            Self::ServiceTime(_) | Self::Slowdown(_) | Self::Disconnects(_) => None,
        }
    }

    /// What makes the behaviour impossible, in words that say how to put it right.
    fn problem(&self) -> Option<String> {
        let phase = match self {
            Self::RateLimit(RateLimit { phase, .. })
            | Self::DailyQuota(DailyQuota { phase, .. })
            | Self::Disconnects(Disconnects { phase, .. })
            | Self::Refusals(Refusals { phase, .. }) => Some(*phase),
            _ => None,
        };
        if phase == Some(Phase::Connect) {
            return Some("the phase Connect is over before a server can act: use Greeting".into());
        }
        if self.refusal().is_some_and(Answer::is_acceptance) {
            return Some("reply must be a refusal: give it a 4xx or 5xx code".into());
        }
        match self {
            Self::RateLimit(limit) if limit.burst == 0 || limit.changes.iter().any(|change| change.burst == 0) => {
                Some("rateLimit: burst must be at least 1, or nothing could ever pass".into())
            }
            Self::BlockAfterRefusals(block) if block.refusals == 0 => {
                Some("blockAfterRefusals: refusals must be at least 1".into())
            }
            Self::DailyQuota(quota) if quota.utc_offset_minutes.unsigned_abs() > 24 * 60 => {
                Some("dailyQuota: utcOffsetMinutes must be from -1440 to 1440".into())
            }
            Self::BrokenBackends(pool) if pool.backends == 0 || pool.broken > pool.backends => {
                Some("brokenBackends: backends must be at least 1 and not fewer than broken".into())
            }
            Self::Slowdown(slowdown) if !(1.0..=1e6).contains(&slowdown.factor) => {
                Some("slowdown: factor must be from 1 to 1000000".into())
            }
            Self::MessagesPerConnection(limit) if limit.limit == 0 => {
                Some("messagesPerConnection: limit must be at least 1".into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::description::MxHost;

    fn domain(text: &str) -> Domain {
        text.parse().unwrap()
    }

    fn world(change: impl FnOnce(&mut World)) -> World {
        let mut world = World {
            providers: vec![Provider::new("one", &domain("one.example"))],
            zones: vec![Zone::Unreachable {
                name: domain("dead.example"),
            }],
        };
        change(&mut world);
        world
    }

    #[test]
    fn contradictions_are_named() {
        let one = || Provider::new("one", &domain("one.example"));
        type Case = (Box<dyn FnOnce(&mut World)>, WorldError);
        let cases: Vec<Case> = vec![
            (
                Box::new(move |world| world.providers.push(one())),
                WorldError::ProviderTwice("one".into()),
            ),
            (
                Box::new(|world| world.providers[0].mx_hosts.clear()),
                WorldError::NoMxHost("one".into()),
            ),
            (
                Box::new(|world| {
                    let mut two = Provider::new("two", &domain("two.example"));
                    two.mx_hosts = world.providers[0].mx_hosts.clone();
                    world.providers.push(two);
                }),
                WorldError::HostTwice(domain("mx1.one.example")),
            ),
            (
                Box::new(|world| {
                    let mut two = Provider::new("two", &domain("two.example"));
                    two.domains = vec![domain("one.example")];
                    world.providers.push(two);
                }),
                WorldError::DomainTwice(domain("one.example")),
            ),
            (
                Box::new(|world| {
                    world.zones.push(Zone::NullMx {
                        name: domain("dead.example"),
                    })
                }),
                WorldError::ZoneTwice(domain("dead.example")),
            ),
            (
                Box::new(|world| {
                    world.zones.push(Zone::ServFail {
                        name: domain("mx1.one.example"),
                    })
                }),
                WorldError::ZoneIsHost(domain("mx1.one.example")),
            ),
            (
                Box::new(|world| {
                    let hosts = ["dead.example", "mx1.one.example", "typo.example"].map(|name| MxHost {
                        name: domain(name),
                        priority: 10,
                    });
                    world.zones.push(Zone::Mx {
                        name: domain("list.example"),
                        hosts: hosts.to_vec(),
                    });
                }),
                WorldError::UnknownHost {
                    zone: domain("list.example"),
                    host: domain("typo.example"),
                },
            ),
        ];
        world(|_| ()).check().unwrap();
        for (change, expected) in cases {
            assert_eq!(world(change).check(), Err(expected));
        }
    }

    #[test]
    fn a_behaviour_that_could_never_accept_is_named() {
        let mut limit = RateLimit::new("10/s".parse().unwrap(), 0);
        let error = |limit: &RateLimit| {
            world(|world| world.providers[0].behaviours.push(limit.clone().into()))
                .check()
                .unwrap_err()
                .to_string()
        };
        assert!(error(&limit).contains("burst"), "{}", error(&limit));
        limit.burst = 1;
        limit.phase = Phase::Connect;
        assert!(error(&limit).contains("phase"), "{}", error(&limit));
    }
}
