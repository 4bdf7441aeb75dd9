use relaypool_api::delivery::{LogStatus, ReasonCount};
use relaypool_api::message::IgnoredRow;
use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-03-01T12:00:00Z";

fn time(text: &str) -> Time {
    serde_json::from_value(json!(text)).unwrap()
}

fn delivery(spec: Value) -> Delivery {
    let mut whole = json!({
        "pool": "pool",
        "sender": { "address": "news@example.com" },
        "message": { "subject": "Hello", "text": "Hello" },
        "recipients": { "configMapKeyRef": { "name": "list", "key": "csv" } },
    });
    for (field, value) in spec.as_object().unwrap() {
        whole[field] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "relaypool.dev/v1alpha1",
        "kind": "Delivery",
        "metadata": { "name": "news", "namespace": "mail", "uid": "u", "generation": 4 },
        "spec": whole,
    }))
    .unwrap()
}

/// A message slice for a run of `total` rows, `ignored` of them ignored at planning.
fn message_slice(delivery: &Delivery, total: u64, ignored: u64, slices: u32) -> SliceView {
    let mut view: SliceView = serde_json::from_value(json!({
        "metadata": { "name": "news-f-message", "creationTimestamp": "2026-03-01T10:00:00Z" },
        "spec": {
            "delivery": "news", "deliveryUid": "u", "pool": "pool", "fingerprint": "f",
            "message": {
                "validity": "84h", "fingerprint": "f", "total": total, "slices": slices,
                "dkimKeys": [{ "domain": "example.com", "selector": "s", "algorithm": "Rsa", "version": "v" }],
            },
        },
    }))
    .unwrap();
    view.metadata.annotations = Some([(SPEC_DIGEST_ANNOTATION.to_owned(), spec_digest(&delivery.spec))].into());
    let run = view.spec.message.as_mut().unwrap();
    if ignored > 0 {
        run.ignored.insert("Duplicate".into(), ignored);
    }
    for index in 0..ignored.min(100) {
        run.ignored_rows.push(IgnoredRow {
            index: total - 1 - index,
            address: "twice@example.com".into(),
            reason: "row".into(),
        });
    }
    view
}

fn slice(name: &str, first: u64, rows: u64, status: Value) -> SliceView {
    let row = |index| json!({ "index": index, "address": format!("r{index}@example.com") });
    serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "delivery": "news", "deliveryUid": "u", "pool": "pool", "fingerprint": "f", "sender": "pool-0",
            "rows": (first..first + rows).map(row).collect::<Vec<_>>(),
        },
        "status": status,
    }))
    .unwrap()
}

fn status_of(delivery: &Delivery, message_slice: &SliceView, slices: &[SliceView]) -> DeliveryStatus {
    let slices: Vec<_> = slices.iter().collect();
    delivery_status(&StatusInput {
        delivery,
        state: RunState::Planned {
            message_slice,
            run: message_slice.spec.message.as_ref().unwrap(),
            slices: &slices,
        },
        speed: Some(Speed {
            relay_per_second: 1.0,
            delivery_per_second: 0.5,
        }),
        now: &time(NOW),
        surroundings: Surroundings::Elsewhere,
    })
}

fn condition<'a>(status: &'a DeliveryStatus, kind: &str) -> Option<(&'a str, &'a str)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((&found.status, &found.reason))
}

#[test]
fn counts_follow_the_feedback_mode() {
    let ranges = json!({ "waiting": "0-1", "sent": "2-5", "failed": "6", "canceled": "7" });
    let slices = [
        slice(
            "a",
            0,
            10,
            json!({ "phase": "Accepted", "ranges": ranges, "acceptedAt": "2026-03-01T11:00:00Z" }),
        ),
        slice("b", 10, 5, Value::Null),
    ];
    let with = delivery(json!({}));
    let status = status_of(&with, &message_slice(&with, 18, 3, 2), &slices);
    assert_eq!(
        json!(status.counts),
        json!({ "total": 18, "pending": 7, "takenIntoAccount": 2, "sent": 4, "failed": 1, "ignored": 3, "canceled": 1 })
    );
    // 4 of 18 - 3 - 1.
    assert_eq!(status.success.as_deref(), Some("28.6%"));
    assert_eq!(status.phase, Some(DeliveryPhase::Sending));
    assert_eq!(status.started_at, Some(time("2026-03-01T11:00:00Z")));
    assert_eq!(status.completed_at, None);
    assert!(status.speed.is_some());

    let without = delivery(json!({ "emailFeedback": false }));
    let status = status_of(&without, &message_slice(&without, 18, 3, 2), &slices);
    let counts = status.counts.unwrap();
    assert_eq!((counts.taken_into_account, counts.sent, counts.failed), (0, 6, 1));
    assert_eq!(status.success.as_deref(), Some("85.7%"));
}

