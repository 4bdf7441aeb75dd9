use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use relaypool_api::Rate;
use relaypool_api::reply::Phase;

use super::{Refusal, Rule, Scene, Step};
use crate::description::{Answer, RateLimit, Scope};

/// A token bucket for each account.
#[derive(Debug)]
pub(super) struct Buckets {
    scope: Scope,
    phase: Phase,
    reply: Arc<Answer>,
    /// In order of time; the first holds from the start.
    terms: Vec<Term>,
    buckets: HashMap<Option<IpAddr>, Bucket>,
}

/// What holds from some time on.
#[derive(Debug, Clone, Copy)]
struct Term {
    from: Duration,
    rate: Rate,
    burst: u64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// In parts of a token, so that no rounding can add up: see [`TOKEN`].
    credit: u128,
    at: Duration,
}

/// One token. At a rate of n per day, n of these parts are earned in a nanosecond.
const TOKEN: u128 = 86_400 * 1_000_000_000;

impl Buckets {
    pub(super) fn new(description: RateLimit) -> Self {
        let mut terms = vec![Term {
            from: Duration::ZERO,
            rate: description.rate,
            burst: description.burst,
        }];
        terms.extend(description.changes.iter().map(|change| Term {
            from: change.at.get(),
            rate: change.rate,
            burst: change.burst,
        }));
        terms.sort_by_key(|term| term.from);
        Self {
            scope: description.scope,
            phase: description.phase,
            reply: Arc::new(description.reply),
            terms,
            buckets: HashMap::new(),
        }
    }
}

impl Rule for Buckets {
    fn judge(&mut self, step: Step<'_>, scene: &mut Scene<'_>) -> Result<(), Refusal> {
        if step.phase() != self.phase {
            return Ok(());
        }
        let bucket = self.buckets.entry(scene.account(self.scope)).or_insert(Bucket {
            credit: u128::MAX,
            at: scene.now,
        });
        for (position, term) in self.terms.iter().enumerate() {
            let next = self.terms.get(position + 1).map_or(Duration::MAX, |next| next.from);
            bucket.fill(*term, next.min(scene.now));
        }
        if bucket.credit < TOKEN {
            return Err(Refusal::Reply(self.reply.clone()));
        }
        bucket.credit -= TOKEN;
        Ok(())
    }
}

impl Bucket {
    /// Earns what `term` gives until `end`, and keeps no more than it holds.
    fn fill(&mut self, term: Term, end: Duration) {
        if end < self.at || end < term.from {
            return;
        }
        let per_nanosecond = u128::from(term.rate.messages()) * u128::from(86_400 / term.rate.unit().seconds());
        let earned = (end - self.at).as_nanos().saturating_mul(per_nanosecond);
        let full = u128::from(term.burst) * TOKEN;
        self.credit = self.credit.saturating_add(earned).min(full);
        self.at = end;
    }
}
