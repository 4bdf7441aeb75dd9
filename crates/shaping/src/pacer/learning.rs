//! What a lane learns from the outcomes of its attempts.
//!
//! ```text
//!  outcome ─► above what is proven? ─► window: that was one connection too many
//!          ├► the learned rate binds? ─► rate: that was too fast, and now measured
//!          └► more failures than noise? ─► alarm ─► recovery: slower; does it help?
//!                                                   ├ yes: find the speed from there
//!                                                   └ no: take the cut back, it is noise
//! ```

use std::time::Duration;

use relaypool_api::reply::Phase;
use relaypool_bounce::{Basis, Category, Verdict};
use serde::{Deserialize, Serialize};

use super::Sent;
use super::breaker::{Breaker, Incident};
use super::evidence::Evidence;
use super::greylisting::Greylisting;
use super::latency::Latency;
use super::learned_rate::{LearnedRate, Refused};
use super::part::Part;
use super::recovery::{Before, Earlier, Finding, Outcome, Recovery, SLOWER};
use super::throughput::Throughput;
use super::window::{Failed, Window};

/// Messages a second at which a test begins on a lane that has delivered nothing yet.
const FIRST_RATE: f64 = 1.0;

/// No test begins at less: on a lane with little mail, the speed it had lately is next to nothing.
const LEAST_RATE: f64 = 0.1;

/// A cut counts as right when so many messages went well after it.
const CALM: u32 = 50;

/// Nothing that was in question before is any more when so many went well.
const LONG_CALM: u32 = 300;

/// So many cuts of the learned rate with no calm between them: it is not the rate.
const RATE_CUTS: u8 = 2;

/// Cuts in a row do not make the test that follows slower than from this share of the speed before them.
const HALF: f64 = 0.5;

/// So many more slow replies than quick ones are an alarm.
const SLOW: u8 = 8;

/// What a restart can find of a count that grows for ever.
const MOST_COUNTED: u64 = 1 << 53;

/// Everything that is learned.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Learning {
    pub(super) window: Window,
    pub(super) rate: LearnedRate,
    pub(super) breaker: Breaker,
    pub(super) greylisting: Greylisting,
    evidence: Evidence,
    latency: Latency,
    // A test that is cut short by a restart is not taken up again: the alarm comes again if there is reason for it.
    #[serde(skip)]
    throughput: Throughput,
    #[serde(skip)]
    recovery: Option<Recovery>,
    /// How things were before cuts of which it is not certain yet that they were right.
    #[serde(skip)]
    before: Option<Box<Before>>,
    /// The rate that two alarms measured between them.
    #[serde(skip)]
    measured: Option<f64>,
    /// Messages a second when the path was last suspended.
    speed: f64,
    /// Messages sent, and those of them that failed.
    #[serde(skip)]
    sent: u64,
    #[serde(skip)]
    failed: u64,
    /// Messages sent before this one left before the last cut: they say nothing about what came after.
    #[serde(skip)]
    news_from: u64,
    /// Messages accepted since the last cut.
    #[serde(skip)]
    calm: u32,
    #[serde(skip)]
    rate_cuts: u8,
    #[serde(skip)]
    earlier: Earlier,
    #[serde(skip)]
    slow: u8,
    cuts: u64,
    cuts_undone: u64,
    /// Left out, for measurements.
    #[serde(skip)]
    without: Option<Part>,
}

impl Learning {
    /// From now on without this part.
    pub(super) fn leave_out(&mut self, part: Part) {
        self.without = Some(part);
        self.window.leave_out(part);
    }

    /// Whether this part is not left out.
    pub(super) fn has(&self, part: Part) -> bool {
        self.without != Some(part)
    }

    /// Cuts so far, and how many of them were taken back.
    pub(super) fn cuts(&self) -> (u64, u64) {
        (self.cuts, self.cuts_undone)
    }

    /// How many messages had been sent before this one, and how many of them did not fail.
    pub(super) fn number(&mut self, is_probe: bool) -> (u64, u64) {
        if !is_probe {
            self.evidence.begun();
        }
        let number = self.sent;
        self.sent += 1;
        (number, number.saturating_sub(self.failed))
    }

