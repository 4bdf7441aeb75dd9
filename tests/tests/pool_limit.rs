//! A limit that all senders of a pool have together, on a real API server: the receiving side counts the connections.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use relaypool_api::delivery::DeliveryPhase;
use relaypool_api::names::SHARES_MANAGER;
use relaypool_api::pool_limits::PoolLimitShare;
use relaypool_api::{Delivery, RelayPool};
use relaypool_simulator::World;
use relaypool_simulator::books::{Books, Entries};
use relaypool_tests::deployment::{Deployment, PATIENCE, POOL};
use relaypool_tests::wait::eventually;
use serde_json::json;

/// What was accepted twice for each connection that died with its sender.
const REPEATS_PER_CONNECTION: usize = 2;

/// A pool with one address for each sender, towards one provider under a pool-wide limit.
async fn start(senders: usize, connections: u32, service_time: &str) -> Result<Deployment> {
    let world: World = serde_json::from_value(json!({ "providers": [{
        "name": "big", "domains": ["big.example"], "mxHosts": [{ "name": "mx.big.example" }],
        "behaviours": [{ "kind": "serviceTime", "time": service_time, "jitter": 30 }],
    }] }))?;
    let relaypool = Deployment::start(world, senders).await?;
    relaypool.apply_pool().await?;
    for ordinal in 0..senders {
        let (name, label) = (format!("ip-{ordinal}"), format!("number={ordinal}"));
        relaypool.kubectl(&["label", "sendingip", &name, &label]).await?;
    }
    let policy = json!({
        "apiVersion": "relaypool.dev/v1alpha1", "kind": "MxPolicy", "metadata": { "name": "together" },
        "spec": {
            "match": { "mxHosts": ["*.big.example"] },
            "scope": "Pool",
            "limits": { "maxConnections": connections, "maxMessagesPerConnection": 50 },
            "adaptive": { "min": { "connections": connections } },
        },
    });
    relaypool.apply(&policy.to_string()).await?;
    Ok(relaypool)
}

/// A Delivery that leaves from the address with this number.
async fn send(relaypool: &Deployment, name: &str, number: usize, rows: usize) -> Result<()> {
    let client = relaypool.client().await?;
    let list: Vec<String> = (0..rows).map(|row| recipient(name, row)).collect();
    let list: ConfigMap = serde_json::from_value(json!({
        "metadata": { "name": name }, "data": { "list.csv": format!("email\n{}\n", list.join("\n")) },
    }))?;
    let lists: Api<ConfigMap> = Api::namespaced(client.clone(), &relaypool.namespace);
    lists.create(&PostParams::default(), &list).await?;
    let delivery: Delivery = serde_json::from_value(json!({
        "apiVersion": "relaypool.dev/v1alpha1", "kind": "Delivery", "metadata": { "name": name },
        "spec": {
            "pool": POOL,
            "sender": { "address": "news@shop.example" },
            "message": { "subject": "Hello", "text": "Hello {{ address }}" },
            "recipients": { "configMapKeyRef": { "name": name, "key": "list.csv" } },
            "ipAffinity": { "matchLabels": { "number": number.to_string() } },
        },
    }))?;
    let deliveries: Api<Delivery> = Api::namespaced(client, &relaypool.namespace);
    deliveries.create(&PostParams::default(), &delivery).await?;
    Ok(())
}

fn recipient(delivery: &str, row: usize) -> String {
    format!("{delivery}.{row}@big.example")
}

async fn completed(relaypool: &Deployment, name: &str, rows: usize) {
    let is_completed = |status: &relaypool_api::DeliveryStatus| status.phase == Some(DeliveryPhase::Completed);
    let status = relaypool
        .wait_for_status("completion", name, is_completed)
        .await
        .unwrap();
    assert_eq!(status.counts.unwrap().sent, rows as u64, "{name}");
}

/// The address with this number.
fn address(number: usize) -> IpAddr {
    format!("127.0.0.{}", number + 1).parse().unwrap()
}

/// Connections that the provider has open from an address.
fn open_from(books: &Entries, number: usize) -> u64 {
    books.open_from("big", address(number))
}

