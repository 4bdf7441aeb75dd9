//! Warm-up through the engine: what leaves, what waits, and what a restart remembers.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use relaypool_api::sending_ip::{Binds, WarmUpStatus};
use relaypool_sender::{Engine, SourceIp, WarmUpStart};
use relaypool_simulator::{Options, Simulator};
use serde_json::{Value, json};
use support::{
    Bench, counts, message, open_engine_without_ips, policies, slice, source_ip, start, status, users, wait,
};

const COLD: &str = "127.0.0.1";
const WARM: &str = "127.0.0.2";

fn world(behaviours: Value) -> Value {
    let provider = |name: &str, behaviours: Value| {
        json!({
            "name": name,
            "domains": [format!("{name}.example")],
            "mxHosts": [{ "name": format!("mx.{name}.example"), "priority": 10 }],
            "behaviours": behaviours,
        })
    };
    json!({ "providers": [provider("good", json!([])), provider("odd", behaviours)] })
}

fn cold(spec: Value, known: Option<WarmUpStatus>) -> SourceIp {
    SourceIp {
        warm_up: Some(WarmUpStart {
            spec: serde_json::from_value(spec).unwrap(),
            known,
        }),
        ..source_ip("cold", COLD)
    }
}

/// A day that does not end while the test runs: in one of two time zones it is far from midnight.
fn plan(volumes: &[u64]) -> Value {
    let hour = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).hour();
    let zone = if (6..18).contains(&hour) { "UTC" } else { "Etc/GMT+12" };
    json!({ "schedule": volumes, "timeZone": zone })
}

async fn bench(behaviours: Value, ips: Vec<SourceIp>) -> Bench {
    let bench = start(world(behaviours)).await;
    bench.engine.set_ips(ips).await.unwrap();
    bench
}

/// An engine that has sent before, or another one.
async fn open(folder: &Path, simulator: &Simulator) -> Engine {
    let dns = simulator.dns_address().to_string();
    open_engine_without_ips(folder, &dns, simulator.smtp_port(), true).await
}

async fn warm_up(engine: &Engine) -> WarmUpStatus {
    let report = engine.report().await.unwrap();
    let warm_up = report.warm_ups.into_iter().find(|warm_up| warm_up.ip == "cold");
    warm_up.unwrap().status
}

