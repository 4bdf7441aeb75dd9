//! How many connections a site bears: what is learned from refusals.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Connections of a lane that knows nothing yet.
const INITIAL: u32 = 5;

/// Time between two steps above what is known to be borne, at first and at most.
const SHORTEST_HOLD: Duration = Duration::from_secs(10);
const LONGEST_HOLD: Duration = Duration::from_secs(600);

/// Refusals within this time of one another are one event.
const ONE_EVENT: Duration = Duration::from_secs(1);

/// The largest step, in connections.
const LARGEST_STEP: u32 = 8;

/// No window grows beyond this; the hard limits are far below.
const LARGEST: u32 = 10_000;

/// The connections a lane may have.
///
/// Until the first refusal it grows with every message accepted while all of it is in use. A refusal shows what is too
/// many: the window falls below it and holds. After the hold it takes one step up, and if that is refused the next hold is
/// twice as long; if it is not, the next step is twice as wide.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Window {
    size: u32,
    /// Something has been refused: from now on, steps instead of free growth.
    refused: bool,
    step: u32,
    hold: Duration,
    /// When the next step up may be taken.
    step_at: Duration,
    last_refusal: Option<Duration>,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            size: INITIAL,
            refused: false,
            step: 1,
            hold: SHORTEST_HOLD,
            step_at: Duration::ZERO,
            last_refusal: None,
        }
    }
}

impl Window {
    /// A window of a size that was found to be what is borne.
    pub(super) fn found(size: u32) -> Self {
        Self {
            size,
            refused: true,
            ..Self::default()
        }
    }

    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// A message was accepted while `open` connections were open. The window does not grow over `most`.
    pub(super) fn accepted(&mut self, now: Duration, open: u32, most: u32) {
        if open < self.size || self.size >= most {
            return;
        }
        if !self.refused {
            self.size = self.size.saturating_add(1);
        } else if now >= self.step_at {
            self.size = self.size.saturating_add(self.step).min(most);
            self.step = (self.step * 2).min(LARGEST_STEP);
            self.hold = (self.hold / 2).max(SHORTEST_HOLD);
            self.step_at = now + self.hold;
        }
    }

    /// One of `open` connections was refused. The window does not fall below `least`.
    pub(super) fn refused(&mut self, now: Duration, open: u32, least: u32) {
        let is_new = self
            .last_refusal
            .is_none_or(|last| now.saturating_sub(last) > ONE_EVENT);
        if self.refused && is_new {
            // Twice what it was before the step that failed, which had halved it.
            self.hold = (self.hold * 4).min(LONGEST_HOLD);
        }
        self.size = self.size.min(open.saturating_sub(1)).max(least);
        self.refused = true;
        self.step = 1;
        self.step_at = now + self.hold;
        self.last_refusal = Some(now);
    }

    /// The path is back after a suspension: not with everything at once.
    pub(super) fn restart(&mut self, least: u32) {
        self.size = (self.size / 2).max(least);
        self.refused = true;
        self.step = 1;
        self.hold = SHORTEST_HOLD;
        self.step_at = Duration::ZERO;
    }

    /// What was kept over a restart, cut to what can be.
    pub(super) fn restored(self, now: Duration) -> Self {
        let hold = self.hold.clamp(SHORTEST_HOLD, LONGEST_HOLD);
        Self {
            size: self.size.clamp(1, LARGEST),
            refused: self.refused,
            step: self.step.clamp(1, LARGEST_STEP),
            hold,
            step_at: self.step_at.min(now + hold),
            last_refusal: self.last_refusal.map(|at| at.min(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn grows_while_it_is_used_and_nothing_is_refused() {
        let mut window = Window::default();
        window.accepted(seconds(1), INITIAL - 1, 20);
        assert_eq!(window.size(), INITIAL, "what is not used does not grow");
        for _ in 0..100 {
            window.accepted(seconds(1), window.size(), 20);
        }
        assert_eq!(window.size(), 20, "and never over the limit");
    }

    #[test]
    fn a_burst_over_the_limit_ends_at_the_limit() {
        let mut window = Window {
            size: 20,
            ..Window::default()
        };
        // Twenty connections at once, five of which are let in.
        for open in (6..=20).rev() {
            window.refused(seconds(1), open, 1);
        }
        assert_eq!(window.size(), 5);
    }

    #[test]
    fn failed_steps_come_ever_more_seldom_and_good_ones_grow() {
        let mut window = Window::default();
        window.refused(seconds(0), 6, 1);
        let mut now = seconds(0);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let before = now;
            while window.size() == 5 {
                now += seconds(1);
                window.accepted(now, 5, 20);
            }
            waits.push((now - before).as_secs());
            window.refused(now, 6, 1);
        }
        assert!(waits.is_sorted(), "{waits:?}");
        assert!(waits[5] >= 20 * waits[0], "{waits:?}");

        while window.size() < 20 {
            now += seconds(1);
            window.accepted(now, window.size(), 20);
        }
        assert!(window.step > 1);
    }

    #[test]
    fn never_falls_below_the_least() {
        let mut window = Window::default();
        window.refused(seconds(0), 1, 3);
        assert_eq!(window.size(), 3);
        window.refused(seconds(0), 0, 1);
        assert_eq!(window.size(), 1);
    }
}
