//! Whose turn it is: deliveries beside each other in a lane, and lanes beside each other under the sender's own limit.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use relaypool_sender::{NewSlice, PoolSettings};
use serde_json::{Value, json};
use support::{Bench, counts, message, policies, slice, start, users};

fn slow(name: &str) -> Value {
    json!({ "name": name, "domains": [format!("{name}.example")],
        "mxHosts": [{ "name": format!("mx.{name}.example"), "priority": 10 }],
        "behaviours": [{ "kind": "serviceTime", "time": "20ms" }] })
}

async fn with_connections(bench: &Bench, max_connections: usize) {
    let settings = PoolSettings {
        max_connections,
        ..support::settings(bench.simulator.smtp_port())
    };
    bench.engine.set_settings(settings).await.unwrap();
}

fn of_delivery(delivery: &str, priority: &str, count: usize, domain: &str) -> NewSlice {
    let message = message(json!({ "priority": priority, "fingerprint": delivery }));
    NewSlice {
        delivery_uid: delivery.into(),
        ..slice(delivery, &message, users(count, domain))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_delivery_does_not_wait_for_a_large_one() {
    let bench = start(json!({ "providers": [slow("site")] })).await;
    with_connections(&bench, 2).await;
    bench
        .engine
        .accept(of_delivery("large", "Normal", 600, "site.example"))
        .await
        .unwrap();
    bench.wait("large", |counts| counts.sent > 0).await;
    for (name, priority) in [("small", "Normal"), ("urgent", "High"), ("bulk", "Low")] {
        bench
            .engine
            .accept(of_delivery(name, priority, 8, "site.example"))
            .await
            .unwrap();
    }
    // The order in which the last of each was sent tells the turns they had.
    for name in ["urgent", "small", "bulk"] {
        bench.finished(name).await;
        let left = counts(&bench.status("large").await).taken_into_account;
        assert!(left > 0, "{name} waited for the large delivery");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_take_turns_at_the_senders_own_connections() {
    let providers = [slow("large"), slow("small"), slow("low")];
    let bench = start(json!({ "providers": providers })).await;
    with_connections(&bench, 2).await;
    // One connection could carry everything: without turns the large lane would keep both to its end.
    let limits = json!({ "match": { "domains": ["*"] }, "limits": { "maxMessagesPerConnection": 1_000 } });
    bench.engine.set_policies(policies([("long", limits)])).await.unwrap();
    bench
        .engine
        .accept(of_delivery("large", "Normal", 900, "large.example"))
        .await
        .unwrap();
    bench.wait("large", |counts| counts.sent > 0).await;
    bench
        .engine
        .accept(of_delivery("small", "Normal", 3, "small.example"))
        .await
        .unwrap();
    bench
        .engine
        .accept(of_delivery("low", "Low", 3, "low.example"))
        .await
        .unwrap();
    for name in ["small", "low"] {
        bench.finished(name).await;
        let left = counts(&bench.status("large").await).taken_into_account;
        assert!(left > 0, "{name} waited for the large lane");
    }
    bench.finished("large").await;
    assert_eq!(bench.simulator.books().duplicates(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_waits_for_work_makes_room() {
    let bench = start(json!({ "providers": [slow("first"), slow("second")] })).await;
    with_connections(&bench, 1).await;
    // It would otherwise be kept for longer than the test has patience.
    let keep = json!({ "match": { "domains": ["*"] }, "timeouts": { "idle": "10m" } });
    bench.engine.set_policies(policies([("keep", keep)])).await.unwrap();
    bench
        .engine
        .accept(of_delivery("one", "Normal", 1, "first.example"))
        .await
        .unwrap();
    bench.finished("one").await;
    bench
        .engine
        .accept(of_delivery("two", "Normal", 1, "second.example"))
        .await
        .unwrap();
    bench.finished("two").await;
}