    /// A message is sent on a connection opened for it. True when it is a probe for one connection more.
    pub(super) fn opened(&mut self, now: Duration, open: u32) -> bool {
        self.window.opened(now, open, self.latency.usual())
    }

    /// A message was accepted.
    pub(super) fn accepted(&mut self, now: Duration, sent: Sent) {
        self.throughput.count(now);
        self.probe_ended(sent);
        self.path_works(now, sent);
        if !sent.learns {
            return;
        }
        self.meet_stranger(now, sent, false);
        let took = now.saturating_sub(sent.at);
        let is_slow = self.has(Part::Latency) && self.latency.is_slow(took, sent.sending.new_connection);
        if !is_slow {
            self.latency.learn(took, sent.sending.new_connection);
        }
        if sent.number < self.news_from {
            return;
        }
        if is_slow {
            self.slow(now, sent);
        } else {
            self.good(now, sent);
        }
    }

    fn good(&mut self, now: Duration, sent: Sent) {
        self.slow = self.slow.saturating_sub(1);
        self.evidence.went_well();
        self.window.accepted(now, sent.connections);
        self.rate.accepted(now, self.evidence.noise());
        self.calm = self.calm.saturating_add(1);
        if self.recovery.is_some() {
            self.test(now, Outcome::Good);
        } else if self.calm >= CALM {
            self.before = None;
        }
        if self.calm >= LONG_CALM {
            self.rate_cuts = 0;
            self.earlier = Earlier::default();
        }
    }

    /// A message was accepted, after far longer than usual.
    fn slow(&mut self, now: Duration, sent: Sent) {
        let certain = self.evidence.certain_failures();
        match self.window.failed(now, sent.connections, certain) {
            Failed::Cut => self.cut(),
            Failed::Perhaps => {}
            Failed::Proven if self.recovery.is_some() => self.test(now, Outcome::Slow),
            Failed::Proven => {
                self.slow += 1;
                if self.slow >= SLOW {
                    self.alarm(now, sent, None);
                }
            }
        }
    }

    /// A message was refused, or its connection failed, for no reason that stops the path for a known time.
    pub(super) fn failed(&mut self, now: Duration, sent: Sent, verdict: &Verdict) {
        self.failed += 1;
        self.probe_ended(sent);
        let answers = names_recipient(verdict);
        if answers {
            self.meet_stranger(now, sent, true);
            if self.greylisting.is_silent() {
                return self.path_works(now, sent);
            }
        }
        if sent.number < self.news_from || self.breaker.is_of_before(sent.at) {
            return;
        }
        if self.breaker.is_probing() {
            if !answers {
                return self.breaker.trip(now, incident(verdict), None);
            }
            // A host that hears who the recipient is before it refuses is not down.
            self.path_works(now, sent);
        }
        self.too_much(now, sent, verdict);
    }

    /// Finds what the failure speaks against: the window, the rate, or the speed as a whole.
    fn too_much(&mut self, now: Duration, sent: Sent, verdict: &Verdict) {
        let size = self.window.size();
        let certain = self.evidence.certain_failures();
        let before = self.window.clone();
        if !self.has(Part::MeasuredRate) {
            self.rate.forget_mark();
        }
        match self.window.failed(now, sent.connections, certain) {
            Failed::Perhaps => return self.evidence.failed_by_accident(),
            Failed::Cut if self.window.size() == size => return self.cut(),
            Failed::Cut => {
                // A size that nothing had proven may be too large; but if smaller ones fail as well, it is not the size.
                self.remember(before, self.throughput.rate(now));
                self.cuts += 1;
                self.cut();
                if self.recovery.is_some() {
                    return;
                }
            }
            Failed::Proven if self.recovery.is_some() => return self.test_failed(now, verdict),
            Failed::Proven => {}
        }
        let was_probe = self.rate.is_probing();
        match self.rate.refused(now, sent.at, sent.taken, self.evidence.noise()) {
            Refused::Accident => self.evidence.failed_at_learned_rate(),
            Refused::Cut => self.rate_cut(now, sent, verdict, was_probe),
            Refused::NotMine => {
                self.evidence.failed();
                if self.evidence.is_alarm() {
                    self.alarm(now, sent, Some(verdict));
                }
            }
        }
    }

