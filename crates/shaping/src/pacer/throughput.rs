//! How many messages a second get through.

use std::time::Duration;

/// Seconds that the rate looks back on.
const MEMORY: f64 = 10.0;

/// Messages accepted per second, lately: an exponentially decayed count.
#[derive(Debug, Clone, Default)]
pub(super) struct Throughput {
    count: f64,
    at: Duration,
    since: Option<Duration>,
}

impl Throughput {
    pub(super) fn count(&mut self, now: Duration) {
        self.count = self.decayed(now) + 1.0;
        self.at = self.at.max(now);
        self.since.get_or_insert(now);
    }

    /// Messages a second.
    pub(super) fn rate(&self, now: Duration) -> f64 {
        let Some(since) = self.since else { return 0.0 };
        let time = now.saturating_sub(since).as_secs_f64().max(1.0);
        // What the average of so short a time holds of the whole.
        let whole = 1.0 - (-time / MEMORY).exp();
        self.decayed(now) / (MEMORY * whole)
    }

    fn decayed(&self, now: Duration) -> f64 {
        self.count * (-now.saturating_sub(self.at).as_secs_f64() / MEMORY).exp()
    }
}

#[cfg(test)]
mod tests;
