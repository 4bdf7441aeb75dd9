//! Whether the path is used at all.

use std::time::Duration;

use relaypool_bounce::{Action, Category, Verdict};
use serde::{Deserialize, Serialize};

use super::Grant;

/// A suspension for reputation that follows the one before within this time is twice as long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);

/// A host cannot ask for more.
const LONGEST: Duration = Duration::from_secs(86_400);

/// A probe whose connection is gone without an outcome: the next one after this.
const UNRESOLVED: Duration = Duration::from_secs(5);

/// A probe without an outcome for this long has been lost; no transaction takes longer.
const PROBE_LOST: Duration = Duration::from_secs(3_600);

/// Pauses of a path that refuses without a reason, in halves of a second: doubled while they are short, then tripled, so that a
/// limit that is over within seconds costs seconds, and one that lasts until midnight is not knocked at all day.
const PAUSES: [u32; 11] = [1, 2, 4, 8, 16, 32, 96, 288, 864, 2_592, 7_200];

/// A pause as long as this is no hiccup any more: it is shown as a suspension.
const SUSPENSION: Duration = Duration::from_secs(10);

/// What suspends a lane, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Incident {
    /// Nothing gets through, and the hosts say no more than that.
    Refusing,
    /// Nothing gets through, and the hosts do not answer.
    Dead,
    /// The host puts mail off because of reputation.
    Deferred,
    /// The host refuses mail because of reputation, or from this IP.
    Blocked,
}

impl Incident {
    /// What a verdict that stops the path stops it for.
    pub(super) fn of(verdict: &Verdict) -> Option<Self> {
        match (verdict.action, verdict.category) {
            (Action::HoldPath, Category::ReputationDeferral) => Some(Self::Deferred),
            (Action::HoldPath, _) => Some(Self::Blocked),
            (Action::Retry | Action::Fail, _) => None,
        }
    }

    /// How long it suspends the lane the `level`th time in a row, from 0.
    fn interval(self, level: u32) -> Duration {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let pause = || {
            let pause = PAUSES[(level as usize).min(PAUSES.len() - 1)];
            Duration::from_millis(u64::from(pause) * 500)
        };
        let doubled = |first: Duration, longest: Duration| first.saturating_mul(1 << level.min(16)).min(longest);
        match self {
            Self::Refusing => pause(),
            Self::Dead => pause().min(minutes(15)),
            Self::Deferred => doubled(minutes(5), minutes(120)),
            Self::Blocked => doubled(minutes(15), minutes(240)),
        }
    }

    /// How long after one is over another counts as the same trouble.
    fn remembered(self) -> Duration {
        match self {
            Self::Refusing | Self::Dead => Duration::ZERO,
            Self::Deferred | Self::Blocked => FORGOTTEN_AFTER,
        }
    }
}

/// Closed: the path is used. Open: it is not, until a moment. Then half open: a single message probes it; what becomes of
/// that one closes the breaker, or opens it again for twice as long.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Breaker {
    state: State,
    /// Suspensions in a row.
    level: u32,
    /// When the last suspension began: what was sent before says nothing about whether it may end.
    tripped_at: Duration,
    closed_at: Option<Duration>,
    /// The last suspension was more than a short pause.
    was_long: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
enum State {
    #[default]
    Closed,
    Open {
        since: Duration,
        until: Duration,
    },
    HalfOpen {
        probe: Probe,
    },
}

/// The single message that may go while the breaker is half open.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Probe {
    Free,
    /// A connection is opened for it.
    Opening {
        since: Duration,
    },
    /// It is on its way.
    Sending {
        since: Duration,
    },
}

impl Breaker {
    pub(super) fn may_open(&mut self, now: Duration) -> Grant {
        self.come_due(now);
        match self.state {
            State::Closed | State::HalfOpen { probe: Probe::Free } => Grant::Now,
            State::Open { until, .. } => Grant::At(until),
            State::HalfOpen {
                probe: Probe::Opening { since } | Probe::Sending { since },
            } => Grant::At(since + PROBE_LOST),
        }
    }

    pub(super) fn may_send(&mut self, now: Duration) -> Grant {
        self.come_due(now);
        match self.state {
            State::HalfOpen {
                probe: Probe::Opening { .. },
            } => Grant::Now,
            _ => self.may_open(now),
        }
    }

