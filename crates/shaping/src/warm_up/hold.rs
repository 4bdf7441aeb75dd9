//! When refusals hold a stage.

use std::time::Duration;

use relaypool_bounce::{Category, Verdict};
use serde::{Deserialize, Serialize};

/// A provider that matters gets at least this part of the volume: one percent. A block list of a tiny host says little.
const MATTERS: u64 = 100;

/// At stages up to this volume every provider matters: a new address that is on a block list is told so by the first it meets.
const SMALL_VOLUME: u64 = 1_000;

/// Below so many rate refusals at a provider on one day, they are how the pacer finds its limits.
const FEW_RATE_REFUSALS: u64 = 10;

/// A rate refusal for every so many messages is too many.
const RATE_SHARE: u64 = 10;

/// Longest reply in the message of a hold, in characters.
const MAX_REPLY: usize = 400;

/// Why a stage is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hold {
    pub(super) since: Duration,
    /// End of the day on which the last such refusal came.
    pub(super) day_ends: Duration,
    /// Provider, category and reply.
    pub(super) message: String,
}

/// A refusal of a message from an address that is warming up.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// What it means.
    pub verdict: &'a Verdict,
    /// What the host said.
    pub reply: &'a str,
    /// Messages that wait for this provider: they say how much it matters where it lets nothing through.
    pub waiting: u64,
}

/// What a refusal may count for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// One is enough.
    Reputation,
    /// A share of them is.
    Rate,
}

impl Weight {
    pub(super) fn of(verdict: &Verdict) -> Option<Self> {
        match verdict.category {
            Category::ReputationBlock | Category::ReputationDeferral | Category::MailBlock => Some(Self::Reputation),
            Category::RateLimited => Some(Self::Rate),
            _ => None,
        }
    }
}

/// Whether a provider gets so much of the volume that what it says is about the address.
pub(super) fn matters(messages: u64, volume: u64) -> bool {
    volume <= SMALL_VOLUME || messages.saturating_mul(MATTERS) >= volume
}

pub(super) fn are_too_many(rate_refusals: u64, sent: u64) -> bool {
    rate_refusals >= FEW_RATE_REFUSALS && rate_refusals.saturating_mul(RATE_SHARE) > sent.saturating_add(rate_refusals)
}

pub(super) fn message(provider: &str, refused: Refused<'_>) -> String {
    let reply: String = refused.reply.chars().take(MAX_REPLY).collect();
    format!(
        "{provider} refused mail ({}): {reply}",
        refused.verdict.category.as_str()
    )
}
