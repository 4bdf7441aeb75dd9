//! Objects that are wrong, all the way to the mail: what may be sent is sent as declared or not at all, and what was put
//! right goes on by itself.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use relaypool_api::dkim_key::DkimAlgorithm;
use relaypool_message::dkim::generate;
use relaypool_tests::deployment::{Deployment, count, has_condition};
use serde_json::{Value, json};

/// A running Relaypool with one provider for `good.example`, and its pool.
async fn start() -> Deployment {
    let provider = json!({ "name": "good", "domains": ["good.example"], "mxHosts": [{ "name": "mx.good.example" }] });
    let world = serde_json::from_value(json!({ "providers": [provider] })).unwrap();
    let relaypool = Deployment::start(world, 1).await.unwrap();
    relaypool.apply_pool().await.unwrap();
    relaypool
}

async fn ours(relaypool: &Deployment, kind: &str, name: &str, spec: Value) {
    let object = json!({
        "apiVersion": "relaypool.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
    });
    relaypool.apply(&object.to_string()).await.unwrap();
}

async fn secret(relaypool: &Deployment, name: &str, entry: &str, content: &str) {
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { entry: content },
    });
    relaypool.apply(&object.to_string()).await.unwrap();
}

/// A Delivery to `users` of `good.example`.
fn delivery(sender: &str, users: &[&str]) -> Value {
    let inline: Vec<Value> = users
        .iter()
        .map(|user| json!({ "address": format!("{user}@good.example") }))
        .collect();
    json!({
        "pool": "main",
        "sender": { "address": sender },
        "message": { "subject": "Hello", "text": "Hello {{ address }}" },
        "recipients": { "inline": inline },
    })
}

/// Waits until a condition is true for this reason; returns its message.
async fn condition(relaypool: &Deployment, kind: &str, name: &str, condition: &str, reason: &str) -> String {
    let find = |object: &Value| -> Option<Value> {
        let conditions = object["status"]["conditions"].as_array()?;
        let fits =
            |found: &&Value| found["type"] == condition && found["status"] == "True" && found["reason"] == reason;
        conditions.iter().find(fits).cloned()
    };
    let what = format!("{condition} ({reason}) of {name}");
    let object = relaypool
        .wait(&what, kind, name, |object| find(object).is_some())
        .await
        .unwrap();
    find(&object).unwrap()["message"].as_str().unwrap().to_owned()
}

/// Waits until a Delivery is at its end; returns it.
async fn completed(relaypool: &Deployment, name: &str) -> Value {
    relaypool
        .wait("the end", "delivery", name, |delivery| {
            has_condition(delivery, "Completed", "True")
        })
        .await
        .unwrap()
}