fn highest_open(books: &Books) -> u64 {
    books.summary().providers[0].highest_open_connections
}

async fn until(relaypool: &Deployment, what: &str, condition: impl FnMut(&Entries) -> bool) {
    let reached = relaypool.simulator.books().wait_until(condition);
    if tokio::time::timeout(PATIENCE, reached).await.is_err() {
        let summary = relaypool.simulator.books().summary();
        let pool = relaypool.get("rpool", POOL).await.unwrap();
        panic!("{what}: {summary:#?}\n{:#}\n{}", pool["status"], relaypool.logs());
    }
}

/// Waits until so many more recipients are accepted, and calls `look` at every change until then.
async fn observe(relaypool: &Deployment, accepted: usize, mut look: impl FnMut(&Entries)) {
    let wanted = relaypool.simulator.books().read(|books| books.accepted().len()) + accepted;
    until(relaypool, "more accepted", |books| {
        look(books);
        books.accepted().len() >= wanted
    })
    .await;
}

async fn share(relaypool: &Deployment, sender: &str) -> Option<PoolLimitShare> {
    let pools: Api<RelayPool> = Api::namespaced(relaypool.client().await.unwrap(), &relaypool.namespace);
    let status = pools.get(POOL).await.unwrap().status.unwrap();
    let shares = status.pool_limits.into_iter().flat_map(|limit| limit.shares);
    shares.into_iter().find(|share| share.sender == sender)
}

