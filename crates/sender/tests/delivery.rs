//! Messages on their way to providers that behave in all kinds of ways, over real sockets.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use relaypool_api::delivery_slice::SlicePhase;
use serde_json::{Value, json};
use support::{counts, message, reasons, slice, start, users};

fn provider(name: &str, more: Value) -> Value {
    let mut provider = json!({ "name": name, "domains": [format!("{name}.example")], "mxHosts": [{ "name": format!("mx.{name}.example"), "priority": 10 }] });
    if let (Some(provider), Some(more)) = (provider.as_object_mut(), more.as_object()) {
        provider.extend(more.clone());
    }
    provider
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_arrives_once_and_whole() {
    let bench = start(json!({ "providers": [provider("good", json!({}))] })).await;
    let message = message(json!({}));
    bench
        .engine
        .accept(slice("s", &message, users(200, "good.example")))
        .await
        .unwrap();
    let status = bench.finished("s").await;

    assert_eq!(counts(&status).sent, 200, "{status:#?}");
    assert_eq!(status.phase, Some(SlicePhase::Finished));
    assert_eq!(bench.simulator.books().duplicates(), []);
    let accepted = bench.simulator.books().accepted();
    assert_eq!(accepted.len(), 200);
    let seventh = accepted
        .iter()
        .find(|message| message.recipient == "user7@good.example")
        .unwrap();
    let text = String::from_utf8(seventh.content.as_ref().unwrap().to_vec()).unwrap();
    assert!(text.contains("Subject: Hello No. 7\r\n"), "{text}");
    assert!(text.contains("\r\n.\r\n"), "a line of one dot survives: {text}");
    assert_eq!(seventh.message_id.as_deref(), Some("f1.7@sender.example"));
    assert!(seventh.tls, "STARTTLS is used where it is offered");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_decide_message_by_message() {
    let mailboxes = json!([
        { "localPart": "user1?", "reply": "550 5.1.1 nobody here" },
        { "localPart": "user2?", "reply": "552 5.2.3 too large for this mailbox" },
    ]);
    let bench = start(json!({ "providers": [provider("picky", json!({ "mailboxes": mailboxes }))] })).await;
    bench
        .engine
        .accept(slice("s", &message(json!({})), users(30, "picky.example")))
        .await
        .unwrap();
    let status = bench.finished("s").await;

    let counts = counts(&status);
    assert_eq!((counts.sent, counts.failed), (10, 20), "{status:#?}");
    assert_eq!(status.ranges.as_ref().unwrap().failed, "10-29");
    assert_eq!(reasons(&status)["User unknown"], 10);
    let detail = status.details.iter().find(|detail| detail.position == 12).unwrap();
    assert_eq!(detail.reply.as_deref(), Some("550 5.1.1 nobody here"));
    assert_eq!(bench.accepted().len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_failures_are_tried_again_with_the_same_identity() {
    let behaviours = json!([{ "kind": "greylisting", "delay": "1s" }]);
    let bench = start(json!({ "providers": [provider("grey", json!({ "behaviours": behaviours }))] })).await;
    bench
        .engine
        .accept(slice("s", &message(json!({})), users(20, "grey.example")))
        .await
        .unwrap();
    let waiting = bench
        .wait("s", |counts| counts.taken_into_account > 0 && counts.sent == 0)
        .await;
    assert_eq!(waiting.phase, Some(SlicePhase::Accepted));
    let status = bench.finished("s").await;

    assert_eq!(counts(&status).sent, 20, "{status:#?}");
    assert_eq!(bench.simulator.books().duplicates(), []);
    assert!(
        status
            .details
            .iter()
            .all(|detail| detail.attempts >= 2 && detail.reason.is_none()),
        "{:#?}",
        status.details
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dns_says_decides_before_any_connection() {
    let zones =
        json!([{ "kind": "nullMx", "name": "nomail.example" }, { "kind": "servFail", "name": "broken.example" }]);
    let bench = start(json!({ "providers": [provider("good", json!({}))], "zones": zones })).await;
    let rows = [
        "a@nomail.example",
        "b@gone.example",
        "c@broken.example",
        "d@good.example",
    ];
    bench
        .engine
        .accept(slice("s", &message(json!({})), rows))
        .await
        .unwrap();
    let status = bench.wait("s", |counts| counts.failed == 2 && counts.sent == 1).await;

    let ranges = status.ranges.as_ref().unwrap();
    assert_eq!(
        (ranges.failed.as_str(), ranges.sent.as_str()),
        ("0-1", "3"),
        "{status:#?}"
    );
    assert_eq!(ranges.waiting, "2", "a server failure may heal");
    assert!(
        status
            .details
            .iter()
            .any(|detail| detail.reply.as_deref().is_some_and(|reply| reply.contains("null MX")))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn private_destinations_are_refused_unless_allowed() {
    let bench = start(json!({ "providers": [provider("good", json!({}))] })).await;
    let folder = tempfile::tempdir().unwrap();
    let engine = support::open_engine(folder.path(), &bench.simulator, false).await;
    engine
        .accept(slice("s", &message(json!({})), ["a@good.example"]))
        .await
        .unwrap();
    let status = support::wait(&engine, "s", |counts| counts.failed == 1).await;
    assert!(
        status.details[0]
            .reply
            .as_deref()
            .unwrap()
            .contains("allowPrivateDestinations"),
        "{status:#?}"
    );
    assert_eq!(bench.accepted().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn validity_ends_what_is_still_tried() {
    let mailboxes = json!([{ "localPart": "*", "reply": "452 4.2.2 the mailbox is full" }]);
    let bench = start(json!({ "providers": [provider("full", json!({ "mailboxes": mailboxes }))] })).await;
    bench
        .engine
        .accept(slice(
            "s",
            &message(json!({ "validity": "2s" })),
            users(5, "full.example"),
        ))
        .await
        .unwrap();
    let status = bench.finished("s").await;

    assert_eq!(counts(&status).failed, 5, "{status:#?}");
    assert_eq!(
        reasons(&status)["Mailbox full"],
        5,
        "the reason is that of the last temporary failure"
    );
    let lasted = status
        .finished_at
        .unwrap()
        .0
        .duration_since(status.accepted_at.unwrap().0);
    assert!(lasted.as_secs() >= 2, "{lasted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn test_mode_stops_after_rcpt() {
    let mailboxes = json!([{ "localPart": "user0", "reply": "550 5.1.1 nobody here" }]);
    let bench = start(json!({ "providers": [provider("good", json!({ "mailboxes": mailboxes }))] })).await;
    bench
        .engine
        .accept(slice(
            "s",
            &message(json!({ "testMode": true })),
            users(4, "good.example"),
        ))
        .await
        .unwrap();
    let counts = counts(&bench.finished("s").await);
    assert_eq!((counts.sent, counts.failed), (3, 1));
    assert_eq!(bench.accepted().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_whose_message_cannot_be_made_is_ignored() {
    let bench = start(json!({ "providers": [provider("good", json!({}))] })).await;
    let message = message(json!({ "message": { "subject": "{{ nickname }}" } }));
    let mut new = slice("s", &message, users(2, "good.example"));
    new.rows[1]
        .recipient
        .variables
        .insert("nickname".into(), json!("Ada\r\nBcc: eve@example.com"));
    let mut fine = slice("t", &message, users(1, "good.example"));
    fine.rows[0].recipient.variables.insert("nickname".into(), json!("Ada"));
    bench.engine.accept(new).await.unwrap();
    bench.engine.accept(fine).await.unwrap();

    let status = bench.finished("s").await;
    assert_eq!(counts(&status).ignored, 2, "{status:#?}");
    assert!(
        status.reasons.iter().any(|reason| reason.reason.contains("nickname")),
        "{:#?}",
        status.reasons
    );
    assert_eq!(counts(&bench.finished("t").await).sent, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_mx_is_tried_when_the_first_is_away() {
    let zones = json!([
        { "kind": "unreachable", "name": "dead.good.example" },
        { "kind": "mx", "name": "good.example", "hosts": [{ "name": "dead.good.example", "priority": 5 }, { "name": "mx.good.example", "priority": 10 }] },
    ]);
    let bench = start(json!({ "providers": [provider("good", json!({}))], "zones": zones })).await;
    bench
        .engine
        .accept(slice("s", &message(json!({})), users(3, "good.example")))
        .await
        .unwrap();
    let status = bench.finished("s").await;
    assert_eq!(counts(&status).sent, 3, "{status:#?}");
}
