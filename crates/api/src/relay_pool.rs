//! RelayPool: a set of sender processes that share their configuration.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{
    Affinity, LocalObjectReference, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::message::OnBlock;
use crate::pool_limits::{PoolLimit, PoolLimitClaim};
use crate::types::{Domain, Duration};
use crate::validation::{LONGER_THAN_ZERO, relay_pool as rules, text};

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
pub struct RelayPoolSpec {
    /// Number of senders. Each has its own spool and its own sending IPs; they are named `<pool>-0`, `<pool>-1`, ….
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// `Adaptive`: senders learn each provider's limits from its replies. `Static`: only the limits of MxPolicies apply.
    #[serde(default)]
    pub mode: PoolMode,
    /// Whether the built-in profiles of large providers apply where no MxPolicy says otherwise. `relaypool policies` prints
    /// them.
    #[serde(default)]
    pub provider_profiles: ProviderProfiles,
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
    /// What happens to messages that wait for a provider which blocks their sending IP, where their Delivery does not say. In
    /// effect at once, for messages that wait already too.
    #[serde(default)]
    pub on_block: OnBlock,
    /// Intake of messages made elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intake: Option<Intake>,
    /// Object stores that deliveries of this pool may read recipients from and write reports to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = rules::STORES_HAVE_THEIR_OWN_NAMES)]
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

/// What a pool does with the built-in profiles of large providers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProviderProfiles {
    /// They apply below every MxPolicy.
    #[default]
    Enabled,
    /// They do not exist: only MxPolicies and the defaults apply.
    Disabled,
}

/// The spool volume.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Size of the volume, such as `10Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = text::SIZE)]
    pub size: Option<String>,
    /// Storage class; the cluster's default where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

/// Name resolution.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    /// Name servers as `address` or `address:port` (IPv6 with a port in brackets). Empty: those of the machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 64)))]
    #[x_kube(validation = rules::NAME_SERVERS)]
    pub servers: Vec<String>,
    /// How long one lookup may take before it counts as a server failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = LONGER_THAN_ZERO)]
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
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SmtpIntake {
    /// TCP port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// Secret of type `kubernetes.io/tls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub tls_secret_name: Option<String>,
    /// Secret with the hashed passwords of the users that may submit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub users_secret_name: Option<String>,
    /// Networks (CIDR) whose clients need no password. Empty: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 49)))]
    #[x_kube(validation = rules::ALLOWED_NETWORKS)]
    pub allowed_networks: Vec<String>,
    /// Largest message taken in, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_message_bytes: Option<u64>,
}

/// HTTP injection into the pool.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HttpIntake {
    /// TCP port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// Secret with the tokens that may inject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub token_secret_name: Option<String>,
}

/// One object store that deliveries of the pool may use by its name.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStore {
    /// The name that deliveries refer to.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// `s3://bucket/prefix`, `gs://bucket/prefix` or `azure://container/prefix`.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = text::STORE_URL)]
    pub url: String,
    /// Secret with the store's credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub credentials_secret_name: Option<String>,
}

/// Settings of the sender pods.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodSettings {
    /// Image of the sender; the operator's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// Secrets to pull the image with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Use the node's network, so that senders can bind the node's addresses.
    #[serde(default)]
    pub host_network: bool,
    /// CPU and memory.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "resources_with_bare_numbers"
    )]
    pub resources: Option<ResourceRequirements>,
    /// Labels a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints to tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,
    /// Placement rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Spreading over nodes and zones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
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
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub senders: Vec<SenderStatus>,
    /// Limits of MxPolicies with `scope: Pool` and the senders' shares of them. Written by the controller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10000), extend("x-kubernetes-list-type" = "atomic"))]
    pub pool_limits: Vec<PoolLimit>,
    /// Number of the last change in `poolLimits`. Written by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_limits_revision: Option<u64>,
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
    /// What it claims of pool-wide limits: those it has a share of first, then those it wants one of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    pub pool_limits: Vec<PoolLimitClaim>,
    /// The `poolLimitsRevision` of the pool that it has followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_limits_revision: Option<u64>,
    /// Pool-wide limits that it has a share of or wants one of, and that `poolLimits` has no room for.
    #[serde(default)]
    pub pool_limits_left_out: u64,
}

/// A name server as users write it: `10.0.0.53`, `10.0.0.53:5353`, `2001:db8::53`, `[2001:db8::53]:5353`; port 53 where
/// none is written. None for anything else.
pub fn name_server(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, 53));
    }
    if let Some(bracketed) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return bracketed
            .parse()
            .ok()
            .map(|address| SocketAddr::new(IpAddr::V6(address), 53));
    }
    text.parse().ok()
}

/// Reads `cpu: 2` as well as `cpu: "2"`: an API server keeps a custom resource's quantities as they were written, and the
/// type of the quantities knows the text form only.
fn resources_with_bare_numbers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<ResourceRequirements>, D::Error> {
    let mut value = Option::<serde_json::Value>::deserialize(deserializer)?;
    for section in ["limits", "requests"] {
        let quantities = value
            .as_mut()
            .and_then(|resources| resources.get_mut(section))
            .and_then(serde_json::Value::as_object_mut);
        for quantity in quantities.into_iter().flat_map(|map| map.values_mut()) {
            if quantity.is_number() {
                *quantity = serde_json::Value::String(quantity.to_string());
            }
        }
    }
    value
        .map(serde_json::from_value)
        .transpose()
        .map_err(serde::de::Error::custom)
}

fn one() -> i32 {
    1
}

fn smtp_port() -> u16 {
    25
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_read_with_and_without_a_port() {
        for (text, address) in [
            ("10.0.0.53", "10.0.0.53:53"),
            ("127.0.0.1:5353", "127.0.0.1:5353"),
            ("2001:db8::53", "[2001:db8::53]:53"),
            ("[2001:db8::53]", "[2001:db8::53]:53"),
            ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
        ] {
            assert_eq!(name_server(text), Some(address.parse().unwrap()), "{text}");
        }
        for bad in [
            "",
            "dns.example.com",
            "10.0.0.53:",
            "10.0.0.53:70000",
            "[10.0.0.53]",
            "10.0.0",
        ] {
            assert_eq!(name_server(bad), None, "{bad}");
        }
    }

    #[test]
    fn quantities_may_be_numbers() {
        let pod: PodSettings = serde_json::from_value(serde_json::json!({
            "resources": { "limits": { "cpu": 2, "memory": "1Gi" }, "requests": { "cpu": 0.5 } }
        }))
        .unwrap();
        let resources = pod.resources.unwrap();
        assert_eq!(resources.limits.unwrap()["cpu"].0, "2");
        assert_eq!(resources.requests.unwrap()["cpu"].0, "0.5");
        assert_eq!(
            serde_json::from_str::<PodSettings>(r#"{"resources": null}"#)
                .unwrap()
                .resources,
            None
        );
    }
}
