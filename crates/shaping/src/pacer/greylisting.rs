//! How long a site makes strangers wait.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One in so many messages is tried early, so that the first to get through shows how long the wait is.
const SCOUTS: u64 = 8;

/// Scouts in one spell of greylisting: enough to find the wait to within a few percent, whatever the size of the queue.
const MOST_SCOUTS: u32 = 200;

/// First attempts that the share of refused ones looks back on.
const MEMORY: f64 = 30.0;

/// No message goes round faster.
const SOONEST: Duration = Duration::from_secs(1);

/// Nobody greylists for a shorter time: a message that gets through sooner was refused for something else.
const SHORTEST: Duration = Duration::from_secs(30);

/// Nobody waits longer.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

/// A site that refuses this share of all first attempts, and takes second ones, is greylisting, whatever its replies say.
const REFUSES_STRANGERS: f64 = 0.9;

/// What is learned about a site that refuses a message at first and takes it later.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Greylisting {
    /// The shortest wait after which a message got through.
    wait: Option<Duration>,
    /// Share of the first attempts that were refused without a reason, decayed.
    strangers_refused: f64,
    /// Second attempts got through while first ones did not.
    is_silent: bool,
    /// Its replies speak of greylisting.
    says_so: bool,
    scouts: u32,
}

impl Greylisting {
    /// A first attempt was refused after the recipient was named, without a reason, or was accepted.
    pub(super) fn stranger(&mut self, refused: bool) {
        let refused = f64::from(u8::from(refused));
        self.strangers_refused += (refused - self.strangers_refused) / MEMORY;
        if self.is_silent && self.strangers_refused < 0.5 {
            *self = Self::default();
        }
    }

    /// A message got through, so long after its first attempt was refused.
    pub(super) fn passed(&mut self, waited: Duration) {
        let refuses_strangers = self.strangers_refused >= REFUSES_STRANGERS;
        if waited < SHORTEST || !(self.says_so || refuses_strangers) {
            return;
        }
        self.is_silent |= refuses_strangers && !self.says_so;
        self.wait = Some(self.wait.map_or(waited, |wait| wait.min(waited)));
    }

    /// A message was put off by greylisting that says so, although it had waited so long.
    pub(super) fn put_off(&mut self, waited: Duration) {
        self.says_so = true;
        self.put_off_silently(waited);
    }

    /// A message was put off although it had waited so long.
    pub(super) fn put_off_silently(&mut self, waited: Duration) {
        if self.wait.is_some_and(|wait| waited > wait.mul_f64(1.1)) {
            self.wait = None;
            self.scouts = 0;
        }
    }

    /// Whether strangers are refused, with or without saying why.
    pub(super) fn refuses_strangers(&self) -> bool {
        self.says_so || self.is_silent || self.strangers_refused >= REFUSES_STRANGERS
    }

    /// Whether refusals of first attempts without a reason are greylisting.
    pub(super) fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Messages first refused at or before this moment have waited long enough.
    pub(super) fn released(&self, now: Duration) -> Option<Duration> {
        now.checked_sub(self.wait?)
    }

    /// When a message that has waited for `waited` is tried again, where the schedule says after `interval`.
    pub(super) fn interval(&mut self, interval: Duration, waited: Duration, seed: u64) -> Duration {
        let (is_scout, chance) = lots(seed);
        if let Some(wait) = self.wait {
            // A little later than what is known to be enough.
            let left = wait.mul_f64(1.01 + 0.02 * chance).saturating_sub(waited);
            return if left.is_zero() {
                interval
            } else {
                left.max(SOONEST).min(interval)
            };
        }
        if is_scout && self.scouts < MOST_SCOUTS {
            self.scouts += 1;
            return interval.mul_f64(0.1_f64.powf(chance)).max(SOONEST);
        }
        interval
    }

    /// What was kept over a restart, cut to what can be.
    pub(super) fn restored(self) -> Self {
        let sane = self.strangers_refused.is_finite();
        Self {
            wait: self.wait.map(|wait| wait.min(LONGEST)),
            strangers_refused: if sane {
                self.strangers_refused.clamp(0.0, 1.0)
            } else {
                0.0
            },
            ..self
        }
    }
}

/// Whether a message is a scout, and a number in [0, 1), both from its seed alone.
fn lots(seed: u64) -> (bool, f64) {
    // The finish of splitmix64: neighbouring seeds become unlike.
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    (
        mixed.is_multiple_of(SCOUTS),
        (mixed >> 11) as f64 / (1_u64 << 53) as f64,
    )
}

#[cfg(test)]
mod tests;
