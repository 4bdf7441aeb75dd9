//! `relaypool local`: the built program on folders of YAML, against providers in this process.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod completing;
mod refusing;
mod stopping;

use std::collections::BTreeSet;

use relaypool_simulator::Simulator;
use relaypool_simulator::books::Entries;
use serde_json::{Value, json};
use support::{Files, delivery, pool, rows, simulator};

/// A provider that takes this long for each message.
fn provider(name: &str, service_time: &str) -> Value {
    json!({
        "name": name, "domains": [format!("{name}.example")],
        "mxHosts": [{ "name": format!("mx.{name}.example") }],
        "behaviours": [{ "kind": "serviceTime", "time": service_time }],
    })
}

/// Most connections to a provider in [`one_delivery`].
const CONNECTIONS: usize = 6;

/// A provider with this service time, and files for one Delivery of so many messages to it.
async fn one_delivery(messages: usize, service_time: &str) -> (Simulator, Files) {
    let simulator = simulator(json!({ "providers": [provider("inbox", service_time)] })).await;
    let files = Files::new();
    let policy = format!(
        "kind: MxPolicy\nmetadata: {{ name: everyone }}\nspec:\n  match: {{ domains: ['*'] }}\n  limits: {{ maxConnections: {CONNECTIONS} }}\n"
    );
    let list = rows(messages, "inbox.example");
    files
        .write("1-pool.yaml", &pool("main", "127.0.0.1", &simulator))
        .write("2-policy.yaml", &policy)
        .write("3-news.yaml", &delivery("news", "main", &list, ""));
    (simulator, files)
}

/// Who got a message.
fn recipients(simulator: &Simulator) -> BTreeSet<String> {
    let accepted = simulator.books().accepted().into_iter();
    accepted.map(|message| message.recipient).collect()
}

/// Waits until the books fit the condition.
async fn until(simulator: &Simulator, condition: impl FnMut(&Entries) -> bool) {
    let waiting = simulator.books().wait_until(condition);
    tokio::time::timeout(support::PATIENCE, waiting)
        .await
        .expect("it comes to that");
}

/// Waits until so many messages are accepted.
async fn accepted(simulator: &Simulator, messages: usize) {
    until(simulator, |books| books.accepted().len() >= messages).await;
}
