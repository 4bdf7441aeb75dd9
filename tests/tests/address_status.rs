//! What a SendingIp tells of its sites, on a real API server: for kubectl, as a condition, and as Events.

#![allow(clippy::unwrap_used)]

use kube::api::{Api, Patch, PatchParams};
use relaypool_api::SendingIp;
use relaypool_simulator::World;
use relaypool_tests::deployment::{Deployment, has_condition};
use serde_json::{Value, json};

fn world() -> World {
    let provider = |name: &str, behaviours: Value| {
        json!({
            "name": name, "domains": [format!("{name}.example")],
            "mxHosts": [{ "name": format!("mx.{name}.example"), "priority": 10 }], "behaviours": behaviours,
        })
    };
    let shy = json!([{ "kind": "refusals", "phase": "MailFrom", "reply": "450 4.7.1 your reputation is poor" }]);
    serde_json::from_value(json!({ "providers": [provider("good", json!([])), provider("shy", shy)] })).unwrap()
}

fn site<'a>(ip: &'a Value, name: &str) -> Option<&'a Value> {
    let mut sites = ip["status"]["sites"].as_array()?.iter();
    sites.find(|site| site["site"] == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusing_site_is_in_the_open() {
    let mut relaypool = Deployment::start(world(), 1).await.unwrap();
    relaypool.apply_pool().await.unwrap();
    let recipients: Vec<Value> = ["ada@good.example", "bob@good.example", "eve@shy.example"]
        .iter()
        .map(|address| json!({ "address": address }))
        .collect();
    let delivery = json!({
        "apiVersion": "relaypool.dev/v1alpha1", "kind": "Delivery", "metadata": { "name": "news" },
        "spec": {
            "pool": "main", "sender": { "address": "news@sender.example" }, "message": { "subject": "s", "text": "t" },
            "recipients": { "inline": recipients },
        },
    });
    relaypool.apply(&delivery.to_string()).await.unwrap();

    // The status has it, and the controller makes a condition of it.
    let ip = relaypool
        .wait("a suspended site", "sendingip", "ip-0", |ip| {
            has_condition(ip, "SitesSuspended", "True")
                && site(ip, "shy.example").is_some_and(|site| site["state"] == "Suspended")
                && site(ip, "good.example").is_some_and(|site| site["reputation"]["accepted"] == 2)
        })
        .await
        .unwrap();
    let shy = site(&ip, "shy.example").unwrap();
    let until = shy["suspendedUntil"].as_str().unwrap();
    assert_eq!(shy["binds"], "Suspended", "{ip:#}");
    assert!(shy["bindsSince"].as_str().unwrap() < until, "{ip:#}");
    assert_eq!(shy["lastRefusal"]["reply"], "450 4.7.1 your reputation is poor");
    assert_eq!(shy["reputation"]["acceptedShare"], 0.0);
    assert_eq!(ip["status"]["suspendedSites"], 1, "{ip:#}");
    assert!(has_condition(&ip, "Ready", "True"), "{ip:#}");

    // So do the table and the Events.
    let table = relaypool.kubectl(&["get", "sip"]).await.unwrap();
    for column in ["RATE", "QUEUED", "REFUSING"] {
        assert!(table.contains(column), "{table}");
    }
    relaypool
        .wait("the Event", "events", "--output=json", |events| {
            events["items"].as_array().is_some_and(|events| {
                events.iter().any(|event| {
                    let note = event["message"].as_str().unwrap_or_default();
                    event["reason"] == "LaneSuspended"
                        && event["type"] == "Warning"
                        && event["involvedObject"]["uid"] == ip["metadata"]["uid"]
                        && note.contains("shy.example until")
                        && note.contains("your reputation is poor")
                })
            })
        })
        .await
        .unwrap();

    // A sender that is killed goes on with it: what was suspended stays so, as long.
    relaypool.senders[0].kill9().unwrap();
    let ips: Api<SendingIp> = Api::namespaced(relaypool.client().await.unwrap(), &relaypool.namespace);
    let nothing = Patch::Merge(json!({ "status": { "sites": null } }));
    ips.patch_status("ip-0", &PatchParams::default(), &nothing)
        .await
        .unwrap();
    relaypool.senders[0].restart().unwrap();
    let ip = relaypool
        .wait("the site to be shown again", "sendingip", "ip-0", |ip| {
            site(ip, "shy.example").is_some_and(|site| site["state"] == "Suspended")
        })
        .await
        .unwrap();
    assert_eq!(site(&ip, "shy.example").unwrap()["suspendedUntil"], until, "{ip:#}");
}
