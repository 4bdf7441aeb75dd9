//! What recipients write.

use relaypool_sender::NewSlice;
use relaypool_simulator::books::Accepted;
use serde_json::{Value, json};

use super::support::{counts, message, reasons, slice, users};
use super::{good_provider, spoke_well};

/// One row for each value of the variable.
fn with_values(id: &str, template: Value, variable: &str, values: &[Value]) -> NewSlice {
    let message = message(json!({ "message": template }));
    let mut slice = slice(id, &message, users(values.len(), "good.example"));
    for (row, value) in slice.rows.iter_mut().zip(values) {
        row.recipient.variables.insert(variable.to_owned(), value.clone());
    }
    slice
}

fn text(message: &Accepted) -> String {
    String::from_utf8(message.content.as_deref().unwrap().to_vec()).unwrap()
}

/// Names of the header fields, in order.
fn header_names(message: &str) -> Vec<&str> {
    let (header, _) = message.split_once("\r\n\r\n").unwrap();
    let fields = header.split("\r\n").filter(|line| !line.starts_with([' ', '\t']));
    fields.map(|field| field.split_once(':').unwrap().0).collect()
}

/// What every message has, and what the templates below add.
const HEADERS: [&str; 7] = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
];
const ADDED: [&str; 2] = ["X-Own", "Content-Transfer-Encoding"];

const INJECTIONS: [&str; 9] = [
    "Ada\r\nBcc: eve@evil.example",
    "Ada\nBcc: eve@evil.example",
    "Ada\rBcc: eve@evil.example",
    "Ada\r\n\r\nAnother body",
    "Ada\r\n.\r\nMAIL FROM:<eve@evil.example>\r\n",
    "Ada\0",
    "Ada\u{85}Bcc: eve@evil.example",
    "=?utf-8?q?Ada=0D=0ABcc=3A_eve=40evil.example?=",
    "Ada\u{2028}Bcc: eve@evil.example",
];

/// Those of [`INJECTIONS`] that have a control character, which no header can hold.
const WITH_CONTROLS: u64 = 7;

