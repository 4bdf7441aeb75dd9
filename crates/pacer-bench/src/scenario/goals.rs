use relaypool_api::Duration;
use serde::{Deserialize, Serialize};

use super::Share;

/// What a good pacer reaches. What is left out is no goal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Goals {
    /// At most this share of all attempts is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_refused_share: Option<Share>,
    /// At least this share of what an omniscient sender delivers in the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_utilisation: Option<Share>,
    /// At least so many messages a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_delivered_per_second: Option<f64>,
    /// At least so much of a finite list within a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_delivered: Option<DeliveredBy>,
    /// The provider locks the sender out at most so often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_blocks: Option<u64>,
    /// Limits are lowered because of refusals at most so often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cuts: Option<u64>,
    /// Every lowering of a limit is taken back.
    #[serde(default, skip_serializing_if = "is_false")]
    pub every_cut_undone: bool,
    /// On each whole day of the provider at least so many messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_delivered_per_day: Option<u64>,
    /// On each day of the provider at most so many refusals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_refusals_per_day: Option<u64>,
    /// Compared with another way to pace the same mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<Against>,
}

/// A share of a finite list within a time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeliveredBy {
    /// The share.
    pub share: Share,
    /// Since the start.
    pub by: Duration,
}

/// How much better than another controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Against {
    /// Which one.
    pub controller: String,
    /// Deliveries, as a multiple of the other's.
    pub min_throughput_ratio: f64,
    /// Refusals, as a fraction of the other's.
    pub max_soft_bounce_ratio: f64,
}

const fn is_false(value: &bool) -> bool {
    !*value
}
