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
mod evidence;
mod greylisting;
mod latency;
mod learned_rate;
mod learning;
mod limits;
mod part;
mod recovery;
mod shown;
mod throughput;
mod window;

use std::time::Duration;

use relaypool_api::Rate;
use relaypool_api::sending_ip::{Binds, LaneState};
use relaypool_bounce::{Category, Verdict};
use serde::{Deserialize, Serialize};

use crate::retry::{NextAttempt, RetrySchedule};
use breaker::Incident;
use bucket::Buckets;
use learning::Learning;
pub use limits::{AdaptiveLimits, PacerLimits, Share};
pub use part::Part;
pub use shown::Shown;

/// How long a limit counts as binding after it last held something back.
const RECENTLY: Duration = Duration::from_secs(10);

/// Seconds until a message comes back that was refused because of the speed, by attempt.
const SOON: [f64; 3] = [2.0, 8.0, 30.0];

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
    /// Connections that were open, its own included.
    connections: u32,
    /// Messages sent before it, and those of them that had not failed.
    number: u64,
    taken: u64,
    /// It probes whether the site bears one connection more.
    is_probe: bool,
    /// It was sent at a learned speed: what becomes of it says something about that.
    learns: bool,
    sending: Sending,
}

/// Decides how many connections a lane has and when it may send. Pure: `now` comes with each call and should not go back.
#[derive(Debug, Clone)]
pub struct Pacer {
    limits: PacerLimits,
    open: u32,
    buckets: Buckets,
    learning: Learning,
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
    buckets: [Option<Duration>; 3],
    learning: Learning,
}

impl Pacer {
    /// A pacer that knows nothing of its path yet: it begins with a few connections.
    pub fn new(limits: PacerLimits) -> Self {
        let limits = limits.usable();
        let mut pacer = Self {
            buckets: Buckets::new(&limits),
            limits,
            open: 0,
            learning: Learning::default(),
            held: None,
        };
        pacer.learning.window.at_least(pacer.least_connections());
        pacer
    }

    /// A pacer that leaves a part of learning out, for measurements of what the part is worth. Not for sending: what it
    /// learns is of no use to another, nor does it survive a restart that a part was left out.
    pub fn without(limits: PacerLimits, part: Part) -> Self {
        let mut pacer = Self::new(limits);
        pacer.learning.leave_out(part);
        pacer
    }

    /// A pacer that knows what an earlier one knew. What cannot be (a suspension into the far future, after the clock was
    /// set) is cut to what can.
    pub fn restore(limits: PacerLimits, snapshot: Snapshot, now: Duration) -> Self {
        let mut pacer = Self::new(limits);
        pacer.learning = snapshot.learning.restored(now);
        pacer.learning.window.at_least(pacer.least_connections());
        pacer.buckets.restore(snapshot.buckets, now);
        pacer
    }

