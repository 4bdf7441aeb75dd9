//! The messages that wait in one lane, or to be routed to one, in the order in which they leave.

use std::collections::VecDeque;

use relaypool_api::message::Priority;
use relaypool_spool::MessageKey;

use super::run::RunId;
use super::slice::DomainId;
use super::turns::{PRIORITIES, PriorityTurns, Rotation, Waiting};

/// Within a class of priority the runs take turns, so that a small delivery is not stuck behind a large one; within a run
/// the recipient domains of the site do; within these, first in, first out.
type Class = Rotation<RunId, Rotation<DomainId, VecDeque<MessageKey>>>;

/// The queue of a lane. Each step is O(1); an empty queue is one pointer, for there may be very many of them.
#[derive(Debug, Default)]
pub(crate) struct LaneQueue {
    filled: Option<Box<Filled>>,
}

#[derive(Debug, Default)]
struct Filled {
    classes: [Class; 3],
    turns: PriorityTurns,
    length: usize,
}

impl LaneQueue {
    pub(crate) fn push(&mut self, priority: Priority, run: RunId, domain: DomainId, key: MessageKey) {
        let filled = self.filled.get_or_insert_default();
        filled.classes[priority as usize].push((run, (domain, key)));
        filled.length += 1;
    }

    pub(crate) fn pop(&mut self) -> Option<(RunId, MessageKey)> {
        let filled = self.filled.as_mut()?;
        let class = filled.turns.next(filled.ready())?;
        let (run, (_, key)) = filled.classes[class as usize].pop()?;
        filled.length -= 1;
        if filled.length == 0 {
            self.filled = None;
        }
        Some((run, key))
    }

    /// Entries, those whose message has meanwhile come to its end included.
    pub(crate) fn len(&self) -> usize {
        self.filled.as_ref().map_or(0, |filled| filled.length)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.filled.is_none()
    }

    /// The highest priority of what waits.
    pub(crate) fn highest(&self) -> Option<Priority> {
        let ready = self.filled.as_ref()?.ready();
        PRIORITIES.into_iter().find(|priority| ready[*priority as usize])
    }

    /// Takes everything out, for another lane.
    pub(crate) fn drain(&mut self) -> Vec<(RunId, MessageKey)> {
        std::iter::from_fn(|| self.pop()).collect()
    }
}

impl Filled {
    fn ready(&self) -> [bool; 3] {
        self.classes.each_ref().map(|class| !class.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;
    use relaypool_spool::SliceNumber;

    use super::*;

    fn key(index: u32) -> MessageKey {
        MessageKey {
            slice: SliceNumber::new(1),
            index,
        }
    }

    fn order(queue: &mut LaneQueue) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).map(|(_, key)| key.index).collect()
    }

    #[test]
    fn priority_then_turns_then_order() {
        let mut queue = LaneQueue::default();
        let (large, small, domain) = (RunId(1), RunId(2), DomainId(0));
        for index in 0..3 {
            queue.push(Priority::Normal, large, domain, key(index));
        }
        queue.push(Priority::Normal, small, domain, key(10));
        queue.push(Priority::Low, small, domain, key(20));
        queue.push(Priority::High, large, domain, key(30));
        assert_eq!((queue.len(), queue.highest()), (6, Some(Priority::High)));
        assert_eq!(order(&mut queue), [30, 0, 10, 1, 2, 20]);
        assert!(queue.is_empty());
        assert_eq!((queue.len(), queue.highest()), (0, None));
    }

    #[test]
    fn domains_of_a_run_take_turns() {
        let mut queue = LaneQueue::default();
        for index in 0..4 {
            queue.push(Priority::Normal, RunId(1), DomainId(1), key(index));
        }
        queue.push(Priority::Normal, RunId(1), DomainId(2), key(10));
        queue.push(Priority::Normal, RunId(1), DomainId(2), key(11));
        assert_eq!(order(&mut queue), [0, 10, 1, 11, 2, 3]);
    }

    #[test]
    fn a_run_of_many_domains_has_no_more_turns_than_another() {
        let mut queue = LaneQueue::default();
        for index in 0..10 {
            queue.push(Priority::Normal, RunId(1), DomainId(index), key(index));
        }
        for index in 20..30 {
            queue.push(Priority::Normal, RunId(2), DomainId(0), key(index));
        }
        let order = order(&mut queue);
        assert_eq!(order[..10].iter().filter(|index| **index >= 20).count(), 5, "{order:?}");
    }

    #[test]
    fn low_priority_gets_its_share_under_a_flood() {
        let mut queue = LaneQueue::default();
        for index in 0..1_000 {
            queue.push(Priority::High, RunId(1), DomainId(0), key(index));
            queue.push(Priority::Normal, RunId(2), DomainId(0), key(2_000 + index));
        }
        for index in 0..10 {
            queue.push(Priority::Low, RunId(3), DomainId(0), key(5_000 + index));
        }
        let first: Vec<u32> = (0..210).map(|_| queue.pop().unwrap().1.index).collect();
        let count = |range: std::ops::Range<u32>| first.iter().filter(|index| range.contains(index)).count();
        assert_eq!(
            (count(0..1_000), count(2_000..3_000), count(5_000..5_010)),
            (160, 40, 10)
        );
    }

    #[test]
    fn drain_takes_everything_and_an_empty_queue_holds_no_memory() {
        let mut queue = LaneQueue::default();
        queue.push(Priority::Low, RunId(1), DomainId(0), key(1));
        queue.push(Priority::High, RunId(2), DomainId(0), key(2));
        assert_eq!(queue.drain(), [(RunId(2), key(2)), (RunId(1), key(1))]);
        assert!(queue.filled.is_none());
        assert_eq!(size_of::<LaneQueue>(), size_of::<usize>());
    }

    type Pushed = (usize, u32, u32);

    fn pushed(items: &[Pushed]) -> LaneQueue {
        let mut queue = LaneQueue::default();
        for (index, (class, run, domain)) in (0..).zip(items) {
            queue.push(PRIORITIES[*class], RunId(*run), DomainId(*domain), key(index));
        }
        queue
    }

    proptest! {
        /// Everything comes out once, and what has the same run, priority and domain in the order in which it went in.
        #[test]
        fn order_within_a_run_and_domain_is_kept(
            items in proptest::collection::vec((0_usize..3, 0_u32..4, 0_u32..5), 0..300),
        ) {
            let order = order(&mut pushed(&items));
            prop_assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), items.len());
            let mut last: BTreeMap<Pushed, u32> = BTreeMap::new();
            for index in order {
                if let Some(before) = last.insert(items[index as usize], index) {
                    prop_assert!(before < index);
                }
            }
        }

        /// Between two messages of a run no other run of its priority has more than one turn, however much it has.
        #[test]
        fn runs_of_one_priority_share_equally(
            sizes in proptest::collection::vec(1_usize..60, 2..6),
            domains in proptest::collection::vec(0_u32..5, 300),
        ) {
            let items: Vec<Pushed> = (0_u32..)
                .zip(&sizes)
                .flat_map(|(run, size)| domains.iter().take(*size).map(move |domain| (1, run, *domain)))
                .collect();
            let mut served = vec![0_usize; sizes.len()];
            for index in order(&mut pushed(&items)) {
                served[items[index as usize].1 as usize] += 1;
                for (one, size) in served.iter().zip(&sizes) {
                    // A run that has messages left is at most one turn behind any other.
                    let ahead = served.iter().max().unwrap();
                    prop_assert!(one == size || ahead - one <= 1, "{:?} of {:?}", served, sizes);
                }
            }
        }
    }
}
