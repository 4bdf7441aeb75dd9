//! Messages as recipients get them.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use mail_parser::{MessageParser, MimeHeaders as _};
use proptest::prelude::*;
use relaypool_api::EmailAddress;
use relaypool_message::{ComposeError, Composer, Identity, Problem, TemplateError, check_template};
use serde_json::{Value, json};
use support::{Variables, ada, compose, composer, header_names, identity, snapshot, snapshot_from, variables};

#[test]
fn a_whole_message_byte_for_byte() {
    let snapshot = snapshot_from(
        json!({ "address": "news@example.com", "name": "Example {{ team }}", "replyTo": "help@example.com" }),
        json!({
            "subject": "Grüße, {{ first_name }}",
            "text": "Hello {{ first_name }},\nyour address is {{ address }} ({{ local_part }} at {{ domain }}).\n",
            "html": "<p>Hello {{ first_name }}</p>",
            "headers": [{ "name": "X-Campaign", "value": "welcome-{{ team|lower }}" }],
            "listUnsubscribe": {
                "url": "https://example.com/u?a={{ address|urlencode }}",
                "mailto": "unsubscribe@example.com",
                "oneClick": true,
            },
        }),
    );
    let composer = Composer::compile(&snapshot).unwrap();
    let variables = variables([("first_name", json!("Ada & Co")), ("team", json!("News"))]);
    let message = compose(&composer, &variables).unwrap();
    let expected = [
        "From: Example News <news@example.com>",
        "To: ada@example.org",
        "Reply-To: help@example.com",
        "Subject: =?utf-8?B?R3LDvMOfZSwgQWRhICYgQ28=?=",
        "Date: Fri, 20 Nov 2026 16:04:05 +0000",
        "Message-ID: <018f3e5c.42@mta.example.com>",
        "List-Unsubscribe: <https://example.com/u?a=ada%40example.org>,",
        " <mailto:unsubscribe@example.com>",
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
        "X-Campaign: welcome-news",
        "MIME-Version: 1.0",
        "Content-Type: multipart/alternative;",
        " boundary=\"BOUNDARY_a\"",
        "",
        "--BOUNDARY_a",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: quoted-printable",
        "",
        "Hello Ada & Co,",
        "your address is ada@example.org (ada at example.org).",
        "",
        "--BOUNDARY_a",
        "Content-Type: text/html; charset=utf-8",
        "Content-Transfer-Encoding: quoted-printable",
        "",
        "<p>Hello Ada &amp; Co</p>",
        "--BOUNDARY_a--",
        "",
    ]
    .join("\r\n");
    let message = String::from_utf8(message).unwrap();
    let boundary = message
        .split_once("boundary=\"")
        .unwrap()
        .1
        .split_once("_a\"")
        .unwrap()
        .0;
    assert_eq!(message, expected.replace("BOUNDARY", boundary));
}

#[test]
fn every_attempt_makes_the_same_bytes() {
    let message = json!({
        "subject": "{{ n }}",
        "text": "Добрый день {{ n }}",
        "html": "<img src=\"cid:logo\">",
        "attachments": [
            { "filename": "logo.png", "contentType": "image/png", "contentId": "logo", "data": "iVBORw0KGgo=" },
            { "filename": "a.bin", "contentType": "application/octet-stream", "data": "AAEC" },
        ],
    });
    let variables = variables([("n", json!(1))]);
    let first = compose(&composer(message.clone()), &variables).unwrap();
    for _ in 0..3 {
        assert_eq!(compose(&composer(message.clone()), &variables).unwrap(), first);
    }
    // Another message of the run has other boundaries.
    let other = Identity::new("other@mta.example.com", identity().date()).unwrap();
    let other = composer(message).compose(&ada(), &variables, &other).unwrap().bytes;
    let boundary = |message: &[u8]| {
        let parsed = MessageParser::new().parse(message).unwrap();
        parsed.content_type().unwrap().attribute("boundary").unwrap().to_owned()
    };
    assert_ne!(boundary(&first), boundary(&other));
}

#[test]
fn a_composer_is_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Composer>();
    shared::<relaypool_message::dkim::Signer>();
}

