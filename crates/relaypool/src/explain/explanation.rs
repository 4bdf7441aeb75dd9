//! Everything there is to say.

use kube::ResourceExt;
use relaypool_api::relay_pool::{PoolMode, ProviderProfiles};
use relaypool_api::sending_ip::SiteStatus;
use relaypool_api::{Domain, SendingIp};
use relaypool_shaping::policy::PolicySet;
use relaypool_shaping::site::Site;
use serde::Serialize;

use super::ForPool;
use super::mail_hosts::MailHosts;
use super::settings::{EffectiveRule, EffectiveSetting, From, rules, settings};

/// How mail to a domain is sent, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The recipients' domain.
    pub domain: Domain,
    /// The pool; none where there is no RelayPool.
    pub pool: Option<String>,
    /// Whether lanes learn.
    pub mode: PoolMode,
    /// Whether built-in profiles apply.
    pub provider_profiles: ProviderProfiles,
    /// Where the mail goes.
    pub mx: MailHosts,
    /// The MX hosts as one name; none where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The lane of each sending IP: the site, or a lane beside it for what a policy says of this domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// Policies that apply, the strongest first.
    pub policies: Vec<ApplyingPolicy>,
    /// Each setting and who says so.
    pub settings: Vec<EffectiveSetting>,
    /// Reply rules; the first that fits takes the reply.
    pub reply_rules: Vec<EffectiveRule>,
    /// How each sending IP of the pool stands with the lane; none without a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sending_ips: Option<Vec<Standing>>,
}

/// A policy that applies.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplyingPolicy {
    /// Which, and why.
    #[serde(flatten)]
    pub from: From,
    /// Its priority; none for a built-in profile, which comes after every policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// The settings that are as it says.
    pub decides: Vec<&'static str>,
    /// How many reply rules it has.
    pub reply_rules: usize,
}

/// How a sending IP stands with the lane.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Name of the SendingIp.
    pub name: String,
    /// The sender that owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// Whether a person has suspended it.
    pub suspend: bool,
    /// What its status says; none where the lane is not among the busiest, or nothing was sent on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<SiteStatus>,
}

impl Explanation {
    /// Explains mail of `pool` to `domain`.
    pub fn new(domain: Domain, mx: MailHosts, pool: &ForPool) -> Self {
        let set = PolicySet::of_pool(pool.policies.clone(), pool.spec.provider_profiles);
        let hosts = mx.best();
        let pool_name = pool.name.as_deref().unwrap_or_default();
        let policy = set.resolve(pool_name, &domain, &hosts);
        let settings = settings(&policy);
        let policies = set.applying(pool_name, &domain, &hosts).into_iter().map(|applies| {
            let from = From::from(&applies.origin);
            let decided = settings.iter().filter(|setting| setting.from == from);
            ApplyingPolicy {
                decides: decided.map(|setting| setting.setting).collect(),
                priority: from.matched_by.map(|_| applies.spec.priority),
                reply_rules: applies.spec.reply_rules.len(),
                from,
            }
        });
        let policies = policies.collect();
        let site = (!hosts.is_empty()).then(|| Site::of(&hosts));
        let lane = site.as_ref().map(|site| policy.lane_name(site));
        Self {
            sending_ips: pool
                .is_live
                .then(|| pool.ips.iter().map(|ip| standing(ip, lane.as_deref())).collect()),
            domain,
            pool: pool.name.clone(),
            mode: pool.spec.mode,
            provider_profiles: pool.spec.provider_profiles,
            mx,
            site: site.map(|site| site.to_string()),
            lane,
            policies,
            reply_rules: rules(&policy),
            settings,
        }
    }
}

fn standing(ip: &SendingIp, lane: Option<&str>) -> Standing {
    let status = ip.status.as_ref();
    let sites = status.map(|status| status.sites.as_slice()).unwrap_or_default();
    Standing {
        name: ip.name_any(),
        sender: status.and_then(|status| status.sender.clone()),
        suspend: ip.spec.suspend,
        status: sites.iter().find(|site| Some(site.site.as_str()) == lane).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use relaypool_api::RelayPool;
    use serde_json::json;

    use super::super::mail_hosts::MailHost;
    use super::super::text;
    use super::*;

    fn pool() -> ForPool {
        let policy: relaypool_api::MxPolicySpec = serde_json::from_value(json!({
            "match": { "domains": ["bank.example"] }, "tls": "Required",
        }))
        .unwrap();
        let ip = |name: &str, status: serde_json::Value| -> SendingIp {
            serde_json::from_value(json!({
                "apiVersion": "relaypool.dev/v1alpha1", "kind": "SendingIp", "metadata": { "name": name },
                "spec": { "pool": "main", "address": "192.0.2.1", "ehloName": "out.example.com" },
                "status": status,
            }))
            .unwrap()
        };
        let pool = RelayPool::new("main", serde_json::from_value(json!({ "mode": "Static" })).unwrap());
        ForPool {
            name: Some("main".into()),
            spec: pool.spec,
            policies: vec![("bank".into(), policy)],
            ips: vec![
                ip(
                    "busy",
                    json!({ "sender": "main-0", "sites": [
                        { "site": "gmx.net (bank)", "state": "Sending", "connections": 3, "deliveredPerSecond": 1.25,
                          "rateLimit": "10/s", "connectionLimit": 4, "binds": "PolicyRate", "queued": 17,
                          "lastRefusal": { "at": "2026-11-20T10:00:00Z", "reply": "421 Rate limit reached", "category": "rate_limited" } },
                        { "site": "gmx.net", "state": "Idle", "binds": "NoDemand" },
                    ] }),
                ),
                ip("quiet", json!({ "sender": "main-1" })),
            ],
            is_live: true,
        }
    }

    fn hosts() -> MailHosts {
        let host = |name: &str| MailHost {
            name: name.parse().unwrap(),
            preference: None,
            addresses: Vec::new(),
        };
        MailHosts {
            hosts: vec![host("mx00.gmx.net"), host("mx01.gmx.net")],
            problem: None,
        }
    }

    #[test]
    fn the_standing_is_that_of_the_lane_of_the_domain() {
        let explanation = Explanation::new("bank.example".parse().unwrap(), hosts(), &pool());
        assert_eq!(explanation.lane.as_deref(), Some("gmx.net (bank)"));
        let standings = explanation.sending_ips.as_ref().unwrap();
        assert_eq!(standings[0].status.as_ref().unwrap().queued, 17);
        assert_eq!(standings[1].status, None);
        insta::assert_snapshot!(text(&explanation));

        let other = Explanation::new("other.example".parse().unwrap(), hosts(), &pool());
        assert_eq!(other.sending_ips.unwrap()[0].status.as_ref().unwrap().queued, 0);
    }

    #[test]
    fn without_a_cluster_nothing_is_said_of_standing() {
        let pool = ForPool {
            is_live: false,
            ..pool()
        };
        let explanation = Explanation::new("bank.example".parse().unwrap(), hosts(), &pool);
        assert_eq!(explanation.sending_ips, None);
    }
}
