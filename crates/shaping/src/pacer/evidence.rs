//! What the outcomes on a lane say: noise, or too much.

use serde::{Deserialize, Serialize};

/// A path on which less than this share of the attempts fails is as good as one on which none does.
const LEAST_NOISE: f64 = 0.02;

/// Nothing can be told any more where all but this share fails.
const MOST_NOISE: f64 = 0.98;

/// Where more than this fails at any speed, no failure says anything.
const HOPELESS: f64 = 0.9;

/// How much more must fail before it is news, as a share of what does not fail by noise.
const NEWS: f64 = 0.3;

/// How certain an alarm must be, in natural units of likelihood: on a path without noise two failures close to one another
/// are enough; where failures are common, false alarms are too, so it takes more.
const ALARM: f64 = 4.0;
const ALARM_IN_NOISE: f64 = 12.0;
const NOISY: f64 = 0.1;

/// Outcomes over which single failures that nothing followed from become known as noise, and as how much at most.
const LONG_RUN: f64 = 300.0;
const SHORT_RUN: f64 = 20.0;
const MOSTLY: f64 = 0.5;
const MOST_NOISE_UNTESTED: f64 = 0.05;

/// How far noise may rise above what a test found without another test: a test is a small sample.
const ABOVE_TESTED: f64 = 0.15;

/// A chance that is small enough to be ruled out.
const SMALL_CHANCE: f64 = 0.01;

/// Counts outcomes at a speed that was fine so far, and raises the alarm when more of them are failures than noise explains.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Evidence {
    /// Share of the attempts that fails at any speed.
    noise: f64,
    /// What a test found it to be.
    tested: f64,
    /// Log-likelihood ratio of "more fail than noise explains", never below zero (the CUSUM test of E. S. Page, 1954).
    excess: f64,
    /// Attempts since that was last zero, and those of them that failed.
    attempts: f64,
    failures: f64,
}

impl Default for Evidence {
    fn default() -> Self {
        Self {
            noise: 0.0,
            tested: 0.0,
            excess: 0.0,
            attempts: 0.0,
            failures: 0.0,
        }
    }
}

impl Evidence {
    /// An attempt that is no probe is made. It counts as one that goes well until it fails: a refusal comes much sooner than
    /// an acceptance, so while a lane grows, outcomes as they come in hold too many refusals.
    pub(super) fn begun(&mut self) {
        if self.noise < MOSTLY {
            self.noise -= self.noise / LONG_RUN;
        }
        self.excess += self.steps().0;
        self.attempts += 1.0;
        if self.excess <= 0.0 {
            self.alarm_is_over();
        }
    }

    /// An attempt that was no probe failed.
    pub(super) fn failed(&mut self) {
        self.failed_by_accident();
        let (well, failed) = self.steps();
        if self.attempts < 1.0 {
            self.attempts = 1.0;
        }
        self.excess = (self.excess + failed - well).max(0.0);
        self.failures = (self.failures + 1.0).min(self.attempts);
    }

    /// An attempt failed, and it is known that this says nothing about the speed.
    pub(super) fn failed_by_accident(&mut self) {
        let learned = self.noise + 1.0 / LONG_RUN;
        // Not far above what a test has shown: or a limit would in time be taken for noise.
        self.noise = learned.min(self.most_noise()).min(MOST_NOISE);
    }

    /// How far noise may rise without another test.
    fn most_noise(&self) -> f64 {
        if self.tested > MOST_NOISE_UNTESTED {
            self.tested + ABOVE_TESTED
        } else {
            MOST_NOISE_UNTESTED
        }
    }

    /// An attempt failed that a learned rate may explain. It says no more of noise than a test has shown: a rate a little too
    /// high would hide in it.
    pub(super) fn failed_at_learned_rate(&mut self) {
        let most = self.tested.max(self.noise);
        self.failed_by_accident();
        self.noise = self.noise.min(most);
    }

    /// What an attempt that goes well, and one that fails, adds to the likelihood that more fail than noise explains.
    fn steps(&self) -> (f64, f64) {
        let usual = self.noise.clamp(LEAST_NOISE, MOST_NOISE);
        let news = usual + NEWS * (1.0 - usual);
        (((1.0 - news) / (1.0 - usual)).ln(), (news / usual).ln())
    }

    /// An attempt went well. What nearly always failed and now goes through has changed, not varied.
    pub(super) fn went_well(&mut self) {
        if self.noise >= MOSTLY {
            self.noise -= self.noise / SHORT_RUN;
        }
    }

    pub(super) fn is_alarm(&self) -> bool {
        let noisy = (self.noise / NOISY).min(1.0);
        self.noise < HOPELESS && self.excess >= ALARM + noisy * (ALARM_IN_NOISE - ALARM)
    }

    pub(super) fn alarm_is_over(&mut self) {
        self.excess = 0.0;
        self.attempts = 0.0;
        self.failures = 0.0;
    }

    /// Share of the attempts that failed since there was reason to think that more fail.
    pub(super) fn share(&self) -> f64 {
        if self.attempts > 0.0 {
            self.failures / self.attempts
        } else {
            0.0
        }
    }

    /// Share of the attempts that fails at any speed.
    pub(super) fn noise(&self) -> f64 {
        self.noise
    }

    /// A test has shown how much fails at any speed.
    pub(super) fn noise_is(&mut self, share: f64) {
        self.noise = share.clamp(0.0, MOST_NOISE);
        self.tested = self.noise;
        self.alarm_is_over();
    }

    /// How many failures in a row noise hardly explains.
    pub(super) fn certain_failures(&self) -> u32 {
        if self.noise >= HOPELESS {
            return u32::MAX;
        }
        let noise = self.noise.clamp(SMALL_CHANCE, MOST_NOISE);
        let failures = (SMALL_CHANCE.ln() / noise.ln()).ceil();
        failures.clamp(1.0, 1_000.0) as u32
    }

    /// What was kept over a restart, cut to what can be.
    pub(super) fn restored(self) -> Self {
        let sane = |value: f64, most: f64| if value.is_finite() { value.clamp(0.0, most) } else { 0.0 };
        let attempts = sane(self.attempts, 1e6);
        Self {
            noise: sane(self.noise, MOST_NOISE),
            tested: sane(self.tested, MOST_NOISE),
            excess: sane(self.excess, ALARM_IN_NOISE),
            attempts,
            failures: sane(self.failures, attempts),
        }
    }
}

#[cfg(test)]
mod tests;
