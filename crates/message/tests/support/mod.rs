//! What the tests of this crate share.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use relaypool_api::EmailAddress;
use relaypool_api::message::MessageSnapshot;
use relaypool_message::{ComposeError, Composer, Identity};
use serde_json::{Value, json};

pub type Variables = BTreeMap<String, Value>;

/// A snapshot with this message, from `news@example.com`.
pub fn snapshot(message: Value) -> MessageSnapshot {
    snapshot_from(json!({ "address": "news@example.com" }), message)
}

pub fn snapshot_from(sender: Value, message: Value) -> MessageSnapshot {
    let snapshot = json!({
        "sender": sender,
        "message": message,
        "validity": "84h",
        "fingerprint": "f",
        "total": 1,
        "slices": 1,
    });
    serde_json::from_value(snapshot).unwrap()
}

pub fn composer(message: Value) -> Composer {
    Composer::compile(&snapshot(message)).unwrap()
}

pub fn variables<const N: usize>(variables: [(&str, Value); N]) -> Variables {
    variables.map(|(name, value)| (name.to_owned(), value)).into()
}

pub fn ada() -> EmailAddress {
    "ada@example.org".parse().unwrap()
}

pub fn identity() -> Identity {
    Identity::new("018f3e5c.42@mta.example.com", "2026-11-20T16:04:05Z".parse().unwrap()).unwrap()
}

/// The message to Ada.
pub fn compose(composer: &Composer, variables: &Variables) -> Result<Vec<u8>, ComposeError> {
    let composed = composer.compose(&ada(), variables, &identity())?;
    check_lines(&composed.bytes);
    Ok(composed.bytes)
}

/// No bare CR or LF, no NUL, no line above 998 octets, a line end at the end, and 7-bit behind the headers.
pub fn check_lines(message: &[u8]) {
    let mut rest = message;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\r' || byte == b'\n') {
        assert!(at <= 998, "a line of {at} octets");
        assert!(rest[at..].starts_with(b"\r\n"), "a bare CR or LF");
        rest = &rest[at + 2..];
    }
    assert!(rest.is_empty(), "no line end at the end");
    assert!(!message.contains(&0));
    let body = message.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    assert!(message[body..].is_ascii());
}

/// Header names in their order.
pub fn header_names(message: &[u8]) -> Vec<String> {
    let parsed = mail_parser::MessageParser::new().parse(message).unwrap();
    parsed.headers().iter().map(|header| header.name().to_owned()).collect()
}
