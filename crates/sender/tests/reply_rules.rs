//! Reply rules of policies, from the words of a provider to what the engine does.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use relaypool_api::delivery_slice::DeliverySliceStatus;
use relaypool_api::sending_ip::{LaneState, SiteStatus};
use relaypool_sender::PoolSettings;
use serde_json::{Value, json};
use support::{Bench, counts, message, policies, reasons, slice, start, users};

/// A provider, an engine with these reply rules, and a slice of messages to it.
async fn bench(provider: Value, rules: Value, messages: usize) -> Bench {
    let mut world =
        json!({ "name": "odd", "domains": ["odd.example"], "mxHosts": [{ "name": "mx.odd.example", "priority": 10 }] });
    world
        .as_object_mut()
        .unwrap()
        .extend(provider.as_object().unwrap().clone());
    let bench = start(json!({ "providers": [world], "zones": [
        { "kind": "unreachable", "name": "dead.odd.example" },
        { "kind": "mx", "name": "away.example", "hosts": [{ "name": "dead.odd.example", "priority": 10 }] },
    ] }))
    .await;
    bench
        .engine
        .set_policies(policies([(
            "rules",
            json!({
                "match": { "domains": ["*"] },
                "replyRules": rules,
                "retry": { "firstInterval": "1s", "maxInterval": "2s" },
            }),
        )]))
        .await
        .unwrap();
    if messages > 0 {
        let new = slice("s", &message(json!({})), users(messages, "odd.example"));
        bench.engine.accept(new).await.unwrap();
    }
    bench
}

async fn site(bench: &Bench) -> Option<SiteStatus> {
    let report = bench.engine.report().await.unwrap();
    report.lanes.into_iter().next().map(|lane| lane.site)
}

/// Waits until the lane's status fits.
async fn wait_for_site(bench: &Bench, fits: impl Fn(&SiteStatus) -> bool) -> SiteStatus {
    let waiting = async {
        loop {
            if let Some(site) = site(bench).await.filter(&fits) {
                return site;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(std::time::Duration::from_secs(60), waiting).await {
        Ok(site) => site,
        Err(_) => panic!("not reached in time: {:#?}", site(bench).await),
    }
}

async fn refused(bench: &Bench, messages: usize) -> DeliverySliceStatus {
    let waiting = async {
        loop {
            let status = bench.status("s").await;
            if status.details.len() == messages && status.details.iter().all(|detail| detail.reply.is_some()) {
                return status;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), waiting)
        .await
        .expect("every message is refused")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_is_reclassified_has_the_consequences_of_its_new_meaning() {
    let mailboxes = json!([
        { "localPart": "user0", "until": "1s", "reply": "550 5.7.1 the Moon is full, come again" },
        { "localPart": "user1", "reply": "450 4.7.1 the moon is new" },
    ]);
    let rules = json!([
        { "text": "moon*come again", "code": 550, "action": { "reclassify": "transient" } },
        { "text": "moon is new", "action": { "reclassify": "invalid_sender" } },
    ]);
    let bench = bench(json!({ "mailboxes": mailboxes }), rules, 3).await;
    let status = bench.finished("s").await;
    assert_eq!(
        counts(&status).sent,
        2,
        "a refusal for good was tried again: {status:#?}"
    );
    assert_eq!(counts(&status).failed, 1, "and one for now was not: {status:#?}");
    assert_eq!(reasons(&status)["Refused"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_not_tried_before_the_time_of_a_rule() {
    let mailboxes = json!([
        { "localPart": "user0", "reply": "450 4.2.0 not before noon" },
        { "localPart": "user1", "reply": "554 5.7.1 not before noon" },
    ]);
    let rules = json!([{ "text": "before noon", "action": { "retryAfter": "4h" } }]);
    let bench = bench(json!({ "mailboxes": mailboxes }), rules, 2).await;
    let status = refused(&bench, 2).await;
    for detail in &status.details {
        let wait = detail
            .next_attempt
            .as_ref()
            .unwrap()
            .0
            .duration_since(status.accepted_at.as_ref().unwrap().0);
        assert!(
            (4.0..4.5).contains(&(wait.as_secs_f64() / 3_600.0)),
            "{wait} {detail:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_rests_when_a_rule_has_heard_enough() {
    let mailboxes = json!([{ "localPart": "*", "reply": "450 4.2.0 the postmaster is at lunch" }]);
    let rules =
        json!([{ "text": "at lunch", "trigger": { "count": 3, "within": "10m" }, "action": { "suspendFor": "30m" } }]);
    let bench = bench(json!({ "mailboxes": mailboxes }), rules, 2).await;
    refused(&bench, 2).await;
    // Refused twice, then again after a second: the third reply is what suspends.
    let site = wait_for_site(&bench, |site| site.state == LaneState::Suspended).await;
    let until = site.suspended_until.unwrap().0;
    let at = site.last_refusal.unwrap().at.0;
    let minutes = until.duration_since(at).as_secs_f64() / 60.0;
    assert!((29.0..=30.1).contains(&minutes), "{minutes}");
}

/// In static mode, so that nothing but the rule lowers anything.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_reduced_to_what_the_provider_takes() {
    let behaviours = json!([
        { "kind": "connectionLimit", "limit": 3, "reply": "421 4.3.2 trop de connexions" },
        { "kind": "serviceTime", "time": "20ms" },
    ]);
    let rules = json!([{ "text": "Trop de connexions", "action": { "reduceConnections": 1, "reduceMessagesPerConnection": 1, "throttle": "500/s" } }]);
    let bench = bench(json!({ "behaviours": behaviours }), rules, 0).await;
    let settings = PoolSettings {
        pool: "pool".into(),
        smtp_port: bench.simulator.smtp_port(),
        max_connections: 1_000,
        adaptive: false,
        on_block: relaypool_api::message::OnBlock::Wait,
    };
    bench.engine.set_settings(settings).await.unwrap();
    // The path has worked: the burst of refusals that follows does not look like a dead one.
    let new = slice("first", &message(json!({})), ["ada@odd.example"]);
    bench.engine.accept(new).await.unwrap();
    bench.finished("first").await;
    let new = slice("s", &message(json!({})), users(300, "odd.example"));
    bench.engine.accept(new).await.unwrap();
    let status = bench.finished("s").await;
    assert_eq!(counts(&status).sent, 300, "{status:#?}");
    let site = site(&bench).await.unwrap();
    assert!((1..=3).contains(&site.connection_limit.unwrap()), "{site:#?}");
    assert_eq!(site.rate_limit, "500/s".parse().ok());

    // Without the rule, what it did is gone at once.
    bench.engine.set_policies(policies([])).await.unwrap();
    let site = wait_for_site(&bench, |site| site.connection_limit == Some(20)).await;
    assert_eq!(site.rate_limit, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_without_a_reply_is_shown_to_rules_too() {
    let rules = json!([{ "text": "cannot connect to dead.odd.example", "action": { "suspendFor": "2h" } }]);
    let bench = bench(json!({}), rules, 0).await;
    let new = slice("s", &message(json!({})), ["ada@away.example"]);
    bench.engine.accept(new).await.unwrap();
    let site = wait_for_site(&bench, |site| site.state == LaneState::Suspended).await;
    let until = site.suspended_until.unwrap().0;
    assert!(until.duration_since(site.last_refusal.unwrap().at.0).as_secs_f64() > 7_000.0);
}