#[test]
fn one_text_alone_is_no_multipart() {
    for (message, subtype, text) in [
        (json!({ "subject": "s", "text": "Hi\n{{ n }}" }), "plain", "Hi\r\n5\r\n"),
        (
            json!({ "subject": "s", "html": "<b>{{ n }}</b>\n" }),
            "html",
            "<b>5</b>\r\n",
        ),
        (json!({ "subject": "s", "text": "" }), "plain", ""),
    ] {
        let message = compose(&composer(message), &variables([("n", json!(5))])).unwrap();
        let parsed = MessageParser::new().parse(&message).unwrap();
        assert_eq!(parsed.parts.len(), 1);
        assert_eq!(parsed.content_type().unwrap().subtype(), Some(subtype));
        let part = &parsed.parts[0];
        assert_eq!(part.text_contents().unwrap(), text);
    }
}

#[test]
fn attachments_and_inline_images_come_back() {
    let composer = composer(json!({
        "subject": "s",
        "text": "text",
        "html": "<img src=\"cid:logo@1\">",
        "attachments": [
            { "filename": "logo.png", "contentType": "image/png", "contentId": "logo@1", "data": "iVBORw0KGgo=" },
            { "filename": "Bericht für März, \"neu\".pdf", "contentType": "application/pdf", "data": "JVBE\nRi0x\n" },
            {
                "filename": format!("{}.txt", "long".repeat(40)),
                "contentType": "text/plain; charset=utf-8",
                "data": "QUJD".repeat(500),
            },
        ],
    }));
    let message = compose(&composer, &Variables::new()).unwrap();
    let parsed = MessageParser::new().parse(&message).unwrap();
    let tree: Vec<_> = parsed
        .parts
        .iter()
        .map(|part| {
            let content_type = part.content_type().unwrap();
            format!("{}/{}", content_type.ctype(), content_type.subtype().unwrap())
        })
        .collect();
    assert_eq!(
        tree,
        [
            "multipart/mixed",
            "multipart/alternative",
            "text/plain",
            "multipart/related",
            "text/html",
            "image/png",
            "application/pdf",
            "text/plain"
        ]
    );
    let parts = &parsed.parts;
    assert_eq!(parts[5].content_id(), Some("logo@1"));
    assert!(parts[5].content_disposition().unwrap().is_inline());
    assert_eq!(parts[5].contents(), b"\x89PNG\r\n\x1a\n");
    assert_eq!(parts[6].attachment_name(), Some("Bericht für März, \"neu\".pdf"));
    assert!(parts[6].content_disposition().unwrap().is_attachment());
    assert_eq!(parts[6].contents(), b"%PDF-1");
    assert_eq!(parts[7].attachment_name().unwrap().len(), 164);
    assert_eq!(parts[7].contents(), "ABC".repeat(500).as_bytes());
}

proptest! {
    #[test]
    fn file_names_come_back(name in "[^/\\\\\\p{Cc}]{1,60}|[ -.0-\\[\\]-~]{1,200}") {
        prop_assume!(name.len() <= 255);
        let composer = composer(json!({
            "subject": "s",
            "text": "text",
            "attachments": [{ "filename": name, "contentType": "a/b", "data": "QQ==" }],
        }));
        let message = compose(&composer, &Variables::new()).unwrap();
        let parsed = MessageParser::new().parse(&message).unwrap();
        prop_assert_eq!(parsed.attachment(0).unwrap().attachment_name(), Some(name.as_str()));
    }
}

#[test]
fn an_image_without_html_is_attached() {
    let composer = composer(json!({
        "subject": "s",
        "text": "text",
        "attachments": [{ "filename": "a.png", "contentType": "image/png", "contentId": "a", "data": "" }],
    }));
    let message = compose(&composer, &Variables::new()).unwrap();
    let parsed = MessageParser::new().parse(&message).unwrap();
    assert_eq!(parsed.content_type().unwrap().subtype(), Some("mixed"));
    assert_eq!(parsed.attachment_count(), 1);
}

#[test]
fn values_are_escaped_in_html_only() {
    let composer = composer(json!({ "subject": "{{ v }}", "text": "{{ v }}", "html": "{{ v }} {{ v|safe }}" }));
    let message = compose(&composer, &variables([("v", json!("<a> & 'b'"))])).unwrap();
    let parsed = MessageParser::new().parse(&message).unwrap();
    assert_eq!(parsed.subject(), Some("<a> & 'b'"));
    assert_eq!(parsed.body_text(0).unwrap(), "<a> & 'b'");
    assert_eq!(parsed.body_html(0).unwrap(), "&lt;a&gt; &amp; &#x27;b&#x27; <a> & 'b'");
}

