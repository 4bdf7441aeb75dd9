//! A controller against one simulated provider, with mail without end: enough for the tests of the rivals.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use relaypool_bounce::{Failure, Reading, Verdict, classify, classify_failure};
use relaypool_shaping::pacer::Grant;
use relaypool_simulator::Provider;
use relaypool_simulator::model::{Attempt, ProviderModel};

use crate::controller::{Controller, Message, Retry, Ticket};

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

pub(super) struct Playground {
    model: ProviderModel,
    domain: String,
    retries: bool,
    next: u64,
    /// Messages that wait, by when they are due and their number.
    waiting: BinaryHeap<Reverse<(Duration, u64, u32, Duration)>>,
    under_way: BTreeMap<(Duration, u64), (Ticket, Attempt)>,
    started: u64,
    played: Played,
}

/// What became of the attempts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Played {
    pub(super) attempts: u64,
    pub(super) accepted: u64,
    pub(super) refused: u64,
}

impl Playground {
    pub(super) fn new(provider: &Provider, seed: u64) -> Self {
        Self {
            model: ProviderModel::new(provider, seed),
            domain: provider.domains[0].to_string(),
            retries: true,
            next: 0,
            waiting: BinaryHeap::new(),
            under_way: BTreeMap::new(),
            started: 0,
            played: Played::default(),
        }
    }

    /// Refused messages are not tried again.
    pub(super) fn without_retries(self) -> Self {
        Self { retries: false, ..self }
    }

    pub(super) fn play(&mut self, controller: &mut dyn Controller, until: Duration) -> Played {
        let mut now = Duration::ZERO;
        while now < until {
            let wake = self.start(controller, now);
            let ends = self.under_way.keys().next().map(|(at, _)| *at);
            now = match (wake, ends) {
                (Some(wake), Some(ends)) => wake.min(ends),
                (Some(at), None) | (None, Some(at)) => at,
                (None, None) => panic!("{} waits for nothing", controller.name()),
            };
            self.end(controller, now);
        }
        self.played
    }

    /// Starts what may start. Returns when to ask again.
    fn start(&mut self, controller: &mut dyn Controller, now: Duration) -> Option<Duration> {
        loop {
            match controller.may_start(now) {
                Grant::At(at) => {
                    assert!(at > now);
                    return Some(at);
                }
                Grant::No => return None,
                Grant::Now => {}
            }
            let message = self.message(now);
            let recipient = format!("r{}@{}", message.number, self.domain);
            let attempt = self.model.attempt(now, SOURCE, "bounces@sender.example", &recipient);
            let ticket = controller.started(now, message);
            self.started += 1;
            self.under_way
                .insert((now + attempt.takes, self.started), (ticket, attempt));
        }
    }

    /// What is due, or a new one.
    fn message(&mut self, now: Duration) -> Message {
        if let Some(Reverse((due, number, attempt, first_refused))) = self.waiting.peek().copied()
            && due <= now
        {
            self.waiting.pop();
            return Message {
                number,
                attempt,
                first_refused: Some(first_refused),
            };
        }
        self.next += 1;
        Message {
            number: self.next,
            attempt: 1,
            first_refused: None,
        }
    }

    fn end(&mut self, controller: &mut dyn Controller, now: Duration) {
        while let Some(entry) = self.under_way.first_entry()
            && entry.key().0 <= now
        {
            let (ticket, attempt) = entry.remove();
            self.model.disconnect(attempt.connection);
            self.played.attempts += 1;
            if attempt.is_accepted() {
                self.played.accepted += 1;
                controller.accepted(now, ticket);
                continue;
            }
            self.played.refused += 1;
            let retry = controller.refused(now, ticket, &verdict(&attempt));
            if let (Retry::At(due), true) = (retry, self.retries) {
                let message = ticket.message;
                let first_refused = message.first_refused.unwrap_or(now);
                self.waiting
                    .push(Reverse((due, message.number, message.attempt + 1, first_refused)));
            }
        }
    }
}

fn verdict(attempt: &Attempt) -> Verdict {
    match &attempt.reply {
        Some(reply) => classify(&Reading::new(attempt.phase, &reply.reply())),
        None => classify_failure(Failure::ConnectionLost(attempt.phase)),
    }
}
