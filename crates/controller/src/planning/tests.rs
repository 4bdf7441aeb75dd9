use std::collections::BTreeSet;

use relaypool_api::delivery::{ListFormat, Recipient};
use relaypool_api::delivery_slice::MAX_SLICE_ROWS;
use serde_json::{Value, json};

use super::*;

fn delivery(spec: Value) -> Delivery {
    let mut whole = json!({
        "pool": "pool",
        "sender": { "address": "news@example.com" },
        "message": { "subject": "Hello", "text": "Hello {{ name }}" },
        "recipients": { "configMapKeyRef": { "name": "list", "key": "csv" } },
    });
    for (field, value) in spec.as_object().unwrap() {
        whole[field] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "relaypool.dev/v1alpha1",
        "kind": "Delivery",
        "metadata": { "name": "news", "namespace": "mail", "uid": "11111111-1111-1111-1111-111111111111" },
        "spec": whole,
    }))
    .unwrap()
}

fn pool(replicas: i32) -> RelayPool {
    let spec = json!({ "replicas": replicas, "returnPathDomain": "bounces.example.com" });
    RelayPool::new("pool", serde_json::from_value(spec).unwrap())
}

fn ip(name: &str, sender: Option<&str>, spec: Value) -> SendingIp {
    let mut whole = json!({ "pool": "pool", "address": "192.0.2.1", "ehloName": "mx.example.com" });
    let mut labels = json!({});
    for (field, value) in spec.as_object().unwrap() {
        match field.as_str() {
            "labels" => labels = value.clone(),
            _ => whole[field] = value.clone(),
        }
    }
    serde_json::from_value(json!({
        "apiVersion": "relaypool.dev/v1alpha1",
        "kind": "SendingIp",
        "metadata": { "name": name, "labels": labels },
        "spec": whole,
        "status": { "sender": sender },
    }))
    .unwrap()
}

fn stalled(mut ip: SendingIp) -> SendingIp {
    let condition = json!({
        "type": "Stalled", "status": "True", "reason": "InvalidSpec", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    ip.status.as_mut().unwrap().conditions = vec![serde_json::from_value(condition).unwrap()];
    ip
}

fn csv(rows: usize) -> RecipientList {
    let mut text = "email,name\r\n".to_owned();
    for row in 0..rows {
        text.push_str(&format!("r{row}@example.com,\"Name\r\n{row}\"\r\n"));
    }
    RecipientList::parse(text.as_bytes(), ListFormat::Csv).unwrap()
}

fn plan_of(delivery: &Delivery, recipients: &RecipientList, ips: &[SendingIp]) -> Result<Plan, PlanProblem> {
    plan(PlanInput {
        delivery,
        pool: &pool(4),
        recipients,
        attachments: &BTreeMap::new(),
        ips,
        keys: &[],
    })
}

#[test]
fn a_plan_has_every_row_once_and_says_so() {
    let ips = [
        ip("a", Some("pool-0"), json!({ "weight": 50 })),
        ip("b", Some("pool-0"), json!({ "weight": 50 })),
        ip("c", Some("pool-2"), json!({ "weight": 300 })),
    ];
    let plan = plan_of(&delivery(json!({})), &csv(4_000), &ips).unwrap();

    let rows_of = |slice: &DeliverySlice| (slice.spec.sender.clone().unwrap(), slice.spec.rows.len());
    let rows: Vec<_> = plan.slices.iter().map(rows_of).collect();
    let expected = [
        ("pool-0", 1_000),
        ("pool-2", 1_000),
        ("pool-2", 1_000),
        ("pool-2", 1_000),
    ];
    assert_eq!(rows, expected.map(|(sender, rows)| (sender.to_owned(), rows)));
    let indexes = plan
        .slices
        .iter()
        .flat_map(|slice| slice.spec.rows.iter().map(|row| row.index));
    assert!(indexes.eq(0..4_000));

    let snapshot = plan.message_slice.spec.message.as_ref().unwrap();
    assert_eq!((snapshot.total, snapshot.slices), (4_000, 4));
    assert_eq!(
        snapshot.return_path_domain.as_ref().unwrap().as_str(),
        "bounces.example.com"
    );
    assert_eq!(snapshot.validity, MAX_VALIDITY);
}

#[test]
fn slices_say_whose_they_are() {
    let plan = plan_of(&delivery(json!({})), &csv(3), &[ip("a", Some("pool-0"), json!({}))]).unwrap();
    let fingerprint = &plan.message_slice.spec.fingerprint;
    assert_eq!(fingerprint.len(), 64);
    let name = |suffix| format!("news-{}-{suffix}", &fingerprint[..8]);
    assert_eq!(plan.slices[0].name_any(), name("0"));
    assert_eq!(plan.message_slice.name_any(), name("message"));
    for slice in plan.slices.iter().chain([&plan.message_slice]) {
        assert_eq!(slice.namespace().as_deref(), Some("mail"));
        assert_eq!(slice.labels()[DELIVERY_LABEL], "news");
        assert_eq!(slice.labels()[POOL_LABEL], "pool");
        assert_eq!(&slice.annotations()[FINGERPRINT_ANNOTATION], fingerprint);
        let owner = &slice.owner_references()[0];
        assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Delivery", "news"));
        assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), Some(true)));
    }
    assert_eq!(plan.slices[0].labels()[SENDER_LABEL], "pool-0");
    assert!(!plan.message_slice.labels().contains_key(SENDER_LABEL));
    assert!(plan.message_slice.annotations().contains_key(SPEC_DIGEST_ANNOTATION));
}

