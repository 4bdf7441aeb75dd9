//! What can be known of a path from what another pacer has shown of it.

use std::time::Duration;

use super::Snapshot;
use super::breaker::Breaker;
use super::window::Window;

/// What a status shows of a lane: less than a snapshot, but where a lane goes on in another process it may be all there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shown {
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
        let mut breaker = Breaker::default();
        if let Some(until) = shown.suspended_until.filter(|until| *until > now) {
            breaker.suspend(now, until - now);
        }
        Self {
            window: shown.connections.map(Window::found).unwrap_or_default(),
            buckets: [None; 3],
            breaker,
            last_accepted: None,
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
            connections: Some(12),
            suspended_until: Some(seconds(1_300)),
        };
        let mut pacer = Pacer::restore(limits(), Snapshot::from_shown(now, shown), now);
        assert_eq!(pacer.connection_limit(), 12);
        assert_eq!(pacer.suspended_until(now), Some(seconds(1_300)));
        assert_eq!(pacer.may_open(now), Grant::At(seconds(1_300)));

        let over = Shown {
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
