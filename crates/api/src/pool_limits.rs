//! How the senders of a pool and the controller agree on pool-wide limits, by the status of the RelayPool.
//!
//! Each sender claims, the controller grants. See `relaypool_shaping::pool_shares` for the rules.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::mx_policy::{MxPolicySpec, Scope};
use crate::types::{Rate, RateUnit};

/// Most limits that one sender claims at a time, in a pool of up to 40 senders; in a larger one, fewer.
pub const MOST_CLAIMS: usize = 50;
/// Most claims of all senders of a pool together: what fits into one object with room to spare.
const MOST_CLAIMS_OF_A_POOL: usize = 2_000;

/// How many limits a sender of a pool with so many senders may claim at a time. At least one.
pub fn most_claims(senders: usize) -> usize {
    (MOST_CLAIMS_OF_A_POOL / senders.max(1)).clamp(1, MOST_CLAIMS)
}

/// Which limit: the policy that sets it, the site that it holds towards, and what it counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolLimitKey {
    /// Name of the MxPolicy.
    pub policy: String,
    /// Name of the site.
    pub site: String,
    /// What is counted.
    pub quantity: LimitedQuantity,
}

/// What a pool-wide limit counts. A rate in another unit is another limit.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LimitedQuantity {
    /// Connections open at one time.
    Connections,
    /// Messages in any second.
    MessagesPerSecond,
    /// Messages in any minute.
    MessagesPerMinute,
    /// Messages in any hour.
    MessagesPerHour,
    /// Messages in any 24 hours.
    MessagesPerDay,
}

/// A pool-wide limit and how it is shared out.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PoolLimit {
    /// Name of the MxPolicy that sets the limit.
    pub policy: String,
    /// Name of the site that the limit holds towards.
    pub site: String,
    /// What the limit counts.
    pub quantity: LimitedQuantity,
    /// The limit. 0 once the policy sets it no more.
    pub limit: u64,
    /// The senders that have, want or had a share of it.
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "atomic"))]
    pub shares: Vec<PoolLimitShare>,
}

/// A sender's share of a pool-wide limit.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PoolLimitShare {
    /// The sender.
    pub sender: String,
    /// What it may use.
    pub granted: u64,
    /// What it may still be using: more than `granted` until it says that it has come down to it. No other sender gets that.
    pub counted: u64,
    /// The value of `poolLimitsRevision` when `granted` last changed.
    pub revision: u64,
    /// Since when it has something, or nothing.
    pub since: Time,
}

/// What a sender says of one pool-wide limit.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PoolLimitClaim {
    /// Name of the MxPolicy that sets the limit.
    pub policy: String,
    /// Name of the site that the limit holds towards.
    pub site: String,
    /// What the limit counts.
    pub quantity: LimitedQuantity,
    /// What it could use.
    pub wanted: u64,
    /// What it uses at most until it hears of a newer revision.
    pub held: u64,
}

impl LimitedQuantity {
    /// What a rate in this unit counts.
    pub const fn messages_per(unit: RateUnit) -> Self {
        match unit {
            RateUnit::Second => Self::MessagesPerSecond,
            RateUnit::Minute => Self::MessagesPerMinute,
            RateUnit::Hour => Self::MessagesPerHour,
            RateUnit::Day => Self::MessagesPerDay,
        }
    }

    /// The limit that a policy sets on this for all senders of a pool together; none where it sets none.
    pub fn limit_of(self, policy: &MxPolicySpec) -> Option<u64> {
        let limits = policy.limits.as_ref().filter(|_| policy.scope == Scope::Pool)?;
        match self.unit() {
            None => limits.max_connections.map(u64::from),
            Some(unit) => limits.rate.filter(|rate| rate.unit() == unit).map(Rate::messages),
        }
    }

    /// The unit of time; none for connections.
    pub const fn unit(self) -> Option<RateUnit> {
        match self {
            Self::Connections => None,
            Self::MessagesPerSecond => Some(RateUnit::Second),
            Self::MessagesPerMinute => Some(RateUnit::Minute),
            Self::MessagesPerHour => Some(RateUnit::Hour),
            Self::MessagesPerDay => Some(RateUnit::Day),
        }
    }
}

impl PoolLimit {
    /// Which limit it is.
    pub fn key(&self) -> PoolLimitKey {
        PoolLimitKey {
            policy: self.policy.clone(),
            site: self.site.clone(),
            quantity: self.quantity,
        }
    }
}

impl PoolLimitClaim {
    /// Which limit it is about.
    pub fn key(&self) -> PoolLimitKey {
        PoolLimitKey {
            policy: self.policy.clone(),
            site: self.site.clone(),
            quantity: self.quantity,
        }
    }
}

impl fmt::Display for PoolLimitKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:?} of {} towards {}",
            self.quantity, self.policy, self.site
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_of_a_policy() {
        let policy = |scope: &str| -> MxPolicySpec {
            serde_json::from_value(json!({
                "match": { "domains": ["*"] }, "scope": scope, "limits": { "maxConnections": 10, "rate": "600/m" },
            }))
            .unwrap()
        };
        let pool = policy("Pool");
        assert_eq!(LimitedQuantity::Connections.limit_of(&pool), Some(10));
        assert_eq!(LimitedQuantity::MessagesPerMinute.limit_of(&pool), Some(600));
        assert_eq!(LimitedQuantity::MessagesPerHour.limit_of(&pool), None);
        assert_eq!(LimitedQuantity::Connections.limit_of(&policy("PerIp")), None);
    }

    #[test]
    fn claims_are_bounded() {
        for (senders, most) in [(0, 50), (1, 50), (40, 50), (100, 20), (1_000, 2), (9_999, 1)] {
            assert_eq!(most_claims(senders), most, "{senders}");
        }
    }
}