#[test]
fn the_same_input_makes_the_same_plan_and_any_change_another_fingerprint() {
    let base = delivery(json!({}));
    let ips = [ip("a", Some("pool-0"), json!({})), ip("b", Some("pool-1"), json!({}))];
    let first = plan_of(&base, &csv(10), &ips).unwrap();
    assert_eq!(first, plan_of(&base, &csv(10), &ips).unwrap());

    let mut other_uid = base.clone();
    other_uid.metadata.uid = Some("2".into());
    let other_list = RecipientList::from_inline(&[Recipient {
        address: "x@example.com".into(),
        ..Recipient::default()
    }]);
    let changed = [
        plan_of(
            &delivery(json!({ "message": { "subject": "Hi", "text": "x" } })),
            &csv(10),
            &ips,
        ),
        plan_of(&delivery(json!({ "runId": "again" })), &csv(10), &ips),
        plan_of(&delivery(json!({ "validity": "1h" })), &csv(10), &ips),
        plan_of(&base, &csv(11), &ips),
        plan_of(&base, &other_list, &ips),
        plan_of(&base, &csv(10), &ips[..1]),
        plan_of(&other_uid, &csv(10), &ips),
    ];
    let fingerprints: BTreeSet<_> = changed
        .into_iter()
        .chain([Ok(first)])
        .map(|plan| plan.unwrap().message_slice.spec.fingerprint)
        .collect();
    assert_eq!(fingerprints.len(), 8, "all differ");
}

#[test]
fn only_what_is_fixed_at_planning_is_in_the_spec_digest() {
    let digest = |spec| spec_digest(&delivery(spec).spec);
    let base = digest(json!({}));
    for free in [
        json!({ "suspend": true }),
        json!({ "cancel": true }),
        json!({ "emailFeedback": false }),
    ] {
        assert_eq!(digest(free.clone()), base, "{free}");
    }
    for fixed in [
        json!({ "priority": "High" }),
        json!({ "testMode": true }),
        json!({ "onBlock": "Wait" }),
        json!({ "onBlock": "Move" }),
        json!({ "sender": { "address": "x@example.com" } }),
    ] {
        assert_ne!(digest(fixed.clone()), base, "{fixed}");
    }
}

#[test]
fn names_fit_whatever_the_delivery_is_called() {
    let mut long = delivery(json!({}));
    long.metadata.name = Some(format!("{}-tail", "n".repeat(235)));
    let plan = plan_of(&long, &csv(1), &[ip("a", Some("pool-0"), json!({}))]).unwrap();
    let name = plan.message_slice.name_any();
    assert!(name.len() <= 253 && name.starts_with("nnn"), "{name}");
    assert!(!name.contains("--"), "{name}");
    assert!(plan.message_slice.labels()[DELIVERY_LABEL].len() <= 63);
}

