//! What is sent: the parts of a message as users write them, and the snapshot of them that senders work from.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dkim_key::DkimAlgorithm;
use crate::types::{Domain, Duration, EmailAddress};
use crate::validation::{message as rules, text};

/// Who the mail is from.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Sender {
    /// Address of the From header. DkimKeys of its domain sign the mail.
    pub address: EmailAddress,
    /// Display name of the From header. A template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub name: Option<String>,
    /// Address of the Reply-To header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<EmailAddress>,
}

/// A message. Texts are minijinja templates over the recipient's variables and `address`; an unknown variable makes the
/// message of that recipient Ignored.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::TEXT_OR_HTML)]
pub struct MessageTemplate {
    /// Subject header. A template.
    #[schemars(length(min = 1, max = 998))]
    pub subject: String,
    /// Plain text part. A template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 524288))]
    pub text: Option<String>,
    /// HTML part. A template whose values are escaped for HTML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 524288))]
    pub html: Option<String>,
    /// Further headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub headers: Vec<Header>,
    /// Attachments, the same for all recipients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub attachments: Vec<Attachment>,
    /// List-Unsubscribe header (RFC 2369) and one-click unsubscribe (RFC 8058).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_unsubscribe: Option<ListUnsubscribe>,
}

/// A header. Those that the message is built with (From, To, Date, MIME-Version, …) cannot be set here.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Name.
    #[schemars(length(min = 1, max = 76))]
    #[x_kube(validation = text::HEADER_NAME)]
    #[x_kube(validation = rules::HEADER_IS_FREE)]
    pub name: String,
    /// Value. A template; a result with a line break makes the message of that recipient Ignored.
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// An attachment. Exactly one of `data`, `configMapKeyRef` and `secretKeyRef`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ONE_CONTENT)]
pub struct Attachment {
    /// File name that recipients see.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = text::FILE_NAME)]
    pub filename: String,
    /// MIME type, such as `application/pdf`.
    #[schemars(length(min = 3, max = 127))]
    #[x_kube(validation = text::MEDIA_TYPE)]
    pub content_type: String,
    /// For images in the HTML part: it is inline, and `cid:` with this value refers to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 127))]
    #[x_kube(validation = text::CONTENT_ID)]
    pub content_id: Option<String>,
    /// The content in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 700000))]
    pub data: Option<String>,
    /// Content in a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<ContentKeyRef>,
    /// Content in a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<ContentKeyRef>,
}

/// One key of a ConfigMap or a Secret in the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ContentKeyRef {
    /// Name of the ConfigMap or the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key within it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Unsubscribing by header. At least one of `mailto` and `url`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::UNSUBSCRIBE_TARGET)]
#[x_kube(validation = rules::ONE_CLICK_NEEDS_URL)]
pub struct ListUnsubscribe {
    /// Address to write to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailto: Option<EmailAddress>,
    /// Address to open, `https://…`. A template; values are percent-encoded with the `urlencode` filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = text::HTTPS_URL)]
    pub url: Option<String>,
    /// Say that a POST to `url` unsubscribes at once (RFC 8058).
    #[serde(default)]
    pub one_click: bool,
}

/// Which messages leave first.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// First: of 21 messages or connections that all three ask for, 16.
    High,
    /// In between: 4 of 21.
    #[default]
    Normal,
    /// Last, but never stopped by the others: 1 of 21.
    Low,
}

/// What happens to messages that wait for a provider which blocks their sending IP: refuses it because of its reputation or
/// by a block list. A Delivery that does not say has what its pool says, at any time; what it says itself is fixed when it is
/// planned.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnBlock {
    /// They wait until the provider takes mail from the IP again, or their validity is over.
    #[default]
    Wait,
    /// They leave from another sending IP of the same sender that they may use and that the provider does not block.
    Move,
}

/// Everything a sender needs to know about a run besides its recipients, taken at planning and never changed: the content
/// of the message slice.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MessageSnapshot {
    /// From.
    pub sender: Sender,
    /// The message; attachments hold their data.
    pub message: MessageTemplate,
    /// Return path domain of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_path_domain: Option<Domain>,
    /// Keys that must sign. A sender that lacks one waits for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub dkim_keys: Vec<SigningKeyRef>,
    /// How long to try, from the moment a message reached its sender; at most 84 h.
    pub validity: Duration,
    /// Which messages leave first.
    #[serde(default)]
    pub priority: Priority,
    /// Sending IPs that may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub ip_affinity: Option<LabelSelector>,
    /// What happens to messages whose sending IP a provider blocks. Absent: what the pool says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_block: Option<OnBlock>,
    /// Stop after RCPT TO.
    #[serde(default)]
    pub test_mode: bool,
    /// Not before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Time>,
    /// Digest over message, settings and recipients: the run's fingerprint.
    pub fingerprint: String,
    /// Rows of the recipient list, ignored ones included.
    pub total: u64,
    /// Slices of recipients.
    pub slices: u32,
    /// Rows that were excluded at planning, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub ignored: BTreeMap<String, u64>,
    /// The first 100 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub ignored_rows: Vec<IgnoredRow>,
}

/// A row of the recipient list that was excluded.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct IgnoredRow {
    /// Row in the recipient list, from 0.
    pub index: u64,
    /// The address as written, cut to 320 characters; absent where the row has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Why.
    pub reason: String,
}

/// A DKIM key that signs a run.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
pub struct SigningKeyRef {
    /// The `d=`.
    pub domain: Domain,
    /// The `s=`.
    pub selector: Domain,
    /// Algorithm.
    pub algorithm: DkimAlgorithm,
    /// Version of the key, from the DkimKey's status.
    pub version: String,
}
