//! What the status of the RelayPool grants this sender of pool-wide limits.

use kube::ResourceExt as _;
use relaypool_api::pool_limits::most_claims;
use relaypool_api::{RelayPool, RelayPoolStatus};

use crate::dispatcher::GrantedShares;

/// The shares of a sender, after those it had. A pool that is deleted grants nothing, and a new one of the same name does
/// not know of what its predecessor granted.
pub(super) fn granted(pool: Option<&RelayPool>, sender: &str, before: &GrantedShares) -> GrantedShares {
    let Some(pool) = pool else {
        return GrantedShares::default();
    };
    let no_status = RelayPoolStatus::default();
    let status = pool.status.as_ref().unwrap_or(&no_status);
    let of_all = status.pool_limits.iter();
    let own: Vec<_> = of_all
        .flat_map(|limit| limit.shares.iter().map(move |share| (limit, share)))
        .filter(|(_, share)| share.sender == sender)
        .collect();
    let known = (before.pool_uid == pool.uid()).then_some(before.revision).flatten();
    let newest = own.iter().map(|(_, share)| share.revision).max();
    // A revision of the pool below what is known comes of a status that was lost: what it does not say is no news.
    if known.is_some() && status.pool_limits_revision < known {
        return before.clone();
    }
    GrantedShares {
        pool_uid: pool.uid(),
        revision: newest.max(known),
        shares: own
            .into_iter()
            .filter(|(_, share)| share.granted > 0)
            .map(|(limit, share)| (limit.key(), share.granted))
            .collect(),
        most_claims: most_claims(usize::try_from(pool.spec.replicas).unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pool(uid: &str, status: Value) -> RelayPool {
        serde_json::from_value(json!({
            "apiVersion": "relaypool.dev/v1alpha1", "kind": "RelayPool", "metadata": { "name": "main", "uid": uid },
            "spec": {}, "status": status,
        }))
        .unwrap()
    }

    fn status(revision: u64, shares: &[(&str, u64, u64)]) -> Value {
        let shares: Vec<_> = shares
            .iter()
            .map(|(sender, granted, revision)| {
                json!({
                    "sender": sender, "granted": granted, "counted": 9, "revision": revision,
                    "since": "2026-11-20T12:00:00Z",
                })
            })
            .collect();
        let limit = json!({
            "policy": "ten", "site": "big.example", "quantity": "Connections", "limit": 10, "shares": shares,
        });
        json!({ "poolLimits": [limit], "poolLimitsRevision": revision })
    }

    fn seen(granted: &GrantedShares) -> (Option<u64>, Vec<u64>) {
        (granted.revision, granted.shares.values().copied().collect())
    }

    #[test]
    fn own_shares_are_followed_and_those_of_others_are_no_news() {
        let none = granted(None, "main-0", &GrantedShares::default());
        assert_eq!(seen(&none), (None, vec![]));
        let first = granted(Some(&pool("u", status(3, &[("main-1", 4, 3)]))), "main-0", &none);
        assert_eq!(seen(&first), (None, vec![]));
        let second = pool("u", status(4, &[("main-0", 6, 4), ("main-1", 4, 3)]));
        let second = granted(Some(&second), "main-0", &first);
        assert_eq!(seen(&second), (Some(4), vec![6]));
        let third = granted(Some(&pool("u", status(5, &[("main-1", 4, 3)]))), "main-0", &second);
        assert_eq!(
            seen(&third),
            (Some(4), vec![]),
            "what it had is gone, and it has followed that"
        );
    }

    #[test]
    fn a_lost_status_takes_nothing_and_a_new_pool_everything() {
        let had = granted(
            Some(&pool("u", status(4, &[("main-0", 6, 4)]))),
            "main-0",
            &GrantedShares::default(),
        );
        assert_eq!(granted(Some(&pool("u", json!({}))), "main-0", &had), had);
        assert_eq!(
            seen(&granted(Some(&pool("v", json!({}))), "main-0", &had)),
            (None, vec![])
        );
        assert_eq!(seen(&granted(None, "main-0", &had)), (None, vec![]));
    }
}
