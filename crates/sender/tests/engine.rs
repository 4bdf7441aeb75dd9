//! The life of an engine: what it takes in, what it waits for, what it keeps over an end.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use relaypool_api::delivery_slice::SlicePhase;
use relaypool_api::dkim_key::DkimAlgorithm;
use relaypool_api::message::SigningKeyRef;
use relaypool_api::names::signing_key_entry;
use relaypool_message::dkim::{SigningKey, generate};
use relaypool_sender::{Accepted, KeyRing, RunState};
use serde_json::json;
use support::{counts, message, open_engine, policies, slice, source_ip, start, status, users, wait};

const WORLD: &str = r#"{ "providers": [{ "name": "good", "domains": ["good.example"], "mxHosts": [{ "name": "mx.good.example", "priority": 10 }] }] }"#;
const SLOW_WORLD: &str = r#"{ "providers": [{ "name": "slow", "domains": ["slow.example"], "mxHosts": [{ "name": "mx.slow.example", "priority": 10 }],
    "behaviours": [{ "kind": "serviceTime", "time": "50ms" }] }] }"#;

fn world(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_is_taken_in_once() {
    let bench = start(world(WORLD)).await;
    let message = message(json!({}));
    assert_eq!(
        bench
            .engine
            .accept(slice("s", &message, users(10, "good.example")))
            .await
            .unwrap(),
        Accepted::New
    );
    assert_eq!(
        bench
            .engine
            .accept(slice("s", &message, users(10, "good.example")))
            .await
            .unwrap(),
        Accepted::Already
    );
    bench.finished("s").await;
    assert_eq!(
        bench
            .engine
            .accept(slice("s", &message, users(10, "good.example")))
            .await
            .unwrap(),
        Accepted::Already
    );
    assert_eq!(bench.accepted().len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn suspend_resume_and_cancel_act_on_what_is_queued() {
    let bench = start(world(SLOW_WORLD)).await;
    let message = message(json!({}));
    bench
        .engine
        .set_policies(policies([(
            "few",
            json!({ "match": { "domains": ["*"] }, "limits": { "maxConnections": 2 } }),
        )]))
        .await
        .unwrap();
    bench
        .engine
        .accept(slice("s", &message, users(500, "slow.example")))
        .await
        .unwrap();
    bench.wait("s", |counts| counts.sent > 5).await;

    bench
        .engine
        .set_run_state("delivery", RunState::Suspended)
        .await
        .unwrap();
    bench
        .simulator
        .books()
        .wait_until(|books| books.transactions_open() == 0)
        .await;
    let at_rest = bench.accepted().len();
    bench.engine.set_run_state("delivery", RunState::Running).await.unwrap();
    bench
        .simulator
        .books()
        .wait_until(|books| books.accepted().len() > at_rest + 5)
        .await;

    bench
        .engine
        .set_run_state("delivery", RunState::Canceled)
        .await
        .unwrap();
    let counts = counts(&bench.finished("s").await);
    assert_eq!(counts.sent + counts.canceled, 500);
    assert!(counts.canceled > 0);
    bench
        .simulator
        .books()
        .wait_until(|books| books.open_connections() == 0)
        .await;
    assert_eq!(counts.sent, bench.accepted().len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_its_keys_and_is_then_signed() {
    let bench = start(world(WORLD)).await;
    let pem = generate(DkimAlgorithm::Ed25519).unwrap();
    let key = SigningKey::from_pem(pem.as_bytes(), DkimAlgorithm::Ed25519).unwrap();
    let reference = SigningKeyRef {
        domain: "sender.example".parse().unwrap(),
        selector: "s1".parse().unwrap(),
        algorithm: DkimAlgorithm::Ed25519,
        version: key.version(),
    };
    let message = message(json!({ "dkimKeys": [reference] }));
    bench
        .engine
        .accept(slice("s", &message, users(3, "good.example")))
        .await
        .unwrap();
    let waiting = bench.wait("s", |counts| counts.taken_into_account == 3).await;
    assert_eq!(waiting.phase, Some(SlicePhase::Waiting));
    // Another version is not the one that the run names.
    let other = SigningKey::from_pem(
        generate(DkimAlgorithm::Ed25519).unwrap().as_bytes(),
        DkimAlgorithm::Ed25519,
    )
    .unwrap();
    let other_reference = SigningKeyRef {
        version: other.version(),
        ..reference.clone()
    };
    bench
        .engine
        .set_keys(KeyRing::from([(signing_key_entry(&other_reference), Arc::new(other))]))
        .await
        .unwrap();
    assert_eq!(bench.status("s").await.phase, Some(SlicePhase::Waiting));
    assert_eq!(bench.accepted().len(), 0);

    bench
        .engine
        .set_keys(KeyRing::from([(signing_key_entry(&reference), Arc::new(key))]))
        .await
        .unwrap();
    bench.finished("s").await;
    for accepted in bench.simulator.books().accepted() {
        let text = String::from_utf8(accepted.content.unwrap().to_vec()).unwrap();
        assert!(
            text.starts_with("DKIM-Signature:") && text.contains("d=sender.example"),
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_engine_keeps_the_rest_for_the_next() {
    let bench = start(world(SLOW_WORLD)).await;
    let message = message(json!({}));
    bench
        .engine
        .accept(slice("s", &message, users(400, "slow.example")))
        .await
        .unwrap();
    bench.wait("s", |counts| counts.sent > 20).await;
    assert!(
        bench.engine.clone().drain(Duration::from_secs(20)).await,
        "transactions finish in time"
    );
    let accepted = bench.accepted().len() as u64;
    assert!(accepted < 400);

    let engine = open_engine(bench.folder.path(), &bench.simulator, true).await;
    let first = status(&engine, "s").await;
    assert_eq!(counts(&first).sent, accepted, "what was accepted is known to be");
    let done = wait(&engine, "s", |counts| counts.sent == 400).await;
    assert_eq!(bench.accepted().len(), 400);
    assert_eq!(bench.simulator.books().duplicates(), []);
    let of_domain = first.domains.iter().find(|domain| domain.domain == "slow.example");
    assert_eq!(
        of_domain.map(|domain| domain.sent),
        Some(accepted),
        "what was finished before is told by domain: {:#?}",
        first.domains
    );
    assert_eq!(
        first.accepted_at, done.accepted_at,
        "validity goes on counting from the first intake"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_and_times_survive_an_end() {
    let behaviours = json!([{ "kind": "greylisting", "delay": "3s" }]);
    let world = json!({ "providers": [{ "name": "grey", "domains": ["grey.example"], "mxHosts": [{ "name": "mx.grey.example", "priority": 10 }], "behaviours": behaviours }] });
    let bench = start(world).await;
    bench
        .engine
        .accept(slice("s", &message(json!({})), users(5, "grey.example")))
        .await
        .unwrap();
    let before = loop {
        let status = bench.status("s").await;
        if status.details.len() == 5 && status.details.iter().all(|detail| detail.next_attempt.is_some()) {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    bench.engine.clone().drain(Duration::from_secs(20)).await;
    let engine = open_engine(bench.folder.path(), &bench.simulator, true).await;
    let after = status(&engine, "s").await;
    let known = |details: &[relaypool_api::delivery_slice::MessageDetail]| {
        details
            .iter()
            .map(|detail| (detail.position, detail.attempts, detail.reply.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(known(&before.details), known(&after.details));
    wait(&engine, "s", |counts| counts.sent == 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_policies_hold() {
    let bench = start(world(SLOW_WORLD)).await;
    let limits = json!({ "match": { "mxHosts": ["*.slow.example"] }, "limits": { "maxConnections": 3, "maxMessagesPerConnection": 5 } });
    bench.engine.set_policies(policies([("limits", limits)])).await.unwrap();
    bench
        .engine
        .accept(slice("s", &message(json!({})), users(60, "slow.example")))
        .await
        .unwrap();
    bench.finished("s").await;
    let books = bench.simulator.books();
    assert!(books.read(|books| books.highest_open("slow", "127.0.0.1".parse().unwrap())) <= 3);
    let mut by_connection = std::collections::BTreeMap::new();
    for accepted in books.accepted() {
        *by_connection.entry(accepted.connection).or_insert(0) += 1;
    }
    assert!(
        by_connection.values().all(|messages| *messages <= 5),
        "{by_connection:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_ip_sends_nothing_and_a_removed_one_hands_over() {
    let bench = start(world(SLOW_WORLD)).await;
    let mut first = source_ip("first", "127.0.0.1");
    bench
        .engine
        .set_ips(vec![first.clone(), source_ip("second", "127.0.0.2")])
        .await
        .unwrap();
    bench
        .engine
        .accept(slice("s", &message(json!({})), users(200, "slow.example")))
        .await
        .unwrap();
    bench.wait("s", |counts| counts.sent > 10).await;

    first.suspended = true;
    bench
        .engine
        .set_ips(vec![first, source_ip("second", "127.0.0.2")])
        .await
        .unwrap();
    let one = "127.0.0.1".parse::<std::net::IpAddr>().unwrap();
    let from_first = || {
        bench
            .simulator
            .books()
            .accepted()
            .iter()
            .filter(|accepted| accepted.source == one)
            .count()
    };
    bench
        .wait("s", |counts| {
            counts.taken_into_account > 0 && counts.taken_into_account < 110
        })
        .await;
    bench
        .simulator
        .books()
        .wait_until(|books| books.transactions_open() == 0)
        .await;
    let at_rest = from_first();

    bench
        .engine
        .set_ips(vec![source_ip("second", "127.0.0.2")])
        .await
        .unwrap();
    bench.finished("s").await;
    assert_eq!(from_first(), at_rest, "nothing left from the suspended address");
    assert_eq!(bench.accepted().len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_is_forgotten_only_at_its_end() {
    let bench = start(world(SLOW_WORLD)).await;
    bench
        .engine
        .accept(slice("s", &message(json!({})), users(50, "slow.example")))
        .await
        .unwrap();
    assert!(!bench.engine.forget("s").await.unwrap());
    bench.finished("s").await;
    assert!(bench.engine.forget("s").await.unwrap());
    assert!(bench.engine.slice_reports().await.unwrap().is_empty());
}
