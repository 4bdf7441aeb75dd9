//! Who comes next: priorities by weight, and queues that take turns.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use relaypool_api::message::Priority;

/// Turns of each class of priority in one round, while all of them have something.
const WEIGHTS: [u32; 3] = [16, 4, 1];

/// The classes, first to last.
pub(crate) const PRIORITIES: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

/// Divides turns among the classes of priority: 16 to 4 to 1, the highest first within a round. A class that has nothing
/// leaves its turns to the others.
///
/// So what is urgent does not wait behind bulk, and bulk is not stopped by what is urgent: of 21 turns in a row the lowest
/// class gets one. It never waits for more than 40, which is when it had its turn early and the others had not.
#[derive(Debug, Clone)]
pub(crate) struct PriorityTurns {
    left: [u32; 3],
}

impl Default for PriorityTurns {
    fn default() -> Self {
        Self { left: WEIGHTS }
    }
}

impl PriorityTurns {
    /// The class that has the next turn, among those that are `ready`; none when none is.
    pub(crate) fn next(&mut self, ready: [bool; 3]) -> Option<Priority> {
        let may_go = |left: &[u32; 3]| (0..3).find(|class| ready[*class] && left[*class] > 0);
        let class = may_go(&self.left).or_else(|| {
            self.left = WEIGHTS;
            may_go(&self.left)
        })?;
        self.left[class] -= 1;
        Some(PRIORITIES[class])
    }
}

/// Something that keeps items in an order of its own.
pub(crate) trait Waiting: Default {
    type Item;

    fn push(&mut self, item: Self::Item);
    fn pop(&mut self) -> Option<Self::Item>;
    fn is_empty(&self) -> bool;
}

/// First in, first out.
impl Waiting for VecDeque<relaypool_spool::MessageKey> {
    type Item = relaypool_spool::MessageKey;

    fn push(&mut self, item: Self::Item) {
        self.push_back(item);
    }

    fn pop(&mut self) -> Option<Self::Item> {
        self.pop_front()
    }

    fn is_empty(&self) -> bool {
        VecDeque::is_empty(self)
    }
}

/// One queue for each key; the queues take turns, an item a turn. Each step is O(1), and a queue that is empty is not kept.
#[derive(Debug)]
pub(crate) struct Rotation<K, W> {
    turns: VecDeque<K>,
    queues: HashMap<K, W>,
}

impl<K, W> Default for Rotation<K, W> {
    fn default() -> Self {
        Self {
            turns: VecDeque::new(),
            queues: HashMap::new(),
        }
    }
}

impl<K: Copy + Eq + Hash, W: Waiting> Waiting for Rotation<K, W> {
    type Item = (K, W::Item);

    fn push(&mut self, (key, item): Self::Item) {
        let queue = self.queues.entry(key).or_default();
        if queue.is_empty() {
            self.turns.push_back(key);
        }
        queue.push(item);
    }

    fn pop(&mut self) -> Option<Self::Item> {
        let key = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&key).expect("a queue that has a turn is there");
        let item = queue.pop().expect("a queue that has a turn is not empty");
        if queue.is_empty() {
            self.queues.remove(&key);
        } else {
            self.turns.push_back(key);
        }
        Some((key, item))
    }

    fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_classes_share_by_weight() {
        let mut turns = PriorityTurns::default();
        let mut counts = [0_u32; 3];
        for _ in 0..210 {
            counts[turns.next([true; 3]).unwrap() as usize] += 1;
        }
        assert_eq!(counts, [160, 40, 10]);
        assert_eq!(turns.next([false; 3]), None);
    }

    #[test]
    fn a_class_alone_has_every_turn() {
        for class in PRIORITIES {
            let mut turns = PriorityTurns::default();
            let ready = PRIORITIES.map(|one| one == class);
            assert!((0..100).all(|_| turns.next(ready) == Some(class)));
        }
    }

    proptest! {
        /// Whoever else comes and goes, a class that is ready waits for a bounded number of turns.
        #[test]
        fn nobody_starves(others in proptest::collection::vec(any::<[bool; 3]>(), 1..500), class in 0_usize..3) {
            let longest = [5 + 5, 17 + 17, 20 + 20][class];
            let mut turns = PriorityTurns::default();
            let mut waited = 0;
            for mut ready in others {
                // Now and then it has nothing itself.
                if ready[class] {
                    waited = 0;
                }
                ready[class] = true;
                let next = turns.next(ready).unwrap();
                waited = if next == PRIORITIES[class] { 0 } else { waited + 1 };
                prop_assert!(waited <= longest, "{} turns", waited);
            }
        }

        #[test]
        fn only_what_is_ready_has_a_turn(rounds in proptest::collection::vec(any::<[bool; 3]>(), 1..200)) {
            let mut turns = PriorityTurns::default();
            for ready in rounds {
                match turns.next(ready) {
                    Some(priority) => prop_assert!(ready[priority as usize]),
                    None => prop_assert_eq!(ready, [false; 3]),
                }
            }
        }
    }
}
