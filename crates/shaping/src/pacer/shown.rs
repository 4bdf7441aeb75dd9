//! What can be known of a path from what another pacer has shown of it.

use std::time::Duration;

use super::Snapshot;
use super::learning::Learning;
use super::window::Window;

/// What a status shows of a lane: less than a snapshot, but where a lane goes on in another process it may be all there is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shown {
    /// Messages a second, where a rate was learned.
    pub rate: Option<f64>,
    /// The connections it could have.
    pub connections: Option<u32>,
    /// When its suspension ends, where it is suspended.
    pub suspended_until: Option<Duration>,
}

impl Snapshot {
    /// A snapshot for [`Pacer::restore`](super::Pacer::restore) that begins with what was shown. Whatever was not is as in
    /// a pacer that knows nothing; the connections shown count as a limit that was found by being refused, so that it is
    /// left in single steps.
    pub fn from_shown(now: Duration, shown: Shown) -> Self {
        let mut learning = Learning::default();
        if let Some(until) = shown.suspended_until.filter(|until| *until > now) {
            learning.suspend(now, until - now);
        }
        if let Some(connections) = shown.connections {
            learning.window = Window::found(connections);
        }
        if let Some(rate) = shown.rate {
            learning.rate.found(now, rate);
        }
        Self {
            buckets: [None; 3],
            learning,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AdaptiveLimits, Grant, Pacer, PacerLimits};
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn limits() -> PacerLimits {
        PacerLimits {
            connections: 20,
            messages_per_connection: 100,
            rate: None,
            share: None,
            adaptive: Some(AdaptiveLimits::default()),
        }
    }

    #[test]
    fn begins_with_what_was_shown() {
        let now = seconds(1_000);
        let shown = Shown {
            rate: Some(4.0),
            connections: Some(12),
            suspended_until: Some(seconds(1_300)),
        };
        let mut pacer = Pacer::restore(limits(), Snapshot::from_shown(now, shown), now);
        assert_eq!(pacer.connection_limit(), 12);
        assert_eq!(pacer.learned_rate(), Some(4.0));
        assert_eq!(pacer.suspended_until(now), Some(seconds(1_300)));
        assert_eq!(pacer.may_open(now), Grant::At(seconds(1_300)));

        let over = Shown {
            rate: Some(f64::NAN),
            connections: Some(1_000_000),
            suspended_until: Some(seconds(1_000)),
        };
        let mut pacer = Pacer::restore(limits(), Snapshot::from_shown(now, over), now);
        assert_eq!(pacer.connection_limit(), 20, "the limits hold");
        assert_eq!(pacer.may_open(now), Grant::Now, "a suspension that is over is none");

        let nothing = Pacer::restore(limits(), Snapshot::from_shown(now, Shown::default()), now);
        assert_eq!(nothing.connection_limit(), Pacer::new(limits()).connection_limit());
    }
}
