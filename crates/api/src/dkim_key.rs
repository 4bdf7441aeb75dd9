//! DkimKey: a signing key for a sender domain.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::types::{Domain, Duration};
use crate::validation::{LONGER_THAN_ZERO, dkim_key as rules};

/// A DKIM key (RFC 6376, RFC 8463): mail whose From address is in the domain is signed with every DkimKey of that domain.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "relaypool.dev",
    version = "v1alpha1",
    kind = "DkimKey",
    plural = "dkimkeys",
    shortname = "dkim",
    category = "relaypool",
    namespaced,
    status = "DkimKeyStatus",
    derive = "PartialEq",
    doc = "A DKIM signing key.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Domain", type_ = "string", json_path = ".spec.domain"),
    printcolumn(name = "Selector", type_ = "string", json_path = ".spec.selector"),
    printcolumn(
        name = "Published",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Published\")].status",
        description = "Whether the DNS record is there"
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
#[x_kube(validation = rules::RECORD_NAME_IS_FIXED)]
#[x_kube(validation = rules::ROTATION_IS_FOR_GENERATED_KEYS)]
pub struct DkimKeySpec {
    /// The signing domain, the `d=` of the signature.
    pub domain: Domain,
    /// The selector, the `s=` of the signature.
    pub selector: Domain,
    /// The algorithm of the key.
    #[serde(default)]
    pub algorithm: DkimAlgorithm,
    /// The Secret with the private key. Absent: a key is generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
    /// Replacement of a generated key by a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
}

/// Algorithm of a key.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DkimAlgorithm {
    /// `rsa-sha256` with 2048 bits.
    #[default]
    Rsa,
    /// `ed25519-sha256` (RFC 8463).
    Ed25519,
}

/// A key of a Secret in the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key within the Secret: a private key in PEM (PKCS#8, or PKCS#1 for RSA).
    #[serde(default = "private_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Rotation of a generated key.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// How often a new key replaces the old one.
    #[x_kube(validation = LONGER_THAN_ZERO)]
    pub every: Duration,
    /// How long the old DNS record must stay for late verifiers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Duration>,
}

/// What the key answers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DkimKeyStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, Published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The TXT record that verifiers need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_record: Option<DnsRecord>,
    /// The selector that signs now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_selector: Option<String>,
    /// Digest of the private key's public half; senders are told keys by it, so that a changed Secret is a new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_version: Option<String>,
}

/// A DNS record to publish.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DnsRecord {
    /// Owner name, such as `s2026._domainkey.example.com`.
    pub name: String,
    /// `TXT`.
    #[serde(rename = "type")]
    pub record_type: String,
    /// The text. Some DNS tools want it cut into strings of 255 characters.
    pub value: String,
}

fn private_key() -> String {
    "private.pem".to_owned()
}
