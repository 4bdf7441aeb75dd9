//! Delivery: one message for many recipients, and what became of each.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message::{MessageTemplate, OnBlock, Priority, Sender};
use crate::types::Duration;
use crate::validation::{LONGER_THAN_ZERO, delivery as rules, text};

/// One message for many recipients: from whom, through which pool, to whom, when, and how long to try.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "relaypool.dev",
    version = "v1alpha1",
    kind = "Delivery",
    plural = "deliveries",
    shortname = "dlv",
    category = "relaypool",
    namespaced,
    status = "DeliveryStatus",
    derive = "PartialEq",
    doc = "One message for many recipients.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Total", type_ = "integer", json_path = ".status.counts.total"),
    printcolumn(name = "Sent", type_ = "integer", json_path = ".status.counts.sent"),
    printcolumn(name = "Waiting", type_ = "integer", json_path = ".status.counts.takenIntoAccount"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.counts.failed"),
    printcolumn(name = "Success", type_ = "string", json_path = ".status.success"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Ignored",
        type_ = "integer",
        json_path = ".status.counts.ignored",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::RECIPIENTS_OR_RELAY)]
#[x_kube(validation = rules::MESSAGE_WITH_RECIPIENTS)]
#[x_kube(validation = rules::POOL_IS_FIXED)]
#[x_kube(validation = rules::CANCEL_IS_FINAL)]
pub struct DeliverySpec {
    /// The RelayPool of the same namespace that sends.
    #[schemars(length(min = 1, max = 253))]
    pub pool: String,
    /// Who the mail is from.
    pub sender: Sender,
    /// The message. With `recipients`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageTemplate>,
    /// Who gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients: Option<Recipients>,
    /// Messages are not made here but relayed in with the name of this Delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<Relay>,
    /// When to send. Absent: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// How long to try, from the moment a message reached its sender. More than 84h is ignored and 84h applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = LONGER_THAN_ZERO)]
    pub validity: Option<Duration>,
    /// Which messages leave first when several deliveries wait.
    #[serde(default)]
    pub priority: Priority,
    /// On: a message counts as a success when the receiving host accepted it. Off: when it reached the pool, until it fails.
    #[serde(default = "yes")]
    pub email_feedback: bool,
    /// Sending IPs that may be used, by their labels. Absent: all of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub ip_affinity: Option<LabelSelector>,
    /// What happens to messages that wait for a provider which blocks their sending IP. Absent: what the pool says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_block: Option<OnBlock>,
    /// Send nothing for now; what is queued stays queued, and its validity goes on running.
    #[serde(default)]
    pub suspend: bool,
    /// Stop for good: what is still queued ends as Canceled.
    #[serde(default)]
    pub cancel: bool,
    /// When to pause by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
    /// How much the report says.
    #[serde(default)]
    pub report_detail: ReportDetail,
    /// Stop after RCPT TO: no message is delivered, and an accepted recipient counts as Sent.
    #[serde(default)]
    pub test_mode: bool,
    /// Delete the finished Delivery after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_finished: Option<Duration>,
    /// Distinguishes runs: a Delivery runs once for each name, content and runId.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub run_id: Option<String>,
}

/// Messages are relayed in.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct Relay {}

/// Who gets the message. Exactly one of the fields.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ONE_SOURCE)]
pub struct Recipients {
    /// In this object. For more, use a ConfigMap, a Secret or an object store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 5000))]
    pub inline: Option<Vec<Recipient>>,
    /// A list in a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<RecipientListRef>,
    /// A list in a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<RecipientListRef>,
    /// A list in an object store of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_store: Option<ObjectStoreRef>,
}

/// One recipient and what is known of them.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Recipient {
    /// The address. One that is malformed ends as Ignored, with the reason.
    pub address: String,
    /// Values for the template, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, AnyValue>", extend("maxProperties" = 1000))]
    pub variables: BTreeMap<String, serde_json::Value>,
}

/// Any JSON value: the schema of a template variable. Null is a value too, and is kept.
struct AnyValue;

impl JsonSchema for AnyValue {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AnyValue".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "x-kubernetes-preserve-unknown-fields": true, "nullable": true })
    }
}

/// A list of recipients in one key of a ConfigMap or a Secret.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RecipientListRef {
    /// Name of the ConfigMap or the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key within it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
    /// Format of the list.
    #[serde(default)]
    pub format: ListFormat,
}

/// A list of recipients in an object store that the pool declares.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStoreRef {
    /// Name of the store in the pool's `objectStores`.
    #[schemars(length(min = 1, max = 63))]
    pub store: String,
    /// Path below the store's URL.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// Format of the list.
    #[serde(default)]
    pub format: ListFormat,
}

/// Format of a list of recipients.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListFormat {
    /// Comma-separated values (RFC 4180). The first row names the columns; one is `address` or `email`, the others are variables.
    #[default]
    Csv,
    /// One JSON object a line with `address` (or `email`); the other members are variables.
    JsonLines,
}

/// When to send.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// Not before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Time>,
    /// Time zone of quiet hours, such as `Europe/Paris`. Absent: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub time_zone: Option<String>,
    /// Several waves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<Waves>,
    /// Hours of the day in which nothing is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_hours: Option<QuietHours>,
}

