//! Days that pass, without waiting for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use relaypool_api::delivery_slice::SliceRow;
use relaypool_spool::{AddedSlice, Options, Spool};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::dispatcher::{AttemptReport, PoolSettings, SessionStart, SliceIntake, SourceIp};
use crate::metrics::SenderMetrics;
use crate::resolver::MxHost;

use super::*;

const DAY: Millis = 24 * 3_600_000;
/// 2026-11-20, noon in UTC.
const NOON: Millis = 1_795_176_000_000;

/// A dispatcher whose outside is the test: every look-up answers, every session carries one message, the disk is quick.
struct Bench {
    dispatcher: Dispatcher,
    now: Millis,
    folder: TempDir,
    /// Messages that left, by IP.
    left: BTreeMap<String, u64>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            dispatcher: dispatcher(&folder),
            now: NOON,
            folder,
            left: BTreeMap::new(),
        }
    }

    fn set_ips(&mut self, ips: Vec<SourceIp>) {
        self.dispatcher.set_ips(ips, self.now);
    }

    /// Takes in messages to one domain.
    async fn accept(&mut self, messages: u64, snapshot: Value) {
        let mut message = json!({
            "sender": { "address": "news@sender.example" }, "message": { "subject": "s", "text": "t" },
            "validity": "84h", "fingerprint": "f", "total": 1, "slices": 1,
        });
        for (field, value) in snapshot.as_object().unwrap() {
            message[field] = value.clone();
        }
        let row = |index| json!({ "index": index, "address": format!("user{index}@good.example") });
        let intake = SliceIntake {
            id: snapshot.to_string(),
            name: "s".into(),
            delivery_uid: snapshot.to_string(),
            message: Arc::new(serde_json::from_value(message).unwrap()),
            rows: (0..messages)
                .map(|index| serde_json::from_value::<SliceRow>(row(index)).unwrap())
                .collect(),
        };
        let committed = intake.submit(&self.dispatcher, self.now).await.unwrap();
        let AddedSlice::Added(number) = committed.slices[0] else {
            panic!("the slice is there already");
        };
        self.dispatcher
            .slice_accepted(number, &intake, self.now, self.now)
            .unwrap();
    }

    /// Lets everything happen that can.
    async fn settle(&mut self, attempt: impl Fn() -> Attempt) {
        loop {
            self.dispatcher.tick(self.now);
            let effects = self.dispatcher.take_effects();
            if effects.is_empty() && self.dispatcher.unrouted.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::LookUp(domain, name) => {
                        let host = MxHost {
                            name: format!("mx.{name}").parse().unwrap(),
                            preference: 0,
                            addresses: vec!["127.0.0.9".parse().unwrap()],
                        };
                        let route = Route {
                            hosts: vec![host],
                            valid_until: Instant::now() + Duration::from_secs(3_600),
                        };
                        self.dispatcher.route_found(domain, Ok(route), self.now);
                    }
                    Effect::Settle(session, commit) => {
                        commit.await.unwrap();
                        self.dispatcher.session_closed(session, self.now);
                    }
                    Effect::Reserve(ip, reservation, commit) => {
                        commit.await.unwrap();
                        self.dispatcher.room_reserved(&ip, reservation, self.now);
                    }
                    Effect::KeepLanes(_) | Effect::PruneLanes(_) => self.dispatcher.lanes_kept(),
                    Effect::Open(start) => self.attempt(&start, attempt()),
                }
            }
        }
    }

    fn attempt(&mut self, start: &SessionStart, attempt: Attempt) {
        let lane = self.dispatcher.sessions[&start.id].lane;
        let ip = self.dispatcher.lanes[lane.0 as usize].ip.clone();
        *self.left.entry(ip).or_default() += 1;
        let report = AttemptReport {
            session: start.id,
            key: start.first.key,
            attempt,
            took: Duration::from_millis(10),
            next: None,
        };
        self.dispatcher.attempted(report, self.now);
        self.dispatcher.session_closed(start.id, self.now);
    }

    /// Messages that left since it was last asked, by IP.
    fn take_left(&mut self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.left)
    }

    fn warm_up(&mut self) -> WarmUpStatus {
        let report = self.dispatcher.sender_report(self.now);
        let warm_up = report.warm_ups.into_iter().find(|warm_up| warm_up.ip == "cold");
        warm_up.unwrap().status
    }
}

fn dispatcher(folder: &TempDir) -> Dispatcher {
    let spool = Spool::open(&folder.path().join("spool"), Options::default()).unwrap();
    let settings = PoolSettings::new("pool", &serde_json::from_value(json!({})).unwrap());
    let metrics = Arc::new(SenderMetrics::register(&mut Registry::default()));
    Dispatcher::new(spool, settings, metrics)
}

