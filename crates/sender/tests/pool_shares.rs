//! Shares of pool-wide limits, and how the sending IPs of one sender share them.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use relaypool_api::pool_limits::{LimitedQuantity, PoolLimitClaim, PoolLimitKey};
use relaypool_api::sending_ip::Binds;
use relaypool_sender::{GrantedShares, PoolShares, SenderReport};
use serde_json::{Value, json};
use support::{Bench, message, policies, slice, source_ip, start, users};

const CONNECTIONS: LimitedQuantity = LimitedQuantity::Connections;
const RATE: LimitedQuantity = LimitedQuantity::MessagesPerSecond;

/// A provider that takes its time, and a sender with two IPs under a pool-wide limit.
async fn bench(limits: Value) -> Bench {
    let bench = start(json!({ "providers": [{
        "name": "slow", "domains": ["slow.example"], "mxHosts": [{ "name": "mx.slow.example" }],
        "behaviours": [{ "kind": "serviceTime", "time": "50ms" }],
    }] }))
    .await;
    limit(&bench, limits).await;
    let ips = vec![source_ip("one", "127.0.0.1"), source_ip("two", "127.0.0.2")];
    bench.engine.set_ips(ips).await.unwrap();
    bench
}

async fn limit(bench: &Bench, limits: Value) {
    let policy = json!({ "match": { "mxHosts": ["*"] }, "scope": "Pool", "limits": limits });
    bench.engine.set_policies(policies([("all", policy)])).await.unwrap();
}

fn key(quantity: LimitedQuantity) -> PoolLimitKey {
    PoolLimitKey {
        policy: "all".into(),
        site: "slow.example".into(),
        quantity,
    }
}

async fn grant(bench: &Bench, revision: u64, quantity: LimitedQuantity, share: u64) {
    let granted = GrantedShares {
        revision: Some(revision),
        shares: BTreeMap::from([(key(quantity), share)]),
        ..GrantedShares::default()
    };
    let shares = PoolShares::Granted(granted);
    bench.engine.set_pool_shares(shares).await.unwrap();
}

async fn send(bench: &Bench, id: &str, tier: Option<&str>, count: usize) {
    let changes = tier.map_or(
        json!({ "fingerprint": id }),
        |tier| json!({ "fingerprint": id, "ipAffinity": { "matchLabels": { "tier": tier } } }),
    );
    let addresses = users(count, "slow.example");
    bench
        .engine
        .accept(slice(id, &message(changes), addresses))
        .await
        .unwrap();
}

