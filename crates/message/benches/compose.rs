//! What composing and signing one message costs, for a 20 KB message of text and HTML.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use relaypool_api::dkim_key::DkimAlgorithm;
use relaypool_api::message::{Attachment, MessageSnapshot, SigningKeyRef};
use relaypool_message::dkim::{Signer, SigningKey, generate};
use relaypool_message::{Composer, Identity};
use serde_json::json;

fn snapshot(attachments: &[Attachment]) -> MessageSnapshot {
    let line =
        "Guten Tag, dies ist eine ganz gewöhnliche Zeile eines Newsletters, und sie ist länger als 78 Zeichen.\n";
    let paragraph =
        "<p style=\"color: #333333\">Guten Tag, dies ist eine ganz gewöhnliche Zeile eines Newsletters.</p>\n";
    let snapshot = json!({
        "sender": { "address": "news@example.com", "name": "Example News", "replyTo": "help@example.com" },
        "message": {
            "subject": "Guten Tag {{ first_name }}, die Themen der Woche",
            "text": format!("Guten Tag {{{{ first_name }}}} {{{{ last_name }}}},\n\n{}", line.repeat(60)),
            "html": format!(
                "<html><body><h1>Guten Tag {{{{ first_name }}}}</h1>{}<a href=\"https://example.com/?u={{{{ token|urlencode }}}}\">x</a></body></html>",
                format!("{}{{% if city == \"Köln\" %}}<b>{{{{ city }}}}</b>{{% endif %}}", paragraph.repeat(10)).repeat(12)
            ),
            "attachments": attachments,
            "listUnsubscribe": { "url": "https://example.com/u?t={{ token|urlencode }}", "oneClick": true },
        },
        "validity": "84h",
        "fingerprint": "f",
        "total": 1,
        "slices": 1,
    });
    serde_json::from_value(snapshot).expect("a snapshot")
}

fn signer(algorithms: &[DkimAlgorithm]) -> Signer {
    let keys = algorithms.iter().map(|&algorithm| {
        let pem = generate(algorithm).expect("a key");
        let key = SigningKey::from_pem(pem.as_bytes(), algorithm).expect("a key");
        let wanted = SigningKeyRef {
            domain: "example.com".parse().expect("a domain"),
            selector: "s2026".parse().expect("a selector"),
            algorithm,
            version: key.version(),
        };
        (wanted, Arc::new(key))
    });
    Signer::new(keys.collect()).expect("keys of the run")
}

fn benches(criterion: &mut Criterion) {
    let to = "ada@example.org".parse().expect("an address");
    let variables = BTreeMap::from(
        [
            ("first_name", "Ada"),
            ("last_name", "Lovelace"),
            ("city", "Köln"),
            ("token", "c29tZSB0b2tlbg=="),
            ("plan", "basic"),
        ]
        .map(|(name, value)| (name.to_owned(), json!(value))),
    );
    let identity = Identity::new("018f3e5c-7b1a.42@mta.example.com", Timestamp::UNIX_EPOCH).expect("an identity");
    let compose = |composer: &Composer| composer.compose(&to, &variables, &identity).expect("a message").bytes;

    let composer = Composer::compile(&snapshot(&[])).expect("fine templates");
    let message = compose(&composer);
    criterion.bench_function(&format!("compose {} KB", message.len() / 1024), |bencher| {
        bencher.iter(|| black_box(compose(&composer)));
    });

    let attachment: Attachment = serde_json::from_value(json!({
        "filename": "report.pdf",
        "contentType": "application/pdf",
        "data": "QUJD".repeat(100_000),
    }))
    .expect("an attachment");
    let with_attachment = Composer::compile(&snapshot(&[attachment])).expect("fine templates");
    criterion.bench_function("compose with an attachment of 300 KB", |bencher| {
        bencher.iter(|| black_box(compose(&with_attachment)));
    });

    use DkimAlgorithm::{Ed25519, Rsa};
    for (name, algorithms) in [
        ("sign with RSA", &[Rsa] as &[_]),
        ("sign with Ed25519", &[Ed25519]),
        ("sign with both", &[Rsa, Ed25519]),
    ] {
        let signer = signer(algorithms);
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                signer
                    .sign(black_box(&message), Timestamp::UNIX_EPOCH)
                    .expect("signatures")
            });
        });
    }

    let signer = signer(&[Rsa]);
    criterion.bench_function("compose and sign with RSA", |bencher| {
        bencher.iter(|| {
            signer
                .sign(&compose(&composer), Timestamp::UNIX_EPOCH)
                .expect("signatures")
        });
    });
}

criterion_group!(group, benches);
criterion_main!(group);
