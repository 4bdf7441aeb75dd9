//! What strangers write (recipients in their variables and addresses, receiving hosts in their replies) through the whole
//! engine: it stays within its message, is answered for by its own row, and stops nobody else's mail.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod hosts;
mod recipients;

use serde_json::json;
use support::{Bench, start};

/// A provider without limits for `good.example`.
async fn good_provider() -> Bench {
    let provider = json!({ "name": "good", "domains": ["good.example"], "mxHosts": [{ "name": "mx.good.example" }] });
    start(json!({ "providers": [provider] })).await
}

/// Nothing that was sent broke a rule of the protocol.
fn spoke_well(bench: &Bench) {
    assert_eq!(bench.simulator.books().read(|books| books.violations().to_vec()), []);
}
