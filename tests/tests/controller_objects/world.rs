//! A control plane with the CRDs, a controller, and objects to apply.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kube::Client;
use prometheus_client::registry::Registry;
use relaypool_controller::Config;
use relaypool_tests::control_plane::ControlPlane;
use relaypool_tests::crds::install_crds;
use relaypool_tests::wait::eventually;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A wait that takes longer has failed.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A control plane with the CRDs and one namespace.
pub struct World {
    pub control_plane: ControlPlane,
    pub client: Client,
    pub namespace: String,
}

impl World {
    pub async fn new() -> Self {
        let control_plane = ControlPlane::start().await.unwrap();
        let client = control_plane.client().await.unwrap();
        install_crds(&client, relaypool_api::crds::documents()).await.unwrap();
        let namespace = control_plane.create_namespace("objects").await.unwrap();
        Self {
            control_plane,
            client,
            namespace,
        }
    }

    pub fn start_controller(&self) -> Controller {
        // Nobody listens there, so lookups fail at once.
        Controller::start(self, "127.0.0.1:1".parse().unwrap())
    }

    pub async fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        let arguments = [&["--namespace", &self.namespace], arguments].concat();
        let output = self.control_plane.kubectl_with_input(&arguments, input).await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {errors}", arguments.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    pub async fn apply(&self, object: Value) {
        let text = object.to_string();
        self.kubectl(&["apply", "--filename", "-"], &text).await.unwrap();
    }

    pub async fn ours(&self, kind: &str, name: &str, spec: Value) {
        self.apply(json!({
            "apiVersion": "relaypool.dev/v1alpha1",
            "kind": kind,
            "metadata": { "name": name, "labels": { "app": "test" } },
            "spec": spec,
        }))
        .await;
    }

    pub async fn secret(&self, name: &str, entry: &str, content: &str) {
        self.apply(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { entry: content },
        }))
        .await;
    }

    pub async fn config_map(&self, name: &str, entry: &str, content: &str) {
        self.apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { entry: content },
        }))
        .await;
    }

    pub async fn get(&self, kind: &str, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(
            &self.kubectl(&["get", kind, name, "--output=json"], "").await?,
        )?)
    }

    pub async fn list(&self, kind: &str) -> Vec<Value> {
        let text = self.kubectl(&["get", kind, "--output=json"], "").await.unwrap();
        let mut list: Value = serde_json::from_str(&text).unwrap();
        list["items"].take().as_array().unwrap().clone()
    }

    /// Waits until a condition has this status and reason, and returns its message.
    pub async fn condition(&self, object: (&str, &str), kind: &str, status: &str, reason: &str) -> String {
        let (object_kind, name) = object;
        eventually(
            &format!("{object_kind} {name} to have {kind}={status} ({reason})"),
            TIMEOUT,
            async || {
                let object = self.get(object_kind, name).await?;
                let found = condition(&object, kind).context("no such condition")?;
                let observed = object["status"]["observedGeneration"] == object["metadata"]["generation"];
                if observed && found["status"] == status && found["reason"] == reason {
                    return Ok(Some(found["message"].as_str().unwrap_or_default().to_owned()));
                }
                bail!("it is {found}")
            },
        )
        .await
        .unwrap()
    }

    pub async fn phase(&self, delivery: &str, phase: &str) {
        eventually(&format!("Delivery {delivery} to be {phase}"), TIMEOUT, async || {
            let object = self.get("delivery", delivery).await?;
            ensure!(object["status"]["phase"] == phase, "its status is {}", object["status"]);
            Ok(Some(()))
        })
        .await
        .unwrap();
    }

    /// The slices of a Delivery once its plan is complete: the message slice, and those of recipients.
    pub async fn plan(&self, delivery: &str) -> (Value, Vec<Value>) {
        eventually(&format!("Delivery {delivery} to be planned"), TIMEOUT, async || {
            let slices = self.list("deliveryslices").await;
            let (messages, recipients): (Vec<_>, Vec<_>) = slices
                .into_iter()
                .filter(|slice| slice["spec"]["delivery"] == delivery)
                .partition(|slice| slice["spec"].get("message").is_some());
            Ok(messages.into_iter().next().map(|message| (message, recipients)))
        })
        .await
        .unwrap()
    }

    /// Writes a part of a status as somebody else than the controller does.
    pub async fn write_status(&self, plural: &str, kind: &str, name: &str, status: Value) {
        use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("relaypool.dev", "v1alpha1", kind), plural);
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let patch = json!({ "apiVersion": "relaypool.dev/v1alpha1", "kind": kind, "status": status });
        let parameters = PatchParams::apply("relaypool-sender-test").force();
        api.patch_status(name, &parameters, &Patch::Apply(&patch))
            .await
            .unwrap();
    }

    pub async fn sender_reports(&self, pool: &str) {
        let now = k8s_openapi::jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string();
        let sender = json!({ "name": format!("{pool}-0"), "version": "test", "reportedAt": now, "queued": 7, "relayPerSecond": 1.5 });
        self.write_status("relaypools", "RelayPool", pool, json!({ "senders": [sender] }))
            .await;
    }

    /// The cells of an object's line in `kubectl get`.
    pub async fn kubectl_row(&self, kind: &str, name: &str) -> Vec<String> {
        let text = self.kubectl(&["get", kind, name, "--no-headers"], "").await.unwrap();
        text.split_whitespace().map(str::to_owned).collect()
    }

    pub async fn events_of(&self, name: &str) -> Vec<String> {
        let events = self.list("events.events.k8s.io").await;
        let of_object = events.iter().filter(|event| event["regarding"]["name"] == name);
        of_object
            .map(|event| event["reason"].as_str().unwrap().to_owned())
            .collect()
    }
}

pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)
}

/// A running controller.
pub struct Controller {
    registry: Registry,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Controller {
    pub fn start(world: &World, dns_server: SocketAddr) -> Self {
        let mut registry = Registry::default();
        let (stop, stopped) = oneshot::channel();
        let config = Config {
            client: world.client.clone(),
            namespace: Some(world.namespace.clone()),
            dns_servers: vec![dns_server],
        };
        let shutdown = async {
            let _ = stopped.await;
        };
        let run = relaypool_controller::run(config, &mut registry, shutdown);
        Self {
            registry,
            stop: Some(stop),
            task: tokio::spawn(async { run.await.unwrap() }),
        }
    }

    pub async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap();
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    /// The sum of the samples of a metric whose lines contain `label`.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        self.text()
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(label))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }
}

pub fn pool(replicas: u32) -> Value {
    json!({ "replicas": replicas })
}

pub fn ip(address: &str) -> Value {
    json!({ "pool": "pool", "address": address, "ehloName": "mx.example.com" })
}

pub fn delivery(recipients: Value) -> Value {
    json!({
        "pool": "pool",
        "sender": { "address": "news@example.com" },
        "message": { "subject": "Hello", "text": "Hello {{ name }}" },
        "recipients": recipients,
    })
}

pub fn two_recipients() -> Value {
    json!({ "inline": [
        { "address": "ada@example.net", "variables": { "name": "Ada" } },
        { "address": "bob@example.net", "variables": { "name": "Bob" } },
        { "address": "nonsense" },
    ] })
}