#[test]
fn addresses_outside_ascii() {
    let compose_to = |sender: Value, to: &str| {
        let message = json!({ "subject": "s", "text": "{{ address }} {{ domain }}" });
        let composer = Composer::compile(&snapshot_from(sender, message)).unwrap();
        let to: EmailAddress = to.parse().unwrap();
        composer.compose(&to, &Variables::new(), &identity()).unwrap()
    };
    let ascii = json!({ "address": "news@example.com" });

    let idn = compose_to(ascii.clone(), "ada@bücher.example");
    assert!(!idn.needs_smtputf8);
    assert!(idn.bytes.is_ascii());
    let text = String::from_utf8(idn.bytes).unwrap();
    assert!(text.contains("\r\nTo: ada@xn--bcher-kva.example\r\n"));
    assert!(text.ends_with("\r\n\r\nada@xn--bcher-kva.example xn--bcher-kva.example\r\n"));

    let local = compose_to(ascii, "用户@bücher.example");
    assert!(local.needs_smtputf8);
    let text = String::from_utf8(local.bytes).unwrap();
    assert!(text.contains("\r\nTo: 用户@xn--bcher-kva.example\r\n"));

    for sender in [
        json!({ "address": "新闻@example.com" }),
        json!({ "address": "news@example.com", "replyTo": "帮助@example.com" }),
    ] {
        assert!(compose_to(sender, "ada@example.org").needs_smtputf8);
    }
    // A mailto address is a URL, in ASCII whatever the address.
    let composer = composer(json!({
        "subject": "s", "text": "t", "listUnsubscribe": { "mailto": "a%ü@example.com" },
    }));
    let composed = composer.compose(&ada(), &Variables::new(), &identity()).unwrap();
    assert!(!composed.needs_smtputf8);
    let text = String::from_utf8(composed.bytes).unwrap();
    assert!(text.contains("\r\nList-Unsubscribe: <mailto:a%25%C3%BC@example.com>\r\n"));
}

#[test]
fn unknown_variables_are_named() {
    let given = variables([
        ("customer", json!({ "name": "Ada", "title": null })),
        ("empty", json!(null)),
        ("l", json!([1])),
    ]);
    for (text, line, name) in [
        ("{{ first_name }}", 1, "first_name"),
        ("Hello\n\n{{ first_name|upper }}", 3, "first_name"),
        ("{{ first_name|title|trim }}", 1, "first_name"),
        ("{{ 'a' ~ first_name }}", 1, "first_name"),
        ("{{ 'a' + first_name }}", 1, "first_name"),
        ("{{ first_name == 'a' }}", 1, "first_name"),
        ("{% if first_name %}a{% endif %}", 1, "first_name"),
        ("{% for i in first_name %}a{% endfor %}", 1, "first_name"),
        ("{{ customer.age }}", 1, "customer.age"),
        ("{{ customer.name.first }}", 1, "customer.name.first"),
        ("{{ customer['age'] }}", 1, "customer['age']"),
        ("{{ customer.title }}", 1, "customer.title"),
        ("{{ l[3] }}", 1, "l[3]"),
        ("{{ empty }}", 1, "empty"),
        ("{{ first_name|urlencode }}", 1, "first_name"),
        ("{{ first_name|join(',') }}", 1, "first_name"),
        ("{{ first_name|e }}", 1, "first_name"),
        ("{{ first_name|replace('a', 'b') }}", 1, "first_name"),
        ("{{ first_name|length }}", 1, "first_name"),
        ("{{ first_name|first }}", 1, "first_name"),
        ("{{ first_name|round }}", 1, "first_name"),
        ("{{ first_name|sort }}", 1, "first_name"),
        ("{{ first_name|int }}", 1, "first_name"),
        ("{{ first_name|safe }}", 1, "first_name"),
    ] {
        let composer = composer(json!({ "subject": "s", "text": text }));
        let expected = ComposeError::UnknownVariable {
            field: "message.text".to_owned(),
            line,
            name: name.to_owned(),
        };
        assert_eq!(compose(&composer, &given), Err(expected), "{text}");
    }
    // What allows for a variable to be unknown.
    for text in [
        "{{ first_name|default('friend') }}",
        "{{ empty|default('friend') }}",
        "{% if first_name is defined %}{{ first_name }}{% else %}friend{% endif %}",
        "{{ first_name if first_name is defined else 'friend' }}",
    ] {
        let composer = composer(json!({ "subject": "s", "text": text }));
        let message = String::from_utf8(compose(&composer, &given).unwrap()).unwrap();
        assert!(message.ends_with("\r\n\r\nfriend\r\n"), "{text}: {message}");
    }
}

