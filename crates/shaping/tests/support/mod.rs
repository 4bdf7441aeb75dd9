//! A lane as its caller runs it: each message keeps the pacer's own note until its outcome.

use std::collections::VecDeque;
use std::time::Duration;

use relaypool_api::reply::{Phase, Reply, ReplyCode};
use relaypool_bounce::{Reading, Verdict, classify};
use relaypool_shaping::pacer::{AdaptiveLimits, Grant, Pacer, PacerLimits, Sending, Sent};

/// The first message on a new connection, tried for the first time.
pub const FIRST: Sending = Sending {
    new_connection: true,
    attempt: 1,
    first_refused: None,
};

/// Bounded by a number of connections, and otherwise free to learn.
pub fn limits(connections: u32) -> PacerLimits {
    PacerLimits {
        connections,
        messages_per_connection: 100,
        rate: None,
        share: None,
        adaptive: Some(AdaptiveLimits::default()),
    }
}

/// What a reply means.
pub fn refusal(phase: Phase, code: u16, enhanced: &str, text: &str) -> Verdict {
    let reply = Reply {
        code: ReplyCode::try_from(code).unwrap(),
        enhanced: enhanced.parse().ok(),
        text: text.to_owned(),
    };
    classify(&Reading::new(phase, &reply))
}

/// A host that has too much to do, or says so.
pub fn busy() -> Verdict {
    refusal(Phase::Greeting, 421, "4.3.2", "try again later")
}

/// One message on each connection.
pub struct Lane {
    pub pacer: Pacer,
    pub now: Duration,
    /// What is on its way, oldest first.
    pub sent: VecDeque<Sent>,
}

impl Lane {
    pub fn new(limits: PacerLimits) -> Self {
        Self {
            pacer: Pacer::new(limits),
            now: Duration::from_secs(1_000_000),
            sent: VecDeque::new(),
        }
    }

    pub fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// Opens a connection for a message, if that is granted.
    pub fn start(&mut self) -> Grant {
        self.start_with(FIRST)
    }

    pub fn start_with(&mut self, sending: Sending) -> Grant {
        let grant = match self.pacer.may_open(self.now) {
            Grant::Now => self.pacer.may_send(self.now),
            held => held,
        };
        if grant == Grant::Now {
            self.pacer.opened(self.now);
            self.sent.push_back(self.pacer.sent(self.now, sending));
        }
        if let Grant::At(at) = grant {
            assert!(at > self.now, "asked at {:?}, told {at:?}", self.now);
        }
        grant
    }

    /// Starts what is granted at this moment, and answers how much that was.
    pub fn fill(&mut self) -> u32 {
        let before = self.sent.len();
        while self.start() == Grant::Now {}
        (self.sent.len() - before) as u32
    }

    /// The oldest message is accepted.
    pub fn accept(&mut self) {
        let sent = self.sent.pop_front().unwrap();
        self.pacer.accepted(self.now, sent);
        self.pacer.closed(self.now);
    }

    /// The newest message is refused. Answers its note.
    pub fn refuse(&mut self, verdict: &Verdict) -> Sent {
        let sent = self.sent.pop_back().unwrap();
        self.pacer.feedback(self.now, sent, verdict);
        self.pacer.closed(self.now);
        sent
    }

    /// Waits until a message may go, at most so long, and starts it. Answers whether it did.
    pub fn start_within(&mut self, longest: Duration) -> bool {
        let end = self.now + longest;
        loop {
            match self.start() {
                Grant::Now => return true,
                Grant::At(at) if at <= end => self.now = at,
                Grant::At(_) | Grant::No => return false,
            }
        }
    }

    /// Against a site that takes a second for each message and bears any number: rounds of as many as are granted.
    pub fn flow(&mut self, rounds: u32) {
        for _ in 0..rounds {
            for _ in 0..10 {
                self.fill();
                self.wait(Duration::from_millis(100));
            }
            while !self.sent.is_empty() {
                self.accept();
            }
        }
    }
}
