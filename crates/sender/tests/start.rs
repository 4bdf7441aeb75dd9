//! What an engine does before it is told everything.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;

use prometheus_client::registry::Registry;
use relaypool_api::message::OnBlock;
use relaypool_sender::resolver::{DestinationLimits, MxResolver};
use relaypool_sender::{Engine, EngineConfig, PoolSettings, SenderMetrics};
use relaypool_simulator::{Options, Simulator};
use serde_json::{Value, json};
use support::{counts, message, slice, source_ip};

/// The name servers of the machine may say that a domain does not exist, where those of the pool know it.
#[tokio::test(flavor = "multi_thread")]
async fn no_domain_is_looked_up_before_there_is_a_sending_ip() {
    let simulator = |world: Value| Simulator::start(serde_json::from_value(world).unwrap(), Options::default());
    let machine = simulator(json!({})).await.unwrap();
    let provider = json!({ "name": "good", "domains": ["good.example"], "mxHosts": [{ "name": "mx.good.example" }] });
    let pool = simulator(json!({ "providers": [provider] })).await.unwrap();
    let resolver = |simulator: &Simulator| {
        let limits = DestinationLimits {
            allow_private: true,
            ..DestinationLimits::default()
        };
        MxResolver::new(&[simulator.dns_address().to_string()], None, limits).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let config = EngineConfig {
        spool: folder.path().join("spool"),
        settings: PoolSettings {
            pool: "pool".into(),
            smtp_port: pool.smtp_port(),
            max_connections: 10,
            adaptive: true,
            on_block: OnBlock::Wait,
        },
        low_space: 0,
    };
    let metrics = Arc::new(SenderMetrics::register(&mut Registry::default()));
    let engine = Engine::open(config, resolver(&machine), metrics).await.unwrap();
    engine
        .accept(slice("s", &message(json!({})), ["a@good.example"]))
        .await
        .unwrap();

    engine.set_resolver(resolver(&pool)).await.unwrap();
    engine.set_ips(vec![source_ip("first", "127.0.0.1")]).await.unwrap();
    let status = support::wait(&engine, "s", |counts| counts.taken_into_account == 0).await;
    assert_eq!(counts(&status).sent, 1, "{status:#?}");
}
