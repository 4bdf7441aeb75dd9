//! The controller against a real API server: every kind gets its answer, what is wrong is said where it is wrong, what was
//! missing heals, and nothing is written twice.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kube::Client;
use prometheus_client::registry::Registry;
use relaypool_api::dkim_key::DkimAlgorithm;
use relaypool_controller::Config;
use relaypool_message::dkim;
use relaypool_tests::control_plane::ControlPlane;
use relaypool_tests::crds::{has_current_crds, install_crds};
use relaypool_tests::wait::eventually;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A control plane with the CRDs and one namespace.
struct World {
    control_plane: ControlPlane,
    client: Client,
    namespace: String,
}

impl World {
    async fn new() -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter("relaypool_controller=debug")
            .try_init();
        let control_plane = ControlPlane::start().await.unwrap();
        let client = control_plane.client().await.unwrap();
        install_crds(&client, definitions()).await.unwrap();
        let namespace = control_plane.create_namespace("objects").await.unwrap();
        Self {
            control_plane,
            client,
            namespace,
        }
    }

    fn start_controller(&self) -> Controller {
        // Nobody listens there, so lookups fail at once.
        Controller::start(self, "127.0.0.1:1".parse().unwrap())
    }

    async fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        let arguments = [&["--namespace", &self.namespace], arguments].concat();
        let output = self.control_plane.kubectl_with_input(&arguments, input).await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {errors}", arguments.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    async fn apply(&self, object: Value) {
        let text = object.to_string();
        self.kubectl(&["apply", "--filename", "-"], &text).await.unwrap();
    }

    async fn ours(&self, kind: &str, name: &str, spec: Value) {
        self.apply(json!({
            "apiVersion": "relaypool.dev/v1alpha1",
            "kind": kind,
            "metadata": { "name": name, "labels": { "app": "test" } },
            "spec": spec,
        }))
        .await;
    }

    async fn secret(&self, name: &str, entry: &str, content: &str) {
        self.apply(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { entry: content },
        }))
        .await;
    }

    async fn config_map(&self, name: &str, entry: &str, content: &str) {
        self.apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { entry: content },
        }))
        .await;
    }

    async fn get(&self, kind: &str, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(
            &self.kubectl(&["get", kind, name, "--output=json"], "").await?,
        )?)
    }

    async fn list(&self, kind: &str) -> Vec<Value> {
        let text = self.kubectl(&["get", kind, "--output=json"], "").await.unwrap();
        let mut list: Value = serde_json::from_str(&text).unwrap();
        list["items"].take().as_array().unwrap().clone()
    }

    /// Waits until a condition has this status and reason, and returns its message.
    async fn condition(&self, object: (&str, &str), kind: &str, status: &str, reason: &str) -> String {
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

    async fn phase(&self, delivery: &str, phase: &str) {
        eventually(&format!("Delivery {delivery} to be {phase}"), TIMEOUT, async || {
            let object = self.get("delivery", delivery).await?;
            ensure!(object["status"]["phase"] == phase, "its status is {}", object["status"]);
            Ok(Some(()))
        })
        .await
        .unwrap();
    }

    /// The slices of a Delivery once its plan is complete: the message slice, and those of recipients.
    async fn plan(&self, delivery: &str) -> (Value, Vec<Value>) {
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
    async fn write_status(&self, plural: &str, kind: &str, name: &str, status: Value) {
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

    async fn sender_reports(&self, pool: &str) {
        let now = k8s_openapi::jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string();
        let sender = json!({ "name": format!("{pool}-0"), "version": "test", "reportedAt": now, "queued": 7, "relayPerSecond": 1.5 });
        self.write_status("relaypools", "RelayPool", pool, json!({ "senders": [sender] }))
            .await;
    }

    async fn events_of(&self, name: &str) -> Vec<String> {
        let events = self.list("events.events.k8s.io").await;
        let of_object = events.iter().filter(|event| event["regarding"]["name"] == name);
        of_object
            .map(|event| event["reason"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// The CRDs, without empty defaults: an API server of version 1.20 takes them for null.
fn definitions() -> Vec<Value> {
    fn without_empty_defaults(node: &mut Value) {
        match node {
            Value::Object(fields) => {
                fields.retain(|name, value| name != "default" || *value != json!(""));
                fields.values_mut().for_each(without_empty_defaults);
            }
            Value::Array(nodes) => nodes.iter_mut().for_each(without_empty_defaults),
            _ => {}
        }
    }
    let mut definitions = relaypool_api::crds::documents();
    definitions.iter_mut().for_each(without_empty_defaults);
    definitions
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)
}

/// A running controller.
struct Controller {
    registry: Registry,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Controller {
    fn start(world: &World, dns_server: SocketAddr) -> Self {
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

    async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap();
    }

    /// The sum of the samples of a metric whose lines contain `label`.
    fn metric(&self, name: &str, label: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text.lines()
            .filter(|line| line.starts_with(name) && line.contains(label))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }
}

fn pool(replicas: u32) -> Value {
    json!({ "replicas": replicas })
}

fn ip(address: &str) -> Value {
    json!({ "pool": "pool", "address": address, "ehloName": "mx.example.com" })
}

fn delivery(recipients: Value) -> Value {
    json!({
        "pool": "pool",
        "sender": { "address": "news@example.com" },
        "message": { "subject": "Hello", "text": "Hello {{ name }}" },
        "recipients": recipients,
    })
}

fn two_recipients() -> Value {
    json!({ "inline": [
        { "address": "ada@example.net", "variables": { "name": "Ada" } },
        { "address": "bob@example.net", "variables": { "name": "Bob" } },
        { "address": "nonsense" },
    ] })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_gets_its_answer_and_nothing_is_written_twice() {
    let world = World::new().await;
    let controller = world.start_controller();
    let pem = dkim::generate(DkimAlgorithm::Ed25519).unwrap();
    world.ours("RelayPool", "pool", pool(1)).await;
    world.ours("SendingIp", "ip", ip("192.0.2.1")).await;
    world
        .ours(
            "MxPolicy",
            "policy",
            json!({ "match": { "domains": ["*"] }, "limits": { "maxConnections": 5 } }),
        )
        .await;
    world.secret("dkim", "private.pem", &pem).await;
    let key =
        json!({ "domain": "example.com", "selector": "s1", "algorithm": "Ed25519", "secretRef": { "name": "dkim" } });
    world.ours("DkimKey", "key", key).await;
    world
        .condition(("relaypools", "pool"), "Reconciling", "True", "WaitingForSenders")
        .await;
    world.sender_reports("pool").await;

    world
        .condition(("relaypools", "pool"), "Ready", "True", "SendersReporting")
        .await;
    world.condition(("sendingip", "ip"), "Ready", "True", "Assigned").await;
    world
        .condition(("mxpolicy", "policy"), "Ready", "True", "Accepted")
        .await;
    world.condition(("dkimkey", "key"), "Ready", "True", "KeyLoaded").await;
    world
        .condition(("dkimkey", "key"), "Published", "Unknown", "LookupFailed")
        .await;

    let key = world.get("dkimkey", "key").await.unwrap();
    let version = key["status"]["keyVersion"].as_str().unwrap();
    assert_eq!(key["status"]["dnsRecord"]["name"], "s1._domainkey.example.com");
    assert!(
        key["status"]["dnsRecord"]["value"]
            .as_str()
            .unwrap()
            .starts_with("v=DKIM1; k=ed25519; p=")
    );
    let entry = format!("s1._domainkey.example.com.{version}.pem");
    eventually("the pool to have the key", TIMEOUT, async || {
        let secret = world.get("secret", "pool-dkim-keys").await?;
        Ok(secret["data"].get(&entry).map(|_| ()))
    })
    .await
    .unwrap();

    world.ours("Delivery", "news", delivery(two_recipients())).await;
    world.condition(("delivery", "news"), "Ready", "True", "Planned").await;
    let (message, recipients) = world.plan("news").await;
    assert_eq!(message["spec"]["message"]["dkimKeys"][0]["version"], version);
    assert_eq!((&message["spec"]["message"]["total"], recipients.len()), (&json!(3), 1));
    assert_eq!(recipients[0]["spec"]["sender"], "pool-0");
    assert_eq!(recipients[0]["spec"]["rows"][1]["variables"]["name"], "Bob");
    assert_eq!(
        recipients[0]["metadata"]["ownerReferences"][0]["blockOwnerDeletion"],
        true
    );

    let columns = |kind: &'static str, name: &'static str| world.kubectl_row(kind, name);
    assert_eq!(
        columns("relaypools", "pool").await[..5],
        ["pool", "True", "1", "7", "Adaptive"]
    );
    assert_eq!(
        columns("sendingip", "ip").await[..5],
        ["ip", "True", "192.0.2.1", "pool", "pool-0"]
    );
    assert_eq!(
        columns("dkimkey", "key").await[..5],
        ["key", "True", "example.com", "s1", "Unknown"]
    );
    assert_eq!(
        columns("delivery", "news").await[..5],
        ["news", "Sending", "3", "0", "0"]
    );

    let ranges = json!({ "sent": "0", "failed": "1" });
    let name = recipients[0]["metadata"]["name"].as_str().unwrap();
    let finished = json!({
        "phase": "Finished", "ranges": ranges, "acceptedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z",
    });
    world
        .write_status("deliveryslices", "DeliverySlice", name, finished)
        .await;
    world.phase("news", "Completed").await;
    world
        .condition(("delivery", "news"), "Completed", "True", "AllMessagesEnded")
        .await;
    let status = world.get("delivery", "news").await.unwrap()["status"].take();
    assert_eq!(
        (&status["success"], &status["completedAt"]),
        (&json!("50.0%"), &json!("2026-01-01T00:00:01Z"))
    );
    assert_eq!(status["messages"].as_array().unwrap().len(), 3);

    eventually("Events", TIMEOUT, async || {
        let (of_delivery, of_ip) = (world.events_of("news").await, world.events_of("ip").await);
        let all = ["Planned", "Completed"]
            .iter()
            .all(|reason| of_delivery.iter().any(|event| event == reason));
        ensure!(
            all && of_ip.contains(&"Assigned".to_owned()),
            "{of_delivery:?} {of_ip:?}"
        );
        Ok(Some(()))
    })
    .await
    .unwrap();
    controller.stop().await;

    // Another controller finds everything as it should be.
    world.sender_reports("pool").await;
    let versions = || async {
        let mut versions = Vec::new();
        for kind in [
            "relaypools",
            "sendingips",
            "mxpolicies",
            "dkimkeys",
            "deliveries",
            "deliveryslices",
            "secrets",
        ] {
            let objects = world.list(kind).await;
            versions.extend(
                objects
                    .iter()
                    .map(|object| object["metadata"]["resourceVersion"].to_string()),
            );
        }
        versions
    };
    let before = versions().await;
    let controller = world.start_controller();
    let kinds = ["RelayPool", "SendingIp", "MxPolicy", "DkimKey", "Delivery"];
    eventually("all objects to be looked at", TIMEOUT, async || {
        let counts = kinds.map(|kind| controller.metric("relaypool_controller_reconcile_duration_seconds_count", kind));
        Ok(counts.iter().all(|&count| count >= 1.0).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(controller.metric("relaypool_controller_status_writes_total", ""), 0.0);
    assert_eq!(versions().await, before);
    assert_eq!(
        controller.metric("relaypool_controller_objects", "readiness=\"Ready\""),
        5.0
    );
    controller.stop().await;
    world.control_plane.shutdown().unwrap();
}

impl World {
    /// The cells of an object's line in `kubectl get`.
    async fn kubectl_row(&self, kind: &str, name: &str) -> Vec<String> {
        let text = self.kubectl(&["get", kind, name, "--no-headers"], "").await.unwrap();
        text.split_whitespace().map(str::to_owned).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_and_concerns_nobody_else() {
    let world = World::new().await;
    let controller = world.start_controller();
    world.ours("RelayPool", "pool", pool(1)).await;
    world.ours("SendingIp", "ip", ip("192.0.2.1")).await;
    world.condition(("sendingip", "ip"), "Ready", "True", "Assigned").await;

    // Rules between fields, which an API server with CEL checks itself.
    if !has_current_crds(&world.client).await.unwrap() {
        let mut two_ways = ip("192.0.2.2");
        two_ways["egress"] = json!({ "bind": "10.0.0.1", "socks5": "proxy:1080" });
        world.ours("SendingIp", "two-ways", two_ways).await;
        let message = world
            .condition(("sendingip", "two-ways"), "Stalled", "True", "InvalidSpec")
            .await;
        assert!(message.starts_with("spec.egress: "), "{message}");

        world
            .ours("MxPolicy", "malformed", json!({ "match": { "domains": ["a b"] } }))
            .await;
        let message = world
            .condition(("mxpolicy", "malformed"), "Stalled", "True", "InvalidSpec")
            .await;
        assert!(message.starts_with("spec.match.domains[0]: 'a b'"), "{message}");
        world
            .ours("MxPolicy", "sound", json!({ "match": { "domains": ["example.com"] } }))
            .await;
        world
            .condition(("mxpolicy", "sound"), "Ready", "True", "Accepted")
            .await;
        world
            .ours(
                "MxPolicy",
                "malformed",
                json!({ "match": { "domains": ["a.example"] } }),
            )
            .await;
        world
            .condition(("mxpolicy", "malformed"), "Ready", "True", "Accepted")
            .await;
    }

    let policy = |connections: u32| json!({ "match": { "domains": ["x.example"] }, "limits": { "maxConnections": connections } });
    world.ours("MxPolicy", "one", policy(1)).await;
    world.ours("MxPolicy", "two", policy(2)).await;
    world
        .condition(("mxpolicy", "one"), "Conflicting", "True", "SameMasksAndPriority")
        .await;
    world
        .condition(("mxpolicy", "two"), "Conflicting", "True", "SameMasksAndPriority")
        .await;
    world.kubectl(&["delete", "mxpolicy", "two"], "").await.unwrap();
    eventually("the conflict to end", TIMEOUT, async || {
        let one = world.get("mxpolicy", "one").await?;
        Ok(condition(&one, "Conflicting").is_none().then_some(()))
    })
    .await
    .unwrap();

    world.ours("SendingIp", "twin", ip("192.0.2.1")).await;
    world
        .condition(("sendingip", "twin"), "Stalled", "True", "DuplicateAddress")
        .await;
    world.kubectl(&["delete", "sendingip", "ip"], "").await.unwrap();
    world
        .condition(("sendingip", "twin"), "Ready", "True", "Assigned")
        .await;

    let no_secret = json!({ "domain": "example.com", "selector": "a" });
    world.ours("DkimKey", "generated", no_secret).await;
    world
        .condition(("dkimkey", "generated"), "Stalled", "True", "NotInThisVersion")
        .await;
    let pem = dkim::generate(DkimAlgorithm::Ed25519).unwrap();
    let body: String = pem.lines().nth(1).unwrap().to_owned();
    world.secret("wrong", "private.pem", &pem).await;
    let wrong = json!({ "domain": "example.org", "selector": "b", "secretRef": { "name": "wrong" } });
    world.ours("DkimKey", "wrong", wrong).await;
    let message = world
        .condition(("dkimkey", "wrong"), "Stalled", "True", "WrongAlgorithm")
        .await;
    assert!(
        message.contains("key private.pem of Secret wrong") && !message.contains(&body),
        "{message}"
    );
    world
        .secret("wrong", "private.pem", &dkim::generate(DkimAlgorithm::Rsa).unwrap())
        .await;
    world
        .condition(("dkimkey", "wrong"), "Ready", "True", "KeyLoaded")
        .await;

    let mut bad_template = delivery(two_recipients());
    bad_template["message"]["text"] = json!("Hello {{ name");
    world.ours("Delivery", "bad-template", bad_template).await;
    let message = world
        .condition(("delivery", "bad-template"), "Stalled", "True", "InvalidTemplate")
        .await;
    assert!(message.contains("message.text"), "{message}");

    world.config_map("list", "csv", "name,city\nAda,London\n").await;
    let from_list = delivery(json!({ "configMapKeyRef": { "name": "list", "key": "csv" } }));
    let mut from_list = from_list;
    from_list["sender"]["address"] = json!("news@example.org");
    world.ours("Delivery", "bad-list", from_list).await;
    let message = world
        .condition(("delivery", "bad-list"), "Stalled", "True", "InvalidRecipients")
        .await;
    assert!(
        message.contains("ConfigMap list") && message.contains("name, city"),
        "{message}"
    );
    world.config_map("list", "csv", "name,email\nAda,nonsense\n").await;
    world
        .condition(("delivery", "bad-list"), "Stalled", "True", "NoRecipients")
        .await;
    world
        .config_map("list", "csv", "name,email\nAda,ada@example.net\n")
        .await;
    world
        .condition(("delivery", "bad-list"), "Ready", "True", "Planned")
        .await;

    assert!(
        world
            .events_of("bad-list")
            .await
            .contains(&"InvalidRecipients".to_owned())
    );
    controller.stop().await;
    world.control_plane.shutdown().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named_and_heals() {
    let world = World::new().await;
    let controller = world.start_controller();
    let list = json!({ "secretKeyRef": { "name": "list", "key": "lines", "format": "JsonLines" } });
    let mut spec = delivery(list);
    spec["message"]["attachments"] = json!([{
        "filename": "a.txt", "contentType": "text/plain", "configMapKeyRef": { "name": "files", "key": "a.txt" },
    }]);
    world.ours("Delivery", "news", spec).await;
    let waits = |reason: &'static str| world.condition(("delivery", "news"), "Reconciling", "True", reason);
    assert!(waits("RecipientsNotFound").await.contains("key lines of Secret list"));
    world
        .secret("list", "lines", "{\"email\": \"ada@example.net\", \"name\": \"Ada\"}\n")
        .await;
    assert!(
        waits("AttachmentNotFound")
            .await
            .contains("key a.txt of ConfigMap files")
    );
    world.config_map("files", "a.txt", "attached").await;
    waits("PoolNotFound").await;
    world.ours("RelayPool", "pool", pool(2)).await;
    let key =
        json!({ "domain": "example.com", "selector": "s", "algorithm": "Ed25519", "secretRef": { "name": "dkim" } });
    world.ours("DkimKey", "key", key).await;
    world
        .condition(("dkimkey", "key"), "Reconciling", "True", "SecretNotFound")
        .await;
    waits("DkimKeyNotReady").await;
    world
        .secret("dkim", "private.pem", &dkim::generate(DkimAlgorithm::Ed25519).unwrap())
        .await;
    world.condition(("dkimkey", "key"), "Ready", "True", "KeyLoaded").await;
    waits("NoSendingIp").await;
    world.phase("news", "Pending").await;
    world.ours("SendingIp", "one", ip("192.0.2.1")).await;
    world.phase("news", "Sending").await;
    let (message, recipients) = world.plan("news").await;
    assert_eq!(
        message["spec"]["message"]["message"]["attachments"][0]["data"],
        "YXR0YWNoZWQ="
    );
    assert_eq!(recipients.len(), 1);

    // From here on the plan is fixed: only suspend and cancel act.
    let mut changed = delivery(two_recipients());
    changed["suspend"] = json!(true);
    world.ours("Delivery", "news", changed).await;
    world
        .condition(("delivery", "news"), "NotInEffect", "True", "ChangedAfterStart")
        .await;
    world.phase("news", "Suspended").await;
    assert_eq!(world.plan("news").await, (message, recipients));

    world.kubectl(&["delete", "relaypools", "pool"], "").await.unwrap();
    world
        .condition(("sendingip", "one"), "Reconciling", "True", "PoolNotFound")
        .await;
    let one = world.get("sendingip", "one").await.unwrap();
    assert_eq!(one["status"]["sender"], "pool-0", "an assignment is kept");
    controller.stop().await;
    world.control_plane.shutdown().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn planning_that_was_interrupted_is_finished_or_made_anew() {
    let world = World::new().await;
    world.ours("RelayPool", "pool", pool(1)).await;
    world.ours("SendingIp", "ip", ip("192.0.2.1")).await;
    let controller = world.start_controller();
    world.condition(("sendingip", "ip"), "Ready", "True", "Assigned").await;
    world.ours("Delivery", "news", delivery(two_recipients())).await;
    let (message, recipients) = world.plan("news").await;
    controller.stop().await;

    // As if it had been killed before the last write: the same plan is completed.
    let name = message["metadata"]["name"].as_str().unwrap();
    world.kubectl(&["delete", "deliveryslice", name], "").await.unwrap();
    let controller = world.start_controller();
    let (again, unchanged) = world.plan("news").await;
    assert_eq!(again["metadata"]["name"], message["metadata"]["name"]);
    assert_ne!(again["metadata"]["uid"], message["metadata"]["uid"]);
    assert_eq!(unchanged, recipients);
    controller.stop().await;

    // The same, and then the recipients change: the old slices go, and a new plan is made.
    world.kubectl(&["delete", "deliveryslice", name], "").await.unwrap();
    let changed = json!({ "inline": [{ "address": "eve@example.net", "variables": { "name": "Eve" } }] });
    world.ours("Delivery", "news", delivery(changed)).await;
    let controller = world.start_controller();
    let (message, recipients) = world.plan("news").await;
    assert_ne!(message["metadata"]["name"], name);
    assert_eq!(recipients.len(), 1);
    assert_eq!(recipients[0]["spec"]["rows"][0]["address"], "eve@example.net");
    controller.stop().await;

    // The same, and then it is canceled: nothing is left to send.
    let name = message["metadata"]["name"].as_str().unwrap();
    world.kubectl(&["delete", "deliveryslice", name], "").await.unwrap();
    world
        .kubectl(
            &[
                "patch",
                "delivery",
                "news",
                "--type=merge",
                "--patch",
                "{\"spec\":{\"cancel\":true}}",
            ],
            "",
        )
        .await
        .unwrap();
    let controller = world.start_controller();
    world.phase("news", "Canceled").await;
    assert!(world.list("deliveryslices").await.is_empty());
    controller.stop().await;
    world.control_plane.shutdown().unwrap();
}
