//! Which policies apply, and which of them wins.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use relaypool_api::Domain;
use relaypool_api::mx_policy::{MxPolicySpec, Scope, TlsMode};
use relaypool_api::relay_pool::ProviderProfiles;
use relaypool_shaping::policy::{EffectivePolicy, MatchedBy, Origin, PolicySet};

fn spec(yaml: &str) -> MxPolicySpec {
    serde_yaml::from_str(yaml).unwrap()
}

fn set(policies: &[(&str, &str)]) -> PolicySet {
    PolicySet::without_profiles(named(policies))
}

fn named(policies: &[(&str, &str)]) -> Vec<(String, MxPolicySpec)> {
    policies
        .iter()
        .map(|(name, yaml)| ((*name).to_owned(), spec(yaml)))
        .collect()
}

fn domain(name: &str) -> Domain {
    name.parse().unwrap()
}

fn resolve(policies: &PolicySet, name: &str, hosts: &[&str]) -> EffectivePolicy {
    let hosts: Vec<Domain> = hosts.iter().map(|host| domain(host)).collect();
    policies.resolve("pool", &domain(name), &hosts)
}

const GOOGLE: &[&str] = &["aspmx.l.google.com"];

#[test]
fn without_policies_the_defaults_apply() {
    let policy = resolve(&set(&[]), "example.com", GOOGLE);
    assert_eq!(
        (policy.max_connections.value, policy.max_connections.from),
        (20, Origin::Default)
    );
    assert_eq!(policy.messages_per_connection.value, 100);
    assert_eq!(policy.rate.value, None);
    assert_eq!(policy.tls.value, TlsMode::Opportunistic);
    assert_eq!(policy.connect_timeout.value, Duration::from_secs(30));
    assert_eq!(policy.command_timeout.value, Duration::from_secs(300));
    assert_eq!(policy.end_of_data_timeout.value, Duration::from_secs(600));
    assert_eq!(policy.retry_max.value, Duration::from_secs(4 * 3_600));
    assert!(policy.reply_rules.is_empty());
}

#[test]
fn each_setting_names_the_policy_it_comes_from() {
    let policies = set(&[
        (
            "base",
            "{match: {domains: ['*']}, priority: -10, tls: Required, limits: {maxConnections: 3, rate: 100/h}, retry: {firstInterval: 2s}}",
        ),
        (
            "google",
            "{match: {mxHosts: ['*.google.com']}, scope: Pool, limits: {maxConnections: 8}, timeouts: {connect: 5s}, adaptive: {min: {connections: 2}, max: {rate: 50/s}}}",
        ),
    ]);
    let policy = resolve(&policies, "example.com", GOOGLE);
    for (from, name) in [
        (&policy.tls.from, "base"),
        (&policy.rate.from, "base"),
        (&policy.retry_first.from, "base"),
        (&policy.max_connections.from, "google"),
        (&policy.max_connections_scope.from, "google"),
        (&policy.connect_timeout.from, "google"),
        (&policy.adaptive_min_connections.from, "google"),
        (&policy.adaptive_max_rate.from, "google"),
        (&policy.data_timeout.from, "default"),
    ] {
        assert_eq!(from.to_string(), name);
    }
    assert_eq!(policy.max_connections.value, 8);
    // A scope belongs to the limit it came with.
    assert_eq!(policy.max_connections_scope.value, Scope::Pool);
    assert_eq!(policy.rate_scope.value, Scope::PerIp);

    let limits = policy.pacer_limits();
    assert_eq!((limits.connections, limits.rate), (8, "100/h".parse().ok()));

    let elsewhere = resolve(&policies, "example.com", &["mx.example.com"]);
    assert_eq!(elsewhere.max_connections.value, 3);
}