/// Who got mail from this address, and with how many signatures each.
fn signatures(relaypool: &Deployment, sender: &str) -> BTreeMap<String, usize> {
    let from = format!("\r\nFrom: {sender}\r\n");
    let accepted = relaypool.simulator.books().accepted().into_iter();
    accepted
        .filter_map(|message| {
            let text = format!("\r\n{}", String::from_utf8_lossy(message.content.as_deref()?));
            let signatures = text.matches("\r\nDKIM-Signature: ").count();
            text.contains(&from).then_some((message.recipient, signatures))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_should_be_signed_waits_for_a_usable_key_and_other_mail_does_not() {
    let relaypool = start().await;
    let key = |secret: &str| json!({ "domain": "shop.example", "selector": "s1", "secretRef": { "name": secret } });
    let nonsense = "-----BEGIN PRIVATE KEY-----\nbm90IGEga2V5IGF0IGFsbA==\n-----END PRIVATE KEY-----\n";
    secret(&relaypool, "shop-dkim", "private.pem", nonsense).await;
    ours(&relaypool, "DkimKey", "shop", key("shop-dkim")).await;
    let message = condition(&relaypool, "dkimkey", "shop", "Stalled", "KeyUnreadable").await;
    assert!(
        message.contains("Secret shop-dkim") && !message.contains("bm90"),
        "{message}"
    );

    // Mail of the domain and of those below it waits, and says for what.
    ours(
        &relaypool,
        "Delivery",
        "news",
        delivery("news@shop.example", &["ada", "bob"]),
    )
    .await;
    ours(
        &relaypool,
        "Delivery",
        "below",
        delivery("news@eu.shop.example", &["eve"]),
    )
    .await;
    for name in ["news", "below"] {
        let message = condition(&relaypool, "delivery", name, "Reconciling", "DkimKeyNotReady").await;
        assert!(message.contains("shop"), "{message}");
    }
    // Nobody asked for signatures of that one.
    ours(
        &relaypool,
        "Delivery",
        "other",
        delivery("news@other.example", &["ada"]),
    )
    .await;
    let message = condition(&relaypool, "delivery", "other", "DkimMissing", "NoDkimKey").await;
    assert!(message.contains("other.example"), "{message}");
    let other = completed(&relaypool, "other").await;
    assert!(has_condition(&other, "DkimMissing", "True"), "{other:#}");
    assert_eq!(
        signatures(&relaypool, "news@other.example")
            .into_values()
            .collect::<Vec<_>>(),
        [0]
    );
    assert_eq!(relaypool.simulator.books().accepted().len(), 1, "the others wait");

    let pem = generate(DkimAlgorithm::Rsa).unwrap();
    secret(&relaypool, "shop-dkim", "private.pem", &pem).await;
    for (name, sender, recipients) in [("news", "news@shop.example", 2), ("below", "news@eu.shop.example", 1)] {
        let delivery = completed(&relaypool, name).await;
        assert_eq!(count(&delivery, "sent"), recipients, "{delivery:#}");
        assert!(!has_condition(&delivery, "DkimMissing", "True"), "{delivery:#}");
        let signed = signatures(&relaypool, sender);
        assert_eq!(signed.len() as u64, recipients);
        assert!(signed.values().all(|signatures| *signatures == 1), "{signed:?}");
    }

    // A second key of the domain must sign too: until it can, nothing leaves with one signature only.
    let mut second = key("missing");
    second["selector"] = json!("s2");
    second["algorithm"] = json!("Ed25519");
    ours(&relaypool, "DkimKey", "shop-2", second).await;
    condition(&relaypool, "dkimkey", "shop-2", "Reconciling", "SecretNotFound").await;
    ours(
        &relaypool,
        "Delivery",
        "offers",
        delivery("offers@shop.example", &["ada"]),
    )
    .await;
    condition(&relaypool, "delivery", "offers", "Reconciling", "DkimKeyNotReady").await;
    let pem = generate(DkimAlgorithm::Ed25519).unwrap();
    secret(&relaypool, "missing", "private.pem", &pem).await;
    completed(&relaypool, "offers").await;
    assert_eq!(
        signatures(&relaypool, "offers@shop.example")
            .into_values()
            .collect::<Vec<_>>(),
        [2]
    );
}

/// A list as an export of some other program may be.
const LIST: &str = "\
email,name,city
ada@good.example,Ada,London
bob@good.example,Bob
carol@good.example,Carol,Paris,France
nonsense,No one,Nowhere
ADA@good.example,Ada,London
Ada@GOOD.example,Ada,London
\"dan@good.example\"x,Dan,Rome
\"eve@good.example\",\"Eve \"\"E\"\"
Adams\",\"Oslo, Norway\"

fay@good.example,,Bonn
\"gus@good.example,Gus,Kyiv
hal@gone.example,Hal,Lima
";

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_comes_late_and_is_full_of_mistakes_is_sent_to_whom_it_can_be() {
    let relaypool = start().await;
    let mut news = delivery("news@other.example", &[]);
    news["message"] = json!({ "subject": "Hello", "text": "Hello {{ name }} of {{ city }}" });
    news["recipients"] = json!({ "secretKeyRef": { "name": "customers", "key": "list.csv" } });
    ours(&relaypool, "Delivery", "news", news).await;
    let message = condition(&relaypool, "delivery", "news", "Reconciling", "RecipientsNotFound").await;
    assert!(message.contains("key list.csv of Secret customers"), "{message}");
    secret(&relaypool, "customers", "list.csv", LIST).await;
    let news = completed(&relaypool, "news").await;

    let counts = ["total", "sent", "failed", "ignored"].map(|part| count(&news, part));
    assert_eq!(counts, [11, 3, 1, 7], "{news:#}");
    let reasons = news["status"]["reasons"].as_array().unwrap();
    let ignored: BTreeMap<&str, u64> = reasons
        .iter()
        .filter(|reason| reason["status"] == "Ignored")
        .map(|reason| (reason["reason"].as_str().unwrap(), reason["count"].as_u64().unwrap()))
        .collect();
    let expected = [("Duplicate", 2), ("Malformed address", 1), ("Malformed row", 4)];
    assert_eq!(ignored, BTreeMap::from(expected), "{reasons:#?}");
    let messages = news["status"]["messages"].as_array().unwrap();
    let bob = messages.iter().find(|message| message["index"] == 1).unwrap();
    assert_eq!(
        (bob["status"].as_str(), bob["address"].as_str()),
        (Some("Ignored"), Some("bob@good.example"))
    );
    let recipients = signatures(&relaypool, "news@other.example");
    let expected = ["ada@good.example", "eve@good.example", "fay@good.example"];
    assert_eq!(recipients.into_keys().collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_was_put_right_is_sent() {
    let relaypool = start().await;
    let mut news = delivery("news@other.example", &["ada"]);
    news["message"]["text"] = json!("Hello,\n{% if address %}you\n{% endfor %}");
    ours(&relaypool, "Delivery", "news", news.clone()).await;
    let message = condition(&relaypool, "delivery", "news", "Stalled", "InvalidTemplate").await;
    assert!(message.contains("message.text line 3"), "{message}");
    let stalled = relaypool.get("delivery", "news").await.unwrap();
    assert_eq!(stalled["status"]["phase"], "Stalled", "{stalled:#}");

    news["message"]["text"] = json!("Hello,\n{% if address %}you\n{% endif %}");
    ours(&relaypool, "Delivery", "news", news).await;
    let news = completed(&relaypool, "news").await;
    assert_eq!(count(&news, "sent"), 1, "{news:#}");
    assert!(has_condition(&news, "Stalled", "False"), "{news:#}");
}
