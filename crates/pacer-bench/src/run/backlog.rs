//! Where the messages of a lane are that are not on their way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::controller::Message;

/// So many refused messages wait for a time of their own, and an endless supply ends: a sender that refusals do not slow
/// down must not fill the memory.
const MOST_WAITING: usize = 2_000_000;

/// Messages that were never tried.
#[derive(Debug, Clone)]
pub enum Supply {
    /// There is always another one.
    Endless,
    /// So many, all there at the start.
    List(u64),
    /// They come at these times, which are in order.
    Arrivals(VecDeque<Duration>),
}

/// The messages of a lane that are not on their way. Each is in one place.
///
/// Refused ones go before those that were never tried: first those that wait for their lane, then those whose time has
/// come.
#[derive(Debug)]
pub struct Backlog {
    supply: Supply,
    next_number: u64,
    with_lane: VecDeque<Message>,
    ready: VecDeque<Message>,
    waiting: BTreeMap<(Duration, u64), Message>,
    /// The same messages as `waiting`: first refusal, number, time due.
    by_first_refusal: BTreeSet<(Duration, u64, Duration)>,
}

impl Backlog {
    /// A backlog of messages that were never tried.
    pub fn new(supply: Supply) -> Self {
        Self {
            supply,
            next_number: 0,
            with_lane: VecDeque::new(),
            ready: VecDeque::new(),
            waiting: BTreeMap::new(),
            by_first_refusal: BTreeSet::new(),
        }
    }

    /// Whether a message may go now, as far as the messages are concerned.
    pub fn has_ready(&mut self, now: Duration) -> bool {
        while let Some((&(due, number), _)) = self.waiting.first_key_value() {
            if due > now {
                break;
            }
            self.make_ready(due, number);
        }
        !self.with_lane.is_empty() || !self.ready.is_empty() || self.has_fresh(now)
    }

    fn has_fresh(&self, now: Duration) -> bool {
        match &self.supply {
            Supply::Endless => self.waiting.len() < MOST_WAITING,
            Supply::List(left) => *left > 0,
            Supply::Arrivals(times) => times.front().is_some_and(|at| *at <= now),
        }
    }

    /// The next message; none when [`has_ready`](Self::has_ready) says no.
    pub fn take(&mut self, now: Duration) -> Option<Message> {
        if let Some(message) = self.with_lane.pop_front().or_else(|| self.ready.pop_front()) {
            return Some(message);
        }
        if !self.has_fresh(now) {
            return None;
        }
        match &mut self.supply {
            Supply::Endless => {}
            Supply::List(left) => *left -= 1,
            Supply::Arrivals(times) => {
                times.pop_front();
            }
        }
        let number = self.next_number;
        self.next_number += 1;
        Some(Message {
            number,
            attempt: 1,
            first_refused: None,
        })
    }

    /// The message waits for a time of its own.
    pub fn wait(&mut self, message: Message, due: Duration) {
        let first_refused = message.first_refused.unwrap_or(due);
        self.waiting.insert((due, message.number), message);
        self.by_first_refusal.insert((first_refused, message.number, due));
    }

    /// The message waits for its lane.
    pub fn hold(&mut self, message: Message) {
        self.with_lane.push_back(message);
    }

    /// Waiting messages that were first refused at or before `until` may go now.
    pub fn release(&mut self, until: Duration) {
        while let Some(&(first_refused, number, due)) = self.by_first_refusal.first() {
            if first_refused > until {
                break;
            }
            self.make_ready(due, number);
        }
    }

    fn make_ready(&mut self, due: Duration, number: u64) {
        if let Some(message) = self.waiting.remove(&(due, number)) {
            let first_refused = message.first_refused.unwrap_or(due);
            self.by_first_refusal.remove(&(first_refused, number, due));
            self.ready.push_back(message);
        }
    }

    /// When the next message becomes ready by itself.
    pub fn next_due(&self) -> Option<Duration> {
        let waiting = self.waiting.first_key_value().map(|((due, _), _)| *due);
        let arriving = match &self.supply {
            Supply::Arrivals(times) => times.front().copied(),
            Supply::Endless | Supply::List(_) => None,
        };
        waiting.into_iter().chain(arriving).min()
    }

    /// Messages that were taken out at least once.
    pub fn begun(&self) -> u64 {
        self.next_number
    }

    /// Messages that were tried and are here.
    pub fn tried(&self) -> u64 {
        (self.with_lane.len() + self.ready.len() + self.waiting.len()) as u64
    }

    /// Messages that were never tried, where their number has an end.
    pub fn untried(&self) -> Option<u64> {
        match &self.supply {
            Supply::Endless => None,
            Supply::List(left) => Some(*left),
            Supply::Arrivals(times) => Some(times.len() as u64),
        }
    }
}
