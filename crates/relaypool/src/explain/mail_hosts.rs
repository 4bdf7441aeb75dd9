//! The hosts that take a domain's mail, or why there are none.

use std::net::IpAddr;

use anyhow::Context;
use relaypool_api::Domain;
use relaypool_bounce::{Action, classify_failure};
use relaypool_sender::resolver::{DestinationLimits, MxResolver, RouteError};
use relaypool_shaping::site::best_preference;
use serde::Serialize;

use super::ForPool;

/// The hosts that take a domain's mail.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MailHosts {
    /// Best preference first.
    pub hosts: Vec<MailHost>,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<RouteProblem>,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MailHost {
    /// Its name.
    pub name: Domain,
    /// Its preference, lower first; none where the host was given by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preference: Option<u16>,
    /// Its addresses; none where the host was given by hand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
}

/// Why mail to the domain has nowhere to go.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteProblem {
    /// In words.
    pub reason: String,
    /// The bounce category of messages to it.
    pub category: &'static str,
    /// Whether messages are tried again, or fail at once.
    pub is_retried: bool,
}

impl MailHosts {
    /// Names of the hosts of the best preference: those that policies and sites go by.
    pub fn best(&self) -> Vec<Domain> {
        best_preference(self.hosts.iter().map(|host| (host.preference.unwrap_or(0), &host.name)))
    }
}

impl From<&RouteError> for RouteProblem {
    fn from(error: &RouteError) -> Self {
        let verdict = classify_failure(error.failure());
        Self {
            reason: error.to_string(),
            category: verdict.category.as_str(),
            is_retried: verdict.action != Action::Fail,
        }
    }
}

/// Looks the hosts up as a sender of the pool would, or takes those given by hand.
pub async fn find_mail_hosts(
    domain: &Domain,
    pool: &ForPool,
    by_hand: &[Domain],
    dns_servers: &[String],
) -> anyhow::Result<MailHosts> {
    if !by_hand.is_empty() {
        let hosts = by_hand.iter().map(|name| MailHost {
            name: name.clone(),
            preference: None,
            addresses: Vec::new(),
        });
        return Ok(MailHosts {
            hosts: hosts.collect(),
            problem: None,
        });
    }
    let servers = if dns_servers.is_empty() {
        &pool.spec.dns.servers
    } else {
        dns_servers
    };
    let limits = DestinationLimits {
        allow_private: pool.spec.allow_private_destinations,
        own_names: pool.ips.iter().map(|ip| ip.spec.ehlo_name.clone()).collect(),
        own_addresses: pool.ips.iter().map(|ip| ip.spec.address).collect(),
    };
    let resolver = MxResolver::new(servers, pool.spec.dns.timeout.map(Into::into), limits)
        .context("cannot look up MX hosts; name them with --mx, or name servers with --dns-server")?;
    Ok(match resolver.route(domain).await {
        Err(error) => MailHosts {
            hosts: Vec::new(),
            problem: Some(RouteProblem::from(&error)),
        },
        Ok(route) => {
            let mut hosts: Vec<MailHost> = route
                .hosts
                .into_iter()
                .map(|mut host| {
                    host.addresses.sort_unstable();
                    MailHost {
                        name: host.name,
                        preference: Some(host.preference),
                        addresses: host.addresses,
                    }
                })
                .collect();
            // The resolver shuffles equals, so that they share the load; a reader wants the same order twice.
            hosts.sort_by(|one, other| (one.preference, &one.name).cmp(&(other.preference, &other.name)));
            MailHosts { hosts, problem: None }
        }
    })
}
