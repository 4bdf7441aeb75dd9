//! The messages that wait in one lane, in the order in which they leave.

use std::collections::{HashMap, VecDeque};

use relaypool_api::message::Priority;
use relaypool_spool::MessageKey;

use super::run::RunId;

/// Three classes by priority; within a class the runs take turns, so that a small delivery is not stuck behind a large one;
/// within a run first in, first out.
#[derive(Debug, Default)]
pub(crate) struct LaneQueue {
    classes: [Rotation; 3],
    length: usize,
}

#[derive(Debug, Default)]
struct Rotation {
    turns: VecDeque<RunId>,
    messages: HashMap<RunId, VecDeque<MessageKey>>,
}

impl LaneQueue {
    pub(crate) fn push(&mut self, priority: Priority, run: RunId, key: MessageKey) {
        self.classes[priority as usize].push(run, key);
        self.length += 1;
    }

    pub(crate) fn pop(&mut self) -> Option<(RunId, MessageKey)> {
        let popped = self.classes.iter_mut().find_map(Rotation::pop)?;
        self.length -= 1;
        Some(popped)
    }

    /// Entries, those whose message has meanwhile come to its end included.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Takes everything out, for another lane.
    pub(crate) fn drain(&mut self) -> Vec<MessageKey> {
        std::iter::from_fn(|| self.pop().map(|(_, key)| key)).collect()
    }
}

impl Rotation {
    fn push(&mut self, run: RunId, key: MessageKey) {
        let waiting = self.messages.entry(run).or_default();
        if waiting.is_empty() {
            self.turns.push_back(run);
        }
        waiting.push_back(key);
    }

    fn pop(&mut self) -> Option<(RunId, MessageKey)> {
        let run = self.turns.pop_front()?;
        let waiting = self.messages.get_mut(&run).expect("a run that has a turn has messages");
        let key = waiting.pop_front().expect("a run that has a turn has messages");
        if waiting.is_empty() {
            self.messages.remove(&run);
        } else {
            self.turns.push_back(run);
        }
        Some((run, key))
    }
}

#[cfg(test)]
mod tests {
    use relaypool_spool::SliceNumber;

    use super::*;

    fn key(index: u32) -> MessageKey {
        MessageKey {
            slice: SliceNumber::new(1),
            index,
        }
    }

    #[test]
    fn priority_first_then_turns_then_order() {
        let mut queue = LaneQueue::default();
        let (large, small) = (RunId(1), RunId(2));
        for index in 0..3 {
            queue.push(Priority::Normal, large, key(index));
        }
        queue.push(Priority::Normal, small, key(10));
        queue.push(Priority::Low, small, key(20));
        queue.push(Priority::High, large, key(30));
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop()).map(|(_, key)| key.index).collect();
        assert_eq!(order, [30, 0, 10, 1, 2, 20]);
        assert!(queue.is_empty());
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn drain_takes_everything() {
        let mut queue = LaneQueue::default();
        queue.push(Priority::Low, RunId(1), key(1));
        queue.push(Priority::High, RunId(2), key(2));
        assert_eq!(queue.drain().len(), 2);
        assert!(queue.is_empty());
    }
}
