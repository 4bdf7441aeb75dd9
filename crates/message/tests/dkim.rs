//! Signatures, checked by mail-auth's verifier and by the text of RFC 6376.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use mail_auth::common::parse::TxtRecordParser as _;
use mail_auth::common::verify::DomainKey;
use mail_auth::hickory_resolver::TokioResolver;
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator, Parameters, ResolverCache, Txt};
use proptest::prelude::*;
use relaypool_api::dkim_key::DkimAlgorithm::{self, Ed25519, Rsa};
use relaypool_api::message::SigningKeyRef;
use relaypool_message::dkim::{SignError, Signer, SignerError, SigningKey, generate};
use serde_json::json;
use support::{compose, composer, variables};

/// Keys of `example.com`, and the records that publish them.
struct Domain {
    keys: Vec<(SigningKeyRef, Arc<SigningKey>)>,
    records: Records,
}

impl Domain {
    fn new(algorithms: &[DkimAlgorithm]) -> Self {
        let records = Records::default();
        let keys = algorithms.iter().enumerate().map(|(index, &algorithm)| {
            let key = SigningKey::from_pem(generate(algorithm).unwrap().as_bytes(), algorithm).unwrap();
            let selector = format!("s{index}");
            let name = format!("{selector}._domainkey.example.com.");
            let record = Txt::DomainKey(Arc::new(DomainKey::parse(key.dns_record().as_bytes()).unwrap()));
            records.0.lock().unwrap().insert(name.into(), record);
            let wanted = SigningKeyRef {
                domain: "example.com".parse().unwrap(),
                selector: selector.parse().unwrap(),
                algorithm,
                version: key.version(),
            };
            (wanted, Arc::new(key))
        });
        Self {
            keys: keys.collect(),
            records,
        }
    }

    fn signer(&self) -> Signer {
        Signer::new(self.keys.clone()).unwrap()
    }

    /// The message with its signatures before it.
    fn signed(&self, message: &[u8]) -> Vec<u8> {
        [self.signer().sign(message, now()).unwrap().as_slice(), message].concat()
    }

    /// What a verifier that knows the records says of each signature.
    fn verify(&self, message: &[u8]) -> Vec<DkimResult> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let resolver = TokioResolver::builder_with_config(Default::default(), Default::default())
                .build()
                .unwrap();
            let message = AuthenticatedMessage::parse(message).unwrap();
            let parameters = Parameters::new(&message).with_txt_cache(&self.records);
            let outputs = MessageAuthenticator(resolver).verify_dkim(parameters).await;
            outputs.iter().map(|output| output.result().clone()).collect()
        })
    }
}

/// The published records, in the place of the verifier's DNS cache.
#[derive(Default)]
struct Records(Mutex<HashMap<Box<str>, Txt>>);

impl ResolverCache<Box<str>, Txt> for Records {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.lock().unwrap().get(name).cloned()
    }

    fn remove<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.lock().unwrap().remove(name)
    }

    fn insert(&self, name: Box<str>, value: Txt, _: Instant) {
        self.0.lock().unwrap().insert(name, value);
    }
}

fn now() -> Timestamp {
    "2026-11-20T16:04:05Z".parse().unwrap()
}

fn message() -> Vec<u8> {
    let composer = composer(json!({
        "subject": "Grüße {{ name }}",
        "text": "Hello  {{ name }} \n\n \t\n",
        "html": "<p>Hello</p>",
        "headers": [{ "name": "X-Own", "value": "v" }],
        "listUnsubscribe": { "url": "https://example.com/u", "oneClick": true },
    }));
    compose(&composer, &variables([("name", json!("Ada"))])).unwrap()
}

#[test]
fn verifiers_accept_rsa_ed25519_and_both() {
    for algorithms in [&[Rsa] as &[_], &[Ed25519], &[Rsa, Ed25519]] {
        let domain = Domain::new(algorithms);
        let signed = domain.signed(&message());
        support::check_lines(&signed);
        assert_eq!(domain.verify(&signed), vec![DkimResult::Pass; algorithms.len()]);
    }
}

