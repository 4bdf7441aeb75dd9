//! What paces one lane, as the runner sees it.

use std::time::Duration;

use relaypool_bounce::Verdict;
use relaypool_shaping::pacer::{Grant, Sent};

/// Paces the mail of one lane. Each attempt is one message in a connection of its own.
///
/// The runner asks before each attempt and tells what became of it. All times count from the start of the run and never
/// go back.
pub trait Controller {
    /// Name in the tables, such as `pacer`.
    fn name(&self) -> &'static str;

    /// Whether another attempt may start now.
    fn may_start(&mut self, now: Duration) -> Grant;

    /// An attempt starts. The ticket comes back with its outcome.
    fn started(&mut self, now: Duration, message: Message) -> Ticket;

    /// The attempt ended with an acceptance.
    fn accepted(&mut self, now: Duration, ticket: Ticket);

    /// The attempt ended with a refusal. Answers when the same message is tried again.
    fn refused(&mut self, now: Duration, ticket: Ticket, verdict: &Verdict) -> Retry;

    /// Messages that wait for a time of their own may go now after all, if they were first refused at or before the moment
    /// that is returned.
    fn released(&self, _now: Duration) -> Option<Duration> {
        None
    }

    /// How things stand, for the charts and for scenarios that count cuts.
    fn view(&self, now: Duration) -> View;
}

/// A message of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Which one, from 0.
    pub number: u64,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// When its first attempt was refused; none for the first attempt.
    pub first_refused: Option<Duration>,
}

/// What a controller wants back with the outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// When the attempt started.
    pub started: Duration,
    /// The message.
    pub message: Message,
    /// The pacer's own note; others leave it out.
    pub sent: Option<Sent>,
}

/// When a refused message is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not before this moment.
    At(Duration),
    /// As soon as the lane lets another attempt start, before messages that were never tried. The attempt does not count.
    WithLane,
    /// Never.
    Never,
}

/// How a lane stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Attempts that may be under way at once.
    pub window: f64,
    /// Messages a second, where they are limited.
    pub rate: Option<f64>,
    /// Nothing is sent until a time.
    pub is_suspended: bool,
    /// How often the controller lowered its limits because of refusals, and how many of these cuts it took back as useless.
    pub cuts: u64,
    /// See `cuts`.
    pub cuts_undone: u64,
}
