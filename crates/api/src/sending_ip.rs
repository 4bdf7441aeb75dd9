//! SendingIp: one source address and its reputation.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::types::{Domain, Duration, Mask, Rate};
use crate::validation::{sending_ip as rules, text};

/// One source address of a pool: the name it introduces itself with, how it gets out, how far its warm-up is.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "relaypool.dev",
    version = "v1alpha1",
    kind = "SendingIp",
    plural = "sendingips",
    shortname = "sip",
    category = "relaypool",
    namespaced,
    status = "SendingIpStatus",
    derive = "PartialEq",
    doc = "A source address of a pool.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(
        name = "Sender",
        type_ = "string",
        json_path = ".status.sender",
        description = "The sender that owns the address"
    ),
    printcolumn(
        name = "Warm-up",
        type_ = "string",
        json_path = ".status.warmUp.progress",
        description = "Stage of the warm-up, such as 3/29, or warm"
    ),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(
        name = "Rate",
        type_ = "number",
        json_path = ".status.deliveredPerSecond",
        description = "Messages accepted per second, over the last minute"
    ),
    printcolumn(
        name = "Queued",
        type_ = "integer",
        json_path = ".status.queued",
        description = "Messages waiting for the address"
    ),
    printcolumn(
        name = "Refusing",
        type_ = "integer",
        json_path = ".status.suspendedSites",
        description = "Sites to which nothing is sent for a while, because they refuse mail from the address"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::POOL_IS_FIXED)]
#[x_kube(validation = rules::ADDRESS_IS_FIXED)]
pub struct SendingIpSpec {
    /// The RelayPool of the same namespace that the address belongs to.
    #[schemars(length(min = 1, max = 253))]
    pub pool: String,
    /// The address that receiving hosts see.
    #[schemars(with = "String", length(min = 2, max = 45))]
    #[x_kube(validation = text::IP_ADDRESS)]
    pub address: IpAddr,
    /// The name for EHLO. It should resolve to the address, and the address back to it.
    pub ehlo_name: Domain,
    /// How connections leave. Absent: they are bound to `address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// Warm-up. Absent: the address is warm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<WarmUp>,
    /// Share of the pool's mail relative to the weights of other addresses. 0: only what asks for it by affinity.
    #[serde(default = "weight")]
    #[schemars(range(min = 0, max = 1000))]
    pub weight: u32,
    /// Send nothing from this address; what waits for it stays queued.
    #[serde(default)]
    pub suspend: bool,
}

/// How connections leave. At most one of the fields.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ONE_EGRESS)]
pub struct Egress {
    /// Local address to bind, where it differs from the address that receiving hosts see (network address translation).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(min = 2, max = 45))]
    #[x_kube(validation = text::IP_ADDRESS)]
    pub bind: Option<IpAddr>,
    /// SOCKS5 proxy `host:port` that connects from the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 260))]
    #[x_kube(validation = text::HOST_AND_PORT)]
    pub socks5: Option<String>,
    /// Proxy `host:port` that takes a PROXY protocol header and connects from the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 260))]
    #[x_kube(validation = text::HOST_AND_PORT)]
    pub proxy_protocol: Option<String>,
}

/// Warm-up of a new address.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::WARM_HAS_NO_SCHEDULE)]
pub struct WarmUp {
    /// The address has its reputation already: no limit.
    #[serde(default)]
    pub already_warm: bool,
    /// Messages for each day, one entry a stage. Absent: the standard schedule, 200 on the first day to 10 million on the
    /// twenty-ninth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 120), inner(range(min = 1)))]
    pub schedule: Option<Vec<u64>>,
    /// Time zone whose midnight ends a warm-up day, such as `Europe/Paris`. Absent: UTC. A change takes effect at the end of
    /// the running day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub time_zone: Option<String>,
    /// Limits for single providers, in place of the rule that all others follow: a tenth of the day's volume (and never less
    /// than the first stage's), or three times what the provider took on its best day so far, whichever is more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub providers: Vec<WarmUpProvider>,
}

/// How much of a warm-up day may go to one provider. At least one limit; of several, the lowest holds.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::SOME_PROVIDER_LIMIT)]
pub struct WarmUpProvider {
    /// Masks over MX host names. All sites whose hosts fit share the limit; of several entries that fit, the first holds.
    #[schemars(length(min = 1, max = 64))]
    pub mx_hosts: Vec<Mask>,
    /// Percent of the day's volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_percent: Option<u32>,
    /// Messages a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_messages: Option<u64>,
}

