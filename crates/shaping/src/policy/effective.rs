//! The settings that apply, and where each comes from.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use relaypool_api::mx_policy::{MxPolicySpec, Scope, TlsMode};
use relaypool_api::{Duration as ApiDuration, Rate};

use crate::pacer::{AdaptiveLimits, PacerLimits};
use crate::reply_rules::CompiledRule;
use crate::retry::RetrySchedule;
use crate::site::Site;

/// A setting and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting<T> {
    /// What applies.
    pub value: T,
    /// Who says so.
    pub from: Origin,
}

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// No policy says anything.
    Default,
    /// A built-in profile.
    Profile {
        /// Its name.
        name: Arc<str>,
    },
    /// A policy.
    Policy {
        /// Name of the MxPolicy.
        name: Arc<str>,
        /// Why it applies.
        by: MatchedBy,
    },
}

/// Why a policy applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchedBy {
    /// Its MX masks fit the hosts of the site.
    MxHosts,
    /// A domain mask fits the recipient's domain and not every domain.
    Domain,
    /// A domain mask fits every domain.
    EveryDomain,
}

/// Everything that applies to the mail of one recipient domain towards its site.
///
/// Defaults, where not even a built-in profile says anything: 20 connections, 100 messages on each, no rate, opportunistic TLS; timeouts of RFC 5321 section 4.5.3.2, 30
/// seconds to connect, 30 minutes for a transaction, 10 seconds for an unused connection; retries after one minute,
/// doubling up to four hours.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectivePolicy {
    /// Connections open at one time.
    pub max_connections: Setting<u32>,
    /// What `max_connections` is counted over: the scope of the policy that sets it.
    pub max_connections_scope: Setting<Scope>,
    /// Messages on one connection.
    pub messages_per_connection: Setting<u32>,
    /// Messages per unit of time, where they are limited.
    pub rate: Setting<Option<Rate>>,
    /// What `rate` is counted over: the scope of the policy that sets it.
    pub rate_scope: Setting<Scope>,
    /// TLS.
    pub tls: Setting<TlsMode>,
    /// Opening the TCP connection.
    pub connect_timeout: Setting<Duration>,
    /// The greeting, and each of EHLO, STARTTLS, MAIL and RCPT.
    pub command_timeout: Setting<Duration>,
    /// The reply to DATA, and each block of the message.
    pub data_timeout: Setting<Duration>,
    /// The reply to the final dot.
    pub end_of_data_timeout: Setting<Duration>,
    /// One whole transaction.
    pub transaction_timeout: Setting<Duration>,
    /// How long an unused connection is kept open.
    pub idle_timeout: Setting<Duration>,
    /// The pacer goes no slower than this. A hard limit or an upper bound below it wins.
    pub adaptive_min_rate: Setting<Option<Rate>>,
    /// The pacer goes no lower than this. A hard limit or an upper bound below it wins.
    pub adaptive_min_connections: Setting<Option<u32>>,
    /// The pacer goes no faster than this.
    pub adaptive_max_rate: Setting<Option<Rate>>,
    /// The pacer goes no higher than this.
    pub adaptive_max_connections: Setting<Option<u32>>,
    /// Interval after the first temporary failure.
    pub retry_first: Setting<Duration>,
    /// Longest retry interval.
    pub retry_max: Setting<Duration>,
    /// Reply rules of all policies that apply, in order of precedence: the first that fits a reply wins.
    pub reply_rules: Vec<Setting<Arc<CompiledRule>>>,
}

/// A policy that applies.
pub(super) struct Applicable<'a> {
    pub(super) origin: Origin,
    pub(super) spec: &'a MxPolicySpec,
    pub(super) reply_rules: &'a [Arc<CompiledRule>],
}

/// The policies that apply, strongest first.
pub(super) struct Precedence<'a>(pub(super) Vec<Applicable<'a>>);