#[test]
fn the_total_is_the_plans_whatever_slices_say() {
    let base = delivery(json!({}));
    for (ranges, waiting, sent) in [
        (json!({ "sent": "0-999999999", "waiting": "5" }), 0, 10),
        (json!({ "sent": "nonsense", "waiting": "0-4" }), 5, 0),
        (json!({ "sent": "0-4", "waiting": "3-9" }), 5, 5),
    ] {
        let slices = [slice("a", 0, 10, json!({ "ranges": ranges }))];
        let counts = status_of(&base, &message_slice(&base, 20, 0, 2), &slices)
            .counts
            .unwrap();
        assert_eq!(counts.total, 20, "{ranges}");
        assert_eq!((counts.taken_into_account, counts.sent), (waiting, sent), "{ranges}");
    }
}

#[test]
fn phases() {
    let waiting = || json!({ "ranges": { "waiting": "0-1" } });
    let done = || json!({ "phase": "Finished", "finishedAt": "2026-03-01T11:30:00Z", "ranges": { "sent": "0-1" } });
    let canceled = || json!({ "phase": "Finished", "finishedAt": "2026-03-01T11:30:00Z", "ranges": { "sent": "0", "canceled": "1" } });
    for (spec, slice_status, expected) in [
        (json!({}), Value::Null, DeliveryPhase::Sending),
        (json!({}), waiting(), DeliveryPhase::Sending),
        (json!({ "suspend": true }), waiting(), DeliveryPhase::Suspended),
        (json!({ "suspend": true }), done(), DeliveryPhase::Completed),
        (json!({ "cancel": true }), waiting(), DeliveryPhase::Sending),
        (json!({ "cancel": true }), canceled(), DeliveryPhase::Canceled),
        (json!({ "cancel": true }), done(), DeliveryPhase::Completed),
        (json!({}), done(), DeliveryPhase::Completed),
    ] {
        let delivery = delivery(spec.clone());
        let status = status_of(
            &delivery,
            &message_slice(&delivery, 2, 0, 1),
            &[slice("a", 0, 2, slice_status)],
        );
        assert_eq!(status.phase, Some(expected), "{spec}");
        assert_eq!(condition(&status, "Ready"), Some(("True", "Planned")));
        let ended = matches!(expected, DeliveryPhase::Completed | DeliveryPhase::Canceled);
        assert_eq!(condition(&status, "Completed").unwrap().0 == "True", ended);
        assert_eq!(status.completed_at.is_some(), ended);
        assert_eq!(status.speed.unwrap() == Speed::default(), ended);
    }
}

#[test]
fn a_start_in_the_future_is_scheduled_until_then() {
    let delivery = delivery(json!({}));
    let mut message = message_slice(&delivery, 2, 0, 1);
    let mut phase_at = |start: &str| {
        message.spec.message.as_mut().unwrap().start_at = Some(time(start));
        status_of(&delivery, &message, &[slice("a", 0, 2, Value::Null)]).phase
    };
    assert_eq!(phase_at("2026-03-01T12:00:01Z"), Some(DeliveryPhase::Scheduled));
    assert_eq!(phase_at("2026-03-01T12:00:00Z"), Some(DeliveryPhase::Sending));
}

#[test]
fn a_run_without_slices_is_completed_when_planned() {
    let delivery = delivery(json!({}));
    let status = status_of(&delivery, &message_slice(&delivery, 3, 3, 0), &[]);
    assert_eq!(status.phase, Some(DeliveryPhase::Completed));
    assert_eq!(status.completed_at, Some(time("2026-03-01T10:00:00Z")));
    assert_eq!(status.success, None);
}

