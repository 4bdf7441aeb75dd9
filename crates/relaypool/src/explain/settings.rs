//! Every effective setting of a policy as text, with who says so.

use std::fmt::Display;
use std::time::Duration;

use relaypool_api::mx_policy::{ReplyAction, ReplyRule, Scope, Trigger};
use relaypool_shaping::policy::{EffectivePolicy, MatchedBy, Origin, Setting};
use serde::Serialize;

/// A setting, as an MxPolicy would write it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveSetting {
    /// Its path below `spec`.
    pub setting: &'static str,
    /// What applies; none where nothing does.
    pub value: Option<String>,
    /// What a limit is counted over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Who says so.
    pub from: From,
}

/// A reply rule in words.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveRule {
    /// What it fits, and when it acts.
    pub when: String,
    /// What it does.
    pub action: String,
    /// Whose it is.
    pub from: From,
}

/// Who says something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct From {
    /// What it is.
    pub kind: Kind,
    /// Name of the MxPolicy or the profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Why an MxPolicy applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched_by: Option<&'static str>,
}

/// Kinds of those who say something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Kind {
    /// Nobody did: the default.
    Default,
    /// A profile that comes with Relaypool.
    BuiltInProfile,
    /// A policy of the user.
    MxPolicy,
}

impl std::convert::From<&Origin> for From {
    fn from(origin: &Origin) -> Self {
        let (kind, name, matched_by) = match origin {
            Origin::Default => (Kind::Default, None, None),
            Origin::Profile { name } => (Kind::BuiltInProfile, Some(name), None),
            Origin::Policy { name, by } => (Kind::MxPolicy, Some(name), Some(by)),
        };
        Self {
            kind,
            name: name.map(|name| (**name).to_owned()),
            matched_by: matched_by.map(|by| match by {
                MatchedBy::MxHosts => "MX hosts",
                MatchedBy::Domain => "domain",
                MatchedBy::EveryDomain => "every domain",
            }),
        }
    }
}

impl Display for From {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.name.as_deref().unwrap_or_default();
        match self.kind {
            Kind::Default => formatter.write_str("default"),
            Kind::BuiltInProfile => write!(formatter, "built-in profile {name}"),
            Kind::MxPolicy => write!(
                formatter,
                "MxPolicy {name} (by {})",
                self.matched_by.unwrap_or_default()
            ),
        }
    }
}

/// Every setting, in the order of the reference.
pub fn settings(policy: &EffectivePolicy) -> Vec<EffectiveSetting> {
    // Named one by one: a setting that is added and not explained does not compile.
    let EffectivePolicy {
        max_connections,
        max_connections_scope,
        messages_per_connection,
        rate,
        rate_scope,
        tls,
        connect_timeout,
        command_timeout,
        data_timeout,
        end_of_data_timeout,
        transaction_timeout,
        idle_timeout,
        adaptive_min_rate,
        adaptive_min_connections,
        adaptive_max_rate,
        adaptive_max_connections,
        retry_first,
        retry_max,
        reply_rules: _,
    } = policy;
    vec![
        EffectiveSetting {
            scope: Some(max_connections_scope.value),
            ..always("limits.maxConnections", max_connections)
        },
        always("limits.maxMessagesPerConnection", messages_per_connection),
        EffectiveSetting {
            scope: rate.value.map(|_| rate_scope.value),
            ..perhaps("limits.rate", rate)
        },
        EffectiveSetting {
            setting: "tls",
            value: Some(format!("{:?}", tls.value)),
            scope: None,
            from: (&tls.from).into(),
        },
        time("timeouts.connect", connect_timeout),
        time("timeouts.command", command_timeout),
        time("timeouts.data", data_timeout),
        time("timeouts.endOfData", end_of_data_timeout),
        time("timeouts.transaction", transaction_timeout),
        time("timeouts.idle", idle_timeout),
        perhaps("adaptive.min.rate", adaptive_min_rate),
        perhaps("adaptive.min.connections", adaptive_min_connections),
        perhaps("adaptive.max.rate", adaptive_max_rate),
        perhaps("adaptive.max.connections", adaptive_max_connections),
        time("retry.firstInterval", retry_first),
        time("retry.maxInterval", retry_max),
    ]
}

fn always<T: Display>(name: &'static str, setting: &Setting<T>) -> EffectiveSetting {
    EffectiveSetting {
        setting: name,
        value: Some(setting.value.to_string()),
        scope: None,
        from: (&setting.from).into(),
    }
}

fn perhaps<T: Display>(name: &'static str, setting: &Setting<Option<T>>) -> EffectiveSetting {
    EffectiveSetting {
        setting: name,
        value: setting.value.as_ref().map(T::to_string),
        scope: None,
        from: (&setting.from).into(),
    }
}

fn time(name: &'static str, setting: &Setting<Duration>) -> EffectiveSetting {
    EffectiveSetting {
        setting: name,
        value: Some(relaypool_api::Duration::from(setting.value).to_string()),
        scope: None,
        from: (&setting.from).into(),
    }
}

/// The reply rules, the first that fits first.
pub fn rules(policy: &EffectivePolicy) -> Vec<EffectiveRule> {
    let rules = policy.reply_rules.iter();
    rules
        .map(|rule| EffectiveRule {
            when: when(rule.value.rule()),
            action: action(&rule.value.rule().action),
            from: (&rule.from).into(),
        })
        .collect()
}

fn when(rule: &ReplyRule) -> String {
    let ReplyRule {
        text,
        category,
        code,
        trigger,
        action: _,
    } = rule;
    let mut parts = Vec::new();
    parts.extend(code.map(|code| code.to_string()));
    parts.extend(text.as_ref().map(|text| format!("\"{text}\"")));
    parts.extend(category.clone());
    if let Some(Trigger { count, within }) = trigger {
        parts.push(format!("{count} times within {within}"));
    }
    parts.join(", ")
}

fn action(action: &ReplyAction) -> String {
    let ReplyAction {
        suspend_for,
        throttle,
        reduce_connections,
        reduce_messages_per_connection,
        reclassify,
        retry_after,
    } = action;
    let mut parts = Vec::new();
    let mut add = |name: &str, value: Option<String>| parts.extend(value.map(|value| format!("{name} {value}")));
    add("reclassify", reclassify.clone());
    add("retryAfter", retry_after.map(|time| time.to_string()));
    add("suspendFor", suspend_for.map(|time| time.to_string()));
    add("throttle", throttle.map(|rate| rate.to_string()));
    add("reduceConnections", reduce_connections.map(|by| by.to_string()));
    add(
        "reduceMessagesPerConnection",
        reduce_messages_per_connection.map(|by| by.to_string()),
    );
    parts.join(", ")
}