    /// What to keep for a restart.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            buckets: self.buckets.snapshot(),
            learning: self.learning.clone(),
        }
    }

    /// New limits, from now on. Connections over a lower limit are the caller's to close, as they become free.
    pub fn limits_changed(&mut self, now: Duration, limits: PacerLimits) {
        let limits = limits.usable();
        self.buckets.change(&limits, now);
        self.limits = limits;
        self.learning.window.at_least(self.least_connections());
    }

    /// Whether another connection may be opened. Tell [`opened`](Self::opened) when it is.
    pub fn may_open(&mut self, now: Duration) -> Grant {
        let grant = self.learning.breaker.may_open(now);
        if grant != Grant::Now {
            return self.hold_by_breaker(now, grant);
        }
        let (hard, by) = self.hard_connections();
        if self.open >= hard {
            return self.hold(now, by, Grant::No);
        }
        if self.limits.adaptive.is_none() || self.open < self.least_connections() {
            return Grant::Now;
        }
        match self.learning.window.may_open(now, self.open) {
            Ok(()) => Grant::Now,
            Err(at) => self.hold(now, Binds::LearnedConnections, at.map_or(Grant::No, Grant::At)),
        }
    }

    /// Whether a message may be sent, on a connection that is open or about to be. Tell [`sent`](Self::sent) when it is.
    pub fn may_send(&mut self, now: Duration) -> Grant {
        let grant = self.learning.breaker.may_send(now);
        if grant != Grant::Now {
            return self.hold_by_breaker(now, grant);
        }
        let hard = self.buckets.next(now);
        let learned = match &self.limits.adaptive {
            Some(adaptive) if self.learning.has(Part::LearnedRate) => {
                self.learning.rate.next(now, least_rate(adaptive))
            }
            _ => None,
        };
        let learned = learned.map(|at| (at, Binds::LearnedRate));
        match hard.into_iter().chain(learned).max_by_key(|(at, _)| *at) {
            Some((at, by)) => self.hold(now, by, Grant::At(at)),
            None => Grant::Now,
        }
    }

    /// The warm-up of the sending IP has no room before `until`.
    pub fn hold_for_warm_up(&mut self, now: Duration, until: Duration) {
        self.hold(now, Binds::WarmUp, Grant::At(until));
    }

    /// A pause that is too short to be called a suspension is a matter of speed.
    fn hold_by_breaker(&mut self, now: Duration, grant: Grant) -> Grant {
        let by = match self.suspended_until(now) {
            Some(_) => Binds::Suspended,
            None => Binds::LearnedRate,
        };
        self.hold(now, by, grant)
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
        self.learning.breaker.opened(now);
    }

    /// A connection is over, or the attempt to open one is. What became of its message is told before this.
    pub fn closed(&mut self, now: Duration) {
        self.open = self.open.saturating_sub(1);
        self.learning.window.open_now(self.open);
        if self.open == 0 {
            self.learning.breaker.unresolved(now);
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
        self.learning.breaker.sent(now);
        if let Some(adaptive) = &self.limits.adaptive {
            self.learning.rate.take(now, least_rate(adaptive));
        }
        let learns = self.limits.adaptive.is_some();
        let is_probe = learns && sending.new_connection && self.learning.opened(now, self.open);
        let (number, taken) = self.learning.number(is_probe);
        Sent {
            at: now,
            connections: self.open,
            number,
            taken,
            is_probe,
            learns,
            sending,
        }
    }

    /// A message that [`sent`](Self::sent) told of did not leave after all. Its turn in the rate is spent all the same: given
    /// back late, it would let two messages go where the rate allows one.
    pub fn unused(&mut self, sent: Sent) {
        self.learning.not_counted(sent);
        self.learning.breaker.free_probe();
    }

    /// The host accepted a message.
    pub fn accepted(&mut self, now: Duration, sent: Sent) {
        self.learning.accepted(now, sent);
        self.no_longer_suspended(now);
    }

    /// A message, or the connection for it, was refused or failed. What does not concern the path changes nothing but this:
    /// a host that answers for a recipient is alive.
    pub fn feedback(&mut self, now: Duration, sent: Sent, verdict: &Verdict) {
        let asked = verdict.hint.retry_after;
        if !verdict.is_path_feedback() {
            self.learning.answered(now, sent, verdict);
        } else if let Some(incident) = Incident::of(verdict) {
            self.learning.stopped(now, sent, incident, asked);
        } else if let Some(asked) = asked {
            self.learning.not_counted(sent);
            self.learning.suspend(now, asked);
        } else if self.limits.adaptive.is_some() && sent.learns {
            self.learning.failed(now, sent, verdict);
        } else {
            self.learning.not_learned(now, sent, verdict);
        }
        self.no_longer_suspended(now);
    }

    fn no_longer_suspended(&mut self, now: Duration) {
        let is_over = self.learning.breaker.is_closed();
        if is_over
            && self
                .held
                .is_some_and(|held| held.by == Binds::Suspended && held.until > now)
        {
            self.held = None;
        }
    }

    /// When a message that was refused is tried again. Asked after [`feedback`](Self::feedback) was told of it. The jitter
    /// depends on `seed` and the attempt: give each message a seed of its own.
    ///
    /// What was refused because of the speed comes back after seconds, for the pacer has seen to the speed; if that does not
    /// help, the schedule of the reason applies. What was greylisted comes back as soon as the site is known to take it.
    pub fn next_attempt(
        &mut self,
        now: Duration,
        sent: Sent,
        verdict: &Verdict,
        schedule: &RetrySchedule,
        seed: u64,
    ) -> NextAttempt {
        let attempt = sent.sending.attempt.max(1);
        let next = schedule.next(verdict, attempt, seed);
        let NextAttempt::After(interval) = next else {
            return next;
        };
        if self.limits.adaptive.is_none() || verdict.hint.retry_after.is_some() {
            return next;
        }
        let learning = &mut self.learning;
        let late = learning::names_recipient(verdict);
        let may_be_greylisted = verdict.is_path_feedback() && late && learning.greylisting.refuses_strangers();
        if verdict.category == Category::Greylisted || may_be_greylisted {
            if !learning.has(Part::Greylisting) {
                return next;
            }
            let first = sent.sending.first_refused.unwrap_or(now);
            let waited = now.saturating_sub(first);
            return NextAttempt::After(learning.greylisting.interval(interval, waited, seed));
        }
        let is_quick = learning.has(Part::QuickRetries);
        let is_about_speed = is_quick && verdict.is_path_feedback() && !(late && learning.noise() > 0.5);
        match SOON.get(attempt as usize - 1) {
            Some(seconds) if is_about_speed => {
                let jitter = interval.as_secs_f64().fract();
                NextAttempt::After(Duration::from_secs_f64(seconds * (0.75 + jitter / 2.0)).min(interval))
            }
            _ => next,
        }
    }

    /// Messages that wait for a time of their own may go now after all, if they were first refused at or before the moment
    /// that is returned: the site has shown that it makes strangers wait no longer.
    pub fn released(&self, now: Duration) -> Option<Duration> {
        self.learning.greylisting.released(now)
    }

    /// How often limits were lowered because of what failed, and how many of these cuts were taken back because they did not
    /// help.
    pub fn cuts(&self) -> (u64, u64) {
        self.learning.cuts()
    }

    /// The learned rate, in messages a second, where there is one.
    pub fn learned_rate(&self) -> Option<f64> {
        self.limits.adaptive.as_ref()?;
        self.learning
            .rate
            .rate()
            .filter(|_| self.learning.has(Part::LearnedRate))
    }

    /// The rate in force, where there is one: the least of what policies, a share and learning say.
    pub fn rate_limit(&self) -> Option<Rate> {
        let hard = self.limits.rates().into_iter().flatten();
        let learned = self.learned_rate().and_then(Rate::of_messages_per_second);
        hard.chain(learned)
            .min_by(|one, other| one.per_second().total_cmp(&other.per_second()))
    }

    /// Sends nothing until then: a reply rule, or a person, says so.
    pub fn suspend(&mut self, now: Duration, until: Duration) {
        self.learning.suspend(now, until.saturating_sub(now));
    }

    /// Messages that one connection may carry.
    pub fn messages_per_connection(&self) -> u32 {
        self.limits.messages_per_connection
    }

    /// Connections that the lane may have at the moment.
    pub fn connection_limit(&self) -> u32 {
        let (hard, _) = self.hard_connections();
        if self.limits.adaptive.is_none() {
            return hard;
        }
        let learned = self.learning.window.limit().max(self.least_connections());
        learned.min(hard)
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

    /// When the suspension ends; none while there is none. A pause of a few seconds is not called a suspension.
    pub fn suspended_until(&self, now: Duration) -> Option<Duration> {
        self.learning.breaker.suspended_until(now)
    }
}

/// What learning never goes below, in messages a second.
fn least_rate(adaptive: &AdaptiveLimits) -> Option<f64> {
    adaptive.min_rate.map(Rate::per_second)
}
