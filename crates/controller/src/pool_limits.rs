//! Shares pool-wide limits out among the senders of a pool.
//!
//! The status of the RelayPool is the only memory: what senders claim and what they are granted is read from it each time,
//! and the new grants are written only over the status they were computed from. So a restart changes nothing, and two
//! controllers at once would do no harm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource as _, ResourceExt as _};
use relaypool_api::names::SHARES_MANAGER;
use relaypool_api::pool_limits::{PoolLimit, PoolLimitClaim, PoolLimitKey, PoolLimitShare};
use relaypool_api::relay_pool::SenderStatus;
use relaypool_api::validation::Validate as _;
use relaypool_api::{MxPolicy, RelayPool, RelayPoolStatus};
use relaypool_shaping::pool_shares::{Claim, Share, reallocate};
use serde_json::json;

use crate::context::{Context, now, sound_in_namespace};
use crate::error::Error;
use crate::requests::{get, within_limit};

/// Least time between two writes of one pool's shares.
const SPACING: Duration = Duration::from_secs(2);
/// A sender that was silent for longer keeps what it has, and wants nothing more.
const REACHABLE: SignedDuration = SignedDuration::from_secs(60);
/// Attempts to write before other work gets its turn: senders write into the same status.
const ATTEMPTS: usize = 10;

/// Writes new shares where claims or limits ask for any. What is returned is when to look again, if that is soon.
pub(crate) async fn share_out(pool: &RelayPool, context: &Context) -> Result<Option<Duration>, Error> {
    let policies = policies_for(pool, context);
    if redistribute(pool.status.as_ref(), &policies, now().0).is_none() {
        return Ok(None);
    }
    let uid = pool.uid().unwrap_or_default();
    let wait = context.share_writes.with(uid.clone(), Instant::now(), |last| {
        last.and_then(|last: Instant| SPACING.checked_sub(last.elapsed()))
    });
    if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
        return Ok(Some(wait));
    }
    for _ in 0..ATTEMPTS {
        if write(pool, &policies, context).await? == Written::Yes {
            context
                .share_writes
                .with(uid, Instant::now(), |last| *last = Some(Instant::now()));
            return Ok(None);
        }
    }
    Ok(Some(SPACING))
}

#[derive(Debug, PartialEq, Eq)]
enum Written {
    /// The shares are as they should be.
    Yes,
    /// Somebody else wrote in between.
    Conflict,
}

