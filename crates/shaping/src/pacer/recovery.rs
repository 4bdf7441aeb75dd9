//! After an alarm: much slower for a while, to see whether that helps.

use super::learned_rate::LearnedRate;
use super::window::Window;

/// Attempts of one stage of the test.
const STAGE: u32 = 12;

/// How much slower each stage is.
pub(super) const SLOWER: f64 = 0.3;

/// A cut helps if it takes away so much of the failures that noise does not explain.
const HELPS: f64 = 0.6;

/// Where more than this is left beyond noise it does not help, whatever it was before.
const MOST_LEFT: f64 = 0.15;

/// While most attempts fail, a limit may be far below: so many stages at most.
const STAGES: u8 = 4;

/// The test that follows an alarm.
///
/// In its first stage the lane goes at a third of the speed it was last good for, in the second at a tenth. If that takes
/// the failures away, the cut was right, and the lane finds its speed from there. If it does not, speed is not the reason: the
/// cut is taken back, and what fails is noise.
#[derive(Debug, Clone)]
pub(super) struct Recovery {
    stage: u8,
    attempts: u32,
    failures: u32,
    slow: u32,
    failed_in_a_row: u32,
    /// The last refusal came when the host knew the recipient: it may well be about that, and then no speed helps.
    answers: bool,
    /// Over both stages.
    all_attempts: u32,
    all_failures: u32,
    all_slow: u32,
    /// Share of the attempts that failed before the alarm, and by noise.
    before: f64,
    noise: f64,
}

/// How things stood before the first cut of those that are in question.
#[derive(Debug, Clone)]
pub(super) struct Before {
    pub(super) window: Window,
    pub(super) rate: LearnedRate,
    /// Messages accepted per second.
    pub(super) speed: f64,
    /// Cuts since.
    pub(super) cuts: u32,
}

/// Outcomes of tests: a small sample may look as if a cut had helped, several together hardly.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Earlier {
    attempts: u32,
    failures: u32,
    slow: u32,
}

/// An attempt of the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Good,
    Slow,
    Failed,
}

/// What the test shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Finding {
    /// Not enough is known yet.
    Pending,
    /// The same, even slower.
    Slower,
    /// The cut helps.
    Helped,
    /// It does not: this share fails at any speed, and this share is slow.
    Noise { failing: f64, slow: f64 },
}

impl Recovery {
    pub(super) fn new(before: f64, noise: f64) -> Self {
        Self {
            stage: 1,
            attempts: 0,
            failures: 0,
            slow: 0,
            failed_in_a_row: 0,
            answers: false,
            all_attempts: 0,
            all_failures: 0,
            all_slow: 0,
            before,
            noise,
        }
    }

    /// The same test, with the outcomes of those before it that have not settled the matter.
    pub(super) fn after(mut self, earlier: Earlier) -> Self {
        self.all_attempts = earlier.attempts;
        self.all_failures = earlier.failures;
        self.all_slow = earlier.slow;
        self
    }

    /// What the test has found so far, for one that follows.
    pub(super) fn so_far(&self) -> Earlier {
        Earlier {
            attempts: self.all_attempts,
            failures: self.all_failures,
            slow: self.all_slow,
        }
    }

    /// An attempt that was made since the test began has its outcome.
    pub(super) fn count(&mut self, outcome: Outcome) -> Finding {
        self.attempts += 1;
        self.failures += u32::from(outcome == Outcome::Failed);
        self.slow += u32::from(outcome == Outcome::Slow);
        self.failed_in_a_row = if outcome == Outcome::Failed {
            self.failed_in_a_row + 1
        } else {
            0
        };
        if self.attempts < STAGE {
            return Finding::Pending;
        }
        self.end_stage()
    }

    fn end_stage(&mut self) -> Finding {
        self.all_attempts += self.attempts;
        self.all_failures += self.failures;
        self.all_slow += self.slow;
        let in_stage = f64::from(self.failures + self.slow) / f64::from(self.attempts);
        let share = |count: u32| f64::from(count) / f64::from(self.all_attempts);
        let bad = share(self.all_failures + self.all_slow);
        let expected_if_useless = (self.before - self.noise).max(0.0);
        let most = self.noise + (1.0 - HELPS) * expected_if_useless;
        // What failed just before the alarm is a small sample too: in the first stage one failure more than noise at most.
        let clear = f64::from(self.all_failures + self.all_slow) <= 1.0 + self.noise * f64::from(self.all_attempts);
        let finding = if bad <= most.min(self.noise + MOST_LEFT) && (clear || self.stage > 1) {
            Finding::Helped
        } else if self.stage == 1 || (self.stage < STAGES && in_stage > 0.5 && !self.answers) {
            Finding::Slower
        } else {
            Finding::Noise {
                failing: share(self.all_failures),
                slow: share(self.all_slow),
            }
        };
        self.stage += 1;
        self.attempts = 0;
        self.failures = 0;
        self.slow = 0;
        finding
    }

    /// An attempt failed when the host knew the recipient, or before.
    pub(super) fn failed_at(&mut self, names_recipient: bool) {
        self.answers = names_recipient;
    }

    /// Whether nothing went well lately, and enough was tried to say so.
    pub(super) fn is_hopeless(&self) -> bool {
        self.failed_in_a_row >= 3
    }
}

#[cfg(test)]
mod tests;