#[test]
fn own_variables_go_before_parts_of_the_address() {
    let composer = composer(json!({ "subject": "s", "text": "{{ address }} {{ local_part }} {{ domain }}" }));
    let variables = variables([("address", json!("x")), ("domain", json!("maths"))]);
    let message = String::from_utf8(compose(&composer, &variables).unwrap()).unwrap();
    assert!(message.ends_with("\r\n\r\nada@example.org ada maths\r\n"));
}

#[test]
fn values_that_do_not_fit_the_template_are_errors() {
    let composer = composer(json!({ "subject": "s", "text": "a\n{{ n|int + 1 }}" }));
    let error = compose(&composer, &variables([("n", json!("five"))])).unwrap_err();
    let ComposeError::Render { field, line, reason } = &error else {
        panic!("{error:?}");
    };
    assert_eq!((field.as_str(), *line), ("message.text", 2));
    assert!(reason.contains("invalid operation"), "{reason}");
    assert_eq!(error.to_string(), format!("message.text line 2: {reason}"));
}

#[test]
fn a_template_is_stopped_before_it_takes_too_much() {
    let given = variables([("v", json!("x".repeat(60_000)))]);
    let endless = "{% for a in range(1000) %}{% for b in range(1000) %}{% set c = a * b %}{% endfor %}{% endfor %}";
    let long = "{% for a in range(1000) %}{{ v }}{% endfor %}";
    let compose = |field: &str, template: &str, variables: &Variables| {
        let mut message = json!({ "subject": "s", "text": "t" });
        message[field] = json!(template);
        support::compose(&composer(message), variables)
    };
    for field in ["subject", "text", "html"] {
        let error = compose(field, endless, &given).unwrap_err();
        assert!(error.to_string().contains("ran out of fuel"), "{error}");
        let error = compose(field, long, &given).unwrap_err();
        assert!(matches!(error, ComposeError::TooLong { .. }), "{error}");
    }
    let replaced = "{{ v|replace('x', v) }}";
    assert!(
        compose("text", replaced, &given)
            .unwrap_err()
            .to_string()
            .contains("replace")
    );
    let too_large = variables([("v", json!(["x".repeat(40_000), { "k": "x".repeat(40_000) }]))]);
    let expected = ComposeError::LargeVariable {
        name: "v".to_owned(),
        limit: 65_536,
    };
    assert_eq!(compose("text", "{{ n }}", &too_large), Err(expected));
}

