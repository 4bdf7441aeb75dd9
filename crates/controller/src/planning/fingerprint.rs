//! Digests that tell whether two plans, or two specs, are the same.

use std::fmt::Write as _;

use aws_lc_rs::digest::{Context, SHA256};
use serde::Serialize;

/// Collects values into one SHA-256 digest.
pub(super) struct Fingerprint(Context);

impl Fingerprint {
    pub(super) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Adds a value as JSON. A line break after it keeps neighbouring values apart: compact JSON has none.
    pub(super) fn add(&mut self, value: &impl Serialize) -> Result<(), serde_json::Error> {
        serde_json::to_writer(Digesting(&mut self.0), value)?;
        self.0.update(b"\n");
        Ok(())
    }

    /// The digest in hexadecimal, 64 characters.
    pub(super) fn finish(self) -> String {
        let mut text = String::with_capacity(64);
        for byte in self.0.finish().as_ref() {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

struct Digesting<'a>(&'a mut Context);

impl std::io::Write for Digesting<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