/// One attempt. What the watch has seen may be old, so the pool is read anew.
async fn write(pool: &RelayPool, policies: &[Arc<MxPolicy>], context: &Context) -> Result<Written, Error> {
    let name = pool.name_any();
    let namespace = pool.namespace().unwrap_or_default();
    let api = Api::<RelayPool>::namespaced(context.client.clone(), &namespace);
    let Some(current) = get(&api, &name).await?.filter(|current| current.uid() == pool.uid()) else {
        return Ok(Written::Yes);
    };
    let Some((limits, revision)) = redistribute(current.status.as_ref(), policies, now().0) else {
        return Ok(Written::Yes);
    };
    let body = json!({
        "apiVersion": RelayPool::api_version(&()),
        "kind": RelayPool::kind(&()),
        "metadata": { "name": name, "uid": current.uid(), "resourceVersion": current.resource_version() },
        "status": { "poolLimits": limits, "poolLimitsRevision": revision },
    });
    let parameters = PatchParams::apply(SHARES_MANAGER).force();
    let action = || format!("write the shares of RelayPool {name}");
    let answer = within_limit(action, api.patch_status(&name, &parameters, &Patch::Apply(&body))).await;
    match answer {
        Ok(_) => {
            tracing::debug!(pool = name, revision, "shares of pool-wide limits written");
            Ok(Written::Yes)
        }
        Err(Error::Api { source, .. }) if is_conflict(&source) => Ok(Written::Conflict),
        Err(error) => Err(error),
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// The policies that senders of the pool obey.
fn policies_for(pool: &RelayPool, context: &Context) -> Vec<Arc<MxPolicy>> {
    let name = pool.name_any();
    let namespace = pool.namespace().unwrap_or_default();
    let is_for_pool = |policy: &MxPolicy| {
        (policy.spec.pools.is_empty() || policy.spec.pools.contains(&name)) && policy.problems().is_empty()
    };
    let mut policies = sound_in_namespace(&context.stores.policies, &namespace);
    policies.retain(|policy| is_for_pool(policy));
    policies
}

/// The new shares of all limits and their revision; none when they stay as they are. No client.
fn redistribute(
    status: Option<&RelayPoolStatus>,
    policies: &[Arc<MxPolicy>],
    now: Timestamp,
) -> Option<(Vec<PoolLimit>, u64)> {
    let status = status?;
    let limits: BTreeMap<PoolLimitKey, &PoolLimit> =
        status.pool_limits.iter().map(|limit| (limit.key(), limit)).collect();
    let claimants: Vec<Claimant<'_>> = status.senders.iter().map(|sender| Claimant::new(sender, now)).collect();
    // Above what any sender has followed, even where the status was lost.
    let followed = status.senders.iter().filter_map(|sender| sender.pool_limits_revision);
    let revision = followed.chain(status.pool_limits_revision).max().unwrap_or(0) + 1;

    let claimed = claimants.iter().flat_map(|claimant| claimant.claims.keys().cloned());
    let keys: BTreeSet<PoolLimitKey> = limits.keys().cloned().chain(claimed).collect();
    let redistributed: Vec<PoolLimit> = keys
        .iter()
        .map(|key| {
            let limit = limit_of(key, policies);
            let shares = limits.get(key).map(|limit| shares(limit)).unwrap_or_default();
            let claims = claimants
                .iter()
                .filter_map(|claimant| {
                    let claim = claimant.claim(key, shares.contains_key(claimant.name))?;
                    Some((claimant.name.to_owned(), claim))
                })
                .collect();
            let shares = reallocate(limit, &shares, &claims, revision, seconds(now));
            pool_limit(key, limit, shares)
        })
        .filter(|limit| !limit.shares.is_empty())
        .collect();
    (redistributed != status.pool_limits).then_some((redistributed, revision))
}

/// What the policy of a limit says now; 0 when it sets that limit no more.
fn limit_of(key: &PoolLimitKey, policies: &[Arc<MxPolicy>]) -> u64 {
    let policy = policies.iter().find(|policy| policy.name_any() == key.policy);
    policy
        .and_then(|policy| key.quantity.limit_of(&policy.spec))
        .unwrap_or(0)
}

/// A sender and what it claims.
struct Claimant<'a> {
    name: &'a str,
    claims: BTreeMap<PoolLimitKey, &'a PoolLimitClaim>,
    revision: Option<u64>,
    /// It claims nothing of what it does not list.
    is_complete: bool,
    reachable: bool,
}

impl<'a> Claimant<'a> {
    fn new(sender: &'a SenderStatus, now: Timestamp) -> Self {
        Self {
            name: &sender.name,
            claims: sender.pool_limits.iter().map(|claim| (claim.key(), claim)).collect(),
            revision: sender.pool_limits_revision,
            is_complete: sender.pool_limits_left_out == 0 && sender.pool_limits_revision.is_some(),
            reachable: now.duration_since(sender.reported_at.0) < REACHABLE,
        }
    }

    /// What it says of one limit, by silence too if it has a share.
    fn claim(&self, key: &PoolLimitKey, has_share: bool) -> Option<Claim> {
        let (wanted, held) = match self.claims.get(key) {
            Some(claim) => (claim.wanted, claim.held),
            None if has_share && self.is_complete => (0, 0),
            None => return None,
        };
        Some(Claim {
            wanted,
            held,
            revision: self.revision,
            reachable: self.reachable,
        })
    }
}

fn shares(limit: &PoolLimit) -> BTreeMap<String, Share> {
    let share = |share: &PoolLimitShare| Share {
        granted: share.granted,
        counted: share.counted,
        revision: share.revision,
        since: seconds(share.since.0),
    };
    let shares = limit.shares.iter();
    shares.map(|one| (one.sender.clone(), share(one))).collect()
}

fn pool_limit(key: &PoolLimitKey, limit: u64, shares: BTreeMap<String, Share>) -> PoolLimit {
    let share = |(sender, share): (String, Share)| PoolLimitShare {
        sender,
        granted: share.granted,
        counted: share.counted,
        revision: share.revision,
        since: time(share.since),
    };
    PoolLimit {
        policy: key.policy.clone(),
        site: key.site.clone(),
        quantity: key.quantity,
        limit,
        shares: shares.into_iter().map(share).collect(),
    }
}

/// Since the Unix epoch, in whole seconds: what a status keeps of a moment.
fn seconds(moment: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(moment.as_second()).unwrap_or(0))
}