#[test]
fn verifiers_refuse_what_was_changed() {
    let domain = Domain::new(&[Rsa, Ed25519]);
    let signed = String::from_utf8(domain.signed(&message())).unwrap();
    for (old, new) in [
        ("Hello", "Hullo"),
        ("To: ada@", "To: eve@"),
        ("\r\nDate: Fri", "\r\nDate: Sat"),
        ("One-Click", "Two-Clicks"),
        ("multipart/alternative", "multipart/mixed"),
        ("\r\nFrom: ", "\r\nFrom: Eve <eve@example.com>\r\nFrom: "),
        ("\r\nSubject: ", "\r\nSubject: Buy this\r\nSubject: "),
    ] {
        assert!(signed.contains(old), "{old}");
        for result in domain.verify(signed.replacen(old, new, 1).as_bytes()) {
            assert!(
                matches!(result, DkimResult::Neutral(_) | DkimResult::Fail(_)),
                "{old}: {result:?}"
            );
        }
    }
    // A header that is not signed may change.
    let changed = signed.replace("X-Own: v", "X-Own: w");
    assert_eq!(domain.verify(changed.as_bytes()), [DkimResult::Pass, DkimResult::Pass]);
}

#[test]
fn a_signature_says_what_it_covers() {
    let domain = Domain::new(&[Ed25519]);
    let field = String::from_utf8(domain.signer().sign(&message(), now()).unwrap()).unwrap();
    assert!(field.starts_with("DKIM-Signature: "));
    assert_eq!(field.matches("\r\n").count(), field.lines().count());
    let tags = tags(&field);
    let tag = |name: &str| tags[name].as_str();
    assert_eq!(
        (tag("v"), tag("a"), tag("c")),
        ("1", "ed25519-sha256", "relaxed/simple")
    );
    assert_eq!((tag("d"), tag("s"), tag("t")), ("example.com", "s0", "1795190645"));
    assert!(!tags.contains_key("l") && !tags.contains_key("x") && !tags.contains_key("i"));
    let mut signed: Vec<_> = tag("h").split(':').collect();
    signed.sort_unstable();
    assert_eq!(
        signed,
        [
            "Content-Type",
            "Date",
            "Date",
            "From",
            "From",
            "List-Unsubscribe",
            "List-Unsubscribe-Post",
            "MIME-Version",
            "Message-ID",
            "Subject",
            "Subject",
            "To",
            "To"
        ]
    );
}

#[test]
fn only_the_time_differs_between_attempts() {
    let domain = Domain::new(&[Ed25519, Rsa]);
    let (signer, message) = (domain.signer(), message());
    let first = signer.sign(&message, now()).unwrap();
    assert_eq!(signer.sign(&message, now()).unwrap(), first);
    let later = signer
        .sign(&message, Timestamp::from_second(now().as_second() + 60).unwrap())
        .unwrap();
    assert_ne!(later, first);
    let tags = |fields: &[u8]| {
        let mut tags = tags(std::str::from_utf8(fields).unwrap());
        tags.retain(|name, _| name != "b" && name != "t");
        tags
    };
    assert_eq!(tags(&first), tags(&later));
}

