//! `relaypool local`: the built program against providers in this process.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use relaypool_simulator::Simulator;
use serde_json::{Value, json};
use support::{Files, count, delivery, pool, rows, simulator};

/// A provider that takes this long for each message.
fn provider(name: &str, service_time: &str) -> Value {
    json!({
        "name": name, "domains": [format!("{name}.example")],
        "mxHosts": [{ "name": format!("mx.{name}.example") }],
        "behaviours": [{ "kind": "serviceTime", "time": service_time }],
    })
}

fn policy(connections: u32) -> String {
    format!(
        "kind: MxPolicy\nmetadata: {{ name: everyone }}\nspec:\n  match: {{ domains: ['*'] }}\n  limits: {{ maxConnections: {connections} }}\n  retry: {{ firstInterval: 1s, maxInterval: 2s }}\n"
    )
}

/// A provider with this service time, and files for one Delivery of so many messages to it.
async fn one_delivery(messages: usize, service_time: &str) -> (Simulator, Files) {
    let simulator = simulator(json!({ "providers": [provider("inbox", service_time)] })).await;
    let files = Files::new();
    files
        .write("1-pool.yaml", &pool("main", "127.0.0.1", &simulator))
        .write("2-policy.yaml", &policy(6))
        .write("3-news.yaml", &delivery("news", "main", &rows(messages, "inbox.example"), ""));
    (simulator, files)
}

fn recipients(simulator: &Simulator) -> BTreeSet<String> {
    simulator.books().accepted().into_iter().map(|message| message.recipient).collect()
}

async fn accepted(simulator: &Simulator, messages: usize) {
    let enough = simulator.books().wait_until(|books| books.accepted().len() >= messages);
    tokio::time::timeout(support::PATIENCE, enough).await.expect("messages are accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_run_says_so_and_is_not_repeated() {
    let (simulator, files) = one_delivery(50, "0s").await;
    let mut list = rows(50, "inbox.example");
    list.extend(["USER3@INBOX.example,Twice", "nonsense,No one", "lost@nowhere.example,Lost"].map(str::to_owned));
    files.write("3-news.yaml", &delivery("news", "main", &list, ""));

    let first = files.run().await.success();
    assert_eq!(first.errors, "");
    let status = first.status("news");
    assert_eq!(status["phase"], "Completed", "{status:#}");
    let counts = ["total", "sent", "failed", "ignored"].map(|part| count(&status, part));
    assert_eq!(counts, [53, 50, 1, 2], "{status:#}");
    assert_eq!(simulator.books().accepted().len(), 50);
    assert!(first.output.starts_with("---\napiVersion: relaypool.dev/v1alpha1\nkind: Delivery\n"), "{first}");
    assert!(!first.output.contains("user7@"), "the recipients would bury the answer");

    let second = files.run().await.success();
    let again = second.status("news");
    for part in ["phase", "counts", "success", "reasons", "messages", "plan", "validity", "startedAt", "completedAt"] {
        assert_eq!(again[part], status[part], "{part}: {again:#}");
    }
    assert_eq!(simulator.books().accepted().len(), 50);
    assert_eq!(simulator.books().summary().providers[0].connections, first_connections(&status));

    // The same as JSON, specs and all.
    let mut command = support::relaypool();
    command.args(["local", "--json", "--file"]).arg(files.yaml()).arg("--state").arg(files.state());
    let output = command.output().await.unwrap();
    let deliveries: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(deliveries[0]["status"]["counts"], status["counts"]);
    assert_eq!(deliveries[0]["spec"]["pool"], "main");
}
