//! The main job on a real API server: the quickstart sample applied with kubectl, delivered by two senders, reported message
//! by message.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use relaypool_api::dkim_key::DkimAlgorithm;
use relaypool_message::dkim::generate;
use relaypool_simulator::worlds::demo_world;
use relaypool_tests::deployment::{Deployment, count, has_condition};
use relaypool_tests::process::ChildProcess;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_completes_and_its_status_is_the_truth() {
    let relaypool = Deployment::start(demo_world(), 2).await.unwrap();
    let key = generate(DkimAlgorithm::Rsa).unwrap();
    relaypool
        .kubectl(&[
            "create",
            "secret",
            "generic",
            "shop-dkim",
            &format!("--from-literal=private.pem={key}"),
        ])
        .await
        .unwrap();
    relaypool.apply_sample("quickstart").await.unwrap();

    relaypool
        .kubectl(&["wait", "--for=condition=Ready", "delivery/autumn-sale", "--timeout=60s"])
        .await
        .unwrap();
    relaypool
        .kubectl(&[
            "wait",
            "--for=condition=Completed",
            "delivery/autumn-sale",
            "--timeout=120s",
        ])
        .await
        .unwrap();
    let delivery = relaypool.get("delivery", "autumn-sale").await.unwrap();
    let books = relaypool.simulator.books();

    // Every row is accounted for, and the receiving side agrees.
    assert_eq!(count(&delivery, "total"), 80, "{delivery:#}");
    let parts = ["sent", "failed", "ignored"].map(|part| count(&delivery, part));
    assert_eq!(parts.iter().sum::<u64>(), 80, "{delivery:#}");
    assert_eq!(count(&delivery, "sent"), books.accepted().len() as u64);
    assert_eq!(books.duplicates(), []);
    assert_eq!(count(&delivery, "ignored"), 2, "one duplicate, one malformed address");

    // Both senders worked, each from its own address.
    let sources: std::collections::BTreeSet<String> = books
        .accepted()
        .iter()
        .map(|message| message.source.to_string())
        .collect();
    assert_eq!(sources.into_iter().collect::<Vec<_>>(), ["127.0.0.1", "127.0.0.2"]);

    // Each message is listed, with the words of the receiving host where it failed.
    let messages = delivery["status"]["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 80);
    assert!(
        messages.iter().any(|message| message["status"] == "Ignored"
            && message["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains("earlier row"))),
        "{messages:#?}"
    );
    let gone = messages
        .iter()
        .find(|message| message["address"] == "somebody@gone.example")
        .unwrap();
    assert_eq!(
        (gone["status"].as_str(), gone["reason"].as_str()),
        (Some("Failed"), Some("Invalid domain"))
    );

    // The table answers how far it is.
    let table = relaypool.kubectl(&["get", "dlv"]).await.unwrap();
    let (header, row) = table.split_once('\n').unwrap();
    for column in ["PHASE", "TOTAL", "SENT", "WAITING", "FAILED", "SUCCESS"] {
        assert!(header.contains(column), "{header}");
    }
    assert!(row.contains("Completed") && row.contains("80"), "{row}");

    // Signed, with the key from the Secret.
    let accepted = books.accepted();
    let content = String::from_utf8_lossy(accepted[0].content.as_deref().unwrap()).into_owned();
    assert!(
        content.contains("d=shop.example") && content.contains("s=s2026"),
        "{content}"
    );
    let key = relaypool
        .wait("the key to be ready", "dkimkey", "shop", |key| {
            has_condition(key, "Ready", "True")
        })
        .await
        .unwrap();
    assert!(
        key["status"]["dnsRecord"]["value"]
            .as_str()
            .unwrap()
            .starts_with("v=DKIM1; k=rsa; p="),
        "{key:#}"
    );

    // The addresses are assigned and report their sites.
    let ip = relaypool
        .wait("sites", "sendingip", "first", |ip| {
            ip["status"]["sites"].as_array().is_some_and(|sites| !sites.is_empty())
        })
        .await
        .unwrap();
    assert!(ip["status"]["sender"].as_str().unwrap().starts_with("main-"), "{ip:#}");
    relaypool
        .wait("the pool to be ready", "rpool", "main", |pool| {
            has_condition(pool, "Ready", "True")
        })
        .await
        .unwrap();

    // Every process says how it is.
    for (process, metric) in [
        (
            &relaypool.senders[0],
            "relaypool_sender_attempts_total{outcome=\"Sent\"",
        ),
        (&relaypool.controller, "relaypool_controller_"),
    ] {
        for path in ["/livez", "/readyz"] {
            assert!(
                admin(process, path).await.starts_with("HTTP/1.1 200"),
                "{path} of {}",
                process.name()
            );
        }
        let metrics = admin(process, "/metrics").await;
        assert!(metrics.contains(metric), "{metrics}");
        // Sites are named only where their number is bounded, addresses nowhere.
        let names_site = |line: &&str| line.contains(".example") && !line.starts_with("relaypool_sender_lane_");
        assert!(!metrics.contains('@'), "{metrics}");
        assert_eq!(metrics.lines().find(names_site), None, "labels are bounded: {metrics}");
    }
}

/// What the admin port of a process answers.
async fn admin(process: &ChildProcess, path: &str) -> String {
    let log = process.log().unwrap();
    let address = log
        .split("admin port open address=")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: relaypool\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Both tables of how success and log status follow from what receiving hosts answer, step by step.
#[tokio::test(flavor = "multi_thread")]
async fn both_feedback_modes_count_as_specified() {
    let mut world = demo_world();
    let village = world
        .providers
        .iter_mut()
        .find(|provider| provider.name == "village")
        .unwrap();
    *village = serde_json::from_value(serde_json::json!({
        "name": "village", "domains": ["village.example"], "mxHosts": [{ "name": "mx.village.example", "priority": 10 }],
        "mailboxes": [
            { "localPart": "dead*", "reply": "550 5.1.1 nobody here" },
            { "localPart": "full*", "reply": "452 4.2.2 the mailbox is full" },
            { "localPart": "busy*", "until": "8s", "reply": "451 4.3.0 come back later" },
        ],
    }))
    .unwrap();
    let relaypool = Deployment::start(world, 1).await.unwrap();
    relaypool.apply_pool().await.unwrap();
    relaypool.apply("apiVersion: relaypool.dev/v1alpha1\nkind: MxPolicy\nmetadata: {name: retry}\nspec: {match: {domains: ['*']}, retry: {firstInterval: 1s, maxInterval: 2s}}").await.unwrap();
    for (name, feedback) in [("with", true), ("without", false)] {
        relaypool.apply(&feedback_delivery(name, feedback)).await.unwrap();
    }
    // Soft bounces: with feedback they wait and count for nothing, without they count as sent all the while.
    let status = |delivery: &serde_json::Value, address: &str| {
        let messages = delivery["status"]["messages"].as_array().unwrap();
        let message = messages
            .iter()
            .find(|message| message["address"].as_str().unwrap().starts_with(address))
            .unwrap();
        message["status"].as_str().unwrap().to_owned()
    };
    let soft = relaypool
        .wait("soft bounces", "delivery", "with", |delivery| {
            count(delivery, "failed") == 1 && count(delivery, "sent") == 1
        })
        .await
        .unwrap();
    assert_eq!(status(&soft, "full"), "TakenIntoAccount");
    assert_eq!(status(&soft, "dead"), "Failed");
    assert_eq!(soft["status"]["success"], "25.0%", "{soft:#}");
    let soft = relaypool
        .wait("soft bounces", "delivery", "without", |delivery| {
            count(delivery, "failed") == 1 && count(delivery, "sent") == 3
        })
        .await
        .unwrap();
    assert_eq!(status(&soft, "full"), "Sent");
    assert_eq!(soft["status"]["success"], "75.0%", "{soft:#}");

    for (name, busy_then_full_failed) in [("with", "50.0%"), ("without", "50.0%")] {
        let done = relaypool
            .wait("the end", "delivery", name, |delivery| {
                has_condition(delivery, "Completed", "True")
            })
            .await
            .unwrap();
        assert_eq!(done["status"]["success"], busy_then_full_failed, "{done:#}");
        assert_eq!((count(&done, "sent"), count(&done, "failed")), (2, 2), "{done:#}");
        assert_eq!(status(&done, "full"), "Failed");
        assert_eq!(status(&done, "busy"), "Sent");
    }
}

fn feedback_delivery(name: &str, feedback: bool) -> String {
    format!(
        "apiVersion: relaypool.dev/v1alpha1
kind: Delivery
metadata: {{ name: {name} }}
spec:
  pool: main
  sender: {{ address: news@shop.example }}
  message: {{ subject: Hello, text: Hello }}
  recipients:
    inline: [{{ address: fine@village.example }}, {{ address: dead@village.example }}, {{ address: full@village.example }}, {{ address: busy@village.example }}]
  validity: 20s
  emailFeedback: {feedback}
"
    )
}

/// A changed policy, suspend, resume and cancel act on a running delivery.
#[tokio::test(flavor = "multi_thread")]
async fn changes_act_on_a_running_delivery() {
    let world = serde_json::from_value(serde_json::json!({ "providers": [{
        "name": "slow", "domains": ["slow.example"], "mxHosts": [{ "name": "mx.slow.example", "priority": 10 }],
        "behaviours": [{ "kind": "serviceTime", "time": "100ms" }],
    }] }))
    .unwrap();
    let relaypool = Deployment::start(world, 1).await.unwrap();
    relaypool.apply_pool().await.unwrap();
    let policy = |connections: u32| {
        format!(
            "apiVersion: relaypool.dev/v1alpha1\nkind: MxPolicy\nmetadata: {{name: limit}}\nspec: {{match: {{domains: ['*']}}, limits: {{maxConnections: {connections}}}}}"
        )
    };
    relaypool.apply(&policy(8)).await.unwrap();
    let rows: Vec<String> = (0..1_500).map(|row| format!("user{row}@slow.example")).collect();
    relaypool
        .apply(&format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: list}}\ndata:\n  list.csv: |\n    email\n    {}",
            rows.join("\n    ")
        ))
        .await
        .unwrap();
    relaypool
        .apply("apiVersion: relaypool.dev/v1alpha1\nkind: Delivery\nmetadata: {name: long}\nspec:\n  pool: main\n  sender: {address: news@shop.example}\n  message: {subject: Hello, text: Hello}\n  recipients: {configMapKeyRef: {name: list, key: list.csv}}\n")
        .await
        .unwrap();
    let books = relaypool.simulator.books();
    books.wait_until(|books| books.open_connections() == 8).await;
    relaypool.apply(&policy(2)).await.unwrap();
    let fewer = books.wait_until(|books| books.open_connections() <= 2);
    tokio::time::timeout(Duration::from_secs(2), fewer)
        .await
        .expect("the policy acts within two seconds");

    relaypool
        .kubectl(&[
            "patch",
            "delivery",
            "long",
            "--type=merge",
            "-p",
            r#"{"spec":{"suspend":true}}"#,
        ])
        .await
        .unwrap();
    let suspended = relaypool
        .wait("suspension", "delivery", "long", |delivery| {
            delivery["status"]["phase"] == "Suspended"
        })
        .await
        .unwrap();
    books.wait_until(|books| books.transactions_open() == 0).await;
    let at_rest = books.accepted().len();
    assert!(at_rest < 1_500, "{suspended:#}");

    relaypool
        .kubectl(&[
            "patch",
            "delivery",
            "long",
            "--type=merge",
            "-p",
            r#"{"spec":{"suspend":false}}"#,
        ])
        .await
        .unwrap();
    books.wait_until(|books| books.accepted().len() > at_rest).await;

    relaypool
        .kubectl(&[
            "patch",
            "delivery",
            "long",
            "--type=merge",
            "-p",
            r#"{"spec":{"cancel":true}}"#,
        ])
        .await
        .unwrap();
    let done = relaypool
        .wait("the end", "delivery", "long", |delivery| {
            has_condition(delivery, "Completed", "True")
        })
        .await
        .unwrap();
    assert_eq!(done["status"]["phase"], "Canceled", "{done:#}");
    assert_eq!(count(&done, "sent"), books.accepted().len() as u64, "{done:#}");
    assert_eq!(count(&done, "sent") + count(&done, "canceled"), 1_500, "{done:#}");
}

/// Deleting a Delivery stops it.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_delivery_sends_nothing_more() {
    let world = serde_json::from_value(serde_json::json!({ "providers": [{
        "name": "slow", "domains": ["slow.example"], "mxHosts": [{ "name": "mx.slow.example", "priority": 10 }],
        "behaviours": [{ "kind": "serviceTime", "time": "200ms" }],
    }] }))
    .unwrap();
    let relaypool = Deployment::start(world, 1).await.unwrap();
    relaypool.apply_pool().await.unwrap();
    let rows: String = (0..900)
        .map(|row| format!("{{ address: user{row}@slow.example }}, "))
        .collect();
    relaypool
        .apply(&format!("apiVersion: relaypool.dev/v1alpha1\nkind: Delivery\nmetadata: {{name: doomed}}\nspec:\n  pool: main\n  sender: {{address: news@shop.example}}\n  message: {{subject: Hello, text: Hello}}\n  recipients: {{inline: [{rows}]}}\n"))
        .await
        .unwrap();
    let books = relaypool.simulator.books();
    books.wait_until(|books| books.messages_accepted() > 10).await;
    relaypool
        .kubectl(&["delete", "delivery", "doomed", "--wait=false"])
        .await
        .unwrap();
    // Sessions end once nothing is left to send on them.
    let quiet = books.wait_until(|books| books.open_connections() == 0);
    tokio::time::timeout(Duration::from_secs(30), quiet)
        .await
        .expect("sending stops");
    assert!(books.accepted().len() < 900);
}