#[test]
fn relayed_messages_are_signed_as_they_are() {
    let domain = Domain::new(&[Rsa, Ed25519]);
    let headers = "Received: from a\r\n\tby b\r\nFROM:  \"A\r\n B\" <a@example.com>\r\nCc: c@example.com\r\nReferences:\r\n <x@y>\r\n";
    for body in [
        "",
        "\r\n",
        "\r\n\r\n",
        " ",
        " \r\n",
        "\t\r\n \r\n",
        "text",
        "text \r\n",
        "text\r\n \r\n",
        "text\r\n\r\n \t\r\n\r\n",
        "text\r\n ",
        "  two  words\t here \r\n\r\n \r\nend",
    ] {
        let message = format!("{headers}\r\n{body}");
        let signed = domain.signed(message.as_bytes());
        assert_eq!(domain.verify(&signed), [DkimResult::Pass, DkimResult::Pass], "{body:?}");
        let field = String::from_utf8(signed).unwrap();
        let tags = tags(field.split_once("\r\nDKIM").unwrap().0);
        assert_eq!(tags["h"], "References:Cc:FROM:From", "{body:?}");
        assert_eq!(tags["bh"], body_hash(body), "{body:?}");
    }
    // Two From headers are both covered.
    let two = "From: a@example.com\r\nFrom: b@example.com\r\n\r\n";
    let field = domain.signer().sign(two.as_bytes(), now()).unwrap();
    assert_eq!(tags(std::str::from_utf8(&field).unwrap())["h"], "From:From:From");
    assert_eq!(
        domain.verify(&[field.as_slice(), two.as_bytes()].concat()),
        [DkimResult::Pass, DkimResult::Pass]
    );
}

#[test]
fn what_cannot_be_signed() {
    let domain = Domain::new(&[Ed25519]);
    let signer = domain.signer();
    for message in [
        "",
        "\r\n",
        "To: a@example.com\r\n\r\nFrom: b@example.com\r\n",
        "X-From: a\r\n\r\n",
    ] {
        assert!(
            matches!(signer.sign(message.as_bytes(), now()), Err(SignError::NoFrom)),
            "{message:?}"
        );
    }
    let before = Timestamp::from_second(-1).unwrap();
    assert!(matches!(signer.sign(&message(), before), Err(SignError::Time(_))));
    assert_eq!(Signer::new(Vec::new()).unwrap().sign(b"", now()).unwrap(), b"");
}

#[test]
fn a_key_of_another_version_does_not_sign() {
    let mut keys = Domain::new(&[Ed25519]).keys;
    let found = keys[0].0.version.clone();
    keys[0].0.version = "0123456789abcdef".to_owned();
    let expected = SignerError::OtherVersion {
        selector: "s0".to_owned(),
        domain: "example.com".to_owned(),
        found,
        wanted: "0123456789abcdef".to_owned(),
    };
    assert_eq!(Signer::new(keys).unwrap_err(), expected);
}

/// The tags of a header field, without white space in their values. Of several fields, the last wins.
fn tags(field: &str) -> HashMap<String, String> {
    let field = field.replace("DKIM-Signature:", ";");
    field
        .split(';')
        .filter_map(|tag| tag.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.split_whitespace().collect()))
        .collect()
}

/// The body hash as RFC 6376 section 3.4.3 puts it.
fn body_hash(body: &str) -> String {
    let mut canonical = body.to_owned();
    while canonical.ends_with("\r\n") {
        canonical.truncate(canonical.len() - 2);
    }
    canonical.push_str("\r\n");
    STANDARD.encode(digest::digest(&digest::SHA256, canonical.as_bytes()))
}

proptest! {
    #[test]
    fn body_hashes_are_those_of_the_rfc(body in "((a|bc|\\.)?[ \t]{0,2}(x[ \t]?|y){0,2}(\r\n){0,3}){0,12}") {
        let key = SigningKey::from_pem(KEY.as_bytes(), Ed25519).unwrap();
        let wanted = SigningKeyRef {
            domain: "example.com".parse().unwrap(),
            selector: "s".parse().unwrap(),
            algorithm: Ed25519,
            version: key.version(),
        };
        let signer = Signer::new(vec![(wanted, Arc::new(key))]).unwrap();
        let message = format!("From: a@example.com\r\n\r\n{body}");
        let field = String::from_utf8(signer.sign(message.as_bytes(), now()).unwrap()).unwrap();
        let tags = tags(&field);
        prop_assert_eq!(&tags["bh"], &body_hash(&body));
    }
}

/// The example of RFC 8463 appendix A.2.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
    -----END PRIVATE KEY-----\n";
