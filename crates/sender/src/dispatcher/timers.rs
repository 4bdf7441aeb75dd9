//! What becomes due, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use relaypool_spool::{MessageKey, SliceNumber};

use super::lane::LaneId;
use super::run::RunId;
use crate::ledger::Millis;

/// What to do when the time has come. Entries are never taken back: whoever handles one checks whether it still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Fail what is left of the slice: its validity is over.
    Expire(SliceNumber),
    /// The run begins.
    Start(RunId),
    /// A lane may send or open again.
    Lane(LaneId),
    /// What reply rules did to a lane comes to its end.
    Rules(LaneId),
    /// A message is to be tried again.
    Due(MessageKey),
    /// Lanes that changed are to be written.
    KeepLanes,
    /// Lanes that were not used for long are to be forgotten.
    PruneLanes,
    /// A warm-up day is over.
    WarmUps,
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Millis, Timer)>>,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Millis, timer: Timer) {
        self.heap.push(Reverse((at, timer)));
    }

    /// The next one that is due at `now`, earliest first.
    pub(crate) fn pop(&mut self, now: Millis) -> Option<Timer> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, timer))| timer)
    }

    pub(crate) fn next(&self) -> Option<Millis> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}
