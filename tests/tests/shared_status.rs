//! One status with several writers: each sender keeps its own entry, whoever writes after it.

#![allow(clippy::unwrap_used)]

use kube::api::{Api, Patch, PatchParams};
use relaypool_api::RelayPool;
use relaypool_api::names::{CONTROLLER_MANAGER, sender_manager};
use relaypool_tests::control_plane::ControlPlane;
use relaypool_tests::crds::install_crds;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn senders_and_controller_share_the_status_of_a_pool() {
    relaypool_tests::install_crypto_provider();
    let control_plane = ControlPlane::start().await.unwrap();
    let client = control_plane.client().await.unwrap();
    install_crds(&client, relaypool_api::crds::documents()).await.unwrap();
    let namespace = control_plane.create_namespace("shared").await.unwrap();
    let pools: Api<RelayPool> = Api::namespaced(client, &namespace);
    let apply = |manager: String| PatchParams::apply(&manager).force();
    let pool = |part: &str, content: Value| {
        let mut object =
            json!({ "apiVersion": "relaypool.dev/v1alpha1", "kind": "RelayPool", "metadata": { "name": "main" } });
        object[part] = content;
        Patch::Apply(object)
    };
    let entry = |name: &str, queued: i64| json!({ "senders": [{ "name": name, "version": "1", "reportedAt": "2026-11-20T00:00:00Z", "queued": queued }] });

    pools
        .patch("main", &apply("user".into()), &pool("spec", json!({ "replicas": 2 })))
        .await
        .unwrap();
    for round in 1..=2 {
        for name in ["main-0", "main-1"] {
            pools
                .patch_status(
                    "main",
                    &apply(sender_manager(name)),
                    &pool("status", entry(name, round)),
                )
                .await
                .unwrap();
        }
        pools
            .patch_status(
                "main",
                &apply(CONTROLLER_MANAGER.into()),
                &pool("status", json!({ "replicas": 2 })),
            )
            .await
            .unwrap();
        let status = pools.get("main").await.unwrap().status.unwrap();
        let senders: Vec<(&str, i64)> = status
            .senders
            .iter()
            .map(|sender| (sender.name.as_str(), sender.queued))
            .collect();
        assert_eq!(senders, [("main-0", round), ("main-1", round)]);
        assert_eq!(status.replicas, Some(2));
    }
}