#[test]
fn priority_then_narrowness_then_name_decide() {
    let winner = |policies: &[(&str, &str)]| {
        let policy = resolve(&set(policies), "mail.example.com", &["mx1.provider.net"]);
        policy.max_connections.from.to_string()
    };
    let limit = |matches: &str, priority: i32| {
        format!("{{match: {{{matches}}}, priority: {priority}, limits: {{maxConnections: 1}}}}")
    };
    for (one, other, wins) in [
        // Priority over everything.
        (limit("domains: ['*']", 1), limit("domains: [mail.example.com]", 0), "a"),
        // A mask for the domain over one for its hosts, and that over one for every domain: default, provider, site, domain.
        (
            limit("mxHosts: ['mx1.provider.net']", 0),
            limit("domains: ['*.com']", 0),
            "b",
        ),
        (limit("domains: ['*']", 0), limit("mxHosts: ['*']", 0), "b"),
        (
            limit("domains: ['*', 'mail.*'], mxHosts: ['*.net']", 0),
            limit("mxHosts: ['mx1.provider.net']", 0),
            "a",
        ),
        // The longer mask.
        (
            limit("domains: ['*.com']", 0),
            limit("domains: ['*.example.com']", 0),
            "b",
        ),
        // A whole name over a mask, however long.
        (
            limit("domains: [mail.example.com]", 0),
            limit("mxHosts: ['mx1.*rovider.net']", 0),
            "a",
        ),
        // Of several masks of one policy, the narrowest.
        (
            limit("domains: ['*.com', mail.example.com]", 0),
            limit("domains: ['*.example.com']", 0),
            "a",
        ),
        // The name.
        (limit("domains: ['*.com']", 0), limit("domains: ['*.com']", 0), "a"),
    ] {
        assert_eq!(winner(&[("a", &one), ("b", &other)]), wins, "{one} and {other}");
        assert_eq!(
            winner(&[("b", &other), ("a", &one)]),
            wins,
            "the order of the objects does not matter"
        );
    }
}

#[test]
fn mx_masks_have_to_fit_every_host() {
    let policies = set(&[(
        "provider",
        "{match: {mxHosts: ['*.provider.net', 'mx.partner.org']}, limits: {maxConnections: 1}}",
    )]);
    for (hosts, applies) in [
        (&["mx1.provider.net", "mx2.provider.net"][..], true),
        (&["mx1.provider.net", "mx.partner.org"], true),
        (&["mx1.provider.net", "mx.elsewhere.org"], false),
        (&["mx.elsewhere.org", "mx1.provider.net"], false),
        (&[], false),
    ] {
        let from = resolve(&policies, "example.com", hosts).max_connections.from;
        assert_eq!(from != Origin::Default, applies, "{hosts:?}");
    }
}

#[test]
fn a_policy_for_other_pools_does_not_apply() {
    let policies = set(&[(
        "other",
        "{pools: [marketing], match: {domains: ['*']}, limits: {maxConnections: 1}}",
    )]);
    assert_eq!(
        resolve(&policies, "example.com", GOOGLE).max_connections.from,
        Origin::Default
    );
    let policy = policies.resolve("marketing", &domain("example.com"), &[]);
    assert_eq!(policy.max_connections.value, 1);
}

#[test]
fn reply_rules_come_in_order_of_precedence() {
    let policies = set(&[
        (
            "base",
            "{match: {domains: ['*']}, replyRules: [{code: 421, action: {retryAfter: 1m}}]}",
        ),
        (
            "google",
            "{match: {mxHosts: ['*.google.com']}, replyRules: [{text: a, action: {retryAfter: 2m}}, {text: b, action: {retryAfter: 3m}}]}",
        ),
    ]);
    let rules = resolve(&policies, "example.com", GOOGLE).reply_rules;
    let order: Vec<String> = rules
        .iter()
        .map(|rule| format!("{} {}", rule.from, rule.value.rule().action.retry_after.unwrap()))
        .collect();
    assert_eq!(order, ["google 2m", "google 3m", "base 1m"]);
}

