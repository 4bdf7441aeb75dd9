//! Permission to open a connection or send a message on one lane (sending IP × site).
//!
//! ```text
//!              may_open ─ opened ─ closed        accepted, feedback
//!                  │                                  │
//!   breaker ───────┤  is the path to be used at all ◄─┤  refused for good, dead, asked to wait
//!   window  ───────┤  how many connections          ◄─┤  refused at connect
//!   buckets ──┐    │
//!             └ may_send ─ sent: how many messages a second
//! ```
//!
//! Policy limits and pool shares are hard caps; what the pacer learns moves below them. It never blocks and keeps no
//! queue: the caller asks before each step, tells what became of it, and asks again when a [`Grant`] says.

mod breaker;
mod bucket;
mod limits;
mod window;

use std::time::Duration;

use relaypool_api::reply::Phase;
use relaypool_api::sending_ip::{Binds, LaneState};
use relaypool_bounce::{Action, Basis, Category, Verdict};
use serde::{Deserialize, Serialize};

use crate::retry::{NextAttempt, RetrySchedule};
use breaker::{Breaker, Incident};
use bucket::Buckets;
pub use limits::{AdaptiveLimits, PacerLimits, Share};
use window::Window;

/// So many failures in a row, with nothing accepted in between, and the path counts as dead.
const DEAD_AFTER: u32 = 10;

/// … where nothing was accepted for this long either. Otherwise a burst of connections over a provider's limit would look
/// like a dead path, and so would one broken host among several.
const QUIET: Duration = Duration::from_secs(30);

/// How long a limit counts as binding after it last held something back.
const RECENTLY: Duration = Duration::from_secs(10);

/// The answer to "may I?".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// Yes.
    Now,
    /// Ask again at this moment, which is later than now.
    At(Duration),
    /// Not until something changes: a connection closes, an attempt has its outcome, or the limits change.
    No,
}

/// What a message is sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sending {
    /// The connection was opened for this message: its time includes the greeting and TLS.
    pub new_connection: bool,
    /// Which attempt for this message it is, from 1.
    pub attempt: u32,
    /// When its first attempt was refused; none for the first attempt, and where that is not known any more.
    pub first_refused: Option<Duration>,
}

/// A message that is on its way: the pacer's own note of how things stood when it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    at: Duration,
    connections: u32,
    sending: Sending,
}

/// Decides how many connections a lane has and when it may send. Pure: `now` comes with each call and should not go back.
#[derive(Debug, Clone)]
pub struct Pacer {
    limits: PacerLimits,
    open: u32,
    window: Window,
    buckets: Buckets,
    breaker: Breaker,
    /// Failures of the path since something was last accepted.
    failures: u32,
    last_accepted: Option<Duration>,
    held: Option<Held>,
}

/// What last held mail back.
#[derive(Debug, Clone, Copy)]
struct Held {
    by: Binds,
    until: Duration,
}

/// What a pacer knows and should know after a restart too. Only of use with moments since the Unix epoch, or another that
/// survives. It holds no limits: those come from the policies.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshot {
    window: Window,
    buckets: [Option<Duration>; 3],
    breaker: Breaker,
    last_accepted: Option<Duration>,
}

impl Pacer {
    /// A pacer that knows nothing of its path yet: it begins with a few connections.
    pub fn new(limits: PacerLimits) -> Self {
        let limits = limits.usable();
        Self {
            buckets: Buckets::new(&limits),
            limits,
            open: 0,
            window: Window::default(),
            breaker: Breaker::default(),
            failures: 0,
            last_accepted: None,
            held: None,
        }
    }

    /// A pacer that knows what an earlier one knew. What cannot be (a suspension into the far future, after the clock was
    /// set) is cut to what can.
    pub fn restore(limits: PacerLimits, snapshot: Snapshot, now: Duration) -> Self {
        let mut pacer = Self::new(limits);
        pacer.window = snapshot.window.restored(now);
        pacer.buckets.restore(snapshot.buckets, now);
        pacer.breaker = snapshot.breaker.restored(now);
        pacer.last_accepted = snapshot.last_accepted.map(|at| at.min(now));
        pacer
    }

