use std::sync::Arc;

use jiff::Timestamp;
use mail_auth::common::crypto::{Algorithm, HashAlgorithm, SigningKey as _};
use mail_auth::common::headers::{HeaderStream, HeaderWriter as _, Writable, Writer};
use mail_auth::dkim::{Canonicalization, Signature};
use relaypool_api::dkim_key::DkimAlgorithm;
use relaypool_api::message::SigningKeyRef;

use super::SigningKey;

/// Headers that are signed once more than they occur, so that no second one can be put before them.
const OVERSIGNED: [&str; 4] = ["From", "To", "Subject", "Date"];

/// Further headers that are signed where they occur. Their absence is not signed: mailing lists add some.
const SIGNED: [&str; 10] = [
    "Cc",
    "Reply-To",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "List-ID",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
];

/// How bodies are canonicalised. `relaxed` would forgive changed white space, which encoded bodies cannot have at the
/// ends of lines anyway; it takes as long as the hash itself, and mail-auth 0.13 computes another body hash than RFC 6376
/// section 3.4.4 when a body ends in lines of white space.
const BODY: Canonicalization = Canonicalization::Simple;

/// Signs messages with all keys of a run at once.
#[derive(Debug)]
pub struct Signer {
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    private: Arc<SigningKey>,
    /// All tags of its signatures that do not depend on the message.
    template: Signature,
}

/// Why a key may not sign for a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// The run asks for another version of the key.
    #[error("the key of {selector}._domainkey.{domain} is version {found}, but the run asks for {wanted}")]
    OtherVersion {
        /// The `s=`.
        selector: String,
        /// The `d=`.
        domain: String,
        /// The version at hand.
        found: String,
        /// The version of the run.
        wanted: String,
    },
}

/// Why a message cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A message without a From header, which every signature must cover (RFC 6376 section 5.4).
    #[error("the message has no From header to sign")]
    NoFrom,
    /// A time before 1970.
    #[error("{0} is no time of a signature")]
    Time(Timestamp),
    /// The crypto library failed.
    #[error("the crypto library failed to sign")]
    Library(#[source] mail_auth::Error),
}

impl Signer {
    /// A signer of these keys; none make no signature. Each key must be the version that the run asks for.
    pub fn new(keys: Vec<(SigningKeyRef, Arc<SigningKey>)>) -> Result<Self, SignerError> {
        let keys = keys.into_iter().map(|(wanted, private)| Key::new(wanted, private));
        Ok(Self {
            keys: keys.collect::<Result<_, _>>()?,
        })
    }

    /// The DKIM-Signature header fields of a message, one for each key, each ending with CRLF. They go before it.
    ///
    /// The message has CRLF line ends. Headers are canonicalised `relaxed`, the body `simple`, and all of it is covered.
    /// The time of a signature is in seconds.
    pub fn sign(&self, message: &[u8], now: Timestamp) -> Result<Vec<u8>, SignError> {
        if self.keys.is_empty() {
            return Ok(Vec::new());
        }
        let time = u64::try_from(now.as_second()).map_err(|_| SignError::Time(now))?;
        // Headers and body are canonicalised and hashed once for all keys.
        let fields = Fields::of(message);
        let covering = Signature {
            h: headers_to_sign(fields)?,
            ch: Canonicalization::Relaxed,
            cb: BODY,
            ..Signature::default()
        };
        let (_, headers, signed, body) = covering.canonicalize(fields);
        let mut canonical_headers = Vec::with_capacity(1024);
        headers.write(&mut canonical_headers);
        let body_hash = HashAlgorithm::Sha256.hash(body);

        let mut signatures = Vec::with_capacity(1024 * self.keys.len());
        for key in &self.keys {
            let mut signature = key.template.clone();
            signature.h.clone_from(&signed);
            signature.bh = body_hash.as_ref().to_vec();
            signature.t = time;
            let input = SigningInput {
                headers: &canonical_headers,
                signature: &signature,
            };
            signature.b = key.private.private().sign(input).map_err(SignError::Library)?;
            signature.write_header(&mut signatures);
        }
        Ok(signatures)
    }
}

impl Key {
    fn new(wanted: SigningKeyRef, private: Arc<SigningKey>) -> Result<Self, SignerError> {
        let found = private.version();
        if found != wanted.version {
            return Err(SignerError::OtherVersion {
                selector: wanted.selector.to_string(),
                domain: wanted.domain.to_string(),
                found,
                wanted: wanted.version,
            });
        }
        let template = Signature {
            v: 1,
            a: match private.algorithm() {
                DkimAlgorithm::Rsa => Algorithm::RsaSha256,
                DkimAlgorithm::Ed25519 => Algorithm::Ed25519Sha256,
            },
            d: wanted.domain.to_string(),
            s: wanted.selector.to_string(),
            ch: Canonicalization::Relaxed,
            cb: BODY,
            ..Signature::default()
        };
        Ok(Self { private, template })
    }
}

/// What a signature is made over (RFC 6376 section 3.7): the headers, and the signature itself without its `b=`.
struct SigningInput<'a> {
    headers: &'a [u8],
    signature: &'a Signature,
}

impl Writable for SigningInput<'_> {
    fn write(self, writer: &mut impl Writer) {
        writer.write(self.headers);
        self.signature.write(writer, false);
    }
}

/// The header fields of a message, and its body.
#[derive(Clone, Copy)]
struct Fields<'a> {
    headers: &'a [u8],
    body: &'a [u8],
}

impl<'a> Fields<'a> {
    fn of(message: &'a [u8]) -> Self {
        let mut end = 0;
        for line in message.split_inclusive(|&byte| byte == b'\n') {
            if matches!(line, b"\r\n" | b"\n") {
                return Self {
                    headers: &message[..end],
                    body: &message[end + line.len()..],
                };
            }
            end += line.len();
        }
        Self {
            headers: message,
            body: &[],
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    /// The name, and the value with its folds and its line end.
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.headers.is_empty() {
            return None;
        }
        let is_end = |at: usize| self.headers[at] == b'\n' && !matches!(self.headers.get(at + 1), Some(b' ' | b'\t'));
        let length = (0..self.headers.len())
            .find(|&at| is_end(at))
            .map_or(self.headers.len(), |at| at + 1);
        let (field, rest) = self.headers.split_at(length);
        self.headers = rest;
        let colon = field.iter().position(|&byte| byte == b':');
        Some(match colon {
            Some(colon) => (&field[..colon], &field[colon + 1..]),
            None => (field, &[]),
        })
    }
}

impl<'a> HeaderStream<'a> for Fields<'a> {
    fn next_header(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        self.next()
    }

    fn body(&mut self) -> &'a [u8] {
        self.body
    }
}

/// Names of the headers to sign. A name that stands twice is signed once more than the message has it.
fn headers_to_sign(fields: Fields<'_>) -> Result<Vec<String>, SignError> {
    let mut has = [false; OVERSIGNED.len() + SIGNED.len()];
    let names = || OVERSIGNED.into_iter().chain(SIGNED);
    for (name, _) in fields {
        if let Some(at) = names().position(|signed| name.eq_ignore_ascii_case(signed.as_bytes())) {
            has[at] = true;
        }
    }
    if !has[0] {
        return Err(SignError::NoFrom);
    }
    let present = names().zip(has).filter(|&(_, has)| has).map(|(name, _)| name);
    let again = OVERSIGNED
        .into_iter()
        .zip(has)
        .filter(|&(_, has)| has)
        .map(|(name, _)| name);
    Ok(present.chain(again).map(str::to_owned).collect())
}
