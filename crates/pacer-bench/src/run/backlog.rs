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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn refused(message: Message, at: u64) -> Message {
        Message {
            first_refused: message.first_refused.or(Some(seconds(at))),
            ..message
        }
    }

    #[test]
    fn those_that_wait_for_the_lane_go_first_then_those_that_are_due() {
        let mut backlog = Backlog::new(Supply::Endless);
        let mut next = || backlog.take(seconds(0)).unwrap();
        let (first, second, third) = (next(), next(), next());
        backlog.wait(refused(first, 1), seconds(60));
        backlog.wait(refused(second, 2), seconds(30));
        backlog.hold(refused(third, 3));
        assert_eq!(backlog.next_due(), Some(seconds(30)));
        assert!(backlog.has_ready(seconds(60)));
        let order: Vec<u64> = (0..4).map(|_| backlog.take(seconds(60)).unwrap().number).collect();
        assert_eq!(order, [2, 1, 0, 3]);
    }

    #[test]
    fn a_release_is_about_the_first_refusal() {
        let mut backlog = Backlog::new(Supply::List(3));
        for at in [5, 6, 7] {
            let message = backlog.take(seconds(0)).unwrap();
            backlog.wait(refused(message, at), seconds(100 - at));
        }
        backlog.release(seconds(6));
        let order: Vec<u64> = std::iter::from_fn(|| backlog.take(seconds(8)))
            .map(|message| message.number)
            .collect();
        assert_eq!(order, [0, 1], "in the order of their first refusals");
        assert!(!backlog.has_ready(seconds(92)));
        assert!(backlog.has_ready(seconds(93)));
    }

    #[test]
    fn messages_arrive_at_their_time() {
        let mut backlog = Backlog::new(Supply::Arrivals([seconds(1), seconds(5)].into()));
        assert!(!backlog.has_ready(seconds(0)));
        assert_eq!(backlog.next_due(), Some(seconds(1)));
        assert!(backlog.take(seconds(1)).is_some());
        assert!(backlog.take(seconds(4)).is_none());
        assert_eq!((backlog.begun(), backlog.untried()), (1, Some(1)));
    }

    proptest! {
        /// Whatever happens, in whichever order: each message is here once or with the taker.
        #[test]
        fn a_message_is_in_one_place(steps in proptest::collection::vec((0..5_u8, 0..50_u64), 1..200)) {
            let mut backlog = Backlog::new(Supply::Endless);
            let (mut taken, mut now) = (Vec::new(), 0);
            for (step, number) in steps {
                match step {
                    0 => taken.extend(backlog.take(seconds(now))),
                    1 => if let Some(message) = taken.pop() {
                        backlog.wait(refused(message, now), seconds(now + number));
                    },
                    2 => if let Some(message) = taken.pop() {
                        backlog.hold(refused(message, now));
                    },
                    3 => backlog.release(seconds(now.saturating_sub(number))),
                    _ => {
                        now += number;
                        prop_assert!(backlog.has_ready(seconds(now)));
                    }
                }
                let numbers: HashSet<u64> = taken.iter().map(|message| message.number).collect();
                prop_assert_eq!(numbers.len(), taken.len(), "nobody has a message twice");
                prop_assert_eq!(backlog.begun(), backlog.tried() + taken.len() as u64);
                prop_assert_eq!(backlog.waiting.len(), backlog.by_first_refusal.len());
            }
        }
    }
}
