//! Signing keys as they reach a sender: one PEM for each key version, named by
//! [`signing_key_entry`](relaypool_api::names::signing_key_entry), from a mounted folder or from the pool's Secret.

use std::io;
use std::path::Path;
use std::sync::Arc;

use relaypool_api::dkim_key::DkimAlgorithm;
use relaypool_message::dkim::{KeyError, SigningKey};

use crate::dispatcher::KeyRing;

/// Reads all keys of a folder. One that cannot be used is logged and left out; runs that need it wait.
pub fn read_folder(folder: &Path) -> io::Result<KeyRing> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = path
            .file_name()
            .and_then(|name| name.to_str())
            .filter(|name| name.ends_with(".pem"))
        else {
            continue;
        };
        entries.push((name.to_owned(), std::fs::read(&path)?));
    }
    Ok(key_ring(entries))
}

/// A file does not say its algorithm; the error of a key that is neither is the one for RSA, the common kind.
fn parse(pem: &[u8]) -> Result<SigningKey, KeyError> {
    SigningKey::from_pem(pem, DkimAlgorithm::Rsa)
        .or_else(|error| SigningKey::from_pem(pem, DkimAlgorithm::Ed25519).map_err(|_| error))
}

/// Parses keys by their names.
pub fn key_ring(entries: impl IntoIterator<Item = (String, Vec<u8>)>) -> KeyRing {
    entries
        .into_iter()
        .filter_map(|(name, pem)| match parse(&pem) {
            Ok(key) => Some((name, Arc::new(key))),
            Err(error) => {
                tracing::warn!(key = name, %error, "signing key cannot be used");
                None
            }
        })
        .collect()
}