    /// What to keep for a restart.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            window: self.window.clone(),
            buckets: self.buckets.snapshot(),
            breaker: self.breaker.clone(),
            last_accepted: self.last_accepted,
        }
    }

    /// New limits, from now on. Connections over a lower limit are the caller's to close, as they become free.
    pub fn limits_changed(&mut self, now: Duration, limits: PacerLimits) {
        let limits = limits.usable();
        self.buckets.change(&limits, now);
        self.limits = limits;
    }

    /// Whether another connection may be opened. Tell [`opened`](Self::opened) when it is.
    pub fn may_open(&mut self, now: Duration) -> Grant {
        let grant = self.breaker.may_open(now);
        if grant != Grant::Now {
            return self.hold(now, Binds::Suspended, grant);
        }
        let (limit, by) = self.connections();
        if self.open >= limit {
            return self.hold(now, by, Grant::No);
        }
        Grant::Now
    }

    /// Whether a message may be sent, on a connection that is open or about to be. Tell [`sent`](Self::sent) when it is.
    pub fn may_send(&mut self, now: Duration) -> Grant {
        let grant = self.breaker.may_send(now);
        if grant != Grant::Now {
            return self.hold(now, Binds::Suspended, grant);
        }
        match self.buckets.next(now) {
            Some((at, by)) => self.hold(now, by, Grant::At(at)),
            None => Grant::Now,
        }
    }

    /// The warm-up of the sending IP has no room before `until`.
    pub fn hold_for_warm_up(&mut self, now: Duration, until: Duration) {
        self.hold(now, Binds::WarmUp, Grant::At(until));
    }

    fn hold(&mut self, now: Duration, by: Binds, grant: Grant) -> Grant {
        let until = match grant {
            Grant::At(at) => at + RECENTLY,
            // Nobody need ask again before a connection closes; `closed` ends this.
            Grant::No if by != Binds::Suspended => Duration::MAX,
            Grant::Now | Grant::No => now + RECENTLY,
        };
        self.held = Some(Held { by, until });
        grant
    }

    /// An attempt to open a connection begins: the connection counts from now.
    pub fn opened(&mut self, now: Duration) {
        self.open = self.open.saturating_add(1);
        self.breaker.opened(now);
    }

    /// A connection is over, or the attempt to open one is. What became of its message is told before this.
    pub fn closed(&mut self, now: Duration) {
        self.open = self.open.saturating_sub(1);
        if self.open == 0 {
            self.breaker.unresolved(now);
        }
        if let Some(held) = &mut self.held {
            held.until = held.until.min(now + RECENTLY);
        }
    }

    /// A message goes to a connection. What comes back is handed in again with the outcome.
    pub fn sent(&mut self, now: Duration, sending: Sending) -> Sent {
        // Room may come back at any moment of the day.
        self.held = self.held.filter(|held| held.by != Binds::WarmUp);
        self.buckets.take(now);
        self.breaker.sent(now);
        Sent {
            at: now,
            connections: self.open,
            sending,
        }
    }

    /// A message that [`sent`](Self::sent) told of did not leave after all. Its turn in the rate is spent all the same: given
    /// back late, it would let two messages go where the rate allows one.
    pub fn unused(&mut self, _sent: Sent) {
        self.breaker.free_probe();
    }

    /// The host accepted a message.
    pub fn accepted(&mut self, now: Duration, _sent: Sent) {
        self.failures = 0;
        self.last_accepted = Some(now);
        self.path_is_good(now);
        if self.limits.adaptive.is_some() {
            self.window.accepted(now, self.open, self.hard_connections().0);
        }
    }

    /// A message, or the connection for it, was refused or failed. What does not concern the path changes nothing but this:
    /// a host that answers for a recipient is alive.
    pub fn feedback(&mut self, now: Duration, _sent: Sent, verdict: &Verdict) {
        if !verdict.is_path_feedback() {
            return self.answered(now, verdict);
        }
        let asked = verdict.hint.retry_after;
        if let Some(incident) = Incident::of(verdict) {
            return self.breaker.trip(now, incident, asked);
        }
        if self.counts_as_dead(now, verdict) {
            self.failures = self.failures.saturating_add(1);
        }
        if self.failures >= DEAD_AFTER || self.breaker.is_probing() {
            self.failures = 0;
            let incident = if verdict.category == Category::MailBlock {
                Incident::Blocked
            } else {
                Incident::Dead
            };
            self.breaker.trip(now, incident, asked);
        } else if let Some(asked) = asked {
            self.breaker.suspend(now, asked);
        } else if self.limits.adaptive.is_some() && is_about_load(verdict) {
            self.window.refused(now, self.open, self.least_connections());
        }
    }

    fn answered(&mut self, now: Duration, verdict: &Verdict) {
        if matches!(verdict.phase, Some(Phase::RcptTo | Phase::Data | Phase::EndOfData)) {
            self.failures = 0;
            self.path_is_good(now);
        } else {
            self.breaker.free_probe();
        }
    }

    fn path_is_good(&mut self, now: Duration) {
        if self.breaker.succeeded(now) {
            self.held = None;
            self.window.restart(self.least_connections());
        }
    }

    fn counts_as_dead(&self, now: Duration, verdict: &Verdict) -> bool {
        let quiet = self.last_accepted.is_none_or(|at| now.saturating_sub(at) > QUIET);
        quiet || verdict.category == Category::MailBlock
    }

    /// When a message that was refused is tried again. Asked after [`feedback`](Self::feedback) was told of it. The jitter
    /// depends on `seed` and the attempt: give each message a seed of its own.
    pub fn next_attempt(
        &self,
        _now: Duration,
        sent: Sent,
        verdict: &Verdict,
        schedule: &RetrySchedule,
        seed: u64,
    ) -> NextAttempt {
        schedule.next(verdict, sent.sending.attempt, seed)
    }

    /// Messages that wait for a time of their own may go now after all, if they were first refused at or before the moment
    /// that is returned: the site has shown that it makes strangers wait no longer.
    pub fn released(&self, _now: Duration) -> Option<Duration> {
        None
    }

    /// Sends nothing until then: a reply rule, or a person, says so.
    pub fn suspend(&mut self, now: Duration, until: Duration) {
        self.breaker.suspend(now, until.saturating_sub(now));
    }

    /// Messages that one connection may carry.
    pub fn messages_per_connection(&self) -> u32 {
        self.limits.messages_per_connection
    }

    /// Connections that the lane may have at the moment.
    pub fn connection_limit(&self) -> u32 {
        self.connections().0
    }

    /// The least of all limits on connections, and which it is. A hard one is named before a learned one of the same size.
    fn connections(&self) -> (u32, Binds) {
        let (hard, by) = self.hard_connections();
        let learned = self.window.size().max(self.least_connections());
        if self.limits.adaptive.is_some() && learned < hard {
            (learned, Binds::LearnedConnections)
        } else {
            (hard, by)
        }
    }

    fn hard_connections(&self) -> (u32, Binds) {
        let adaptive = self
            .limits
            .adaptive
            .as_ref()
            .and_then(|adaptive| adaptive.max_connections);
        let policy = adaptive.map_or(self.limits.connections, |most| most.min(self.limits.connections));
        match &self.limits.share {
            Some(share) if share.connections < policy => (share.connections, Binds::PoolShare),
            _ => (policy, Binds::PolicyConnections),
        }
    }

    /// What learning never goes below.
    fn least_connections(&self) -> u32 {
        let least = self
            .limits
            .adaptive
            .as_ref()
            .and_then(|adaptive| adaptive.min_connections);
        least.unwrap_or(1).max(1)
    }

    /// Which limit holds mail back.
    pub fn binds(&self, now: Duration) -> Binds {
        match self.held {
            _ if self.suspended_until(now).is_some() => Binds::Suspended,
            Some(held) if now <= held.until => held.by,
            _ => Binds::NoDemand,
        }
    }

    /// Whether mail flows.
    pub fn state(&self, now: Duration) -> LaneState {
        if self.suspended_until(now).is_some() {
            LaneState::Suspended
        } else if self.open > 0 || self.binds(now) != Binds::NoDemand {
            LaneState::Sending
        } else {
            LaneState::Idle
        }
    }

    /// When the suspension ends; none while there is none.
    pub fn suspended_until(&self, now: Duration) -> Option<Duration> {
        self.breaker.suspended_until(now)
    }
}

/// A host that answers and refuses before it knows the recipient, or says so in words: what fewer connections may help.
fn is_about_load(verdict: &Verdict) -> bool {
    verdict.action == Action::Retry
        && verdict.basis != Basis::Failure
        && matches!(
            verdict.category,
            Category::RateLimited | Category::Transient | Category::Undetermined
        )
}
