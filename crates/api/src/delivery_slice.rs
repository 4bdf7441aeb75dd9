//! DeliverySlice: the part of a planned run that one sender works on, and the message that all parts share.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::delivery::Recipient;
use crate::message::MessageSnapshot;
use crate::validation::delivery_slice as rules;

/// Most rows in one slice.
pub const MAX_SLICE_ROWS: usize = 1_000;
/// Most bytes of rows in one slice, as JSON.
pub const MAX_SLICE_BYTES: usize = 512 * 1024;

/// Recipients of a Delivery for one sender, or the message of a run. Written once by the controller, which creates the
/// message slice last: as long as it is missing, the plan is not complete and no sender begins.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "relaypool.dev",
    version = "v1alpha1",
    kind = "DeliverySlice",
    plural = "deliveryslices",
    shortname = "dslice",
    category = "relaypool",
    namespaced,
    status = "DeliverySliceStatus",
    derive = "PartialEq",
    doc = "A planned part of a Delivery.",
    printcolumn(name = "Delivery", type_ = "string", json_path = ".spec.delivery"),
    printcolumn(name = "Sender", type_ = "string", json_path = ".spec.sender"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Sent", type_ = "string", json_path = ".status.ranges.sent"),
    printcolumn(name = "Failed", type_ = "string", json_path = ".status.ranges.failed"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::SPEC_IS_FIXED)]
#[x_kube(validation = rules::MESSAGE_OR_SENDER)]
pub struct DeliverySliceSpec {
    /// The Delivery, by name.
    #[schemars(length(min = 1, max = 253))]
    pub delivery: String,
    /// The Delivery, by UID.
    #[schemars(length(min = 1, max = 63))]
    pub delivery_uid: String,
    /// The pool.
    #[schemars(length(min = 1, max = 253))]
    pub pool: String,
    /// The run's fingerprint.
    #[schemars(length(min = 1, max = 64))]
    pub fingerprint: String,
    /// The message of the run, in the message slice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Box<MessageSnapshot>>,
    /// The sender that owns the slice, in a slice of recipients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub sender: Option<String>,
    /// The recipients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub rows: Vec<SliceRow>,
}

/// One recipient of a slice.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SliceRow {
    /// Row in the recipient list of the Delivery, from 0.
    pub index: u64,
    /// Address and variables.
    #[serde(flatten)]
    pub recipient: Recipient,
}

/// What the sender answers. Positions are places in `rows`, from 0.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DeliverySliceStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Where the slice is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<SlicePhase>,
    /// When it was durable in the sender's spool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<Time>,
    /// When its last message came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Positions by status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<StatusRanges>,
    /// How often each reason occurred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub reasons: Vec<crate::delivery::ReasonCount>,
    /// Details of failed, ignored and waiting messages, as far as they fit into 64 KB.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub details: Vec<MessageDetail>,
    /// Progress by recipient domain, the busiest 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 51))]
    pub domains: Vec<crate::delivery::DomainProgress>,
}

/// Where a slice is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlicePhase {
    /// In the sender's spool.
    Accepted,
    /// Cannot be worked on for now; see the condition Stalled or Reconciling (a key that is missing, say).
    Waiting,
    /// Every message came to its end.
    Finished,
}

/// Positions by what receiving hosts answered, whatever the feedback mode: `0-311,313-999`. Absent: none.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StatusRanges {
    /// Waiting, or being tried.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waiting: String,
    /// Accepted by the receiving host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sent: String,
    /// Given up.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failed: String,
    /// Excluded before sending.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ignored: String,
    /// Stopped by the user.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub canceled: String,
}

/// Details of one message.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MessageDetail {
    /// Position in `rows`.
    pub position: u32,
    /// Attempts so far.
    #[serde(default)]
    pub attempts: u32,
    /// Error reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Last reply of a receiving host, code first; or what went wrong before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub reply: Option<String>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<Time>,
}