    fn rate_cut(&mut self, now: Duration, sent: Sent, verdict: &Verdict, was_probe: bool) {
        self.evidence.failed_at_learned_rate();
        self.cut();
        if was_probe {
            return;
        }
        self.rate_cuts += 1;
        if self.rate_cuts >= RATE_CUTS {
            self.alarm(now, sent, Some(verdict));
        }
    }

    fn cut(&mut self) {
        self.news_from = self.sent;
        self.calm = 0;
    }

    fn remember(&mut self, window: Window, speed: f64) {
        let rate = &self.rate;
        let before = self.before.get_or_insert_with(|| {
            Box::new(Before {
                window,
                rate: rate.clone(),
                speed,
                cuts: 0,
            })
        });
        before.cuts += 1;
        before.speed = before.speed.max(speed);
    }

    /// Too much fails, or is slow, at a speed that was fine so far: a pause, and then a test at a lower speed.
    fn alarm(&mut self, now: Duration, sent: Sent, verdict: Option<&Verdict>) {
        let speed = self.throughput.rate(now);
        self.remember(self.window.clone(), speed);
        self.cuts += 1;
        self.cut();
        let good = self.before.as_ref().map_or(0.0, |before| before.speed);
        let slower = SLOWER * speed.max(good * HALF);
        let noise = self.evidence.noise();
        let share = if verdict.is_some() { self.evidence.share() } else { 1.0 };
        self.recovery = Some(Recovery::new(share, noise).after(self.earlier));
        self.evidence.alarm_is_over();
        self.slow = 0;
        self.rate_cuts = 0;
        self.window.doubt(now);
        let measured = self.rate.measure(sent.at, sent.taken);
        self.measured = measured.filter(|_| self.has(Part::MeasuredRate));
        self.rate.mark(sent.at, sent.taken);
        let rate = if good.max(speed) > 0.0 {
            slower.max(LEAST_RATE)
        } else {
            FIRST_RATE
        };
        self.rate.begin(now, rate);
        if let Some(verdict) = verdict {
            self.pause(now, verdict);
        }
    }

    /// Nothing gets through, or too little: pauses, longer each time in a row.
    fn pause(&mut self, now: Duration, verdict: &Verdict) {
        if self.has(Part::Pauses) {
            self.breaker.trip(now, incident(verdict), None);
        }
    }

    fn test_failed(&mut self, now: Duration, verdict: &Verdict) {
        self.evidence.failed_by_accident();
        if let Some(recovery) = &mut self.recovery {
            recovery.failed_at(names_recipient(verdict));
        }
        self.test(now, Outcome::Failed);
        let hopeless = self.recovery.as_ref().is_some_and(Recovery::is_hopeless);
        if hopeless && !names_recipient(verdict) {
            self.cut();
            self.pause(now, verdict);
        }
    }

    fn test(&mut self, now: Duration, outcome: Outcome) {
        let Some(recovery) = &mut self.recovery else { return };
        let finding = match recovery.count(outcome) {
            Finding::Slower | Finding::Noise { .. } if self.without == Some(Part::NoiseTest) => Finding::Helped,
            finding => finding,
        };
        match finding {
            Finding::Pending => {}
            Finding::Slower => {
                let rate = self.rate.rate().unwrap_or(FIRST_RATE);
                self.rate.begin(now, rate * HALF);
                self.cuts += 1;
                if let Some(before) = &mut self.before {
                    before.cuts += 1;
                }
                self.cut();
            }
            Finding::Helped => {
                self.earlier = recovery.so_far();
                self.recovery = None;
                if let Some(rate) = self.measured.take() {
                    self.rate.settle(now, rate);
                }
            }
            Finding::Noise { failing, slow } => self.undo(failing, slow),
        }
    }

    fn undo(&mut self, failing: f64, slow: f64) {
        self.recovery = None;
        self.earlier = Earlier::default();
        self.evidence.noise_is(failing);
        if slow > 0.5 {
            self.latency.forget();
        }
        if let Some(before) = self.before.take() {
            self.window.undo(&before.window);
            self.rate = before.rate;
            self.cuts_undone += u64::from(before.cuts);
        }
        self.cut();
    }

