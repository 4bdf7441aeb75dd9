//! How long the provider takes for a message, and when that is too long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Outcomes before the usual time is known.
const ENOUGH: u32 = 5;

/// Outcomes that the usual time looks back on.
const MEMORY: f64 = 16.0;

/// So many times the usual time is slow …
const SLOW: f64 = 2.5;

/// … if it is more than a hiccup of this machine or the network.
const HICCUP: f64 = 0.5;

/// The usual time of a message, apart for the first on a connection (greeting, EHLO and TLS come on top) and later ones.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Latency([Usual; 2]);

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Usual {
    samples: u32,
    /// Seconds.
    mean: f64,
}

impl Latency {
    /// Whether a message took far longer than usual.
    pub(super) fn is_slow(&self, took: Duration, first: bool) -> bool {
        let usual = self.0[usize::from(first)];
        let took = took.as_secs_f64();
        usual.samples >= ENOUGH && took > SLOW * usual.mean && took > usual.mean + HICCUP
    }

    /// A message that went as it should took this long.
    pub(super) fn learn(&mut self, took: Duration, first: bool) {
        let usual = &mut self.0[usize::from(first)];
        usual.samples = usual.samples.saturating_add(1).min(1_000);
        let weight = (1.0 / f64::from(usual.samples)).max(1.0 / MEMORY);
        usual.mean += (took.as_secs_f64() - usual.mean) * weight;
    }

    /// The provider is slow at any speed: what is usual must be learned anew.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The usual time of a message, where it is known.
    pub(super) fn usual(&self) -> Option<Duration> {
        let known = self.0.iter().filter(|usual| usual.samples > 0);
        let longest = known.map(|usual| usual.mean).fold(0.0, f64::max);
        (longest > 0.0).then(|| Duration::from_secs_f64(longest.min(3_600.0)))
    }

    /// What was kept over a restart, cut to what can be.
    pub(super) fn restored(self) -> Self {
        let sane = |usual: Usual| usual.mean.is_finite() && usual.mean >= 0.0;
        if self.0.iter().all(|usual| sane(*usual)) {
            self
        } else {
            Self::default()
        }
    }
}

#[cfg(test)]
mod tests;
