//! The pacer of this project, as a controller.

use std::time::Duration;

use relaypool_bounce::Verdict;
use relaypool_shaping::pacer::{AdaptiveLimits, Grant, Pacer, PacerLimits, Part, Sending};
use relaypool_shaping::retry::{NextAttempt, RetrySchedule};

use crate::controller::{Controller, Message, Retry, Ticket, View};

/// Its name in the tables.
pub const NAME: &str = "pacer";

const FIRST_RETRY: Duration = Duration::from_secs(60);
const LONGEST_RETRY: Duration = Duration::from_secs(4 * 3_600);

/// The name of the pacer with a part of it left out.
pub const fn name_without(part: Part) -> &'static str {
    match part {
        Part::NoiseTest => "pacer-without-noise-test",
        Part::LearnedRate => "pacer-without-learned-rate",
        Part::MeasuredRate => "pacer-without-measured-rate",
        Part::ProbeSpacing => "pacer-without-probe-spacing",
        Part::ProvenWindow => "pacer-without-proven-window",
        Part::Latency => "pacer-without-latency",
        Part::Pauses => "pacer-without-pauses",
        Part::Greylisting => "pacer-without-greylisting",
        Part::QuickRetries => "pacer-without-quick-retries",
    }
}

/// The part that a pacer of this name leaves out.
pub fn left_out(name: &str) -> Option<Part> {
    Part::ALL.into_iter().find(|part| name_without(*part) == name)
}

/// The pacer with its defaults, told nothing but the window cap.
#[derive(Debug)]
pub struct PacerController {
    name: &'static str,
    pacer: Pacer,
    schedule: RetrySchedule,
    seed: u64,
}

impl PacerController {
    /// A pacer that may open `window_cap` connections. `seed` decides the jitter of its retries.
    pub fn new(window_cap: u32, seed: u64) -> Self {
        Self::of(NAME, Pacer::new(limits(window_cap)), seed)
    }

    /// The same with a part left out, which shows what the part is worth.
    pub fn without(part: Part, window_cap: u32, seed: u64) -> Self {
        Self::of(name_without(part), Pacer::without(limits(window_cap), part), seed)
    }

    fn of(name: &'static str, pacer: Pacer, seed: u64) -> Self {
        Self {
            name,
            pacer,
            schedule: RetrySchedule::new(FIRST_RETRY, LONGEST_RETRY),
            seed,
        }
    }
}

fn limits(window_cap: u32) -> PacerLimits {
    PacerLimits {
        connections: window_cap,
        messages_per_connection: 1,
        rate: None,
        share: None,
        adaptive: Some(AdaptiveLimits::default()),
    }
}

impl Controller for PacerController {
    fn name(&self) -> &'static str {
        self.name
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