/// What the address answers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SendingIpStatus {
    /// The generation of the spec that this status speaks of. Written by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled. Written by the controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The sender that owns the address. Assigned once and kept. Written by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// Warm-up of today. Written by the sender that owns the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<WarmUpStatus>,
    /// Messages accepted per second, over the last minute and all sites. Written by the sender that owns the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_per_second: Option<f64>,
    /// Messages waiting for the address, over all sites. Written by the sender that owns the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<i64>,
    /// Sites to which nothing is sent for a while, of all sites. Written by the sender that owns the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_sites: Option<u32>,
    /// The 50 busiest sites. Written by the sender that owns the address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["site"]))]
    pub sites: Vec<SiteStatus>,
}

/// How far the warm-up is, and the counts of today. Where the address moves to another sender, that one goes on from here.
///
/// No field is an object, so that one which goes away is a value taken back on API servers of any version.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WarmUpStatus {
    /// Stage and number of stages, such as `3/29`, or `warm`.
    #[serde(default)]
    pub progress: String,
    /// Stage, from 1; absent once warm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<u32>,
    /// Stages of the schedule; absent once warm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stages: Option<u32>,
    /// Date of the warm-up day, in the time zone of the schedule; absent once warm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<String>,
    /// When the day ends; absent once warm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day_ends: Option<Time>,
    /// Messages that may be sent today; absent once warm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Messages of today that a sender which takes the address over counts as sent: all that may be, because the owner may
    /// have sent them since it told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<u64>,
    /// Messages sent today.
    #[serde(default)]
    pub sent: u64,
    /// Messages that receiving hosts accepted today.
    #[serde(default)]
    pub delivered: u64,
    /// Why the stage is held, with provider and reply; absent while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub held: Option<String>,
    /// When the hold began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_since: Option<Time>,
    /// What the day before came to, such as `2026-11-19: 480 of 500 delivered, stage 2 passed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_day: Option<String>,
    /// When the last stage was passed; absent where there was none to pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_since: Option<Time>,
    /// The providers that got most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 30), extend("x-kubernetes-list-type" = "atomic"))]
    pub providers: Vec<WarmUpProviderStatus>,
}

/// What one provider got of a warm-up.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WarmUpProviderStatus {
    /// Name of the site.
    pub site: String,
    /// Messages that may be sent to it today.
    #[serde(default)]
    pub limit: u64,
    /// Messages sent to it today.
    #[serde(default)]
    pub sent: u64,
    /// Messages that it accepted today.
    #[serde(default)]
    pub delivered: u64,
    /// Most messages that it accepted on one day.
    #[serde(default)]
    pub best_day: u64,
}

/// How the address stands with one site (the set of MX hosts that a provider shares among its domains).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SiteStatus {
    /// Name of the site.
    pub site: String,
    /// Whether mail is flowing.
    pub state: LaneState,
    /// Open connections.
    #[serde(default)]
    pub connections: u32,
    /// Messages accepted per second, over the last minute.
    #[serde(default)]
    pub delivered_per_second: f64,
    /// The learned or configured rate limit, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Rate>,
    /// The connection limit in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_limit: Option<u32>,
    /// Which limit holds mail back right now.
    pub binds: Binds,
    /// Since when it is this limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binds_since: Option<Time>,
    /// Messages waiting.
    #[serde(default)]
    pub queued: i64,
    /// When a suspension ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_until: Option<Time>,
    /// The last refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refusal: Option<Refusal>,
    /// How the site took mail from the address in the last seven days. Absent while it took and refused none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reputation: Option<SiteReputation>,
}

/// How a site took mail from an address in the last seven days (UTC), today included.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SiteReputation {
    /// Messages accepted, of those accepted and refused: 0 to 1, to three digits.
    pub accepted_share: f64,
    /// Messages accepted.
    pub accepted: u64,
    /// Replies that refused mail for what the site thinks of the address, or of how much comes from it. A dead mailbox is
    /// none, and neither is a connection that fails.
    pub refused: u64,
}

/// Whether mail flows on a lane (one address to one site).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LaneState {
    /// Nothing waits.
    Idle,
    /// Mail flows.
    Sending,
    /// The breaker is open: nothing is sent until a time.
    Suspended,
}

/// The limit that holds a lane back.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binds {
    /// Room of the warm-up day.
    WarmUp,
    /// The rate of an MxPolicy.
    PolicyRate,
    /// The connections of an MxPolicy.
    PolicyConnections,
    /// This sender's share of a pool-wide limit.
    PoolShare,
    /// The rate learned from the provider's replies.
    LearnedRate,
    /// The connections learned from the provider's replies.
    LearnedConnections,
    /// A suspension.
    Suspended,
    /// Nothing but the amount of mail.
    NoDemand,
}

/// A reply that refused something.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// When.
    pub at: Time,
    /// The reply, code first.
    #[schemars(length(max = 512))]
    pub reply: String,
    /// How it was classified.
    pub category: String,
    /// How long it asked to wait, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
}

fn weight() -> u32 {
    100
}