fn time(since: Duration) -> Time {
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const NOW: &str = "2026-11-20T12:00:00Z";

    fn policy(name: &str, spec: Value) -> Arc<MxPolicy> {
        Arc::new(MxPolicy::new(name, serde_json::from_value(spec).unwrap()))
    }

    fn ten_connections() -> Vec<Arc<MxPolicy>> {
        let spec = json!({ "match": { "domains": ["*"] }, "scope": "Pool", "limits": { "maxConnections": 10, "rate": "6/m" } });
        vec![policy("ten", spec)]
    }

    fn claim(wanted: u64, held: u64) -> Value {
        json!({ "policy": "ten", "site": "big.example", "quantity": "Connections", "wanted": wanted, "held": held })
    }

    fn sender(name: &str, reported_at: &str, revision: Option<u64>, claims: &[Value]) -> Value {
        let mut sender = json!({ "name": name, "reportedAt": reported_at, "poolLimits": claims });
        if let Some(revision) = revision {
            sender["poolLimitsRevision"] = json!(revision);
        }
        sender
    }

    fn status(senders: &[Value]) -> RelayPoolStatus {
        serde_json::from_value(json!({ "senders": senders })).unwrap()
    }

    fn next(status: &mut RelayPoolStatus, policies: &[Arc<MxPolicy>]) -> bool {
        let changed = redistribute(Some(status), policies, NOW.parse().unwrap());
        let is_changed = changed.is_some();
        if let Some((limits, revision)) = changed {
            // Through JSON, as the API server has it.
            status.pool_limits = serde_json::from_value(json!(limits)).unwrap();
            status.pool_limits_revision = Some(revision);
        }
        is_changed
    }

    fn shares(status: &RelayPoolStatus) -> Vec<(&str, u64, u64)> {
        let shares = status.pool_limits.iter().flat_map(|limit| &limit.shares);
        shares
            .map(|share| (share.sender.as_str(), share.granted, share.counted))
            .collect()
    }

    #[test]
    fn claims_become_shares_and_stay_until_something_changes() {
        let mut status = status(&[
            sender("main-0", NOW, None, &[claim(20, 0)]),
            sender("main-1", NOW, None, &[claim(3, 0)]),
        ]);
        assert!(next(&mut status, &ten_connections()));
        assert_eq!(shares(&status), [("main-0", 7, 7), ("main-1", 3, 3)]);
        assert!(!next(&mut status, &ten_connections()), "nothing to write");
    }

    #[test]
    fn who_is_silent_keeps_its_share_and_who_lists_nothing_gives_it_up() {
        let claims = [claim(20, 5)];
        let old = "2026-11-20T11:58:00Z";
        let mut status = status(&[
            sender("main-0", NOW, None, &claims),
            sender("main-1", NOW, None, &claims),
        ]);
        assert!(next(&mut status, &ten_connections()));
        for (followed, expected) in [
            (1, [("main-0", 5, 5), ("main-1", 0, 5), ("main-2", 0, 0)]),
            // What main-1 lists no more it holds no more, once it has followed.
            (2, [("main-0", 5, 5), ("main-1", 0, 0), ("main-2", 5, 5)]),
        ] {
            status.senders = super::tests::status(&[
                sender("main-0", old, Some(1), &claims),
                sender("main-1", NOW, Some(followed), &[]),
                sender("main-2", NOW, Some(followed), &[claim(20, 0)]),
            ])
            .senders;
            assert!(next(&mut status, &ten_connections()));
            let expected: Vec<_> = expected
                .into_iter()
                .filter(|share| *share != ("main-1", 0, 0))
                .collect();
            assert_eq!(shares(&status), expected);
        }
    }

    #[test]
    fn a_sender_that_has_only_just_started_gives_nothing_up() {
        let mut status = status(&[sender("main-0", NOW, Some(1), &[claim(20, 0)])]);
        assert!(next(&mut status, &ten_connections()));
        status.senders = super::tests::status(&[sender("main-0", NOW, None, &[])]).senders;
        assert!(!next(&mut status, &ten_connections()));
    }

    #[test]
    fn a_limit_that_is_set_no_more_ends_when_its_holders_say_so() {
        let mut status = status(&[sender("main-0", NOW, None, &[claim(20, 0)])]);
        assert!(next(&mut status, &ten_connections()));
        assert!(next(&mut status, &[]));
        assert_eq!(
            (status.pool_limits[0].limit, shares(&status)),
            (0, vec![("main-0", 0, 10)])
        );
        let revision = status.pool_limits_revision;
        status.senders = super::tests::status(&[sender("main-0", NOW, revision, &[])]).senders;
        assert!(next(&mut status, &[]));
        assert_eq!(status.pool_limits, []);
        assert_eq!(status.pool_limits_revision, revision.map(|revision| revision + 1));
    }

    #[test]
    fn revisions_go_on_where_the_status_was_lost() {
        let mut status = status(&[sender("main-0", NOW, Some(70), &[claim(20, 4)])]);
        assert!(next(&mut status, &ten_connections()));
        assert_eq!(status.pool_limits_revision, Some(71));
    }
}