#[test]
fn small_deliveries_list_each_message() {
    let delivery = delivery(json!({}));
    let details = json!([
        { "position": 1, "attempts": 2, "reason": "Mailbox full", "reply": "452 4.2.2 full", "nextAttempt": "2026-03-01T13:00:00Z" },
        { "position": 2, "attempts": 1, "reason": "User unknown", "reply": "550 5.1.1 no" },
    ]);
    let slices = [
        slice("b", 3, 1, Value::Null),
        slice(
            "a",
            0,
            3,
            json!({ "ranges": { "sent": "0", "waiting": "1", "failed": "2" }, "details": details }),
        ),
    ];
    let status = status_of(&delivery, &message_slice(&delivery, 5, 1, 2), &slices);
    let shown: Vec<_> = status
        .messages
        .iter()
        .map(|message| {
            (
                message.index,
                message.address.as_str(),
                message.status,
                message.attempts,
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            (0, "r0@example.com", LogStatus::Sent, 0),
            (1, "r1@example.com", LogStatus::TakenIntoAccount, 2),
            (2, "r2@example.com", LogStatus::Failed, 1),
            (3, "r3@example.com", LogStatus::Pending, 0),
            (4, "twice@example.com", LogStatus::Ignored, 0),
        ]
    );
    assert_eq!(status.messages[1].reply.as_deref(), Some("452 4.2.2 full"));
    assert!(status.messages[1].next_attempt.is_some());

    let quiet = self::delivery(json!({ "reportDetail": "Counts" }));
    assert!(
        status_of(&quiet, &message_slice(&quiet, 5, 1, 2), &slices)
            .messages
            .is_empty()
    );
    let large = message_slice(&delivery, 101, 0, 2);
    assert!(status_of(&delivery, &large, &slices).messages.is_empty());
}

#[test]
fn reasons_and_domains_are_summed_and_bounded() {
    let delivery = delivery(json!({}));
    let reason = |status: &str, name: &str, count: u64| json!({ "status": status, "reason": name, "bounceCode": 10, "count": count });
    let domain = |name: &str, total: u64| json!({ "domain": name, "total": total, "sent": 1, "waiting": 0, "failed": 0, "perSecond": 0.26 });
    let many_reasons: Vec<_> = (0..60)
        .map(|number| reason("Failed", &format!("reason {number:02}"), 1))
        .collect();
    let many_domains: Vec<_> = (0..60)
        .map(|number| domain(&format!("d{number:02}.example"), 10))
        .collect();
    let slices = [
        slice("a", 0, 10, json!({ "reasons": many_reasons, "domains": many_domains })),
        slice(
            "b",
            10,
            10,
            json!({
                "reasons": [reason("Failed", "reason 07", 5), reason("TakenIntoAccount", "Mailbox full", 9)],
                "domains": [domain("d33.example", 100), domain("other", 7)],
            }),
        ),
    ];
    let status = status_of(&delivery, &message_slice(&delivery, 23, 3, 2), &slices);
    assert_eq!(status.reasons.len(), 50);
    let top: Vec<_> = status
        .reasons
        .iter()
        .take(3)
        .map(|reason| (reason.reason.as_str(), reason.count))
        .collect();
    assert_eq!(top, [("Mailbox full", 9), ("reason 07", 6), ("Duplicate", 3)]);

    assert_eq!(status.domains.len(), 50);
    assert_eq!(
        (status.domains[0].domain.as_str(), status.domains[0].total),
        ("d33.example", 110)
    );
    assert_eq!(status.domains[0].per_second, 0.5);
    let other = status.domains.last().unwrap();
    // 11 of the 60 have no entry, and 7 had none before.
    assert_eq!((other.domain.as_str(), other.total, other.sent), ("other", 117, 12));
    let sum: u64 = status.domains.iter().map(|domain| domain.total).sum();
    assert_eq!(sum, 60 * 10 + 100 + 7);
}

#[test]
fn without_feedback_what_waits_is_reported_as_sent() {
    let delivery = delivery(json!({ "emailFeedback": false }));
    let reasons = json!([{ "status": "TakenIntoAccount", "reason": "Mailbox full", "count": 1 }]);
    let slices = [slice(
        "a",
        0,
        1,
        json!({ "ranges": { "waiting": "0" }, "reasons": reasons }),
    )];
    let status = status_of(&delivery, &message_slice(&delivery, 1, 0, 1), &slices);
    assert_eq!(status.messages[0].status, LogStatus::Sent);
    let ReasonCount { status, .. } = &status.reasons[0];
    assert_eq!(*status, LogStatus::Sent);
}

#[test]
fn warnings_are_conditions_that_come_and_go() {
    let base = delivery(json!({ "validity": "5d" }));
    let mut message = message_slice(&base, 1, 0, 1);
    message.spec.message.as_mut().unwrap().dkim_keys.clear();
    let status = status_of(&base, &message, &[]);
    assert_eq!(
        condition(&status, "ValidityClamped"),
        Some(("True", "LongerThan84Hours"))
    );
    assert_eq!(condition(&status, "DkimMissing"), Some(("True", "NoDkimKey")));
    assert_eq!(condition(&status, "NotInEffect"), None);
    assert_eq!(status.validity.unwrap().to_string(), "84h");

    let mut changed = delivery(json!({ "validity": "1h", "priority": "High" }));
    changed.status = Some(status);
    let mut signed = message_slice(&base, 1, 0, 1);
    let status = status_of(&changed, &signed, &[]);
    assert_eq!(condition(&status, "ValidityClamped"), None);
    assert_eq!(condition(&status, "DkimMissing"), None);
    assert_eq!(condition(&status, "NotInEffect"), Some(("True", "ChangedAfterStart")));
    assert_eq!(status.validity.unwrap().to_string(), "84h", "that of the plan");

    signed.metadata.annotations = None;
    assert_eq!(condition(&status_of(&changed, &signed, &[]), "NotInEffect"), None);
}

#[test]
fn what_holds_a_slice_up_is_said() {
    let delivery = delivery(json!({}));
    let stalled = json!({
        "type": "Stalled", "status": "True", "reason": "WaitingForKey", "message": "no key v2", "lastTransitionTime": NOW,
    });
    let slices = [slice(
        "news-f-0",
        0,
        1,
        json!({ "phase": "Waiting", "conditions": [stalled] }),
    )];
    let status = status_of(&delivery, &message_slice(&delivery, 1, 0, 1), &slices);
    let ready = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")
        .unwrap();
    assert!(
        ready.message.ends_with("1 slices wait, such as news-f-0: no key v2"),
        "{}",
        ready.message
    );
}

#[test]
fn without_a_plan_the_status_says_why() {
    let base = delivery(json!({}));
    let list = RecipientList::parse(b"email\na@example.com\na@example.com\n", Default::default()).unwrap();
    let at = |state| {
        delivery_status(&StatusInput {
            delivery: &base,
            state,
            speed: None,
            now: &time(NOW),
            surroundings: Surroundings::Elsewhere,
        })
    };
    let waiting = at(RunState::Unplanned {
        readiness: Readiness::Reconciling,
        reason: DeliveryReason::NoSendingIp,
        message: "none",
        recipients: Some(&list),
    });
    assert_eq!(waiting.phase, Some(DeliveryPhase::Pending));
    assert_eq!(condition(&waiting, "Reconciling"), Some(("True", "NoSendingIp")));
    assert_eq!(condition(&waiting, "Ready"), Some(("False", "NoSendingIp")));
    let counts = waiting.counts.unwrap();
    assert_eq!((counts.total, counts.pending, counts.ignored), (2, 1, 1));
    assert_eq!(waiting.messages[0].status, LogStatus::Ignored);
    assert_eq!(waiting.plan, None);

    let canceled = at(RunState::CanceledUnplanned);
    assert_eq!(canceled.phase, Some(DeliveryPhase::Canceled));
    assert_eq!(condition(&canceled, "Completed"), Some(("True", "Canceled")));
    assert_eq!(canceled.completed_at, Some(time(NOW)));
}

#[test]
fn the_same_input_makes_the_same_status() {
    let mut delivery = delivery(json!({}));
    let message = message_slice(&delivery, 2, 0, 1);
    let slices = [slice("a", 0, 2, json!({ "ranges": { "waiting": "0-1" } }))];
    let first = status_of(&delivery, &message, &slices);
    delivery.status = Some(first.clone());
    assert_eq!(status_of(&delivery, &message, &slices), first);
}