impl Precedence<'_> {
    /// The strongest policy that sets something, and what it sets.
    fn strongest<T>(&self, get: impl Fn(&MxPolicySpec) -> Option<T>) -> Option<(T, &Applicable<'_>)> {
        self.0
            .iter()
            .find_map(|policy| get(policy.spec).map(|value| (value, policy)))
    }

    fn setting<T>(&self, default: T, get: impl Fn(&MxPolicySpec) -> Option<T>) -> Setting<T> {
        match self.strongest(get) {
            Some((value, policy)) => Setting {
                value,
                from: policy.origin.clone(),
            },
            None => Setting {
                value: default,
                from: Origin::Default,
            },
        }
    }

    fn optional<T>(&self, get: impl Fn(&MxPolicySpec) -> Option<T>) -> Setting<Option<T>> {
        self.setting(None, |spec| get(spec).map(Some))
    }

    fn time(&self, default: Duration, get: impl Fn(&MxPolicySpec) -> Option<ApiDuration>) -> Setting<Duration> {
        self.setting(default, |spec| get(spec).map(ApiDuration::get))
    }

    /// The scope of the policy that sets a limit.
    fn scope_of<T>(&self, get: impl Fn(&MxPolicySpec) -> Option<T>) -> Setting<Scope> {
        match self.strongest(get) {
            Some((_, policy)) => Setting {
                value: policy.spec.scope,
                from: policy.origin.clone(),
            },
            None => Setting {
                value: Scope::PerIp,
                from: Origin::Default,
            },
        }
    }

    fn reply_rules(&self) -> Vec<Setting<Arc<CompiledRule>>> {
        self.0
            .iter()
            .flat_map(|policy| policy.reply_rules.iter().map(|rule| (rule, &policy.origin)))
            .map(|(rule, from)| Setting {
                value: Arc::clone(rule),
                from: from.clone(),
            })
            .collect()
    }

    pub(super) fn resolve(&self) -> EffectivePolicy {
        const fn minutes(minutes: u64) -> Duration {
            Duration::from_secs(minutes * 60)
        }
        let max_connections = |spec: &MxPolicySpec| spec.limits.as_ref()?.max_connections;
        let rate = |spec: &MxPolicySpec| spec.limits.as_ref()?.rate;
        EffectivePolicy {
            max_connections: self.setting(20, max_connections),
            max_connections_scope: self.scope_of(max_connections),
            messages_per_connection: self.setting(100, |spec| spec.limits.as_ref()?.max_messages_per_connection),
            rate: self.optional(rate),
            rate_scope: self.scope_of(rate),
            tls: self.setting(TlsMode::Opportunistic, |spec| spec.tls),
            connect_timeout: self.time(Duration::from_secs(30), |spec| spec.timeouts.as_ref()?.connect),
            command_timeout: self.time(minutes(5), |spec| spec.timeouts.as_ref()?.command),
            data_timeout: self.time(minutes(3), |spec| spec.timeouts.as_ref()?.data),
            end_of_data_timeout: self.time(minutes(10), |spec| spec.timeouts.as_ref()?.end_of_data),
            transaction_timeout: self.time(minutes(30), |spec| spec.timeouts.as_ref()?.transaction),
            idle_timeout: self.time(Duration::from_secs(10), |spec| spec.timeouts.as_ref()?.idle),
            adaptive_min_rate: self.optional(|spec| spec.adaptive.as_ref()?.min.as_ref()?.rate),
            adaptive_min_connections: self.optional(|spec| spec.adaptive.as_ref()?.min.as_ref()?.connections),
            adaptive_max_rate: self.optional(|spec| spec.adaptive.as_ref()?.max.as_ref()?.rate),
            adaptive_max_connections: self.optional(|spec| spec.adaptive.as_ref()?.max.as_ref()?.connections),
            retry_first: self.time(minutes(1), |spec| spec.retry.as_ref()?.first_interval),
            retry_max: self.time(minutes(240), |spec| spec.retry.as_ref()?.max_interval),
            reply_rules: self.reply_rules(),
        }
    }
}

impl EffectivePolicy {
    /// What the pacer of a lane is told, for a pool in adaptive mode. The caller adds the lane's share where a scope is
    /// [`Scope::Pool`], and takes `adaptive` out for a pool in static mode.
    pub fn pacer_limits(&self) -> PacerLimits {
        PacerLimits {
            connections: self.max_connections.value,
            messages_per_connection: self.messages_per_connection.value,
            rate: self.rate.value,
            share: None,
            adaptive: Some(AdaptiveLimits {
                min_rate: self.adaptive_min_rate.value,
                min_connections: self.adaptive_min_connections.value,
                max_connections: self.adaptive_max_connections.value,
                max_rate: self.adaptive_max_rate.value,
            }),
        }
    }

    /// The retry intervals.
    pub fn retry(&self) -> RetrySchedule {
        RetrySchedule::new(self.retry_first.value, self.retry_max.value)
    }

    /// True when a session opened under `other` would be another session: TLS or a timeout differs.
    pub fn session_settings_differ(&self, other: &Self) -> bool {
        let settings = |policy: &Self| {
            (
                policy.tls.value,
                [
                    &policy.connect_timeout,
                    &policy.command_timeout,
                    &policy.data_timeout,
                    &policy.end_of_data_timeout,
                    &policy.transaction_timeout,
                    &policy.idle_timeout,
                ]
                .map(|timeout| timeout.value),
            )
        };
        settings(self) != settings(other)
    }

    /// The policies, by name and joined by `+`, that single out recipient domains and set what a lane or its sessions obey.
    /// Their mail needs a lane of its own beside the one of the site: the limits, the TLS or the reply rules of one domain
    /// must not become those of every domain that the provider hosts, nor the other way round. None where they are the same
    /// for all domains of the site. Retry intervals are a matter of the message, not of the lane.
    pub fn singled_out_by(&self) -> Option<String> {
        let origins = [
            &self.max_connections.from,
            &self.messages_per_connection.from,
            &self.rate.from,
            &self.adaptive_min_rate.from,
            &self.adaptive_min_connections.from,
            &self.adaptive_max_rate.from,
            &self.adaptive_max_connections.from,
            &self.tls.from,
            &self.connect_timeout.from,
            &self.command_timeout.from,
            &self.data_timeout.from,
            &self.end_of_data_timeout.from,
            &self.transaction_timeout.from,
            &self.idle_timeout.from,
        ];
        let names: BTreeSet<&str> = origins
            .into_iter()
            .chain(self.reply_rules.iter().map(|rule| &rule.from))
            .filter_map(Origin::singling_out)
            .collect();
        (!names.is_empty()).then(|| names.into_iter().collect::<Vec<_>>().join("+"))
    }
}

impl EffectivePolicy {
    /// Name of the lane for mail under this policy: that of the site, and of the policies that single its domain out.
    pub fn lane_name(&self, site: &Site) -> String {
        match self.singled_out_by() {
            Some(policies) => format!("{site} ({policies})"),
            None => site.to_string(),
        }
    }
}

impl Origin {
    fn singling_out(&self) -> Option<&str> {
        match self {
            Self::Policy {
                name,
                by: MatchedBy::Domain,
            } => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for Origin {
    /// `default`, the name of the policy, or `built-in profile` and its name.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::Policy { name, .. } => formatter.write_str(name),
            Self::Profile { name } => write!(formatter, "built-in profile {name}"),
        }
    }
}