#[test]
fn what_a_domain_has_for_itself_needs_a_lane_of_its_own() {
    let policies = set(&[
        ("all", "{match: {domains: ['*']}, limits: {maxConnections: 5}}"),
        (
            "google",
            "{match: {mxHosts: ['*.google.com']}, limits: {maxConnections: 8}}",
        ),
        (
            "customer",
            "{match: {domains: [customer.example]}, limits: {rate: 10/m}}",
        ),
        ("secure", "{match: {domains: [secure.example]}, tls: Required}"),
        ("slow", "{match: {domains: [slow.example]}, timeouts: {connect: 2m}}"),
        (
            "rules",
            "{match: {domains: [rules.example]}, replyRules: [{code: 421, action: {suspendFor: 1h}}]}",
        ),
        (
            "patient",
            "{match: {domains: [patient.example]}, retry: {firstInterval: 1h}}",
        ),
    ]);
    let singled_out = |name: &str| resolve(&policies, name, GOOGLE).singled_out_by();
    assert_eq!(singled_out("example.com"), None);
    assert_eq!(singled_out("customer.example").as_deref(), Some("customer"));
    assert_eq!(
        singled_out("secure.example").as_deref(),
        Some("secure"),
        "a session of the lane serves all its mail, so all of it wants the same TLS"
    );
    assert_eq!(singled_out("slow.example").as_deref(), Some("slow"));
    assert_eq!(singled_out("rules.example").as_deref(), Some("rules"));
    assert_eq!(
        singled_out("patient.example"),
        None,
        "when a message is tried again is a matter of the message"
    );

    let by = |policy: EffectivePolicy| match policy.max_connections.from {
        Origin::Policy { by, .. } => by,
        other => panic!("{other}"),
    };
    assert_eq!(by(resolve(&policies, "example.com", GOOGLE)), MatchedBy::MxHosts);
    assert_eq!(
        by(resolve(&policies, "example.com", &["mx.example.com"])),
        MatchedBy::EveryDomain
    );
}

#[test]
fn only_tls_and_timeouts_make_another_session() {
    let policies = set(&[
        (
            "limits",
            "{match: {domains: [limits.example]}, limits: {maxConnections: 5}, retry: {firstInterval: 1s}}",
        ),
        ("tls", "{match: {domains: [tls.example]}, tls: Required}"),
        ("timeout", "{match: {domains: [timeout.example]}, timeouts: {idle: 1s}}"),
    ]);
    let plain = resolve(&policies, "example.com", GOOGLE);
    for (name, differs) in [
        ("limits.example", false),
        ("tls.example", true),
        ("timeout.example", true),
    ] {
        let policy = resolve(&policies, name, GOOGLE);
        assert_eq!(policy.session_settings_differ(&plain), differs, "{name}");
    }
}

#[test]
fn built_in_profiles_come_after_every_policy() {
    let yahoo = ["mta5.am0.yahoodns.net", "mta6.am0.yahoodns.net"];
    let policies = named(&[
        (
            "all",
            "{match: {domains: ['*']}, priority: -100000, limits: {maxConnections: 7}}",
        ),
        (
            "mine",
            "{match: {mxHosts: ['*.yahoodns.net']}, replyRules: [{text: '[tss04]', action: {retryAfter: 1h}}]}",
        ),
    ]);
    let set = PolicySet::new(policies.clone());
    let policy = resolve(&set, "yahoo.com", &yahoo);
    assert_eq!(
        (policy.max_connections.value, policy.max_connections.from.to_string()),
        (7, "all".to_owned())
    );
    assert_eq!(
        (
            policy.messages_per_connection.value,
            policy.messages_per_connection.from.to_string()
        ),
        (20, "built-in profile yahoo".to_owned())
    );
    let rules: Vec<String> = policy.reply_rules.iter().map(|rule| rule.from.to_string()).collect();
    assert_eq!(rules[..2], ["mine", "built-in profile yahoo"]);
    assert_eq!(
        policy.singled_out_by(),
        None,
        "a profile is for a site, not for some of its domains"
    );

    let order: Vec<String> = set
        .applying("pool", &domain("yahoo.com"), &yahoo.map(domain))
        .into_iter()
        .map(|applies| applies.origin.to_string())
        .collect();
    assert_eq!(order, ["mine", "all", "built-in profile yahoo"]);

    let without = PolicySet::of_pool(policies, ProviderProfiles::Disabled);
    assert_eq!(
        resolve(&without, "yahoo.com", &yahoo).messages_per_connection.from,
        Origin::Default
    );
}