fn source_ip(name: &str, address: &str, warm_up: Option<Value>) -> SourceIp {
    let mut spec = json!({ "pool": "pool", "address": address, "ehloName": "out.sender.example" });
    if let Some(warm_up) = warm_up {
        spec["warmUp"] = warm_up;
    }
    let mut object = SendingIp::new(name, serde_json::from_value(spec).unwrap());
    object.metadata.labels = Some(BTreeMap::from([("tier".to_owned(), name.to_owned())]));
    SourceIp::from(&object)
}

fn cold(schedule: &[u64]) -> SourceIp {
    source_ip("cold", "127.0.0.1", Some(json!({ "schedule": schedule })))
}

fn accepted() -> Attempt {
    Attempt::Accepted
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_leaves_as_the_days_allow() {
    let mut bench = Bench::new();
    bench.set_ips(vec![cold(&[10, 30, 50])]);
    bench.accept(100, json!({})).await;
    for (stage, leaves) in [("1/3", 10), ("2/3", 30), ("3/3", 50)] {
        bench.settle(accepted).await;
        assert_eq!(bench.warm_up().progress, stage);
        assert_eq!(bench.take_left(), BTreeMap::from([("cold".to_owned(), leaves)]));
        // Nothing leaves at any moment at which there is something to do before the end of the day.
        let end = (bench.now / DAY + 1) * DAY;
        let next = loop {
            match bench.dispatcher.next_wake().unwrap() {
                wake if wake >= end => break wake,
                wake => bench.now = wake,
            }
            bench.settle(accepted).await;
        };
        assert_eq!(next, end);
        bench.now = next - 1;
        bench.settle(accepted).await;
        assert!(bench.take_left().is_empty(), "not a millisecond before");
        bench.now = next;
    }
    // Warm: the rest may leave at once.
    bench.settle(accepted).await;
    assert_eq!(bench.warm_up().progress, "warm");
    assert_eq!(bench.take_left(), BTreeMap::from([("cold".to_owned(), 10)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_is_repeated_when_too_few_were_delivered() {
    let mut bench = Bench::new();
    bench.set_ips(vec![cold(&[10, 30])]);
    bench.accept(9, json!({})).await;
    bench.settle(accepted).await;
    bench.now += DAY;
    bench.settle(accepted).await;
    let shown = bench.warm_up();
    assert_eq!((shown.progress.as_str(), shown.sent), ("1/2", 0));
    assert!(shown.last_day.unwrap().contains("9 of 10 delivered"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_leave_from_any_ip_does_not_wait() {
    let mut bench = Bench::new();
    bench.set_ips(vec![cold(&[10]), source_ip("warm", "127.0.0.2", None)]);
    bench.accept(1_000, json!({})).await;
    let bound = json!({ "ipAffinity": { "matchLabels": { "tier": "cold" } } });
    bench.accept(5, bound).await;
    bench.settle(accepted).await;
    let left = bench.take_left();
    assert_eq!(left["cold"], 10);
    let waiting: usize = bench.dispatcher.lanes.iter().map(|lane| lane.queue.len()).sum();
    assert_eq!(left["warm"] + waiting as u64, 995);
    assert!(waiting <= 5, "only what is bound to the cold IP waits: {waiting}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_reach_nobody_cost_no_room() {
    let mut bench = Bench::new();
    bench.set_ips(vec![cold(&[10])]);
    bench.accept(4, json!({})).await;
    let unreachable = || Attempt::Failed {
        failure: Failure::ConnectRefused,
        detail: "cannot connect".to_owned(),
    };
    bench.settle(unreachable).await;
    assert!(bench.take_left()["cold"] >= 4);
    assert_eq!(bench.warm_up().sent, 0);
    // Nobody knows of one that was lost behind its content.
    let lost = || Attempt::Failed {
        failure: Failure::ConnectionLost(Phase::EndOfData),
        detail: "the connection was lost".to_owned(),
    };
    bench.now += 3 * 3_600_000;
    bench.settle(lost).await;
    let left = bench.take_left()["cold"];
    let shown = bench.warm_up();
    assert_eq!((shown.sent, shown.delivered), (left, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_that_cannot_be_read_leaves_no_room_today() {
    let bench = Bench::new();
    let mut damaged = Batch::new();
    damaged.set_note(note("127.0.0.1".parse().unwrap()), b"{}".to_vec());
    bench.dispatcher.spool.commit(damaged).await.unwrap();
    let Bench {
        dispatcher: before,
        folder,
        ..
    } = bench;
    before.spool.clone().close().await.unwrap();
    drop(before);

    let mut bench = Bench {
        dispatcher: dispatcher(&folder),
        now: NOON,
        folder,
        left: BTreeMap::new(),
    };
    bench.set_ips(vec![cold(&[10])]);
    bench.accept(20, json!({})).await;
    bench.settle(accepted).await;
    assert!(bench.take_left().is_empty());
    bench.now += DAY;
    bench.settle(accepted).await;
    assert_eq!(bench.take_left()["cold"], 10);
}
