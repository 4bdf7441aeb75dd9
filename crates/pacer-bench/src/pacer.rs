//! The pacer of this project, as a controller.

use std::time::Duration;

use relaypool_bounce::Verdict;
use relaypool_shaping::pacer::{AdaptiveLimits, Grant, Pacer, PacerLimits, Sending};
use relaypool_shaping::retry::{NextAttempt, RetrySchedule};

use crate::controller::{Controller, Message, Retry, Ticket, View};

/// Its name in the tables.
pub const NAME: &str = "pacer";

const FIRST_RETRY: Duration = Duration::from_secs(60);
const LONGEST_RETRY: Duration = Duration::from_secs(4 * 3_600);

/// The pacer with its defaults, told nothing but the window cap.
#[derive(Debug)]
pub struct PacerController {
    pacer: Pacer,
    schedule: RetrySchedule,
    seed: u64,
}

impl PacerController {
    /// A pacer that may open `window_cap` connections. `seed` decides the jitter of its retries.
    pub fn new(window_cap: u32, seed: u64) -> Self {
        let limits = PacerLimits {
            connections: window_cap,
            messages_per_connection: 1,
            rate: None,
            share: None,
            adaptive: Some(AdaptiveLimits::default()),
        };
        Self {
            pacer: Pacer::new(limits),
            schedule: RetrySchedule::new(FIRST_RETRY, LONGEST_RETRY),
            seed,
        }
    }
}

impl Controller for PacerController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn may_start(&mut self, now: Duration) -> Grant {
        match self.pacer.may_open(now) {
            Grant::Now => self.pacer.may_send(now),
            held => held,
        }
    }

    fn started(&mut self, now: Duration, message: Message) -> Ticket {
        self.pacer.opened(now);
        let sending = Sending {
            new_connection: true,
            attempt: message.attempt,
            first_refused: message.first_refused,
        };
        Ticket {
            started: now,
            message,
            sent: Some(self.pacer.sent(now, sending)),
        }
    }

    fn accepted(&mut self, now: Duration, ticket: Ticket) {
        if let Some(sent) = ticket.sent {
            self.pacer.accepted(now, sent);
        }
        self.pacer.closed(now);
    }

    fn refused(&mut self, now: Duration, ticket: Ticket, verdict: &Verdict) -> Retry {
        let Some(sent) = ticket.sent else {
            return Retry::WithLane;
        };
        self.pacer.feedback(now, sent, verdict);
        self.pacer.closed(now);
        let seed = self.seed.rotate_left(17) ^ ticket.message.number;
        match self.pacer.next_attempt(now, sent, verdict, &self.schedule, seed) {
            NextAttempt::Never => Retry::Never,
            NextAttempt::After(wait) => Retry::At(now + wait),
            NextAttempt::WithLane => Retry::WithLane,
        }
    }

    fn released(&self, now: Duration) -> Option<Duration> {
        self.pacer.released(now)
    }

    fn view(&self, now: Duration) -> View {
        let (cuts, cuts_undone) = self.pacer.cuts();
        View {
            window: f64::from(self.pacer.connection_limit()),
            rate: self.pacer.learned_rate(),
            is_suspended: self.pacer.suspended_until(now).is_some(),
            cuts,
            cuts_undone,
        }
    }
}
