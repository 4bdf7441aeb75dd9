//! Planning and following Deliveries.

use relaypool_api::dkim_key::DkimAlgorithm;
use relaypool_message::dkim;
use relaypool_tests::wait::eventually;
use serde_json::json;

use crate::world::{TIMEOUT, World, delivery, ip, pool, two_recipients};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named_and_heals() {
    let world = World::new().await;
    let controller = world.start_controller();
    let list = json!({ "secretKeyRef": { "name": "list", "key": "lines", "format": "JsonLines" } });
    let mut spec = delivery(list);
    spec["message"]["attachments"] = json!([{
        "filename": "a.txt", "contentType": "text/plain", "configMapKeyRef": { "name": "files", "key": "a.txt" },
    }]);
    world.ours("Delivery", "news", spec).await;
    let waits = |reason: &'static str| world.condition(("delivery", "news"), "Reconciling", "True", reason);
    assert!(waits("RecipientsNotFound").await.contains("key lines of Secret list"));
    world
        .secret("list", "lines", "{\"email\": \"ada@example.net\", \"name\": \"Ada\"}\n")
        .await;
    assert!(
        waits("AttachmentNotFound")
            .await
            .contains("key a.txt of ConfigMap files")
    );
    world.config_map("files", "a.txt", "attached").await;
    waits("PoolNotFound").await;
    world.ours("RelayPool", "pool", pool(2)).await;
    let key =
        json!({ "domain": "example.com", "selector": "s", "algorithm": "Ed25519", "secretRef": { "name": "dkim" } });
    world.ours("DkimKey", "key", key).await;
    world
        .condition(("dkimkey", "key"), "Reconciling", "True", "SecretNotFound")
        .await;
    waits("DkimKeyNotReady").await;
    world
        .secret("dkim", "private.pem", &dkim::generate(DkimAlgorithm::Ed25519).unwrap())
        .await;
    world.condition(("dkimkey", "key"), "Ready", "True", "KeyLoaded").await;
    waits("NoSendingIp").await;
    world.phase("news", "Pending").await;
    world.ours("SendingIp", "one", ip("192.0.2.1")).await;
    world.phase("news", "Sending").await;
    let (message, recipients) = world.plan("news").await;
    assert_eq!(
        message["spec"]["message"]["message"]["attachments"][0]["data"],
        "YXR0YWNoZWQ="
    );
    assert_eq!(recipients.len(), 1);

    // From here on the plan is fixed: only suspend and cancel act.
    let mut changed = delivery(two_recipients());
    changed["suspend"] = json!(true);
    world.ours("Delivery", "news", changed).await;
    world
        .condition(("delivery", "news"), "NotInEffect", "True", "ChangedAfterStart")
        .await;
    world.phase("news", "Suspended").await;
    assert_eq!(world.plan("news").await, (message, recipients));

    world.kubectl(&["delete", "relaypools", "pool"], "").await.unwrap();
    world
        .condition(("sendingip", "one"), "Reconciling", "True", "PoolNotFound")
        .await;
    let one = world.get("sendingip", "one").await.unwrap();
    assert_eq!(one["status"]["sender"], "pool-0", "an assignment is kept");
    controller.stop().await;
    world.control_plane.shutdown().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn planning_that_was_interrupted_is_finished_or_made_anew() {
    let world = World::new().await;
    world.ours("RelayPool", "pool", pool(1)).await;
    world.ours("SendingIp", "ip", ip("192.0.2.1")).await;
    let controller = world.start_controller();
    world.condition(("sendingip", "ip"), "Ready", "True", "Assigned").await;
    world.ours("Delivery", "news", delivery(two_recipients())).await;
    let (message, recipients) = world.plan("news").await;
    controller.stop().await;

    // As if it had been killed before the last write: the same plan is completed.
    let name = message["metadata"]["name"].as_str().unwrap();
    world.kubectl(&["delete", "deliveryslice", name], "").await.unwrap();
    let controller = world.start_controller();
    let (again, unchanged) = world.plan("news").await;
    assert_eq!(again["metadata"]["name"], message["metadata"]["name"]);
    assert_ne!(again["metadata"]["uid"], message["metadata"]["uid"]);
    assert_eq!(unchanged, recipients);
    controller.stop().await;

    // The same, and then the recipients change: the old slices go, and a new plan is made.
    world.kubectl(&["delete", "deliveryslice", name], "").await.unwrap();
    let changed = json!({ "inline": [{ "address": "eve@example.net", "variables": { "name": "Eve" } }] });
    world.ours("Delivery", "news", delivery(changed)).await;
    let controller = world.start_controller();
    let (message, recipients) = world.plan("news").await;
    assert_ne!(message["metadata"]["name"], name);
    assert_eq!(recipients.len(), 1);
    assert_eq!(recipients[0]["spec"]["rows"][0]["address"], "eve@example.net");
    controller.stop().await;

    // The same, and then it is canceled: nothing is left to send.
    let name = message["metadata"]["name"].as_str().unwrap();
    world.kubectl(&["delete", "deliveryslice", name], "").await.unwrap();
    world
        .kubectl(
            &[
                "patch",
                "delivery",
                "news",
                "--type=merge",
                "--patch",
                "{\"spec\":{\"cancel\":true}}",
            ],
            "",
        )
        .await
        .unwrap();
    let controller = world.start_controller();
    world.phase("news", "Canceled").await;
    assert!(world.list("deliveryslices").await.is_empty());
    controller.stop().await;
    world.control_plane.shutdown().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_reports_make_few_writes_and_an_absent_api_server_is_waited_for() {
    let mut world = World::new().await;
    world.ours("RelayPool", "pool", pool(1)).await;
    world.ours("SendingIp", "ip", ip("192.0.2.1")).await;
    let controller = world.start_controller();
    let recipients: Vec<_> = (0..50)
        .map(|row| json!({ "address": format!("r{row}@example.net") }))
        .collect();
    world
        .ours("Delivery", "news", delivery(json!({ "inline": recipients })))
        .await;
    world.phase("news", "Sending").await;
    let (_, slices) = world.plan("news").await;
    let slice = slices[0]["metadata"]["name"].as_str().unwrap();
    let writes = || controller.metric("relaypool_controller_status_writes_total", "Delivery");

    let (before, started) = (writes(), std::time::Instant::now());
    for row in 0..50 {
        let status = json!({ "phase": "Accepted", "ranges": { "sent": format!("0-{row}"), "waiting": "0-49" } });
        world
            .write_status("deliveryslices", "DeliverySlice", slice, status)
            .await;
    }
    eventually("all 50 to be counted", TIMEOUT, async || {
        let object = world.get("delivery", "news").await?;
        Ok((object["status"]["counts"]["sent"] == 50).then_some(()))
    })
    .await
    .unwrap();
    let allowed = started.elapsed().as_secs_f64() + 2.0;
    assert!(writes() - before <= allowed, "{} writes", writes() - before);

    if world.control_plane.is_own() {
        world.control_plane.stop_api_server().unwrap();
        world.control_plane.start_api_server().await.unwrap();
        world.ours("SendingIp", "later", ip("192.0.2.2")).await;
        world
            .condition(("sendingip", "later"), "Ready", "True", "Assigned")
            .await;
    }
    controller.stop().await;
    world.control_plane.shutdown().unwrap();
}