#[tokio::test(flavor = "multi_thread")]
async fn no_value_makes_a_header_or_ends_a_message() {
    let bench = good_provider().await;
    let values: Vec<Value> = INJECTIONS.iter().map(|value| json!(value)).collect();

    for (id, template) in [
        ("subject", json!({ "subject": "{{ name }}", "text": "fine" })),
        (
            "header",
            json!({ "subject": "fine", "text": "fine", "headers": [{ "name": "X-Own", "value": "{{ name }}" }] }),
        ),
    ] {
        bench
            .engine
            .accept(with_values(id, template, "name", &values))
            .await
            .unwrap();
        let status = bench.finished(id).await;
        let counts = counts(&status);
        assert_eq!((counts.ignored, counts.sent), (WITH_CONTROLS, 2), "{id}: {status:#?}");
        let reason = &status.reasons[0].reason;
        assert!(
            reason.contains("control character") && !reason.contains("eve"),
            "{reason}"
        );
    }
    // In a body they are text.
    let body = json!({ "subject": "fine", "text": "{{ name }}", "html": "<p>{{ name }}</p>" });
    bench
        .engine
        .accept(with_values("body", body, "name", &values))
        .await
        .unwrap();
    let status = bench.finished("body").await;
    assert_eq!(counts(&status).sent, INJECTIONS.len() as u64, "{status:#?}");

    for accepted in bench.simulator.books().accepted() {
        let message = text(&accepted);
        let mut found = header_names(&message);
        found.retain(|name| !ADDED.contains(name));
        assert_eq!(found, HEADERS, "{message}");
        assert_eq!(&*accepted.return_path, "news@sender.example");
    }
    assert_eq!(bench.accepted().len(), 2 + 2 + INJECTIONS.len());
    spoke_well(&bench);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_address_makes_a_command() {
    let bench = good_provider().await;
    let long = format!("{}@good.example", "a".repeat(10_000));
    let addresses = [
        "ada@good.example\r\nRCPT TO:<eve@evil.example>",
        "ada@good.example>\r\nDATA",
        "\"ada\r\nRSET\"@good.example",
        "<ada@good.example>",
        "ada@good.example, eve@good.example",
        "ada @good.example",
        "@good.example",
        "ada@",
        "ada",
        "",
        "ada@good..example",
        "ada@-good.example",
        "ada@good.example\0",
        &long,
    ];
    let all = addresses.into_iter().chain(["fine@good.example"]);
    bench.engine.accept(slice("s", &message(json!({})), all)).await.unwrap();
    let status = bench.finished("s").await;

    let counts = counts(&status);
    assert_eq!(
        (counts.ignored, counts.sent),
        (addresses.len() as u64, 1),
        "{status:#?}"
    );
    assert!(
        reasons(&status)
            .keys()
            .all(|reason| reason.starts_with("Malformed address")),
        "{status:#?}"
    );
    assert!(
        status.reasons.iter().all(|reason| reason.reason.len() < 600),
        "{status:#?}"
    );
    assert_eq!(bench.accepted(), ["fine@good.example"]);
    spoke_well(&bench);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_lack_a_variable_are_ignored_and_the_others_go_on() {
    let bench = good_provider().await;
    let template = json!({ "subject": "{{ city }}", "text": "{{ name }} in {{ city }}\n{{ orders[0].item }}" });
    let orders = json!([{ "item": "a lamp" }]);
    let message = message(json!({ "message": template }));
    let mut slice = slice("s", &message, users(6, "good.example"));
    let variables = [
        json!({ "city": "London", "orders": orders }),
        json!({ "orders": orders }),
        json!({ "city": "Paris", "orders": [] }),
        json!({ "city": null, "orders": orders }),
        json!({ "city": "Rome", "orders": "none" }),
        json!({ "city": "Oslo", "orders": orders }),
    ];
    for (row, more) in slice.rows.iter_mut().zip(variables) {
        let more: Vec<(String, Value)> = more.as_object().unwrap().clone().into_iter().collect();
        row.recipient.variables.extend(more);
    }
    bench.engine.accept(slice).await.unwrap();
    let status = bench.finished("s").await;

    let ranges = status.ranges.as_ref().unwrap();
    assert_eq!(
        (ranges.sent.as_str(), ranges.ignored.as_str()),
        ("0,5", "1-4"),
        "{status:#?}"
    );
    let found = reasons(&status);
    let words = |words: &str| -> u64 {
        found
            .iter()
            .filter(|(reason, _)| reason.contains(words))
            .map(|(_, count)| count)
            .sum()
    };
    assert_eq!(
        words("message.subject line 1: the recipient has no variable 'city'"),
        2,
        "{found:#?}"
    );
    assert_eq!(words("message.text line 2"), 2, "{found:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn domains_that_do_not_exist_hold_up_nobody() {
    let bench = good_provider().await;
    let gone = (0..300).map(|number| format!("ada@gone-{number}.example"));
    let others = [
        "ada@example",
        "ada@nobody.invalid",
        "ada@xn--bcher-kva.example",
        "ada@bücher.example",
    ];
    let addresses = gone.chain(others.map(str::to_owned)).chain(users(20, "good.example"));
    bench
        .engine
        .accept(slice("s", &message(json!({})), addresses))
        .await
        .unwrap();
    let status = bench.finished("s").await;

    let counts = counts(&status);
    assert_eq!((counts.failed, counts.sent), (304, 20), "{status:#?}");
    assert_eq!(reasons(&status)["Invalid domain"], 304);
    assert_eq!(bench.accepted().len(), 20);
}

/// Values of 30 KB, each as bad as its kind can be.
fn monsters() -> Vec<Value> {
    const SIZE: usize = 30_000;
    let filled = |part: &str| json!(part.repeat(SIZE / part.len()));
    let mut nested = json!("deep");
    for _ in 0..100 {
        nested = json!([nested]);
    }
    vec![
        filled("x"),
        filled("\r\n.\r\n"),
        filled(".\n"),
        filled("\r"),
        filled("\0"),
        filled("é"),
        filled("\u{1f642}\u{200d}\u{202e}"),
        filled("{{ name }}{% for x in y %}"),
        filled("</p><script>&\"'"),
        filled("From eve@evil.example\n"),
        filled("=3D=0D=0A\u{20}\n"),
        json!(vec!["x"; SIZE / 5]),
        nested,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn large_hostile_values_are_sent_as_text_or_ignored_with_few_words() {
    let bench = good_provider().await;
    let monsters = monsters();
    let body = json!({ "subject": "fine", "text": "{{ name }}", "html": "<p>{{ name }}</p>" });
    bench
        .engine
        .accept(with_values("body", body, "name", &monsters))
        .await
        .unwrap();
    let status = bench.finished("body").await;
    assert_eq!(counts(&status).sent, monsters.len() as u64, "{status:#?}");
    for accepted in bench.simulator.books().accepted() {
        let message = text(&accepted);
        let (_, html) = message.split_once("Content-Type: text/html").unwrap();
        assert!(!html.contains("<script>"), "{html}");
    }

    let subject = json!({ "subject": "{{ name }}", "text": "fine" });
    bench
        .engine
        .accept(with_values("subject", subject, "name", &monsters))
        .await
        .unwrap();
    let status = bench.finished("subject").await;
    assert_eq!(
        counts(&status).ignored + counts(&status).sent,
        monsters.len() as u64,
        "{status:#?}"
    );
    assert!(counts(&status).ignored >= 11, "8 KB are the most: {status:#?}");
    assert!(
        status.reasons.iter().all(|reason| reason.reason.len() < 200),
        "{status:#?}"
    );
    assert!(serde_json::to_vec(&status).unwrap().len() < 64 * 1024);
    spoke_well(&bench);
}
