//! Plays a run in virtual time.

mod backlog;
mod lane;
mod plan;
mod tally;
mod timeline;

pub use backlog::{Backlog, Supply};
pub use plan::{LanePlan, Plan};
pub use tally::{Day, Tally};
pub use timeline::{Sample, Timeline};

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::controller::{Controller, View};
use lane::Lane;

/// How a run went.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// How long it took: less than planned if there was nothing left to do, or enough was delivered.
    pub elapsed: Duration,
    /// Lane by lane.
    pub lanes: Vec<LaneOutcome>,
}

/// How it went on one lane.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneOutcome {
    /// What was counted.
    pub tally: Tally,
    /// How the controller stood at the end.
    pub view: View,
    /// How it went over time.
    pub timeline: Timeline,
}

impl Outcome {
    /// The counts of all lanes together.
    pub fn total(&self) -> Tally {
        self.lanes.iter().fold(Tally::default(), |mut total, lane| {
            total.add(&lane.tally);
            total
        })
    }
}

/// Something happens on a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at: Duration,
    /// Events at one moment happen in the order in which they were planned.
    order: u64,
    lane: usize,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// An attempt has its outcome.
    AttemptEnds { attempt: u64 },
    /// A time has come for which the lane waited.
    Wake,
}

/// What is going to happen.
#[derive(Debug, Default)]
struct Agenda {
    events: BinaryHeap<Reverse<Event>>,
    order: u64,
}

impl Agenda {
    fn plan(&mut self, at: Duration, lane: usize, what: What) {
        self.order += 1;
        let event = Event {
            at,
            order: self.order,
            lane,
            what,
        };
        self.events.push(Reverse(event));
    }
}

/// Plays `plan` with one controller for each lane.
pub fn play(plan: &Plan, controllers: Vec<Box<dyn Controller>>) -> Outcome {
    let mut agenda = Agenda::default();
    let mut lanes: Vec<Lane<'_>> = plan
        .lanes
        .iter()
        .zip(controllers)
        .enumerate()
        .map(|(position, (lane, controller))| Lane::new(position, plan, lane, controller))
        .collect();
    for lane in &mut lanes {
        lane.start_attempts(Duration::ZERO, &mut agenda);
    }
    let (mut elapsed, mut delivered, mut is_over) = (Duration::ZERO, 0, false);
    while let Some(Reverse(event)) = agenda.events.pop() {
        if event.at > plan.duration {
            break;
        }
        let Some(lane) = lanes.get_mut(event.lane) else {
            continue;
        };
        elapsed = event.at;
        delivered += u64::from(lane.happens(event.at, event.what, &mut agenda));
        let is_enough = plan.enough.is_some_and(|enough| delivered >= enough);
        if is_enough || (lane.is_done() && lanes.iter().all(Lane::is_done)) {
            is_over = true;
            break;
        }
    }
    // Whoever stalls has used the whole time.
    if !is_over {
        elapsed = plan.duration;
    }
    Outcome {
        elapsed,
        lanes: lanes.into_iter().map(|lane| lane.finish(elapsed)).collect(),
    }
}
