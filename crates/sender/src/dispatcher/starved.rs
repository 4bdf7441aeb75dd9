//! The sender's own limit on connections: which lane gets the next one when there are not enough for all.
//!
//! Lanes that may open a connection and find none left stand in line, by the highest priority of what waits in them. The
//! classes share as they do within a lane; within a class the lanes take turns, a connection a turn. While lanes stand in
//! line, sessions that wait for work end at once, and the others after a bounded number of messages, so that the line moves
//! whatever the policies allow on one connection.

use std::collections::{BTreeSet, HashSet, VecDeque};

use relaypool_api::message::Priority;

use super::lane::{LaneId, SessionId};
use super::turns::PriorityTurns;
use super::{Dispatcher, dismiss};
use crate::ledger::Millis;

/// Messages that a session may still carry while other lanes wait for a connection.
const MESSAGES_PER_TURN: u32 = 20;

/// The lanes that stand in line, and the sessions that could make room for them.
#[derive(Debug, Default)]
pub(crate) struct Starved {
    lines: [VecDeque<LaneId>; 3],
    /// What is in the lines: a lane stands once in each at most.
    standing: HashSet<(Priority, LaneId)>,
    turns: PriorityTurns,
    /// Sessions that wait for work.
    idle: BTreeSet<SessionId>,
}

impl Starved {
    pub(crate) fn push(&mut self, lane: LaneId, priority: Priority) {
        if self.standing.insert((priority, lane)) {
            self.lines[priority as usize].push_back(lane);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<LaneId> {
        let ready = self.lines.each_ref().map(|line| !line.is_empty());
        let priority = self.turns.next(ready)?;
        let lane = self.lines[priority as usize].pop_front()?;
        self.standing.remove(&(priority, lane));
        Some(lane)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.standing.is_empty()
    }

    pub(crate) fn session_idle(&mut self, session: SessionId) {
        self.idle.insert(session);
    }

    pub(crate) fn session_busy(&mut self, session: SessionId) {
        self.idle.remove(&session);
    }
}

impl Dispatcher {
    /// A lane could open a connection, but the sender has none left.
    pub(crate) fn starve(&mut self, lane: LaneId) {
        if let Some(priority) = self.lane_mut(lane).queue.highest() {
            self.starved.push(lane, priority);
            self.dismiss_an_idle_session();
        }
    }

    fn dismiss_an_idle_session(&mut self) {
        let Some(id) = self.starved.idle.pop_first() else {
            return;
        };
        if let Some(waiting) = self.sessions.get_mut(&id).and_then(|session| session.waiting.take()) {
            dismiss(waiting);
        }
    }

    /// Gives connections that have become free to the lanes that stand in line.
    pub(crate) fn serve_starved(&mut self, now: Millis) {
        while self.sessions.len() < self.settings.max_connections {
            let Some(lane) = self.starved.pop() else { return };
            self.work(lane, now);
        }
    }

    /// Whether a session that has carried so many messages makes room for another lane.
    pub(crate) fn makes_room(&self, given: u32) -> bool {
        given >= MESSAGES_PER_TURN && !self.starved.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::turns::PRIORITIES;
    use super::*;

    #[test]
    fn lanes_take_turns_and_stand_in_line_once() {
        let mut starved = Starved::default();
        for _ in 0..3 {
            for lane in [1, 2, 3] {
                starved.push(LaneId(lane), Priority::Normal);
            }
        }
        assert_eq!(starved.pop(), Some(LaneId(1)));
        starved.push(LaneId(1), Priority::Normal);
        let order: Vec<u32> = std::iter::from_fn(|| starved.pop()).map(|lane| lane.0).collect();
        assert_eq!(order, [2, 3, 1]);
        assert!(starved.is_empty());
    }

    #[test]
    fn an_urgent_message_moves_its_lane_forward() {
        let mut starved = Starved::default();
        for lane in 0..50 {
            starved.push(LaneId(lane), Priority::Low);
        }
        starved.push(LaneId(49), Priority::High);
        assert_eq!(starved.pop(), Some(LaneId(49)));
        assert_eq!(starved.pop(), Some(LaneId(0)));
    }

    #[test]
    fn lines_share_by_priority() {
        let mut starved = Starved::default();
        for lane in 0..100 {
            starved.push(LaneId(lane), Priority::High);
            starved.push(LaneId(1_000 + lane), Priority::Low);
        }
        let order: Vec<u32> = (0..34).filter_map(|_| starved.pop()).map(|lane| lane.0).collect();
        assert_eq!(order.iter().filter(|lane| **lane >= 1_000).count(), 2, "{order:?}");
    }

    proptest! {
        /// Of lanes that always want more, none of a class is served twice before each of them was served once.
        #[test]
        fn lanes_of_a_class_share_equally(
            lanes in proptest::collection::vec(0_usize..3, 1..30),
            turns in 1_usize..500,
        ) {
            let mut starved = Starved::default();
            for (lane, class) in (0..).zip(&lanes) {
                starved.push(LaneId(lane), PRIORITIES[*class]);
            }
            let mut served = vec![0_usize; lanes.len()];
            for _ in 0..turns {
                let lane = starved.pop().unwrap();
                let class = lanes[lane.0 as usize];
                served[lane.0 as usize] += 1;
                starved.push(lane, PRIORITIES[class]);
                let of_class = || served.iter().zip(&lanes).filter(|(_, other)| **other == class).map(|(served, _)| *served);
                prop_assert!(of_class().max().unwrap() - of_class().min().unwrap() <= 1, "{:?}", served);
            }
        }
    }
}