/// Waits until the warm-up fits the condition.
async fn until(engine: &Engine, condition: impl Fn(&WarmUpStatus) -> bool) -> WarmUpStatus {
    let waiting = async {
        loop {
            let status = warm_up(engine).await;
            if condition(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(60), waiting).await {
        Ok(status) => status,
        Err(_) => panic!("not reached in time: {:#?}", warm_up(engine).await),
    }
}

fn accepted_from(simulator: &Simulator, address: &str) -> usize {
    let address: IpAddr = address.parse().unwrap();
    let accepted = simulator.books().accepted();
    accepted.iter().filter(|message| message.source == address).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_the_limit_waits_without_using_up_attempts() {
    let bench = bench(json!([]), vec![cold(plan(&[30, 60]), None)]).await;
    bench
        .engine
        .accept(slice(
            "s",
            &message(json!({ "validity": "5s" })),
            users(100, "good.example"),
        ))
        .await
        .unwrap();
    bench.wait("s", |counts| counts.sent == 30).await;
    let lane = loop {
        let report = bench.engine.report().await.unwrap();
        if let Some(lane) = report.lanes.first().filter(|lane| lane.site.connections == 0) {
            break lane.site.clone();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!((lane.binds, lane.queued), (Binds::WarmUp, 70));
    let waiting = bench.status("s").await;
    assert!(waiting.details.iter().all(|detail| detail.next_attempt.is_none()));

    let shown = warm_up(&bench.engine).await;
    assert_eq!(
        (shown.progress.as_str(), shown.sent, shown.delivered, shown.limit),
        ("1/2", 30, 30, Some(30))
    );
    // Validity goes on running.
    let done = bench.finished("s").await;
    assert_eq!((counts(&done).sent, counts(&done).failed), (30, 70));
    assert_eq!(
        done.reasons
            .iter()
            .map(|reason| reason.reason.as_str())
            .collect::<Vec<_>>(),
        ["Not defined"]
    );
    assert_eq!(bench.accepted().len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn overflow_goes_to_a_warm_ip() {
    let bench = bench(json!([]), vec![cold(plan(&[30]), None), source_ip("warm", WARM)]).await;
    bench
        .engine
        .accept(slice("s", &message(json!({})), users(400, "good.example")))
        .await
        .unwrap();
    bench.finished("s").await;
    assert_eq!(accepted_from(&bench.simulator, COLD), 30);
    assert_eq!(accepted_from(&bench.simulator, WARM), 370);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_leave_from_the_cold_ip_waits_for_it() {
    let bench = bench(json!([]), vec![cold(plan(&[20]), None), source_ip("warm", WARM)]).await;
    let bound = message(json!({ "ipAffinity": { "matchLabels": { "tier": "cold" } }, "validity": "5s" }));
    bench
        .engine
        .accept(slice("bound", &bound, users(50, "good.example")))
        .await
        .unwrap();
    let done = bench.finished("bound").await;
    assert_eq!((counts(&done).sent, counts(&done).failed), (20, 30));
    assert_eq!(accepted_from(&bench.simulator, WARM), 0);

    // A new IP that it may leave from is taken at once.
    let bound = message(json!({ "ipAffinity": { "matchLabels": { "tier": "cold" } } }));
    let mut slice = slice("later", &bound, users(5, "good.example"));
    slice.delivery_uid = "other".into();
    bench.engine.accept(slice).await.unwrap();
    let mut helper = source_ip("helper", WARM);
    helper.labels.insert("tier".into(), "cold".into());
    bench
        .engine
        .set_ips(vec![cold(plan(&[20]), None), helper])
        .await
        .unwrap();
    bench.finished("later").await;
    assert_eq!(accepted_from(&bench.simulator, WARM), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_before_the_content_give_their_room_back() {
    let behaviours = json!([{ "kind": "greylisting", "delay": "1s" }]);
    let bench = bench(behaviours, vec![cold(plan(&[20]), None)]).await;
    bench
        .engine
        .accept(slice("s", &message(json!({})), users(20, "odd.example")))
        .await
        .unwrap();
    bench.finished("s").await;
    let shown = until(&bench.engine, |warm_up| warm_up.delivered == 20).await;
    assert_eq!(shown.sent, 20);
    assert_eq!(shown.held, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn tests_use_room_and_deliver_nothing() {
    let bench = bench(json!([]), vec![cold(plan(&[20]), None)]).await;
    bench
        .engine
        .accept(slice(
            "s",
            &message(json!({ "testMode": true })),
            users(10, "good.example"),
        ))
        .await
        .unwrap();
    bench.finished("s").await;
    let shown = warm_up(&bench.engine).await;
    assert_eq!((shown.sent, shown.delivered), (10, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_reputation_holds_the_stage() {
    let text = "550 5.7.1 Service unavailable; client host blocked using a block list";
    let behaviours = json!([{ "kind": "refusals", "phase": "RcptTo", "reply": text }]);
    let bench = bench(behaviours, vec![cold(plan(&[200]), None)]).await;
    bench
        .engine
        .accept(slice("s", &message(json!({})), users(5, "odd.example")))
        .await
        .unwrap();
    let held = until(&bench.engine, |warm_up| warm_up.held.is_some()).await;
    let message = held.held.unwrap();
    assert!(
        message.starts_with("odd.example refused mail (") && message.contains("block list"),
        "{message}"
    );
    assert!(held.held_since.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_end_keeps_the_counts() {
    let bench = bench(json!([]), vec![cold(plan(&[1_000]), None)]).await;
    bench
        .engine
        .accept(slice("s", &message(json!({})), users(70, "good.example")))
        .await
        .unwrap();
    bench.finished("s").await;
    assert!(bench.engine.clone().drain(Duration::from_secs(20)).await);

    let engine = open(bench.folder.path(), &bench.simulator).await;
    engine.set_ips(vec![cold(plan(&[1_000]), None)]).await.unwrap();
    let shown = warm_up(&engine).await;
    assert_eq!((shown.sent, shown.delivered), (70, 70));
}

/// Killed three times in the middle of a day: all processes together send no more than the day allows, and nearly all of it.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_no_more_leaves_than_the_day_allows() {
    let behaviours = json!([{ "kind": "serviceTime", "time": "20ms" }]);
    let world = serde_json::from_value(world(behaviours)).unwrap();
    let simulator = Simulator::start(world, Options::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    for accepted in [20, 45, 70] {
        let mut sender = Command::new(std::env::current_exe().unwrap())
            .args(["send_until_killed", "--exact", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(PORTS, format!("{} {}", simulator.dns_address(), simulator.smtp_port()))
            .spawn()
            .unwrap();
        while simulator.books().accepted().len() < accepted {
            assert!(sender.try_wait().unwrap().is_none(), "the sender ended by itself");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sender.kill().unwrap();
        sender.wait().unwrap();
    }
    let before = accepted_from(&simulator, COLD) as u64;

    let engine = open(folder.path(), &simulator).await;
    engine.set_ips(vec![cold(plan(&[KILLED_LIMIT]), None)]).await.unwrap();
    let shown = warm_up(&engine).await;
    assert!(
        shown.sent >= before && shown.sent <= KILLED_LIMIT,
        "{} of {before}",
        shown.sent
    );
    // Forgotten is what was accepted in the moment of a kill, and what was not on disk yet.
    assert!(
        shown.delivered <= before && shown.delivered + 3 * 10 >= before,
        "{} of {before}",
        shown.delivered
    );
    until(&engine, |warm_up| warm_up.sent == KILLED_LIMIT).await;
    engine.drain(Duration::from_secs(20)).await;
    let all = accepted_from(&simulator, COLD) as u64;
    assert!(all <= KILLED_LIMIT, "{all}");
    assert!(
        all >= KILLED_LIMIT - 60,
        "each kill costs what was reserved at most: {all}"
    );
}

const FOLDER: &str = "WARM_UP_FOLDER";
const PORTS: &str = "WARM_UP_PORTS";
const KILLED_LIMIT: u64 = 120;

/// The sender that is killed; run in a process of its own by the test above, otherwise it has nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn send_until_killed() {
    let (Ok(folder), Ok(ports)) = (std::env::var(FOLDER), std::env::var(PORTS)) else {
        return;
    };
    let (dns, smtp) = ports.split_once(' ').unwrap();
    let engine = open_engine_without_ips(Path::new(&folder), dns, smtp.parse().unwrap(), true).await;
    // What is under way at a kill is lost.
    let few = json!({ "match": { "domains": ["*"] }, "limits": { "maxConnections": 4 } });
    engine.set_policies(policies([("few", few)])).await.unwrap();
    engine.set_ips(vec![cold(plan(&[KILLED_LIMIT]), None)]).await.unwrap();
    engine
        .accept(slice("s", &message(json!({})), users(400, "odd.example")))
        .await
        .unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ip_that_comes_from_another_sender_goes_on_there() {
    let ip = cold(plan(&[10, 20, 40]), None);
    let bench = bench(json!([]), vec![ip]).await;
    bench
        .engine
        .accept(slice("s", &message(json!({})), users(4, "good.example")))
        .await
        .unwrap();
    bench.finished("s").await;
    let mut known = warm_up(&bench.engine).await;
    known.stage = Some(2);
    known.limit = Some(20);
    known.reserved = Some(20);

    // Another sender has a spool of its own.
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path(), &bench.simulator).await;
    engine
        .set_ips(vec![cold(plan(&[10, 20, 40]), Some(known.clone()))])
        .await
        .unwrap();
    let shown = warm_up(&engine).await;
    assert_eq!(
        (shown.progress.as_str(), shown.sent),
        ("2/3", 20),
        "today's room may be used up by the sender before"
    );

    known.warm_since = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        jiff::Timestamp::now(),
    ));
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path(), &bench.simulator).await;
    engine.set_ips(vec![cold(plan(&[1]), Some(known))]).await.unwrap();
    engine
        .accept(slice("s", &message(json!({})), users(50, "good.example")))
        .await
        .unwrap();
    wait(&engine, "s", |counts| counts.sent == 50).await;
    assert_eq!(warm_up(&engine).await.progress, "warm");
    assert_eq!(counts(&status(&engine, "s").await).sent, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_schedule_lets_the_rest_go_at_once() {
    let bench = bench(json!([]), vec![cold(plan(&[10]), None)]).await;
    bench
        .engine
        .accept(slice("s", &message(json!({})), users(50, "good.example")))
        .await
        .unwrap();
    bench.wait("s", |counts| counts.sent == 10).await;
    bench.engine.set_ips(vec![cold(plan(&[40]), None)]).await.unwrap();
    bench.wait("s", |counts| counts.sent == 40).await;
    // Already warm after all.
    bench
        .engine
        .set_ips(vec![cold(json!({ "alreadyWarm": true }), None)])
        .await
        .unwrap();
    bench.finished("s").await;
    assert_eq!(bench.accepted().len(), 50);
}