/// Several waves. Exactly one of the fields.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ONE_KIND_OF_WAVES)]
pub struct Waves {
    /// Waves of equal size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<EqualShares>,
    /// Waves of their own delay and size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = rules::NO_MORE_THAN_ALL)]
    pub calendar: Option<Vec<Wave>>,
}

/// Waves of equal size.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EqualShares {
    /// Percent of the recipients in each wave; the last wave has the rest.
    #[schemars(range(min = 1, max = 100))]
    pub percent: u32,
    /// Time between the starts of two waves.
    #[x_kube(validation = LONGER_THAN_ZERO)]
    pub every: Duration,
}

/// One wave.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Wave {
    /// Delay after the start.
    pub after: Duration,
    /// Percent of the recipients.
    #[schemars(range(min = 1, max = 100))]
    pub percent: u32,
}

/// Hours of the day in which nothing is sent; `from` may be later than `to` (over midnight).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct QuietHours {
    /// Start, `HH:MM`.
    #[schemars(length(min = 5, max = 5))]
    #[x_kube(validation = text::TIME_OF_DAY)]
    pub from: String,
    /// End, `HH:MM`.
    #[schemars(length(min = 5, max = 5))]
    #[x_kube(validation = text::TIME_OF_DAY)]
    pub to: String,
}

/// When a Delivery pauses by itself.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Guard {
    /// Hard bounces in percent of the attempted messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_hard_bounce_percent: Option<u32>,
    /// Attempted messages before the guard looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_messages: Option<u64>,
}

/// How much the report says.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReportDetail {
    /// Counts, and each message of a Delivery of up to 100 recipients.
    #[default]
    Messages,
    /// Counts only: no address in the status.
    Counts,
}

/// What the Delivery answers. Written by the controller.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the Delivery is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<DeliveryPhase>,
    /// Ready, Reconciling, Stalled, Completed, and warnings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Messages by log status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// The success figure, such as `99.5%`; absent while it is not defined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<String>,
    /// Why messages failed, wait or were ignored, most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub reasons: Vec<ReasonCount>,
    /// Progress for the recipient domains with most messages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub domains: Vec<DomainProgress>,
    /// Speeds over the last minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<Speed>,
    /// Each message of a Delivery of up to 100 recipients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub messages: Vec<MessageReport>,
    /// What the run was planned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// The validity in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity: Option<Duration>,
    /// When the first message reached a sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the last message came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
}

/// Where a Delivery is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryPhase {
    /// Not planned yet.
    Pending,
    /// Planned, and waiting for its start.
    Scheduled,
    /// Messages are on their way.
    Sending,
    /// Paused by `suspend`.
    Suspended,
    /// Every message came to its end.
    Completed,
    /// Canceled, and every message came to its end.
    Canceled,
    /// Something in the object must be changed first; see the condition Stalled.
    Stalled,
}

/// Messages by log status. `total` is the sum of the others.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// All rows of the recipient list.
    pub total: u64,
    /// Not with a sender yet.
    pub pending: u64,
    /// With a sender: waiting, or being tried.
    pub taken_into_account: u64,
    /// Accepted by the receiving host (with email feedback), or with a sender and not failed (without).
    pub sent: u64,
    /// Given up.
    pub failed: u64,
    /// Excluded before sending.
    pub ignored: u64,
    /// Stopped by the user.
    pub canceled: u64,
}

/// How often a reason occurred.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ReasonCount {
    /// Log status of the messages.
    pub status: LogStatus,
    /// The reason, such as `User unknown`.
    pub reason: String,
    /// Bounce code, where a receiving host gave the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounce_code: Option<u16>,
    /// Bounce category, where a receiving host gave the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Messages.
    pub count: u64,
}

/// Log status of a message.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogStatus {
    /// Not with a sender yet.
    Pending,
    /// With a sender: waiting, or being tried.
    TakenIntoAccount,
    /// Success.
    Sent,
    /// Given up.
    Failed,
    /// Excluded before sending.
    Ignored,
    /// Stopped by the user.
    Canceled,
}

/// Progress for one recipient domain. Counts speak of what receiving hosts answered, whatever the feedback mode.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DomainProgress {
    /// Recipient domain; `other` sums up those that have no entry.
    pub domain: String,
    /// Messages to it.
    pub total: u64,
    /// Accepted.
    pub sent: u64,
    /// Waiting, or being tried.
    pub waiting: u64,
    /// Given up.
    pub failed: u64,
    /// Accepted per second, over the last minute.
    #[serde(default)]
    pub per_second: f64,
}

/// Speeds over the last minute, in messages per second.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Speed {
    /// Into the senders.
    pub relay_per_second: f64,
    /// Accepted by receiving hosts.
    pub delivery_per_second: f64,
}

/// One message.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MessageReport {
    /// Row in the recipient list, from 0.
    pub index: u64,
    /// Recipient; absent where the row has no address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Log status.
    pub status: LogStatus,
    /// Attempts so far.
    #[serde(default)]
    pub attempts: u32,
    /// Error reason, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Last reply of a receiving host, code first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<Time>,
}

/// What a run was planned from.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Digest over message, settings and recipients.
    pub fingerprint: String,
    /// Slices of recipients.
    pub slices: u32,
}

fn yes() -> bool {
    true
}
