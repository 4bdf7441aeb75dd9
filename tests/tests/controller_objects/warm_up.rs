//! What a sender reports of a warm-up, and what the controller makes of it.

use relaypool_tests::wait::eventually;
use serde_json::{Value, json};

use super::world::{TIMEOUT, World, condition, ip, pool};

#[tokio::test(flavor = "multi_thread")]
async fn stages_and_holds_are_told() {
    let world = World::new().await;
    let controller = world.start_controller();
    world.ours("RelayPool", "pool", pool(1)).await;
    let mut spec = ip("192.0.2.1");
    spec["warmUp"] = json!({ "timeZone": "Europe/Paris" });
    world.ours("SendingIp", "ip", spec.clone()).await;
    world.condition(("sendingip", "ip"), "Ready", "True", "Assigned").await;
    let report = async |change: Value| {
        let mut status = json!({
            "progress": "1/29", "stage": 1, "stages": 29, "day": "2026-11-20", "dayEnds": "2026-11-20T23:00:00Z",
            "limit": 200, "reserved": 200, "sent": 10, "delivered": 9,
            "providers": [{ "site": "one.example", "limit": 200, "sent": 10, "delivered": 9, "bestDay": 0 }],
        });
        for (field, value) in change.as_object().unwrap() {
            status[field] = value.clone();
        }
        world
            .write_status("sendingips", "SendingIp", "ip", json!({ "warmUp": status }))
            .await;
    };

    report(json!({})).await;
    ready_message(&world, "sender pool-0 owns the address; warm-up at stage 1/29").await;
    assert!(world.kubectl_row("sendingip", "ip").await.contains(&"1/29".to_owned()));
    let refusal = "one.example refused mail (reputation_block): 554 5.7.1 blocked";
    report(json!({ "held": refusal, "heldSince": "2026-11-20T12:00:00Z" })).await;
    let message = world
        .condition(("sendingip", "ip"), "WarmUpHeld", "True", "ProviderRefused")
        .await;
    assert!(message.ends_with(refusal), "{message}");

    // The hold goes away, and with it its fields: API servers of any version take that.
    report(json!({ "progress": "2/29", "stage": 2, "limit": 500, "lastDay": "2026-11-20: 190 of 200 delivered" }))
        .await;
    ready_message(&world, "sender pool-0 owns the address; warm-up at stage 2/29").await;
    let object = world.get("sendingip", "ip").await.unwrap();
    assert!(condition(&object, "WarmUpHeld").is_none());
    assert!(object["status"]["warmUp"].get("held").is_none_or(Value::is_null));
    let warm =
        json!({ "warmUp": { "progress": "warm", "sent": 0, "delivered": 0, "warmSince": "2026-12-20T00:00:00Z" } });
    world.write_status("sendingips", "SendingIp", "ip", warm).await;
    ready_message(&world, "sender pool-0 owns the address").await;
    let told = ["Assigned", "WarmUpHeld", "WarmUpReleased", "WarmUpStage"];
    eventually("Events of each transition", TIMEOUT, async || {
        let mut events = world.events_of("ip").await;
        events.sort();
        events.dedup();
        Ok((events == told).then_some(()))
    })
    .await
    .unwrap();

    spec["warmUp"] = json!({ "timeZone": "Europe/Lutetia" });
    world.ours("SendingIp", "ip", spec).await;
    let message = world
        .condition(("sendingip", "ip"), "Stalled", "True", "NotInThisVersion")
        .await;
    assert!(message.contains("Europe/Lutetia"), "{message}");
    controller.stop().await;
}

async fn ready_message(world: &World, expected: &str) {
    eventually(&format!("the message {expected:?}"), TIMEOUT, async || {
        let object = world.get("sendingip", "ip").await?;
        let message = condition(&object, "Ready").map(|ready| ready["message"].clone());
        Ok((message == Some(json!(expected))).then_some(()))
    })
    .await
    .unwrap();
}