#[test]
fn weights_come_from_usable_addresses() {
    let weights = |affinity: Option<Value>, ips: &[SendingIp]| {
        let affinity = affinity.map(|affinity| serde_json::from_value(affinity).unwrap());
        let weights = sender_weights("pool", 3, affinity.as_ref(), ips);
        weights.map(|weights| {
            weights
                .into_iter()
                .map(|weight| (weight.sender, weight.weight))
                .collect::<Vec<_>>()
        })
    };
    let named = |pairs: &[(&str, u64)]| {
        pairs
            .iter()
            .map(|&(sender, weight)| (sender.to_owned(), weight))
            .collect::<Vec<_>>()
    };
    let gold = || Some(json!({ "matchLabels": { "tier": "gold" } }));

    let ips = [
        ip("plain", Some("pool-1"), json!({})),
        ip("again", Some("pool-1"), json!({ "weight": 20 })),
        ip("unassigned", None, json!({})),
        ip("other-pool", Some("pool-0"), json!({ "pool": "other" })),
        ip("gone-sender", Some("pool-3"), json!({})),
        ip("suspended", Some("pool-2"), json!({ "suspend": true })),
        ip(
            "gold",
            Some("pool-0"),
            json!({ "weight": 0, "labels": { "tier": "gold" } }),
        ),
        stalled(ip("stalled", Some("pool-0"), json!({}))),
    ];
    assert_eq!(weights(None, &ips).unwrap(), named(&[("pool-1", 120)]));
    assert_eq!(
        weights(gold(), &ips).unwrap(),
        named(&[("pool-0", 1)]),
        "weight 0 is for affinity"
    );
    assert_eq!(
        weights(None, &ips[5..]).unwrap(),
        named(&[("pool-2", 100)]),
        "suspended, but the only one"
    );
    let none = weights(None, &ips[6..]).unwrap_err().to_string();
    assert!(none.contains("1 with weight 0"), "{none}");
    assert!(weights(gold(), &ips[..6]).is_err());
    let nonsense = json!({ "matchExpressions": [{ "key": "tier", "operator": "Near" }] });
    assert!(matches!(weights(Some(nonsense), &ips), Err(NoSender::BadAffinity(_))));
}

#[test]
fn many_senders_are_in_the_order_of_their_ordinals() {
    let ips: Vec<_> = (0..12)
        .map(|ordinal| ip("x", Some(&format!("pool-{ordinal}")), json!({})))
        .collect();
    let weights = sender_weights("pool", 12, None, &ips).unwrap();
    assert_eq!(
        (weights[2].sender.as_str(), weights[10].sender.as_str()),
        ("pool-2", "pool-10")
    );
}

#[test]
fn attachments_are_resolved_and_checked() {
    let with = |attachment: Value| {
        delivery(json!({ "message": { "subject": "s", "text": "t", "attachments": [attachment] } }))
    };
    let file = |source: Value| {
        let mut attachment = json!({ "filename": "a.pdf", "contentType": "application/pdf" });
        attachment
            .as_object_mut()
            .unwrap()
            .extend(source.as_object().unwrap().clone());
        with(attachment)
    };
    let ips = [ip("a", Some("pool-0"), json!({}))];
    let contents = BTreeMap::from([(SourceRef::secret("files", "a.pdf"), b"PDF\xff".to_vec())]);
    let plan_with = |delivery: &Delivery| {
        plan(PlanInput {
            delivery,
            pool: &pool(1),
            recipients: &csv(1),
            attachments: &contents,
            ips: &ips,
            keys: &[],
        })
    };

    let resolved = plan_with(&file(json!({ "secretKeyRef": { "name": "files", "key": "a.pdf" } }))).unwrap();
    let attachment = &resolved.message_slice.spec.message.unwrap().message.attachments[0];
    assert_eq!(attachment.data.as_deref(), Some("UERG/w=="));
    assert!(attachment.secret_key_ref.is_none());

    let wrapped = plan_with(&file(json!({ "data": "UERG\n/w==\n" }))).unwrap();
    let attachment = &wrapped.message_slice.spec.message.unwrap().message.attachments[0];
    assert_eq!(attachment.data.as_deref(), Some("UERG/w=="));

    let missing = plan_with(&file(json!({ "configMapKeyRef": { "name": "files", "key": "a.pdf" } }))).unwrap_err();
    assert_eq!(missing.to_string(), "key a.pdf of ConfigMap files is missing");
    let broken = plan_with(&file(json!({ "data": "%%%" }))).unwrap_err();
    assert!(matches!(broken, PlanProblem::AttachmentNotBase64 { .. }));
}