    /// The host stops the path for a reason.
    pub(super) fn stopped(&mut self, now: Duration, sent: Sent, incident: Incident, asked: Option<Duration>) {
        self.not_counted(sent);
        if self.breaker.is_closed() {
            self.speed = self.throughput.rate(now);
        }
        self.breaker.trip(now, incident, asked);
    }

    /// Nothing is sent for this time.
    pub(super) fn suspend(&mut self, now: Duration, time: Duration) {
        if self.breaker.is_closed() {
            self.speed = self.throughput.rate(now);
        }
        self.breaker.suspend(now, time);
    }

    /// A refusal that says nothing about the path; a host that answers for a recipient is alive.
    pub(super) fn answered(&mut self, now: Duration, sent: Sent, verdict: &Verdict) {
        self.not_counted(sent);
        if verdict.category == Category::Greylisted && self.has(Part::Greylisting) {
            self.greylisting.put_off(waited(now, sent));
        }
        if !names_recipient(verdict) {
            return self.breaker.free_probe();
        }
        self.path_works(now, sent);
        if sent.learns && sent.number >= self.news_from {
            self.good(now, sent);
        }
    }

    /// A failure while nothing is learned: all it can do is to end a probe.
    pub(super) fn not_learned(&mut self, now: Duration, sent: Sent, verdict: &Verdict) {
        self.not_counted(sent);
        if self.breaker.is_probing() && !self.breaker.is_of_before(sent.at) {
            self.breaker.trip(now, incident(verdict), None);
        }
    }

    /// A message that was sent counts for nothing.
    pub(super) fn not_counted(&mut self, sent: Sent) {
        self.failed += 1;
        self.probe_ended(sent);
    }

    fn probe_ended(&mut self, sent: Sent) {
        if sent.is_probe {
            self.window.probe_ended();
        }
    }

    fn meet_stranger(&mut self, now: Duration, sent: Sent, refused: bool) {
        if !self.has(Part::Greylisting) {
            return;
        }
        if sent.sending.attempt <= 1 {
            self.greylisting.stranger(refused);
        } else if refused {
            self.greylisting.put_off_silently(waited(now, sent));
        } else {
            self.greylisting.passed(waited(now, sent));
        }
    }

    fn path_works(&mut self, now: Duration, sent: Sent) {
        let was_long = self.breaker.was_suspended();
        if self.breaker.succeeded(now, sent.at) && was_long && self.recovery.is_none() {
            // Back with care: from a part of the speed that was good before.
            self.rate.begin(now, (self.speed * SLOWER).max(FIRST_RATE * SLOWER));
            self.rate.forget_mark();
            self.cut();
        }
    }

    /// How much fails at any speed.
    pub(super) fn noise(&self) -> f64 {
        self.evidence.noise()
    }

    /// What was kept over a restart, cut to what can be.
    pub(super) fn restored(self, now: Duration) -> Self {
        let speed = if self.speed.is_finite() {
            self.speed.max(0.0)
        } else {
            0.0
        };
        Self {
            window: self.window.restored(now),
            rate: self.rate.restored(now),
            breaker: self.breaker.restored(now),
            evidence: self.evidence.restored(),
            latency: self.latency.restored(),
            greylisting: self.greylisting.restored(),
            speed,
            cuts: self.cuts.min(MOST_COUNTED),
            cuts_undone: self.cuts_undone.min(self.cuts).min(MOST_COUNTED),
            // What was on its way did not survive, and with it what is counted to judge it by.
            ..Self::default()
        }
    }
}

/// How long ago the message was first refused.
fn waited(now: Duration, sent: Sent) -> Duration {
    let first = sent.sending.first_refused;
    first.map_or(Duration::ZERO, |first| now.saturating_sub(first))
}

fn incident(verdict: &Verdict) -> Incident {
    if verdict.basis == Basis::Failure {
        Incident::Dead
    } else {
        Incident::Refusing
    }
}

/// The refusal came when the host knew the recipient.
pub(super) fn names_recipient(verdict: &Verdict) -> bool {
    matches!(verdict.phase, Some(Phase::RcptTo | Phase::Data | Phase::EndOfData))
}
