//! Recipient data can never add a header, nor end one early.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use mail_parser::{HeaderForm, Message, MessageParser};
use proptest::prelude::*;
use relaypool_message::{ComposeError, Composer};
use serde_json::json;
use support::{Variables, compose, header_names, snapshot_from, variables};

/// A message that shows `v` in each header that a template can make, and in both bodies.
fn everywhere() -> Composer {
    Composer::compile(&snapshot_from(
        json!({ "address": "news@example.com", "name": "{{ name }}" }),
        json!({
            "subject": "{{ subject }}",
            "text": "[{{ body }}]",
            "html": "<p>{{ body }}</p>",
            "headers": [{ "name": "X-Own", "value": "{{ header }}" }],
            "listUnsubscribe": { "url": "https://example.com/?{{ query|urlencode }}{{ raw }}", "oneClick": true },
        }),
    ))
    .unwrap()
}

const NAMES: [&str; 10] = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "X-Own",
    "MIME-Version",
    "Content-Type",
];

/// Harmless values for all variables but one.
fn with(name: &str, value: &str) -> Variables {
    let mut given = variables(["name", "subject", "body", "header", "query", "raw"].map(|name| (name, json!("fine"))));
    given.insert(name.to_owned(), json!(value));
    given
}

/// The value of X-Own as a reader decodes it.
fn own_header(message: &Message<'_>) -> String {
    let values = message.header_as("X-Own", HeaderForm::Text);
    assert_eq!(values.len(), 1);
    values[0].as_text().unwrap_or_default().to_owned()
}

const CONTROLS: [&str; 12] = [
    "a\r\nBcc: eve@example.com",
    "a\r\n\r\nbody",
    "a\rBcc: eve@example.com",
    "a\nBcc: eve@example.com",
    "a\n",
    "\r\n",
    "a\0b",
    "a\tb",
    "a\u{b}b",
    "a\u{1b}[31mb",
    "a\u{7f}b",
    "a\u{85}Bcc: eve@example.com",
];

const TRICKS: [&str; 9] = [
    "=?utf-8?q?=0D=0ABcc=3A=20eve@example.com?=",
    "=?utf-8?B?DQpCY2M6IGV2ZUBleGFtcGxlLmNvbQ==?=",
    "a =?us-ascii?q?b?= c",
    "a\u{2028}Bcc: eve@example.com",
    "a\u{2029}Bcc: eve@example.com",
    "\"<eve@example.com>, \"",
    "a\\\" <eve@example.com>",
    "%0d%0aBcc: eve@example.com",
    "\u{feff}\u{202e}evil",
];

#[test]
fn control_characters_are_refused_in_every_header() {
    let composer = everywhere();
    for (variable, header) in [
        ("subject", "Subject"),
        ("name", "From"),
        ("header", "X-Own"),
        ("raw", "List-Unsubscribe"),
    ] {
        for bad in CONTROLS {
            let expected = ComposeError::HeaderInjection {
                header: header.to_owned(),
            };
            assert_eq!(
                compose(&composer, &with(variable, bad)),
                Err(expected),
                "{variable}: {bad:?}"
            );
        }
    }
}

#[test]
fn what_only_looks_dangerous_comes_back_as_written() {
    let composer = everywhere();
    for trick in TRICKS {
        for variable in ["subject", "name", "header"] {
            let message = compose(&composer, &with(variable, trick)).unwrap();
            assert_eq!(header_names(&message), NAMES);
            let parsed = MessageParser::new().parse(&message).unwrap();
            let from = parsed.from().unwrap().as_list().unwrap();
            assert_eq!(from.len(), 1, "{trick:?}");
            assert_eq!(from[0].address(), Some("news@example.com"));
            let shown = match variable {
                "subject" => parsed.subject().unwrap(),
                "name" => from[0].name().unwrap(),
                _ => &own_header(&parsed),
            };
            assert_eq!(shown, trick, "{variable}");
        }
    }
}

#[test]
fn an_unsubscribe_address_stays_one() {
    let composer = everywhere();
    // Through the filter anything goes, even line breaks.
    for value in CONTROLS.into_iter().chain(TRICKS) {
        let message = compose(&composer, &with("query", value)).unwrap();
        assert_eq!(header_names(&message), NAMES);
        let text = String::from_utf8(message).unwrap();
        let header = text
            .split_once("List-Unsubscribe: <")
            .unwrap()
            .1
            .split_once('>')
            .unwrap()
            .0;
        assert!(header.bytes().all(|byte| byte.is_ascii_graphic()), "{header}");
    }
    let long = "a".repeat(1_000);
    for value in [
        "> , <https://evil.example/",
        "a b",
        "a\u{2028}b",
        "ü",
        "\"",
        "\\",
        &long,
    ] {
        let expected = ComposeError::UnsubscribeUrl { limit: 900 };
        assert_eq!(compose(&composer, &with("raw", value)), Err(expected), "{value:?}");
    }
}

#[test]
fn bodies_may_hold_anything() {
    let composer = everywhere();
    for value in
        CONTROLS
            .into_iter()
            .chain(TRICKS)
            .chain(["\r\n.\r\n", "--=_", "\r\n--=_0123456789abcdef01234567_a--\r\n"])
    {
        let message = compose(&composer, &with("body", value)).unwrap();
        assert_eq!(header_names(&message), NAMES);
        let parsed = MessageParser::new().parse(&message).unwrap();
        assert_eq!(parsed.parts.len(), 3);
        assert_eq!(
            parsed.body_text(0).unwrap(),
            format!("[{}]", canonical(value)),
            "{value:?}"
        );
    }
}

/// As bodies are sent: lines end with CRLF, and NUL is gone.
fn canonical(text: &str) -> String {
    let lines = text.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n");
    lines.replace('\0', "")
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{0,300}",
        "([a-z]{0,9}[\r\n\0\t =.-]{0,3}){0,30}",
        "[ü-я]{0,200}",
        proptest::sample::select(CONTROLS.to_vec()).prop_map(str::to_owned),
        proptest::sample::select(TRICKS.to_vec()).prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn headers_are_those_of_the_template_whatever_the_variables(
        name in any_text(), subject in any_text(), header in any_text(), query in any_text(), body in any_text(),
    ) {
        let given = variables([
            ("name", json!(name)), ("subject", json!(subject)), ("header", json!(header)),
            ("query", json!(query)), ("raw", json!("")), ("body", json!(body)),
        ]);
        let message = match compose(&everywhere(), &given) {
            Ok(message) => message,
            Err(ComposeError::HeaderInjection { .. }) => {
                prop_assert!([&name, &subject, &header].into_iter().any(|value| value.contains(char::is_control)));
                return Ok(());
            }
            Err(ComposeError::UnsubscribeUrl { .. }) => {
                prop_assert!(query.len() > 100);
                return Ok(());
            }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        };
        prop_assert_eq!(header_names(&message), NAMES);
        let parsed = MessageParser::new().parse(&message).unwrap();
        prop_assert_eq!(parsed.subject().unwrap_or_default(), subject.trim());
        let from = parsed.from().unwrap().as_list().unwrap();
        prop_assert_eq!(from[0].name().unwrap_or_default(), name.trim());
        prop_assert_eq!(own_header(&parsed), header.trim());
        prop_assert_eq!(parsed.body_text(0).unwrap(), format!("[{}]", canonical(&body)));
        prop_assert_eq!(parsed.parts.len(), 3);
    }
}