#[test]
fn errors_of_a_message_name_field_and_line() {
    let check = |message: Value| Composer::compile(&snapshot(message)).map(drop).unwrap_err().to_string();
    for (message, expected) in [
        (
            json!({ "subject": "a {{ b", "text": "t" }),
            "message.subject line 1: syntax error: ",
        ),
        (
            json!({ "subject": "s", "text": "a\nb\n{% if %}" }),
            "message.text line 3: syntax error: ",
        ),
        (
            json!({ "subject": "s", "html": "{% if a %}" }),
            "message.html line 1: syntax error: ",
        ),
        (
            json!({ "subject": "s", "text": "\n{{ a|uper }}" }),
            "message.text line 2: there is no filter 'uper'",
        ),
        (
            json!({ "subject": "s", "text": "{{ a is big }}" }),
            "message.text line 1: there is no test 'big'",
        ),
        (
            json!({ "subject": "s", "text": "{{ now() }}" }),
            "message.text line 1: there is no function 'now'",
        ),
        (
            json!({ "subject": "s", "text": "{{ a.upper() }}" }),
            "message.text line 1: there is no function 'upper'",
        ),
        (
            json!({ "subject": "s", "text": "{% include 'a' %}" }),
            "message.text line 1: include cannot be used",
        ),
        (
            json!({ "subject": "a{% if b %}\nc{% endif %}", "text": "t" }),
            "message.subject line 1: a header must be one line",
        ),
        (json!({ "subject": "s" }), "message: a message needs text, html or both"),
    ] {
        let error = check(message.clone());
        assert!(error.starts_with(expected), "{message}: {error}");
    }
    let header = |name: &str, value: &str| {
        let headers = json!([{ "name": "X-Fine", "value": "v" }, { "name": name, "value": value }]);
        check(json!({ "subject": "s", "text": "t", "headers": headers }))
    };
    assert!(header("X-Own", "a\n{{").starts_with("message.headers[1].value line 2: syntax error: "));
    for bad in ["", "X Own", "X:Own", "X-Öwn", "X\r\nBcc", &"X".repeat(77)] {
        assert!(header(bad, "v").starts_with("message.headers[1].name: '"), "{bad:?}");
    }
    for reserved in ["From", "bcc", "DKIM-Signature", "Content-Type", "return-path"] {
        assert!(
            header(reserved, "v").contains("is written by Relaypool itself"),
            "{reserved}"
        );
    }
    let attachment = |field: &str, value: Value| {
        let mut attachment = json!({ "filename": "a", "contentType": "a/b", "data": "" });
        attachment[field] = value;
        check(json!({ "subject": "s", "text": "t", "attachments": [attachment] }))
    };
    assert!(attachment("data", json!("?")).starts_with("message.attachments[0].data: not base64: "));
    assert!(attachment("data", json!(null)).starts_with("message.attachments[0].data: the attachment has no data"));
    for bad in ["", "a\r\nb", "a/b", &"a".repeat(256)] {
        assert!(
            attachment("filename", json!(bad)).starts_with("message.attachments[0].filename: "),
            "{bad:?}"
        );
    }
    for bad in ["", "pdf", "a/b\r\nBcc: c", "multipart/mixed", "Message/RFC822"] {
        assert!(
            attachment("contentType", json!(bad)).starts_with("message.attachments[0].contentType: "),
            "{bad:?}"
        );
    }
    for bad in ["", "a b", "<a>", "a\r\nb", "ä"] {
        assert!(
            attachment("contentId", json!(bad)).starts_with("message.attachments[0].contentId: "),
            "{bad:?}"
        );
    }
    for (unsubscribe, field) in [
        (json!({}), "message.listUnsubscribe: "),
        (json!({ "url": "http://example.com" }), "message.listUnsubscribe.url: "),
        (
            json!({ "mailto": "a@example.com", "oneClick": true }),
            "message.listUnsubscribe.url: ",
        ),
        (
            json!({ "url": "https://example.com/{{" }),
            "message.listUnsubscribe.url line 1: ",
        ),
    ] {
        let error = check(json!({ "subject": "s", "text": "t", "listUnsubscribe": unsubscribe }));
        assert!(error.starts_with(field), "{error}");
    }
    let sender = json!({ "address": "news@example.com", "name": "{{ a|b }}" });
    let error = Composer::compile(&snapshot_from(sender, json!({ "subject": "s", "text": "t" }))).map(drop);
    assert!(error.unwrap_err().to_string().starts_with("sender.name line 1: "));
}

#[test]
fn planning_checks_the_same_but_for_data_it_does_not_have_yet() {
    let check = |message: Value| {
        let snapshot = snapshot(message);
        check_template(&snapshot.sender, &snapshot.message)
    };
    let attachment = json!({ "filename": "a", "contentType": "a/b", "secretKeyRef": { "name": "s", "key": "k" } });
    assert_eq!(
        check(json!({ "subject": "s", "text": "t", "attachments": [attachment] })),
        Ok(())
    );
    let expected = TemplateError {
        field: "message.text".to_owned(),
        line: Some(1),
        problem: Problem::Filter("nope".to_owned()),
    };
    assert_eq!(check(json!({ "subject": "s", "text": "{{ a|nope }}" })), Err(expected));
}

#[test]
fn header_texts_lose_the_line_break_of_a_yaml_block() {
    let composer = composer(json!({
        "subject": "Hello {{ address }}\n", "text": "t", "headers": [{ "name": "X-A", "value": "  a \r\n" }],
    }));
    let message = String::from_utf8(compose(&composer, &Variables::new()).unwrap()).unwrap();
    assert!(message.contains("\r\nSubject: Hello ada@example.org\r\n"));
    assert!(message.contains("\r\nX-A: a\r\n"));
}

#[test]
fn custom_headers_keep_their_order_and_may_repeat() {
    let headers = json!([
        { "name": "X-B", "value": "1" }, { "name": "X-A", "value": "2" }, { "name": "X-B", "value": "3" },
    ]);
    let composer = composer(json!({ "subject": "s", "text": "t", "headers": headers }));
    let message = compose(&composer, &Variables::new()).unwrap();
    assert_eq!(
        header_names(&message),
        [
            "From",
            "To",
            "Subject",
            "Date",
            "Message-ID",
            "X-B",
            "X-A",
            "X-B",
            "MIME-Version",
            "Content-Type",
            "Content-Transfer-Encoding"
        ]
    );
}
