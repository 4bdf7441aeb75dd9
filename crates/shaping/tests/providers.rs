//! A pacer against providers with hidden limits, in virtual time.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use relaypool_api::reply::{Phase, Reply, ReplyCode};
use relaypool_bounce::{Reading, Verdict, classify};
use relaypool_shaping::pacer::{AdaptiveLimits, Grant, Pacer, PacerLimits, Sending, Sent};

/// One message for each connection, and always another one waiting.
struct Run {
    pacer: Pacer,
    now: Duration,
    /// Connections that were let in.
    serving: u32,
    /// Ends of connections: when, and whether the message was accepted.
    ends: BinaryHeap<Reverse<(Duration, bool)>>,
    random: StdRng,
    delivered: u32,
    refused: u32,
}

fn busy() -> Verdict {
    let reply = Reply {
        code: ReplyCode::try_from(421).unwrap(),
        enhanced: "4.3.2".parse().ok(),
        text: "try again later".to_owned(),
    };
    classify(&Reading::new(Phase::Greeting, &reply))
}

impl Run {
    fn new(connections: u32) -> Self {
        let limits = PacerLimits {
            connections,
            messages_per_connection: 1,
            rate: None,
            share: None,
            adaptive: Some(AdaptiveLimits::default()),
        };
        Self {
            pacer: Pacer::new(limits),
            now: Duration::from_secs(1_000_000),
            serving: 0,
            ends: BinaryHeap::new(),
            random: StdRng::seed_from_u64(1),
            delivered: 0,
            refused: 0,
        }
    }

    /// Opens what may be opened; `limit` connections are let in, the others refused.
    fn open(&mut self, limit: u32) -> Option<Duration> {
        loop {
            match self.pacer.may_open(self.now) {
                Grant::Now => {}
                Grant::At(at) => return Some(at),
                Grant::No => return None,
            }
            self.pacer.opened(self.now);
            self.pacer.sent(self.now, FIRST);
            let is_let_in = self.serving < limit;
            self.serving += u32::from(is_let_in);
            let took = if is_let_in {
                self.random.random_range(0.9..1.1)
            } else {
                0.05
            };
            self.ends
                .push(Reverse((self.now + Duration::from_secs_f64(took), is_let_in)));
        }
    }

    /// Goes on to the next thing that happens. False when nothing ever will.
    fn step(&mut self, limit: u32) -> bool {
        let wake = self.open(limit);
        let Some(Reverse((end, accepted))) = self.ends.pop() else {
            self.now = wake.unwrap_or(self.now);
            return wake.is_some();
        };
        self.now = end;
        if accepted {
            self.pacer.accepted(end, note());
            self.serving -= 1;
            self.delivered += 1;
        } else {
            self.pacer.feedback(end, note(), &busy());
            self.refused += 1;
        }
        self.pacer.closed(end);
        true
    }
}

#[test]
fn a_hidden_connection_limit_is_found_and_held() {
    let mut run = Run::new(20);
    let start = run.now;
    while run.delivered < 1_000 {
        assert!(run.step(5), "the lane stands still");
    }
    let refused = f64::from(run.refused) / f64::from(run.refused + run.delivered);
    let capacity = (run.now - start).as_secs_f64() * 5.0;
    assert!(refused <= 0.02, "{} refused", run.refused);
    assert!(1_000.0 / capacity >= 0.95, "{capacity}");
}

#[test]
fn a_limit_that_rises_is_followed() {
    let mut run = Run::new(50);
    let start = run.now;
    let elapsed = |run: &Run| (run.now - start).as_secs();
    while elapsed(&run) < 600 {
        assert!(run.step(5), "the lane stands still");
    }
    while elapsed(&run) < 3_600 && run.pacer.connection_limit() < 40 {
        assert!(run.step(40), "the lane stands still");
    }
    assert!(
        elapsed(&run) < 2_400,
        "after {} s still {}",
        elapsed(&run),
        run.pacer.connection_limit()
    );
}

#[test]
fn a_provider_that_comes_back_gets_its_mail() {
    let mut run = Run::new(20);
    let start = run.now;
    while run.now - start < Duration::from_secs(1_800) {
        assert!(run.step(0), "the lane stands still");
    }
    assert_eq!(run.delivered, 0);
    assert!(run.refused < 30, "a dead path was tried {} times", run.refused);
    let back = run.now;
    while run.delivered < 100 {
        assert!(run.step(100), "the lane stands still");
    }
    assert!(run.now - back < Duration::from_secs(1_900));
}

const FIRST: Sending = Sending {
    new_connection: true,
    attempt: 1,
    first_refused: None,
};

fn note() -> Sent {
    let limits = PacerLimits {
        connections: 1,
        messages_per_connection: 1,
        rate: None,
        share: None,
        adaptive: None,
    };
    Pacer::new(limits).sent(Duration::ZERO, FIRST)
}
