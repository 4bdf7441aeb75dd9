//! MxPolicy: the rules for sending to a set of providers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::types::{Duration, Mask, Rate};
use crate::validation::{LONGER_THAN_ZERO, mx_policy as rules};

/// Limits, TLS, timeouts, reply rules and retry intervals for the recipient domains or MX hosts it matches.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "relaypool.dev",
    version = "v1alpha1",
    kind = "MxPolicy",
    plural = "mxpolicies",
    shortname = "mxp",
    category = "relaypool",
    namespaced,
    status = "MxPolicyStatus",
    derive = "PartialEq",
    doc = "Rules for sending to a set of providers.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Domains", type_ = "string", json_path = ".spec.match.domains"),
    printcolumn(name = "MX", type_ = "string", json_path = ".spec.match.mxHosts"),
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(name = "Connections", type_ = "integer", json_path = ".spec.limits.maxConnections"),
    printcolumn(name = "Rate", type_ = "string", json_path = ".spec.limits.rate"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct MxPolicySpec {
    /// Pools of the same namespace that the policy is for. Empty: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub pools: Vec<String>,
    /// Where the policy applies.
    #[serde(rename = "match")]
    pub matches: MxMatch,
    /// Of several policies that set one field, the higher priority wins; then the narrower match: a mask for the domain
    /// before one for its MX hosts, before `*`, and a longer mask before a shorter; then the name.
    #[serde(default)]
    pub priority: i32,
    /// Whether `limits` count for each sending IP alone or for all IPs of the pool together. Either way they hold towards
    /// each site by itself: a policy that fits several providers limits each of them, not their sum.
    #[serde(default)]
    pub scope: Scope,
    /// Hard limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// TLS towards the provider. Default `Opportunistic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsMode>,
    /// Timeouts by phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// Bounds for what the pacer may learn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveBounds>,
    /// What to do on certain replies. For each reply, the first rule that fits counts it and acts, the others do not see it:
    /// those of a policy in the order written, before those of policies that are ranked lower. They act in pools of both
    /// modes. Counted for each sending IP and site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub reply_rules: Vec<ReplyRule>,
    /// Retry intervals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

/// Where a policy applies: to a recipient domain or to a site whose MX hosts fit. At least one mask.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::SOME_MASK)]
pub struct MxMatch {
    /// Masks over recipient domains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub domains: Vec<Mask>,
    /// Masks over MX host names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub mx_hosts: Vec<Mask>,
}

/// What a policy's limits are counted over.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Each sending IP has the limits for itself.
    #[default]
    PerIp,
    /// All sending IPs of the pool share `maxConnections` and `rate`, over all senders. Messages on one connection are not
    /// shared. Meant for providers that are named: a sender takes part in at most 50 such limits at a time.
    Pool,
}

/// Hard limits towards one site.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Connections open at one time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_connections: Option<u32>,
    /// Messages on one connection before it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_messages_per_connection: Option<u32>,
    /// Messages per unit of time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// TLS towards a provider.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never STARTTLS.
    Disabled,
    /// STARTTLS where it is offered; clear text otherwise.
    #[default]
    Opportunistic,
    /// No mail without TLS.
    Required,
}

/// Timeouts by phase of a session. What is absent has the value of RFC 5321 section 4.5.3.2.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// Opening the TCP connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = LONGER_THAN_ZERO)]
    pub connect: Option<Duration>,
    /// The greeting, and each of EHLO, STARTTLS, MAIL and RCPT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = LONGER_THAN_ZERO)]
    pub command: Option<Duration>,
    /// The reply to DATA, and each block of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = LONGER_THAN_ZERO)]
    pub data: Option<Duration>,
    /// The reply to the final dot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = LONGER_THAN_ZERO)]
    pub end_of_data: Option<Duration>,
    /// One whole transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = LONGER_THAN_ZERO)]
    pub transaction: Option<Duration>,
    /// How long an unused connection is kept open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = LONGER_THAN_ZERO)]
    pub idle: Option<Duration>,
}

/// Bounds for what the pacer may learn.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::CONNECTIONS_IN_ORDER)]
pub struct AdaptiveBounds {
    /// Never slower than this, except while suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Pace>,
    /// Never faster than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Pace>,
}

/// A pace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Pace {
    /// Messages per unit of time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Connections open at one time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub connections: Option<u32>,
}

/// What to do when replies fit.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::SOMETHING_TO_MATCH)]
pub struct ReplyRule {
    /// Part of the reply's text, the enhanced status code included, or of what went wrong where there was no reply. Letter
    /// case does not matter, nor how much white space there is; `*` stands for any run of characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub text: Option<String>,
    /// The bounce category that the reply has without any rule, such as `rate_limited`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = rules::BOUNCE_CATEGORY)]
    pub category: Option<String>,
    /// The reply code. A failure without a reply has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 599))]
    pub code: Option<u16>,
    /// How many times within how long, before the rule acts. Absent: at the first reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// What to do.
    pub action: ReplyAction,
}

/// Replies that a trigger can count at most: each sending IP and site remembers them.
pub const MAX_TRIGGER_COUNT: u32 = 10_000;

/// When a reply rule acts. After that it counts from zero again.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Trigger {
    /// This many replies …
    #[schemars(range(min = 1, max = MAX_TRIGGER_COUNT))]
    pub count: u32,
    /// … within this time.
    #[x_kube(validation = LONGER_THAN_ZERO)]
    pub within: Duration,
}

/// What a reply rule does. Each field that is set is done, for the sending IP towards the site. A throttle and the
/// reductions hold until the rule has not acted for an hour.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::SOMETHING_TO_DO)]
pub struct ReplyAction {
    /// Send nothing for this time, at most a day. Then a single message tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = LONGER_THAN_ZERO)]
    pub suspend_for: Option<Duration>,
    /// Go no faster than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Rate>,
    /// Have so many connections fewer than there are now; one at least stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub reduce_connections: Option<u32>,
    /// Send so many messages fewer on each connection than now; at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub reduce_messages_per_connection: Option<u32>,
    /// Treat the reply as this bounce category: what becomes of the message and what the pacer learns follow from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = rules::BOUNCE_CATEGORY)]
    pub reclassify: Option<String>,
    /// Try the message again, and not before this time has passed; also after a reply that would end it otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = LONGER_THAN_ZERO)]
    pub retry_after: Option<Duration>,
}

/// Retry intervals: the first, and the longest that growing ones reach.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Interval after the first temporary failure of no special kind. Those of other failures are multiples of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = LONGER_THAN_ZERO)]
    pub first_interval: Option<Duration>,
    /// Longest interval. Each interval is twice the one before until this is reached. Only a wait that a host asks for may be
    /// longer, up to a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = LONGER_THAN_ZERO)]
    pub max_interval: Option<Duration>,
}

/// What the policy answers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MxPolicyStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Names of policies with the same masks and priority that set the same fields: which of them wins is decided by name only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub conflicts: Vec<String>,
}