#[test]
fn a_message_that_does_not_fit_is_refused_with_its_size() {
    let large =
        delivery(json!({ "message": { "subject": "s", "text": "x".repeat(500_000), "html": "y".repeat(450_000) } }));
    let problem = plan_of(&large, &csv(1), &[ip("a", Some("pool-0"), json!({}))]).unwrap_err();
    let PlanProblem::MessageTooLarge { bytes } = problem else {
        panic!("{problem}")
    };
    assert!(bytes > 950_000);
}

#[test]
fn ignored_rows_count_and_the_first_hundred_are_named() {
    let mut text = "address\n".to_owned();
    (0..150).for_each(|_| text.push_str("twice@example.com\n"));
    text.push_str("broken\n");
    let list = RecipientList::parse(text.as_bytes(), ListFormat::Csv).unwrap();
    let plan = plan_of(&delivery(json!({})), &list, &[ip("a", Some("pool-0"), json!({}))]).unwrap();
    let snapshot = plan.message_slice.spec.message.unwrap();
    assert_eq!(snapshot.total, 151);
    assert_eq!(
        snapshot.ignored,
        BTreeMap::from([("Duplicate".into(), 149), ("Malformed address".into(), 1)])
    );
    assert_eq!(snapshot.ignored_rows.len(), 100);
    assert_eq!((snapshot.ignored_rows[0].index, plan.slices[0].spec.rows.len()), (1, 1));
}

#[test]
fn a_list_without_recipients_is_a_plan_without_slices() {
    let plan = plan_of(&delivery(json!({})), &csv(0), &[ip("a", Some("pool-0"), json!({}))]).unwrap();
    assert!(plan.slices.is_empty());
    assert_eq!(plan.message_slice.spec.message.unwrap().slices, 0);
}

#[test]
fn inline_addresses_are_read_like_those_of_a_list() {
    let inline = |addresses: &[&str]| {
        let recipient = |address: &&str| Recipient {
            address: (*address).to_owned(),
            ..Recipient::default()
        };
        RecipientList::from_inline(&addresses.iter().map(recipient).collect::<Vec<_>>())
    };
    let list = inline(&[
        " Ada@Example.COM ",
        "ada@example.com",
        "",
        "x@bücher.example",
        "eve@example.com\r\nDATA",
    ]);
    let addresses: Vec<_> = list
        .rows
        .iter()
        .map(|row| (row.index, row.recipient.address.as_str()))
        .collect();
    assert_eq!(addresses, [(0, "Ada@example.com"), (3, "x@xn--bcher-kva.example")]);
    assert_eq!(
        json!(list.ignored),
        json!({ "Duplicate": 1, "Address not specified": 1, "Malformed address": 1 })
    );
    assert_eq!(list.ignored_rows[0].reason, "row 1: an earlier row has this address");
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_column() {
    let list = RecipientList::parse("\u{feff}email\nada@example.com\n".as_bytes(), ListFormat::Csv).unwrap();
    assert_eq!(list.rows.len(), 1);
}

#[test]
fn a_row_that_fits_into_no_slice_is_ignored() {
    let text = format!(
        "email,text\na@example.com,{}\nb@example.com,b\n",
        "x".repeat(600 * 1024)
    );
    let list = RecipientList::parse(text.as_bytes(), ListFormat::Csv).unwrap();
    assert_eq!((list.total, list.rows.len(), list.ignored["Row too large"]), (2, 1, 1));
}

#[test]
fn a_hundred_thousand_rows_are_planned_into_bounded_slices() {
    let list = csv(100_000);
    let ips = [ip("a", Some("pool-0"), json!({})), ip("b", Some("pool-3"), json!({}))];
    let plan = plan_of(&delivery(json!({})), &list, &ips).unwrap();
    assert_eq!(plan.slices.len(), 100);
    assert!(plan.slices.iter().all(|slice| slice.spec.rows.len() == MAX_SLICE_ROWS));
}

#[test]
fn warnings_name_what_was_asked_for() {
    let plan = plan_of(
        &delivery(json!({ "validity": "5d" })),
        &csv(1),
        &[ip("a", Some("pool-0"), json!({}))],
    )
    .unwrap();
    let asked = "5d".parse().unwrap();
    let domain = "example.com".parse().unwrap();
    assert_eq!(
        plan.warnings,
        [
            PlanWarning::ValidityClamped { asked },
            PlanWarning::DkimMissing { domain }
        ]
    );
}
