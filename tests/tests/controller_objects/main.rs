//! The controller against a real API server: every kind gets its answer, what is wrong is said where it is wrong, what was
//! missing heals, and nothing is written twice.

#![allow(clippy::unwrap_used)]

mod deliveries;
mod warm_up;
mod world;

use anyhow::ensure;
use relaypool_api::dkim_key::DkimAlgorithm;
use relaypool_message::dkim;
use relaypool_simulator::{Options, Simulator};
use relaypool_tests::crds::has_current_crds;
use relaypool_tests::wait::eventually;
use serde_json::json;
use world::{Controller, TIMEOUT, World, condition, delivery, ip, pool, two_recipients};

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_gets_its_answer_and_nothing_is_written_twice() {
    let world = World::new().await;
    let controller = world.start_controller();
    let pem = dkim::generate(DkimAlgorithm::Ed25519).unwrap();
    world.ours("RelayPool", "pool", pool(1)).await;
    world.ours("SendingIp", "ip", ip("192.0.2.1")).await;
    world
        .ours(
            "MxPolicy",
            "policy",
            json!({ "match": { "domains": ["*"] }, "limits": { "maxConnections": 5 } }),
        )
        .await;
    world.secret("dkim", "private.pem", &pem).await;
    let key =
        json!({ "domain": "example.com", "selector": "s1", "algorithm": "Ed25519", "secretRef": { "name": "dkim" } });
    world.ours("DkimKey", "key", key).await;
    world
        .condition(("relaypools", "pool"), "Reconciling", "True", "WaitingForSenders")
        .await;
    world.sender_reports("pool").await;

    world
        .condition(("relaypools", "pool"), "Ready", "True", "SendersReporting")
        .await;
    world.condition(("sendingip", "ip"), "Ready", "True", "Assigned").await;
    world
        .condition(("mxpolicy", "policy"), "Ready", "True", "Accepted")
        .await;
    world.condition(("dkimkey", "key"), "Ready", "True", "KeyLoaded").await;
    world
        .condition(("dkimkey", "key"), "Published", "Unknown", "LookupFailed")
        .await;

    let key = world.get("dkimkey", "key").await.unwrap();
    let version = key["status"]["keyVersion"].as_str().unwrap();
    assert_eq!(key["status"]["dnsRecord"]["name"], "s1._domainkey.example.com");
    assert!(
        key["status"]["dnsRecord"]["value"]
            .as_str()
            .unwrap()
            .starts_with("v=DKIM1; k=ed25519; p=")
    );
    let entry = format!("s1._domainkey.example.com.{version}.pem");
    eventually("the pool to have the key", TIMEOUT, async || {
        let secret = world.get("secret", "pool-dkim-keys").await?;
        Ok(secret["data"].get(&entry).map(|_| ()))
    })
    .await
    .unwrap();

    world.ours("Delivery", "news", delivery(two_recipients())).await;
    world.condition(("delivery", "news"), "Ready", "True", "Planned").await;
    let (message, recipients) = world.plan("news").await;
    assert_eq!(message["spec"]["message"]["dkimKeys"][0]["version"], version);
    assert_eq!((&message["spec"]["message"]["total"], recipients.len()), (&json!(3), 1));
    assert_eq!(recipients[0]["spec"]["sender"], "pool-0");
    assert_eq!(recipients[0]["spec"]["rows"][1]["variables"]["name"], "Bob");
    assert_eq!(
        recipients[0]["metadata"]["ownerReferences"][0]["blockOwnerDeletion"],
        true
    );

    let columns = |kind: &'static str, name: &'static str| world.kubectl_row(kind, name);
    assert_eq!(
        columns("relaypools", "pool").await[..5],
        ["pool", "True", "1", "7", "Adaptive"]
    );
    assert_eq!(
        columns("sendingip", "ip").await[..5],
        ["ip", "True", "192.0.2.1", "pool", "pool-0"]
    );
    assert_eq!(
        columns("dkimkey", "key").await[..5],
        ["key", "True", "example.com", "s1", "Unknown"]
    );
    assert_eq!(
        columns("delivery", "news").await[..5],
        ["news", "Sending", "3", "0", "0"]
    );

    // A key that is replaced while a run needs it stays with the senders, beside the new one.
    let other = dkim::generate(DkimAlgorithm::Ed25519).unwrap();
    world.secret("dkim", "private.pem", &other).await;
    eventually("the pool to have both keys", TIMEOUT, async || {
        let secret = world.get("secret", "pool-dkim-keys").await?;
        let entries = secret["data"].as_object().unwrap();
        Ok((entries.len() == 2 && entries.contains_key(&entry)).then_some(()))
    })
    .await
    .unwrap();
    let (unchanged, _) = world.plan("news").await;
    assert_eq!(unchanged, message);

    let ranges = json!({ "sent": "0", "failed": "1" });
    let name = recipients[0]["metadata"]["name"].as_str().unwrap();
    let finished = json!({
        "phase": "Finished", "ranges": ranges, "acceptedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z",
    });
    world
        .write_status("deliveryslices", "DeliverySlice", name, finished)
        .await;
    world.phase("news", "Completed").await;
    world
        .condition(("delivery", "news"), "Completed", "True", "AllMessagesEnded")
        .await;
    let status = world.get("delivery", "news").await.unwrap()["status"].take();
    assert_eq!(
        (&status["success"], &status["completedAt"]),
        (&json!("50.0%"), &json!("2026-01-01T00:00:01Z"))
    );
    assert_eq!(status["messages"].as_array().unwrap().len(), 3);

    eventually("Events", TIMEOUT, async || {
        let (of_delivery, of_ip) = (world.events_of("news").await, world.events_of("ip").await);
        let all = ["Planned", "Completed"]
            .iter()
            .all(|reason| of_delivery.iter().any(|event| event == reason));
        ensure!(
            all && of_ip.contains(&"Assigned".to_owned()),
            "{of_delivery:?} {of_ip:?}"
        );
        Ok(Some(()))
    })
    .await
    .unwrap();
    controller.stop().await;

    // Another controller finds everything as it should be.
    world.sender_reports("pool").await;
    let versions = || async {
        let mut versions = Vec::new();
        for kind in [
            "relaypools",
            "sendingips",
            "mxpolicies",
            "dkimkeys",
            "deliveries",
            "deliveryslices",
            "secrets",
        ] {
            let objects = world.list(kind).await;
            versions.extend(
                objects
                    .iter()
                    .map(|object| object["metadata"]["resourceVersion"].to_string()),
            );
        }
        versions
    };
    let before = versions().await;
    let controller = world.start_controller();
    let kinds = ["RelayPool", "SendingIp", "MxPolicy", "DkimKey", "Delivery"];
    eventually("all objects to be looked at", TIMEOUT, async || {
        let counts = kinds.map(|kind| controller.metric("relaypool_controller_reconcile_duration_seconds_count", kind));
        ensure!(
            counts.iter().all(|&count| count >= 1.0),
            "{counts:?} {}",
            controller.text()
        );
        Ok(Some(()))
    })
    .await
    .unwrap();
    assert_eq!(controller.metric("relaypool_controller_status_writes_total", ""), 0.0);
    assert_eq!(versions().await, before);
    assert_eq!(
        controller.metric("relaypool_controller_objects", "readiness=\"Ready\""),
        5.0
    );
    controller.stop().await;
    world.control_plane.shutdown().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_and_concerns_nobody_else() {
    let world = World::new().await;
    let controller = world.start_controller();
    world.ours("RelayPool", "pool", pool(1)).await;
    world.ours("SendingIp", "ip", ip("192.0.2.1")).await;
    world.condition(("sendingip", "ip"), "Ready", "True", "Assigned").await;

    // Rules between fields, which an API server with CEL checks itself.
    if !has_current_crds(&world.client).await.unwrap() {
        let mut two_ways = ip("192.0.2.2");
        two_ways["egress"] = json!({ "bind": "10.0.0.1", "socks5": "proxy:1080" });
        world.ours("SendingIp", "two-ways", two_ways).await;
        let message = world
            .condition(("sendingip", "two-ways"), "Stalled", "True", "InvalidSpec")
            .await;
        assert!(message.starts_with("spec.egress: "), "{message}");

        world
            .ours("MxPolicy", "malformed", json!({ "match": { "domains": ["a b"] } }))
            .await;
        let message = world
            .condition(("mxpolicy", "malformed"), "Stalled", "True", "InvalidSpec")
            .await;
        assert!(message.starts_with("spec.match.domains[0]: 'a b'"), "{message}");
        world
            .ours("MxPolicy", "sound", json!({ "match": { "domains": ["example.com"] } }))
            .await;
        world
            .condition(("mxpolicy", "sound"), "Ready", "True", "Accepted")
            .await;
        world
            .ours(
                "MxPolicy",
                "malformed",
                json!({ "match": { "domains": ["a.example"] } }),
            )
            .await;
        world
            .condition(("mxpolicy", "malformed"), "Ready", "True", "Accepted")
            .await;
    }

    let policy = |connections: u32| json!({ "match": { "domains": ["x.example"] }, "limits": { "maxConnections": connections } });
    world.ours("MxPolicy", "one", policy(1)).await;
    world.ours("MxPolicy", "two", policy(2)).await;
    world
        .condition(("mxpolicy", "one"), "Conflicting", "True", "SameMasksAndPriority")
        .await;
    world
        .condition(("mxpolicy", "two"), "Conflicting", "True", "SameMasksAndPriority")
        .await;
    world.kubectl(&["delete", "mxpolicy", "two"], "").await.unwrap();
    eventually("the conflict to end", TIMEOUT, async || {
        let one = world.get("mxpolicy", "one").await?;
        Ok(condition(&one, "Conflicting").is_none().then_some(()))
    })
    .await
    .unwrap();

    world.ours("SendingIp", "twin", ip("192.0.2.1")).await;
    world
        .condition(("sendingip", "twin"), "Stalled", "True", "DuplicateAddress")
        .await;
    world.kubectl(&["delete", "sendingip", "ip"], "").await.unwrap();
    world
        .condition(("sendingip", "twin"), "Ready", "True", "Assigned")
        .await;

    let no_secret = json!({ "domain": "example.com", "selector": "a" });
    world.ours("DkimKey", "generated", no_secret).await;
    world
        .condition(("dkimkey", "generated"), "Stalled", "True", "NotInThisVersion")
        .await;
    let pem = dkim::generate(DkimAlgorithm::Ed25519).unwrap();
    let body: String = pem.lines().nth(1).unwrap().to_owned();
    world.secret("wrong", "private.pem", &pem).await;
    let wrong = json!({ "domain": "example.org", "selector": "b", "secretRef": { "name": "wrong" } });
    world.ours("DkimKey", "wrong", wrong).await;
    let message = world
        .condition(("dkimkey", "wrong"), "Stalled", "True", "WrongAlgorithm")
        .await;
    assert!(
        message.contains("key private.pem of Secret wrong") && !message.contains(&body),
        "{message}"
    );
    world
        .secret("wrong", "private.pem", &dkim::generate(DkimAlgorithm::Rsa).unwrap())
        .await;
    world
        .condition(("dkimkey", "wrong"), "Ready", "True", "KeyLoaded")
        .await;

    let mut bad_template = delivery(two_recipients());
    bad_template["message"]["text"] = json!("Hello {{ name");
    world.ours("Delivery", "bad-template", bad_template).await;
    let message = world
        .condition(("delivery", "bad-template"), "Stalled", "True", "InvalidTemplate")
        .await;
    assert!(message.contains("message.text"), "{message}");

    world.config_map("list", "csv", "name,city\nAda,London\n").await;
    let from_list = delivery(json!({ "configMapKeyRef": { "name": "list", "key": "csv" } }));
    let mut from_list = from_list;
    from_list["sender"]["address"] = json!("news@example.org");
    world.ours("Delivery", "bad-list", from_list).await;
    let message = world
        .condition(("delivery", "bad-list"), "Stalled", "True", "InvalidRecipients")
        .await;
    assert!(
        message.contains("ConfigMap list") && message.contains("name, city"),
        "{message}"
    );
    world.config_map("list", "csv", "name,email\nAda,nonsense\n").await;
    world
        .condition(("delivery", "bad-list"), "Stalled", "True", "NoRecipients")
        .await;
    world
        .config_map("list", "csv", "name,email\nAda,ada@example.net\n")
        .await;
    world
        .condition(("delivery", "bad-list"), "Ready", "True", "Planned")
        .await;

    assert!(
        world
            .events_of("bad-list")
            .await
            .contains(&"InvalidRecipients".to_owned())
    );
    controller.stop().await;
    world.control_plane.shutdown().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn published_records_are_noticed() {
    let world = World::new().await;
    let simulator = Simulator::start(Default::default(), Options::default()).await.unwrap();
    let controller = Controller::start(&world, simulator.dns_address());
    let rsa = dkim::generate(DkimAlgorithm::Rsa).unwrap();
    let record = dkim::SigningKey::from_pem(rsa.as_bytes(), DkimAlgorithm::Rsa)
        .unwrap()
        .dns_record();
    assert!(record.len() > 255, "more than one string of a TXT record holds");
    simulator.add_txt("yes._domainkey.example.com", &record).await.unwrap();
    simulator
        .add_txt("other._domainkey.example.com", "v=DKIM1; p=AAAA")
        .await
        .unwrap();
    world.secret("dkim", "private.pem", &rsa).await;
    for (selector, status, reason) in [
        ("yes", "True", "RecordFound"),
        ("other", "False", "RecordDiffers"),
        ("none", "False", "RecordMissing"),
    ] {
        let key = json!({ "domain": "example.com", "selector": selector, "secretRef": { "name": "dkim" } });
        world.ours("DkimKey", selector, key).await;
        world
            .condition(("dkimkey", selector), "Published", status, reason)
            .await;
        world
            .condition(("dkimkey", selector), "Ready", "True", "KeyLoaded")
            .await;
    }
    eventually("the Event", TIMEOUT, async || {
        Ok(world
            .events_of("yes")
            .await
            .contains(&"KeyPublished".to_owned())
            .then_some(()))
    })
    .await
    .unwrap();
    controller.stop().await;
    world.control_plane.shutdown().unwrap();
}
