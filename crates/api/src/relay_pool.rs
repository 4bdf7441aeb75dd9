//! RelayPool: a set of sender processes that share their configuration.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, LocalObjectReference, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::types::{Domain, Duration};

/// A pool of sender processes: how many there are, where their queue lies, which DNS servers and ports they use, and
/// whether they adapt to what providers answer.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "relaypool.dev",
    version = "v1alpha1",
    kind = "RelayPool",
    plural = "relaypools",
    shortname = "rpool",
    category = "relaypool",
    namespaced,
    status = "RelayPoolStatus",
    derive = "PartialEq",
    doc = "A pool of outbound mail servers.",
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.replicas"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Senders",
        type_ = "integer",
        json_path = ".status.replicas",
        description = "Senders that have reported"
    ),
    printcolumn(
        name = "Queued",
        type_ = "integer",
        json_path = ".status.queued",
        description = "Messages waiting in all spools"
    ),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.storage.size) || self.storage.size != ''").message("storage.size must not be empty: write a size such as 10Gi or leave it out"))]
pub struct RelayPoolSpec {
    /// Number of senders. Each has its own spool and its own sending IPs; they are named `<pool>-0`, `<pool>-1`, ….
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// `Adaptive`: senders learn each provider's limits from its replies. `Static`: only the limits of MxPolicies apply.
    #[serde(default)]
    pub mode: PoolMode,
    /// The spool volume of each sender.
    #[serde(default)]
    pub storage: Storage,
    /// Domain of the return paths (envelope senders). Bounces come back to it; it needs MX and SPF records. Without it a
    /// Delivery's sender address is the return path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_path_domain: Option<Domain>,
    /// How senders look up MX hosts.
    #[serde(default)]
    pub dns: Dns,
    /// The TCP port of receiving hosts. Other than 25 only for tests and smart hosts.
    #[serde(default = "smtp_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub smtp_port: u16,
    /// Whether senders may connect to loopback, private and link-local addresses. Off, a DNS answer that points there is
    /// refused, so that nobody can aim the pool at internal hosts.
    #[serde(default)]
    pub allow_private_destinations: bool,
    /// Intake of messages made elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intake: Option<Intake>,
    /// Object stores that deliveries of this pool may read recipients from and write reports to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub object_stores: Vec<ObjectStore>,
    /// Settings of the sender pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodSettings>,
}

/// How senders of a pool find their pace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolMode {
    /// Learn limits from replies.
    #[default]
    Adaptive,
    /// Only the limits of MxPolicies.
    Static,
}

/// The spool volume.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Size of the volume, such as `10Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub size: Option<String>,
    /// Storage class; the cluster's default where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
}

/// Name resolution.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    /// Name servers as `address` or `address:port` (IPv6 with a port in brackets). Empty: those of the machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 64)))]
    #[x_kube(validation = Rule::new("self.all(server, server.matches('^([0-9.]+(:[0-9]+)?|[0-9a-fA-F:.]+|\\\\[[0-9a-fA-F:.]+\\\\](:[0-9]+)?)$'))").message("each entry of dns.servers must be an IP address with an optional port, such as 10.0.0.53 or 127.0.0.1:5353"))]
    pub servers: Vec<String>,
    /// How long one lookup may take before it counts as a server failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// Intake of messages made elsewhere.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Intake {
    /// SMTP submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp: Option<SmtpIntake>,
    /// HTTP injection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpIntake>,
}

/// SMTP submission into the pool.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SmtpIntake {
    /// TCP port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Secret of type `kubernetes.io/tls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret_name: Option<String>,
    /// Secret with the hashed passwords of the users that may submit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users_secret_name: Option<String>,
    /// Networks (CIDR) whose clients need no password. Empty: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub allowed_networks: Vec<String>,
    /// Largest message taken in, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_message_bytes: Option<u64>,
}

/// HTTP injection into the pool.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HttpIntake {
    /// TCP port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Secret with the tokens that may inject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_name: Option<String>,
}

/// One object store that deliveries of the pool may use by its name.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStore {
    /// The name that deliveries refer to.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// `s3://bucket/prefix`, `gs://bucket/prefix` or `azure://container/prefix`.
    #[schemars(length(min = 1, max = 1024))]
    pub url: String,
    /// Secret with the store's credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_name: Option<String>,
}

/// Settings of the sender pods.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodSettings {
    /// Image of the sender; the operator's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Secrets to pull the image with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Use the node's network, so that senders can bind the node's addresses.
    #[serde(default)]
    pub host_network: bool,
    /// CPU and memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Labels a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints to tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Placement rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Spreading over nodes and zones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
}

/// What the pool answers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RelayPoolStatus {
    /// The generation of the spec that this status speaks of. Written by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled. Written by the controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Senders that reported within the last minute. Written by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Messages waiting in all spools. Written by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<i64>,
    /// Messages per second accepted into the spools, over the last minute. Written by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_per_second: Option<f64>,
    /// Messages per second accepted by receiving hosts, over the last minute. Written by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_per_second: Option<f64>,
    /// One entry for each sender, written by that sender.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub senders: Vec<SenderStatus>,
}

/// What one sender says of itself.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SenderStatus {
    /// `<pool>-<ordinal>`.
    pub name: String,
    /// Version of its binary.
    #[serde(default)]
    pub version: String,
    /// When it wrote this.
    pub reported_at: Time,
    /// Messages waiting in its spool.
    #[serde(default)]
    pub queued: i64,
    /// Open connections to receiving hosts.
    #[serde(default)]
    pub connections: i64,
    /// Messages per second it accepted into its spool, over the last minute.
    #[serde(default)]
    pub relay_per_second: f64,
    /// Messages per second that receiving hosts accepted from it, over the last minute.
    #[serde(default)]
    pub delivery_per_second: f64,
}

fn one() -> i32 {
    1
}

fn smtp_port() -> u16 {
    25
}
