//! Virtual time over the real clock.

use std::time::Duration;

use tokio::time::Instant;

/// Virtual time since the start: so many virtual seconds for each real one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
    scale: f64,
}

impl Clock {
    /// Starts now. `scale` is positive and finite.
    pub(crate) fn start(scale: f64) -> Self {
        Self {
            started: Instant::now(),
            scale,
        }
    }

    /// Virtual time since the start.
    pub(crate) fn now(&self) -> Duration {
        scaled(self.started.elapsed(), self.scale)
    }

    /// Sleeps for a span of virtual time; the real one is rounded up to a millisecond.
    pub(crate) async fn sleep(&self, virtual_time: Duration) {
        if !virtual_time.is_zero() {
            tokio::time::sleep(scaled(virtual_time, 1.0 / self.scale)).await;
        }
    }
}

fn scaled(time: Duration, factor: f64) -> Duration {
    if factor == 1.0 {
        time
    } else {
        Duration::try_from_secs_f64(time.as_secs_f64() * factor).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_minute_passes_in_a_second() {
        let clock = Clock::start(60.0);
        let real = Instant::now();
        clock.sleep(Duration::from_secs(60)).await;
        assert_eq!(real.elapsed(), Duration::from_secs(1));
        assert_eq!(clock.now(), Duration::from_secs(60));
    }
}