/// Place of the sender that owns an address.
async fn owner(relaypool: &Deployment, number: usize) -> usize {
    let ip = relaypool.get("sendingip", &format!("ip-{number}")).await.unwrap();
    let sender = ip["status"]["sender"].as_str().unwrap();
    sender.rsplit('-').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_senders_share_ten_connections_whatever_happens() {
    let limit = 10;
    let mut relaypool = start(3, 10, "100ms").await.unwrap();
    let rows = [("first", 3_000), ("second", 1_500), ("third", 1_500)];

    send(&relaypool, rows[0].0, 0, rows[0].1).await.unwrap();
    until(&relaypool, "all of it for the only one", |books| {
        open_from(books, 0) == limit
    })
    .await;

    let began = Instant::now();
    send(&relaypool, rows[1].0, 1, rows[1].1).await.unwrap();
    send(&relaypool, rows[2].0, 2, rows[2].1).await.unwrap();
    until(&relaypool, "a share for each", |books| {
        (0..3).all(|number| open_from(books, number) >= 3)
    })
    .await;
    println!("shared out anew after {:?}", began.elapsed());

    let (mut sum, mut looks) = (0_u64, 0_u64);
    observe(&relaypool, 500, |books| {
        sum += books.open_connections();
        looks += 1;
    })
    .await;
    println!("{} of {limit} open on average", sum as f64 / looks as f64);
    assert!(sum >= looks * limit * 8 / 10, "most of the limit is used");

    // One dies, and the controller too: nobody gets what the dead one has.
    let dead = owner(&relaypool, 1).await;
    let name = format!("{POOL}-{dead}");
    relaypool.senders[dead].kill9().unwrap();
    relaypool.controller.kill9().unwrap();
    relaypool.controller.restart().unwrap();
    until(&relaypool, "its connections end", |books| open_from(books, 1) == 0).await;
    let kept = share(&relaypool, &name).await.unwrap();
    assert!(kept.granted >= 1, "{kept:?}");
    let mut most = 0;
    observe(&relaypool, 400, |books| most = most.max(books.open_connections())).await;
    assert!(most <= limit - kept.granted, "{most} open beside {kept:?}");
    let after = share(&relaypool, &name).await.unwrap();
    assert_eq!((after.granted, after.counted), (kept.granted, kept.counted));

    relaypool.senders[dead].restart().unwrap();
    until(&relaypool, "it is back", |books| open_from(books, 1) >= 1).await;
    for (name, rows) in rows {
        completed(&relaypool, name, rows).await;
    }
    let books = relaypool.simulator.books();
    assert_eq!(highest_open(books), limit, "never more");
    let expected: BTreeSet<String> = rows
        .iter()
        .flat_map(|(name, rows)| (0..*rows).map(|row| recipient(name, row)))
        .collect();
    let accepted: BTreeSet<String> = books.accepted().into_iter().map(|one| one.recipient).collect();
    assert!(accepted == expected, "{} of {}", accepted.len(), expected.len());
    let repeats = books.duplicates().len();
    assert!(repeats <= REPEATS_PER_CONNECTION * 10, "{repeats} repeats");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_senders_take_turns_at_one_connection() {
    let relaypool = start(2, 1, "100ms").await.unwrap();
    send(&relaypool, "many", 0, 700).await.unwrap();
    until(&relaypool, "the first has it", |books| open_from(books, 0) == 1).await;
    send(&relaypool, "few", 1, 20).await.unwrap();
    let began = Instant::now();
    completed(&relaypool, "few", 20).await;
    println!("the few came after {:?}", began.elapsed());
    let accepted = relaypool.simulator.books().read(|books| books.accepted().len());
    assert!(accepted < 720, "they did not wait for the many");
    assert!(began.elapsed() < Duration::from_secs(100));
    completed(&relaypool, "many", 700).await;
    assert_eq!(highest_open(relaypool.simulator.books()), 1);
    let pools: Api<RelayPool> = Api::namespaced(relaypool.client().await.unwrap(), &relaypool.namespace);
    eventually("nothing is left of shares that nobody wants", PATIENCE, async || {
        let limits = pools.get(POOL).await?.status.unwrap_or_default().pool_limits;
        Ok(limits.is_empty().then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_ends_gives_its_share_back() {
    let mut relaypool = start(2, 4, "100ms").await.unwrap();
    send(&relaypool, "first", 0, 1_000).await.unwrap();
    send(&relaypool, "second", 1, 1_000).await.unwrap();
    until(&relaypool, "a share for each", |books| {
        (0..2).all(|number| open_from(books, number) == 2)
    })
    .await;
    let ending = owner(&relaypool, 1).await;
    relaypool.senders[ending].terminate().unwrap();
    let status = relaypool.senders[ending].wait_for_exit(PATIENCE).await.unwrap();
    assert!(status.success(), "{}", relaypool.logs());
    until(&relaypool, "the other has all", |books| open_from(books, 0) == 4).await;
    let name = format!("{POOL}-{ending}");
    assert_eq!(share(&relaypool, &name).await, None);

    relaypool.senders[ending].restart().unwrap();
    completed(&relaypool, "first", 1_000).await;
    completed(&relaypool, "second", 1_000).await;
    assert_eq!(highest_open(relaypool.simulator.books()), 4);
    assert_eq!(relaypool.simulator.books().duplicates(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_are_written_only_over_what_they_were_computed_from() {
    let relaypool = start(0, 4, "100ms").await.unwrap();
    let pools: Api<RelayPool> = Api::namespaced(relaypool.client().await.unwrap(), &relaypool.namespace);
    let read = pools.get(POOL).await.unwrap();
    let write = async |manager: &str, version: Option<String>, status: serde_json::Value| {
        let mut body = json!({
            "apiVersion": "relaypool.dev/v1alpha1", "kind": "RelayPool", "metadata": { "name": POOL }, "status": status,
        });
        if let Some(version) = version {
            body["metadata"]["resourceVersion"] = version.into();
        }
        let parameters = PatchParams::apply(manager).force();
        pools.patch_status(POOL, &parameters, &Patch::Apply(&body)).await
    };
    let claim = json!({ "senders": [{ "name": "main-0", "reportedAt": "2026-11-20T00:00:00Z" }] });
    write("somebody", None, claim).await.unwrap();
    let shares = json!({ "poolLimits": [], "poolLimitsRevision": 1 });
    let stale = write(SHARES_MANAGER, read.metadata.resource_version, shares.clone()).await;
    assert!(
        matches!(&stale, Err(kube::Error::Api(status)) if status.code == 409),
        "{stale:?}"
    );
    // The controller itself may write in between.
    eventually("a write over the newest", PATIENCE, async || {
        let newest = pools.get(POOL).await?.metadata.resource_version;
        Ok(write(SHARES_MANAGER, newest, shares.clone()).await.ok())
    })
    .await
    .unwrap();
}