    /// A suspension that is over becomes half open; a probe that is lost is free again.
    fn come_due(&mut self, now: Duration) {
        let is_due = match self.state {
            State::Closed | State::HalfOpen { probe: Probe::Free } => false,
            State::Open { until, .. } => now >= until,
            State::HalfOpen {
                probe: Probe::Opening { since } | Probe::Sending { since },
            } => now.saturating_sub(since) >= PROBE_LOST,
        };
        if is_due {
            self.state = State::HalfOpen { probe: Probe::Free };
        }
    }

    pub(super) fn opened(&mut self, now: Duration) {
        if let State::HalfOpen {
            probe: probe @ Probe::Free,
        } = &mut self.state
        {
            *probe = Probe::Opening { since: now };
        }
    }

    pub(super) fn sent(&mut self, now: Duration) {
        if let State::HalfOpen { probe } = &mut self.state {
            *probe = Probe::Sending { since: now };
        }
    }

    /// The probe came to nothing that says anything about the path.
    pub(super) fn free_probe(&mut self) {
        if let State::HalfOpen { probe } = &mut self.state {
            *probe = Probe::Free;
        }
    }

    /// No connection is left: if there was a probe, its outcome will never come.
    pub(super) fn unresolved(&mut self, now: Duration) {
        if let State::HalfOpen {
            probe: Probe::Opening { .. } | Probe::Sending { .. },
        } = self.state
        {
            self.state = State::Open {
                since: now,
                until: now + UNRESOLVED,
            };
        }
    }

    /// A message that was sent at `sent` got through. True when that ends a suspension.
    pub(super) fn succeeded(&mut self, now: Duration, sent: Duration) -> bool {
        let ends = self.is_probing() && sent >= self.tripped_at;
        if ends {
            self.state = State::Closed;
            self.closed_at = Some(now);
        }
        ends
    }

    /// Suspends the path, longer each time in a row. Further refusals of messages that were on their way already belong to
    /// the same incident.
    pub(super) fn trip(&mut self, now: Duration, incident: Incident, asked: Option<Duration>) {
        if !matches!(self.state, State::Open { .. }) {
            let in_a_row = match self.state {
                State::HalfOpen { .. } => true,
                _ => self
                    .closed_at
                    .is_some_and(|at| now.saturating_sub(at) < incident.remembered()),
            };
            self.level = if in_a_row { self.level.saturating_add(1) } else { 0 };
            self.tripped_at = now;
            self.suspend(now, incident.interval(self.level));
        }
        if let Some(asked) = asked {
            self.suspend(now, asked);
        }
    }

    /// Suspends the path for this long; a longer suspension stays.
    pub(super) fn suspend(&mut self, now: Duration, time: Duration) {
        let until = now + time.min(LONGEST);
        self.state = match self.state {
            State::Open { since, until: already } => State::Open {
                since,
                until: already.max(until),
            },
            _ => State::Open { since: now, until },
        };
        self.tripped_at = self.tripped_at.max(now);
        self.was_long = until.saturating_sub(self.tripped_at) >= SUSPENSION;
    }

    /// Half open: the next outcome decides.
    pub(super) fn is_probing(&self) -> bool {
        matches!(self.state, State::HalfOpen { .. })
    }

    /// Nothing holds the path.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// The last suspension was more than a short pause.
    pub(super) fn was_suspended(&self) -> bool {
        self.was_long
    }

    /// Whether a message that was sent at `sent` left before the suspension.
    pub(super) fn is_of_before(&self, sent: Duration) -> bool {
        !matches!(self.state, State::Closed) && sent < self.tripped_at
    }

    pub(super) fn suspended_until(&self, now: Duration) -> Option<Duration> {
        match self.state {
            State::Open { since, until } if now < until && until.saturating_sub(since) >= SUSPENSION => Some(until),
            _ => None,
        }
    }

    /// What was kept over a restart, cut to what can be. A probe did not survive.
    pub(super) fn restored(mut self, now: Duration) -> Self {
        self.free_probe();
        if let State::Open { since, until } = &mut self.state {
            *since = (*since).min(now);
            *until = (*until).min(now + LONGEST);
        }
        self.tripped_at = self.tripped_at.min(now);
        self.closed_at = self.closed_at.map(|at| at.min(now));
        self
    }
}

#[cfg(test)]
mod tests;
