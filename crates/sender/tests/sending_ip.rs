//! Which address a message leaves from, as receiving hosts see it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;

use relaypool_api::message::OnBlock;
use relaypool_sender::{PoolSettings, SourceIp};
use serde_json::{Value, json};
use support::{Bench, counts, message, slice, source_ip, start, users};

fn provider(behaviours: Value) -> Value {
    json!({ "providers": [{ "name": "site", "domains": ["site.example"],
        "mxHosts": [{ "name": "mx.site.example", "priority": 10 }], "behaviours": behaviours }] })
}

async fn with_ips(bench: &Bench, ips: &[(&str, &str, u32)]) {
    let ip = |(name, address, weight): &(&str, &str, u32)| SourceIp {
        weight: *weight,
        ..source_ip(name, address)
    };
    bench.engine.set_ips(ips.iter().map(ip).collect()).await.unwrap();
}

fn accepted_by_source(bench: &Bench) -> BTreeMap<String, usize> {
    let mut by_source = BTreeMap::new();
    for accepted in bench.simulator.books().accepted() {
        *by_source.entry(accepted.source.to_string()).or_insert(0) += 1;
    }
    by_source
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_leave_a_blocked_ip_where_they_may() {
    let quota = json!([{ "kind": "dailyQuota", "messages": 20, "reply": "554 5.7.1 blocked using a block list" }]);
    let bench = start(provider(quota)).await;
    with_ips(&bench, &[("first", "127.0.0.1", 1_000), ("second", "127.0.0.2", 1)]).await;
    bench
        .engine
        .accept(slice("s", &message(json!({})), users(35, "site.example")))
        .await
        .unwrap();
    // The second IP has few messages of its own, and those of the first that were not routed before the block.
    bench
        .wait("s", |counts| counts.sent >= 20 && counts.taken_into_account < 35)
        .await;
    let settings = PoolSettings {
        on_block: OnBlock::Move,
        ..support::settings(bench.simulator.smtp_port())
    };
    bench.engine.set_settings(settings).await.unwrap();
    let status = bench.finished("s").await;
    assert_eq!(counts(&status).sent, 35, "{status:#?}");
    assert!(
        status.details.iter().all(|detail| detail.attempts == 1),
        "{:#?}",
        status.details
    );
    assert_eq!(accepted_by_source(&bench)["127.0.0.1"], 20);
    assert_eq!(bench.simulator.books().duplicates(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn greylisted_messages_come_back_from_where_they_came() {
    let bench = start(provider(json!([{ "kind": "greylisting", "delay": "1s" }]))).await;
    with_ips(&bench, &[("first", "127.0.0.1", 100), ("second", "127.0.0.2", 100)]).await;
    bench
        .engine
        .accept(slice("s", &message(json!({})), users(20, "site.example")))
        .await
        .unwrap();
    loop {
        let status = bench.status("s").await;
        if status.details.len() == 20 && status.details.iter().all(|detail| detail.next_attempt.is_some()) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let more = [("third", "127.0.0.3", 100), ("fourth", "127.0.0.4", 100)];
    let both = [("first", "127.0.0.1", 100), ("second", "127.0.0.2", 100)];
    with_ips(&bench, &[both, more].concat()).await;
    let status = bench.finished("s").await;
    assert!(
        status.details.iter().all(|detail| detail.attempts == 2),
        "{:#?}",
        status.details
    );
    let sources = accepted_by_source(&bench);
    assert_eq!(sources.keys().collect::<Vec<_>>(), ["127.0.0.1", "127.0.0.2"]);
}
