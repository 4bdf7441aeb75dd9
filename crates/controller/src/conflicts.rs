//! MxPolicies between which only their names decide. Pure.

use std::collections::BTreeSet;

use kube::ResourceExt as _;
use relaypool_api::MxPolicy;
use relaypool_api::mx_policy::MxPolicySpec;
use relaypool_api::types::Mask;
use serde_json::Value;

/// Most conflicts that a status lists.
const MAX_LISTED: usize = 20;

/// Names of the policies that have a mask and the priority of `policy`, serve one of its pools, and set a field that it
/// sets: at most 20, in order. `others` are policies of the same namespace.
pub fn conflicts<'a>(policy: &MxPolicy, others: impl IntoIterator<Item = &'a MxPolicy>) -> Vec<String> {
    let fields = fields_set(&policy.spec);
    let names: BTreeSet<String> = others
        .into_iter()
        .filter(|other| other.name_any() != policy.name_any())
        .filter(|other| same_rank(&policy.spec, &other.spec))
        .filter(|other| !fields_set(&other.spec).is_disjoint(&fields))
        .map(kube::ResourceExt::name_any)
        .collect();
    names.into_iter().take(MAX_LISTED).collect()
}

fn same_rank(one: &MxPolicySpec, other: &MxPolicySpec) -> bool {
    let share = |one: &[Mask], other: &[Mask]| one.iter().any(|mask| other.contains(mask));
    let pools_meet =
        one.pools.is_empty() || other.pools.is_empty() || one.pools.iter().any(|pool| other.pools.contains(pool));
    one.priority == other.priority
        && pools_meet
        && (share(&one.matches.domains, &other.matches.domains)
            || share(&one.matches.mx_hosts, &other.matches.mx_hosts))
}

/// Paths of the fields that a policy sets. Reply rules count as one field: the first of one policy hides those of the other.
fn fields_set(spec: &MxPolicySpec) -> BTreeSet<String> {
    let MxPolicySpec {
        pools: _,
        matches: _,
        priority: _,
        scope: _,
        limits,
        tls,
        timeouts,
        adaptive,
        reply_rules,
        retry,
    } = spec;
    let mut paths = BTreeSet::new();
    let settings = serde_json::json!({
        "limits": limits,
        "tls": tls,
        "timeouts": timeouts,
        "adaptive": adaptive,
        "retry": retry,
        "replyRules": (!reply_rules.is_empty()).then_some(true),
    });
    collect_leaves("", &settings, &mut paths);
    paths
}

fn collect_leaves(path: &str, value: &Value, paths: &mut BTreeSet<String>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                collect_leaves(&format!("{path}.{name}"), value, paths);
            }
        }
        _ => {
            paths.insert(path.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(name: &str, spec: Value) -> MxPolicy {
        MxPolicy::new(name, serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn names_policies_that_only_their_name_ranks() {
        let policy_a = policy(
            "a",
            json!({ "match": { "domains": ["*.example.com", "x.example"] }, "limits": { "maxConnections": 5 }, "tls": "Required" }),
        );
        let others = [
            policy(
                "same-field",
                json!({ "match": { "domains": ["X.example"] }, "limits": { "maxConnections": 9 } }),
            ),
            policy(
                "other-field",
                json!({ "match": { "domains": ["x.example"] }, "limits": { "rate": "5/s" } }),
            ),
            policy(
                "other-priority",
                json!({ "match": { "domains": ["x.example"] }, "priority": 1, "tls": "Disabled" }),
            ),
            policy(
                "other-mask",
                json!({ "match": { "domains": ["y.example"] }, "tls": "Disabled" }),
            ),
            policy(
                "other-side",
                json!({ "match": { "mxHosts": ["x.example"] }, "tls": "Disabled" }),
            ),
            policy(
                "of-a-pool",
                json!({ "match": { "domains": ["x.example"] }, "pools": ["p"], "tls": "Disabled" }),
            ),
            policy_a.clone(),
        ];
        assert_eq!(conflicts(&policy_a, &others), ["of-a-pool", "same-field"]);
    }

    #[test]
    fn policies_of_different_pools_never_meet() {
        let spec = |pool| json!({ "match": { "domains": ["*"] }, "pools": [pool], "tls": "Required" });
        let (one, other) = (policy("one", spec("p")), policy("other", spec("q")));
        assert!(conflicts(&one, [&other]).is_empty());
    }
}