/// Waits until the sender's report fits.
async fn reported(bench: &Bench, what: &str, fits: impl Fn(&SenderReport) -> bool) -> SenderReport {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let report = bench.engine.report().await.unwrap();
        if fits(&report) {
            return report;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: {report:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn claim(report: &SenderReport) -> Option<&PoolLimitClaim> {
    report.pool_claims.claims.first()
}

fn highest_open(bench: &Bench) -> u64 {
    bench.simulator.books().summary().providers[0].highest_open_connections
}

fn sources(bench: &Bench) -> BTreeSet<String> {
    let summary = bench.simulator.books().summary();
    summary.providers[0].sources.keys().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_sender_has_the_whole_limit_for_all_its_addresses() {
    let bench = bench(json!({ "maxConnections": 3 })).await;
    send(&bench, "s", None, 100).await;
    bench.finished("s").await;
    assert_eq!(highest_open(&bench), 3, "all of it is used and no more");
    assert_eq!(sources(&bench).len(), 2);
    assert!(
        bench.engine.report().await.unwrap().pool_claims.claims.is_empty(),
        "nobody to ask"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_without_a_share_and_everything_with_one() {
    let bench = bench(json!({ "maxConnections": 10 })).await;
    let none = PoolShares::Granted(GrantedShares::default());
    bench.engine.set_pool_shares(none).await.unwrap();
    send(&bench, "s", None, 60).await;
    let report = reported(&bench, "demand", |report| claim(report).is_some()).await;
    let asked = claim(&report).unwrap();
    assert_eq!((asked.key(), asked.held), (key(CONNECTIONS), 0));
    assert_eq!(asked.wanted, 10, "no more than the whole limit");
    assert_eq!(report.connections, 0);
    assert!(report.lanes.iter().all(|lane| lane.site.binds == Binds::PoolShare));
    assert!(report.lanes.iter().all(|lane| lane.site.connection_limit == Some(0)));

    grant(&bench, 1, CONNECTIONS, 2).await;
    bench.finished("s").await;
    assert_eq!(highest_open(&bench), 2);
    assert_eq!(sources(&bench).len(), 2, "both addresses had their turn");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_share_is_acknowledged_when_the_connections_are_closed() {
    let bench = bench(json!({ "maxConnections": 10 })).await;
    grant(&bench, 1, CONNECTIONS, 6).await;
    send(&bench, "s", None, 600).await;
    reported(&bench, "all in use", |report| report.connections == 6).await;
    grant(&bench, 2, CONNECTIONS, 2).await;
    let first = bench.engine.report().await.unwrap();
    assert_eq!(first.pool_claims.revision, Some(2));
    assert!(claim(&first).unwrap().held > 2, "messages are under way: {first:#?}");
    let acknowledged = reported(&bench, "acknowledged", |report| claim(report).unwrap().held == 2).await;
    assert!(acknowledged.connections <= 2);
    let open = bench.simulator.books().read(|books| books.open_connections());
    assert!(open <= 2, "they are really closed: {open}");

    grant(&bench, 3, CONNECTIONS, 0).await;
    reported(&bench, "all closed", |report| claim(report).unwrap().held == 0).await;
    let sent = bench.accepted().len();
    assert!(sent < 600);
    grant(&bench, 4, CONNECTIONS, 10).await;
    bench.finished("s").await;
    assert_eq!(bench.accepted().len(), 600, "nothing was lost, nothing came twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn unused_connections_are_given_back_at_once() {
    let bench = bench(json!({ "maxConnections": 4 })).await;
    grant(&bench, 1, CONNECTIONS, 4).await;
    send(&bench, "s", None, 40).await;
    bench.finished("s").await;
    let idle = bench.engine.report().await.unwrap();
    assert!(idle.connections > 0, "kept open for the next message");
    let report = reported(&bench, "wants nothing", |report| claim(report).unwrap().wanted == 0).await;
    assert_eq!(claim(&report).unwrap().held, 4);
    grant(&bench, 2, CONNECTIONS, 0).await;
    reported(&bench, "given back", |report| report.pool_claims.claims.is_empty()).await;
    assert_eq!(bench.simulator.books().read(|books| books.open_connections()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_address_makes_room_for_another() {
    let bench = bench(json!({ "maxConnections": 2, "maxMessagesPerConnection": 10_000 })).await;
    send(&bench, "many", Some("one"), 400).await;
    reported(&bench, "both in use", |report| report.connections == 2).await;
    send(&bench, "few", Some("two"), 5).await;
    bench.finished("few").await;
    let many = support::counts(&bench.status("many").await);
    assert!(many.taken_into_account > 0, "the few did not wait for the many");
    assert_eq!(highest_open(&bench), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_addresses_share_one_rate() {
    let bench = bench(json!({ "maxConnections": 10, "rate": "100/s" })).await;
    let none = PoolShares::Granted(GrantedShares::default());
    bench.engine.set_pool_shares(none).await.unwrap();
    let shares = |share| {
        let shares = BTreeMap::from([(key(CONNECTIONS), 10), (key(RATE), share)]);
        PoolShares::Granted(GrantedShares {
            revision: Some(share),
            shares,
            ..GrantedShares::default()
        })
    };
    bench.engine.set_pool_shares(shares(0)).await.unwrap();
    send(&bench, "s", None, 41).await;
    let rate = |report: &SenderReport| {
        let claims = &report.pool_claims.claims;
        let found = claims.iter().find(|claim| claim.quantity == RATE);
        found.map(|claim| (claim.wanted, claim.held))
    };
    let report = reported(&bench, "demand", |report| rate(report).is_some()).await;
    assert_eq!(rate(&report), Some((41, 0)));
    assert_eq!(bench.accepted().len(), 0);

    let began = tokio::time::Instant::now();
    bench.engine.set_pool_shares(shares(20)).await.unwrap();
    bench.finished("s").await;
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "41 messages at 20 a second in {:?}",
        began.elapsed()
    );
    assert_eq!(sources(&bench).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_becomes_pool_wide_holds_for_connections_that_are_open_already() {
    let bench = bench(json!({ "maxConnections": 8 })).await;
    grant(&bench, 1, CONNECTIONS, 2).await;
    let per_ip = json!({ "match": { "mxHosts": ["*"] }, "limits": { "maxConnections": 8 } });
    bench.engine.set_policies(policies([("all", per_ip)])).await.unwrap();
    send(&bench, "s", None, 400).await;
    reported(&bench, "no pool-wide limit", |report| report.connections > 8).await;
    limit(&bench, json!({ "maxConnections": 8 })).await;
    let report = bench.engine.report().await.unwrap();
    assert_eq!(claim(&report).unwrap().held, report.connections);
    reported(&bench, "down to the share", |report| report.connections == 2).await;
    bench.finished("s").await;
}
