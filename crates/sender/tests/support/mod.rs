//! An engine and simulated providers around it.

#![allow(dead_code)] // each test file uses its part

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use relaypool_api::MxPolicySpec;
use relaypool_api::delivery::Counts;
use relaypool_api::delivery_slice::{DeliverySliceStatus, SliceRow};
use relaypool_api::message::{MessageSnapshot, OnBlock};
use relaypool_sender::resolver::{DestinationLimits, MxResolver};
use relaypool_sender::{Engine, EngineConfig, NewSlice, PoolSettings, SenderMetrics, SourceIp};
use relaypool_shaping::policy::PolicySet;
use relaypool_simulator::{Keep, Options, Simulator, World};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A wait that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Bench {
    pub simulator: Simulator,
    pub engine: Engine,
    pub folder: TempDir,
}

/// Providers in YAML-like JSON, an engine with one IP, and retries within seconds.
pub async fn start(world: Value) -> Bench {
    let world: World = serde_json::from_value(world).unwrap();
    let options = Options {
        keep: Keep::Messages,
        ..Options::default()
    };
    let simulator = Simulator::start(world, options).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let engine = open_engine(folder.path(), &simulator, true).await;
    Bench {
        simulator,
        engine,
        folder,
    }
}

pub async fn open_engine(folder: &Path, simulator: &Simulator, allow_private: bool) -> Engine {
    let dns = simulator.dns_address().to_string();
    let engine = open_engine_without_ips(folder, &dns, simulator.smtp_port(), allow_private).await;
    engine.set_ips(vec![source_ip("first", "127.0.0.1")]).await.unwrap();
    engine
}

/// An engine that sends nothing yet.
pub async fn open_engine_without_ips(folder: &Path, dns: &str, smtp_port: u16, allow_private: bool) -> Engine {
    let limits = DestinationLimits {
        allow_private,
        ..DestinationLimits::default()
    };
    let resolver = MxResolver::new(&[dns.to_owned()], Some(Duration::from_secs(2)), limits).unwrap();
    let config = EngineConfig {
        spool: folder.join("spool"),
        settings: settings(smtp_port),
        low_space: 0,
    };
    let metrics = Arc::new(SenderMetrics::register(&mut Registry::default()));
    let engine = Engine::open(config, resolver, metrics).await.unwrap();
    engine
        .set_policies(policies([(
            "retry",
            json!({ "match": { "domains": ["*"] }, "retry": { "firstInterval": "1s", "maxInterval": "2s" } }),
        )]))
        .await
        .unwrap();
    engine
}

pub fn settings(smtp_port: u16) -> PoolSettings {
    PoolSettings {
        pool: "pool".into(),
        smtp_port,
        max_connections: 1_000,
        adaptive: true,
        on_block: OnBlock::Wait,
    }
}

pub fn policies<const N: usize>(policies: [(&str, Value); N]) -> PolicySet {
    let parse = |spec: Value| serde_json::from_value::<MxPolicySpec>(spec).unwrap();
    PolicySet::new(
        policies
            .into_iter()
            .map(|(name, spec)| (name.to_owned(), parse(spec)))
            .collect(),
    )
}

pub fn source_ip(name: &str, address: &str) -> SourceIp {
    SourceIp {
        name: name.to_owned(),
        bind: address.parse().unwrap(),
        address: address.parse().unwrap(),
        ehlo_name: "out.sender.example".parse().unwrap(),
        weight: 100,
        suspended: false,
        labels: BTreeMap::from([("tier".to_owned(), name.to_owned())]),
        warm_up: None,
    }
}

/// A message; `changes` are put over it.
pub fn message(changes: Value) -> Arc<MessageSnapshot> {
    let mut snapshot = json!({
        "sender": { "address": "news@sender.example", "name": "News" },
        "message": { "subject": "Hello {{ name }}", "text": "Dear {{ name }},\n.\nthis is for {{ address }}.\n" },
        "validity": "60s",
        "fingerprint": "f1",
        "total": 1,
        "slices": 1,
    });
    merge(&mut snapshot, changes);
    Arc::new(serde_json::from_value(snapshot).unwrap())
}

fn merge(target: &mut Value, changes: Value) {
    match (target, changes) {
        (Value::Object(target), Value::Object(changes)) => {
            for (key, change) in changes {
                merge(target.entry(key).or_insert(Value::Null), change);
            }
        }
        (target, change) => *target = change,
    }
}

pub fn slice(
    id: &str,
    message: &Arc<MessageSnapshot>,
    addresses: impl IntoIterator<Item = impl Into<String>>,
) -> NewSlice {
    let rows = addresses.into_iter().enumerate().map(|(index, address)| {
        let address: String = address.into();
        let row = json!({ "index": index, "address": address, "variables": { "name": format!("No. {index}") } });
        serde_json::from_value::<SliceRow>(row).unwrap()
    });
    NewSlice {
        id: id.into(),
        name: id.into(),
        delivery_uid: "delivery".into(),
        message: Arc::clone(message),
        rows: rows.collect(),
    }
}

/// Addresses `user0@domain`, `user1@domain`, ….
pub fn users(count: usize, domain: &str) -> Vec<String> {
    (0..count).map(|user| format!("user{user}@{domain}")).collect()
}

impl Bench {
    pub async fn status(&self, slice: &str) -> DeliverySliceStatus {
        status(&self.engine, slice).await
    }

    /// Waits until a slice fits the condition, and returns its status.
    pub async fn wait(&self, slice: &str, condition: impl Fn(&Counts) -> bool) -> DeliverySliceStatus {
        wait(&self.engine, slice, condition).await
    }

    pub async fn finished(&self, slice: &str) -> DeliverySliceStatus {
        self.wait(slice, |counts| counts.taken_into_account == 0).await
    }

    pub fn accepted(&self) -> Vec<String> {
        self.simulator
            .books()
            .accepted()
            .into_iter()
            .map(|message| message.recipient)
            .collect()
    }
}

pub async fn status(engine: &Engine, slice: &str) -> DeliverySliceStatus {
    let reports = engine.slice_reports().await.unwrap();
    reports
        .into_iter()
        .find(|report| report.id == slice)
        .expect("the slice is there")
        .status
}

pub async fn wait(engine: &Engine, slice: &str, condition: impl Fn(&Counts) -> bool) -> DeliverySliceStatus {
    let waiting = async {
        loop {
            let status = status(engine, slice).await;
            if condition(&counts(&status)) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(status) => status,
        Err(_) => panic!("not reached in time: {:#?}", status(engine, slice).await),
    }
}

/// What a slice's ranges say.
pub fn counts(status: &DeliverySliceStatus) -> Counts {
    let ranges = status.ranges.as_ref().unwrap();
    let count = |text: &str| {
        if text.is_empty() {
            0
        } else {
            text.parse::<relaypool_api::IndexRanges>().unwrap().count()
        }
    };
    Counts {
        taken_into_account: count(&ranges.waiting),
        sent: count(&ranges.sent),
        failed: count(&ranges.failed),
        ignored: count(&ranges.ignored),
        canceled: count(&ranges.canceled),
        ..Counts::default()
    }
}

/// Reasons of the messages that a slice has in a status, with counts.
pub fn reasons(status: &DeliverySliceStatus) -> BTreeMap<String, u64> {
    status
        .reasons
        .iter()
        .map(|reason| (reason.reason.clone(), reason.count))
        .collect()
}
