use std::sync::Arc;
use std::time::Duration;

use crate::description::Answer;

/// What a provider does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What it answers; nothing when it hangs up without a word.
    pub reply: Option<Arc<Answer>>,
    /// How long it takes until the reply is written, or the connection closed.
    pub delay: Duration,
    /// True when it closes the connection then.
    pub close: bool,
}

impl Decision {
    /// True when the reply is a positive or intermediate one.
    pub fn is_acceptance(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| reply.is_acceptance())
    }

    /// The reply's code, where there is a reply.
    pub fn code(&self) -> Option<u16> {
        self.reply.as_ref().map(|reply| reply.code().get())
    }

    pub(super) fn refuse(reply: Arc<Answer>, delay: Duration) -> Self {
        Self {
            // 421 announces that the channel is being closed (RFC 5321 section 3.8).
            close: reply.code().get() == 421,
            reply: Some(reply),
            delay,
        }
    }

    pub(super) const fn hang_up(delay: Duration) -> Self {
        Self {
            reply: None,
            delay,
            close: true,
        }
    }
}

/// What the behaviours asked so far do to a reply.
#[derive(Debug)]
pub(super) struct Effect {
    pub(super) added: Duration,
    pub(super) factor: f64,
    /// Added behind the stretching.
    pub(super) extra: Duration,
    pub(super) close: bool,
}

impl Default for Effect {
    fn default() -> Self {
        Self {
            added: Duration::ZERO,
            factor: 1.0,
            extra: Duration::ZERO,
            close: false,
        }
    }
}

impl Effect {
    pub(super) fn delay(&self, latency: Duration) -> Duration {
        stretch(latency.saturating_add(self.added), self.factor).saturating_add(self.extra)
    }
}

/// `time` times `factor`; a result beyond what can be counted is "never".
pub(super) fn stretch(time: Duration, factor: f64) -> Duration {
    if factor == 1.0 {
        time
    } else {
        Duration::try_from_secs_f64(time.as_secs_f64() * factor).unwrap_or(Duration::MAX)
    }
}
