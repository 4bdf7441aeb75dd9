//! What became of the messages of a run.

use relaypool_api::delivery_slice::StatusRanges;
use relaypool_api::index_ranges::IndexRanges;
use relaypool_api::progress::{MessageState, Tally};

use super::slice_view::{RunView, SliceView};
use super::speed::Totals;
use crate::planning::RecipientList;

/// Positions of a slice by what became of their messages.
#[derive(Debug, Default)]
pub(super) struct Positions {
    waiting: IndexRanges,
    sent: IndexRanges,
    failed: IndexRanges,
    ignored: IndexRanges,
    canceled: IndexRanges,
}

impl Positions {
    pub(super) fn of(slice: &SliceView) -> Self {
        let ranges = slice.status.as_ref().and_then(|status| status.ranges.as_ref());
        ranges.map(Self::read).unwrap_or_default()
    }

    fn read(ranges: &StatusRanges) -> Self {
        // What cannot be read says nothing: its messages show as not accepted, until the sender writes again.
        let read = |text: &str| text.parse::<IndexRanges>().unwrap_or_default();
        Self {
            waiting: read(&ranges.waiting),
            sent: read(&ranges.sent),
            failed: read(&ranges.failed),
            ignored: read(&ranges.ignored),
            canceled: read(&ranges.canceled),
        }
    }

    /// What became of the message at a position. An end comes before everything else.
    pub(super) fn state(&self, position: u64) -> MessageState {
        if self.sent.contains(position) {
            MessageState::Sent
        } else if self.failed.contains(position) {
            MessageState::Failed(relaypool_api::progress::Failure::Hard)
        } else if self.ignored.contains(position) {
            MessageState::Ignored
        } else if self.canceled.contains(position) {
            MessageState::Canceled
        } else if self.waiting.contains(position) {
            MessageState::Waiting { soft_bounced: false }
        } else {
            MessageState::NotAccepted
        }
    }
}

/// What became of the messages of a run: those of its slices, the rows ignored at planning, and as not accepted all that
/// is in no slice seen. The total is always the one of the plan.
pub fn run_tally(run: &RunView, slices: &[&SliceView]) -> Tally {
    let mut tally = Tally {
        ignored: run.ignored.values().sum(),
        ..Tally::default()
    };
    for slice in slices {
        add(&mut tally, &Positions::of(slice), slice.spec.rows.count as u64);
    }
    tally.not_accepted += run.total.saturating_sub(tally.total());
    tally
}

/// Adds the messages of a slice with `rows` rows.
fn add(tally: &mut Tally, positions: &Positions, rows: u64) {
    let [waiting, sent, failed, ignored, canceled] = [
        &positions.waiting,
        &positions.sent,
        &positions.failed,
        &positions.ignored,
        &positions.canceled,
    ]
    .map(|ranges| count_below(ranges, rows));
    match rows.checked_sub(waiting + sent + failed + ignored + canceled) {
        Some(not_accepted) => {
            tally.not_accepted += not_accepted;
            tally.waiting += waiting;
            tally.sent += sent;
            tally.failed += failed;
            tally.ignored += ignored;
            tally.canceled += canceled;
        }
        // Some position is said to be several things, so each has to be looked at.
        None => (0..rows).for_each(|position| tally.add(positions.state(position))),
    }
}

/// How many of the indices lie below `end`.
fn count_below(ranges: &IndexRanges, end: u64) -> u64 {
    let clipped = ranges.ranges().filter(|range| *range.start() < end);
    clipped
        .map(|range| (*range.end()).min(end - 1) - range.start() + 1)
        .sum()
}

/// A list that is not planned.
pub(super) fn of_recipients(list: &RecipientList) -> Tally {
    Tally {
        not_accepted: list.rows.len() as u64,
        ignored: list.ignored.values().sum(),
        ..Tally::default()
    }
}

impl Totals {
    /// How many messages of a run reached senders and receiving hosts.
    pub fn of(run: &RunView, tally: &Tally) -> Self {
        let ignored_at_planning: u64 = run.ignored.values().sum();
        Self {
            relayed: tally.total().saturating_sub(tally.not_accepted + ignored_at_planning),
            delivered: tally.sent,
        }
    }
}
