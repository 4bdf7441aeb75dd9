//! How many messages a second a site takes, where it is the rate that it limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How far below the measured rate the lane stays.
const MARGIN: f64 = 0.98;

/// A measurement is too low where some of what the site allowed was not used: it never costs more than this of what was
/// borne.
const LEAST_OF_BORNE: f64 = 0.9;

/// Without a measurement a refusal costs this share of the rate.
const BLIND_CUT: f64 = 0.7;

/// Growth of a rate that is only a first guess, for each run of messages accepted.
const RAMP: f64 = 1.5;
const RAMP_RUN: u32 = 10;

/// The first step above a rate that is known to be borne; each step that is borne too makes the next twice as large.
const FIRST_STEP: f64 = 0.04;
const LARGEST_STEP: f64 = 0.5;

/// Messages accepted at a rate before it is probed again: at first, and after more and more failed probes.
const HOLDS: [u32; 4] = [100, 300, 600, 1_200];

/// A step is borne after so many messages, and so much time.
const STEP_RUN: u32 = 50;
const STEP_TIME: Duration = Duration::from_secs(10);

/// A rate is measured from one refusal to the next, at both of which nothing was left of what the site allows: over so many
/// messages at least, and so much time at most. Longer limits (a day's) are not spread over their time, but waited for.
const LEAST_MEASURED: u64 = 10;
const LONGEST_MEASURED: Duration = Duration::from_secs(7_200);

/// Refusals at a rate that was borne are told from accidents by a test for this much more than noise …
const MORE: f64 = 0.05;

/// … which is never taken to be less than this …
const LEAST_NOISE: f64 = 0.005;

/// … and this certain, in natural units of likelihood: without noise, two refusals within 35 messages.
const CERTAIN: f64 = 3.0;
const CERTAIN_IN_NOISE: f64 = 10.0;
const NOISY: f64 = 0.1;

/// No rate is learned below one message in ten minutes, or above what one lane could ever do.
const LEAST: f64 = 1.0 / 600.0;
const MOST: f64 = 1e6;

/// The rate that a site bears, by the generic cell rate algorithm.
///
/// A site that limits the rate refuses when nothing is left of its allowance. So between two refusals it took exactly what
/// it earned in that time: two of them measure the rate, however large the burst was that it allowed before.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct LearnedRate {
    cap: Option<Cap>,
    /// The last refusal that may have been about the rate.
    mark: Option<Mark>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Cap {
    /// Messages a second.
    rate: f64,
    /// What was borne for long.
    borne: f64,
    course: Course,
    /// Messages accepted in this course.
    accepted: u32,
    since: Duration,
    /// The cap has held a message back in this course.
    has_bound: bool,
    /// When the next message is due.
    due: Duration,
    /// Which of the `HOLDS` is next: further on with each failed probe, back with each that is borne.
    failed: u8,
    /// Log-likelihood ratio of "more is refused than by noise", never below zero.
    excess: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Course {
    /// A first guess: up quickly, until something is refused or the cap holds nothing back any more.
    Ramp,
    /// Just below what is borne.
    Hold,
    /// A step above, by this share.
    Step(f64),
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Mark {
    at: Duration,
    /// Messages sent before, less those refused.
    taken: u64,
}

/// What a refusal came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no learned rate that it could be about.
    NotMine,
    /// An accident for all that is known: nothing changes.
    Accident,
    /// The rate is lower now.
    Cut,
}

impl LearnedRate {
    /// Messages a second, where a rate is learned.
    pub(super) fn rate(&self) -> Option<f64> {
        self.cap.map(|cap| cap.rate)
    }

    /// A rate above what is known to be borne is tried.
    pub(super) fn is_probing(&self) -> bool {
        self.cap.is_some_and(|cap| matches!(cap.course, Course::Step(_)))
    }

    /// When the next message may go; none when it may now. `least` is the rate that learning never goes below.
    pub(super) fn next(&mut self, now: Duration, least: Option<f64>) -> Option<Duration> {
        let cap = self.cap.as_mut()?;
        // Two messages early at most: who wakes late catches up.
        let early = cap.interval(least).mul_f64(2.0).min(Duration::from_millis(100));
        if least.is_some() {
            // The pause after a refusal is one of the learned rate.
            cap.due = cap.due.min(now + cap.interval(least).mul_f64(3.0));
        }
        let at = cap.due.saturating_sub(early);
        if at <= now {
            return None;
        }
        cap.has_bound = true;
        Some(at)
    }

    pub(super) fn take(&mut self, now: Duration, least: Option<f64>) {
        if let Some(cap) = &mut self.cap {
            cap.due = cap.due.max(now) + cap.interval(least);
        }
    }

    /// From now on at this rate, as a first guess.
    pub(super) fn begin(&mut self, now: Duration, rate: f64) {
        let rate = rate.clamp(LEAST, MOST);
        self.cap = Some(Cap {
            due: now,
            ..Cap::new(now, rate)
        });
    }

    /// A message was accepted.
    pub(super) fn accepted(&mut self, now: Duration, noise: f64) {
        let Some(cap) = &mut self.cap else { return };
        cap.accepted = cap.accepted.saturating_add(1);
        cap.excess = (cap.excess + steps(noise).0).max(0.0);
        match cap.course {
            Course::Ramp if cap.accepted >= RAMP_RUN => {
                if cap.has_bound {
                    cap.change(now, cap.rate * RAMP, Course::Ramp);
                } else {
                    self.cap = None;
                }
            }
            Course::Hold if cap.has_bound && cap.accepted >= cap.hold() => {
                cap.borne = cap.rate;
                cap.change(now, cap.rate * (1.0 + FIRST_STEP), Course::Step(FIRST_STEP));
            }
            Course::Step(step) if cap.accepted >= STEP_RUN && now.saturating_sub(cap.since) >= STEP_TIME => {
                if cap.has_bound {
                    let step = (step * 2.0).min(LARGEST_STEP);
                    cap.borne = cap.rate;
                    cap.failed = cap.failed.saturating_sub(1);
                    cap.change(now, cap.rate * (1.0 + step), Course::Step(step));
                } else if step >= LARGEST_STEP {
                    self.cap = None;
                }
            }
            _ => {}
        }
    }

    /// A message that was sent at `at`, when `taken` messages had been sent and not refused, was refused. That may be about
    /// the rate.
    pub(super) fn refused(&mut self, now: Duration, at: Duration, taken: u64, noise: f64) -> Refused {
        let Some(cap) = self.cap.as_mut().filter(|cap| cap.has_bound) else {
            return Refused::NotMine;
        };
        cap.excess += steps(noise).1;
        if cap.excess < cap.certain(noise) {
            return Refused::Accident;
        }
        let measured = self.mark.and_then(|mark| mark.measure(at, taken));
        self.mark = Some(Mark { at, taken });
        let rate = match (measured, cap.course) {
            (Some(rate), _) => (rate * MARGIN).max(cap.borne * LEAST_OF_BORNE),
            (None, Course::Step(_)) => cap.borne,
            (None, _) => cap.rate * BLIND_CUT,
        };
        let rate = rate.clamp(cap.rate / 4.0, cap.rate * MARGIN).clamp(LEAST, MOST);
        cap.failed = cap.failed.saturating_add(2).min(HOLDS.len() as u8 - 1);
        cap.change(now, rate, Course::Hold);
        // Earns a few messages first: at an empty allowance the smallest delay on the way would be refused.
        cap.due = now + Duration::from_secs_f64((3.0 / rate).min(60.0));
        cap.excess = 0.0;
        Refused::Cut
    }

    /// Just below this rate, which was measured.
    pub(super) fn settle(&mut self, now: Duration, rate: f64) {
        let due = self.cap.map_or(now, |cap| cap.due);
        let rate = (rate * MARGIN).clamp(LEAST, MOST);
        self.cap = Some(Cap {
            due,
            ..Cap::new(now, rate).held()
        });
    }

    /// At this rate, which was borne before.
    pub(super) fn found(&mut self, now: Duration, rate: f64) {
        if rate.is_finite() && rate > 0.0 {
            self.cap = Some(Cap::new(now, rate.clamp(LEAST, MOST)).held());
        }
    }

    /// The rate between the last refusal that may have been about it, and this one.
    pub(super) fn measure(&self, at: Duration, taken: u64) -> Option<f64> {
        self.mark.and_then(|mark| mark.measure(at, taken))
    }

    /// A message that may have been about the rate was refused: the next one measures from here.
    pub(super) fn mark(&mut self, at: Duration, taken: u64) {
        self.mark = Some(Mark { at, taken });
    }

    /// Nothing that was measured holds any more.
    pub(super) fn forget_mark(&mut self) {
        self.mark = None;
    }

    /// What was kept over a restart, cut to what can be.
    pub(super) fn restored(self, now: Duration) -> Self {
        let cap = self.cap.filter(|cap| cap.rate.is_finite() && cap.rate > 0.0);
        Self {
            cap: cap.map(|cap| {
                let rate = cap.rate.clamp(LEAST, MOST);
                Cap {
                    due: cap.due.min(now + Duration::from_secs_f64(1.0 / rate)),
                    // A first guess is still one: at a step above what is borne it would be kept for hours.
                    course: match cap.course {
                        Course::Ramp => Course::Ramp,
                        Course::Hold | Course::Step(_) => Course::Hold,
                    },
                    ..Cap::new(now, rate)
                }
            }),
            // The sending went on without us, or not; either way nothing can be measured across it.
            mark: None,
        }
    }
}

impl Cap {
    fn new(now: Duration, rate: f64) -> Self {
        Self {
            rate,
            borne: rate,
            course: Course::Ramp,
            accepted: 0,
            since: now,
            has_bound: false,
            due: now,
            failed: 0,
            excess: 0.0,
        }
    }

    fn held(self) -> Self {
        Self {
            course: Course::Hold,
            ..self
        }
    }

    fn interval(&self, least: Option<f64>) -> Duration {
        let rate = self.rate.max(least.unwrap_or(LEAST));
        Duration::from_secs_f64(1.0 / rate)
    }

    /// How certain it must be that more is refused than by noise. Going back from a probe costs nothing.
    fn certain(&self, noise: f64) -> f64 {
        let certain = CERTAIN + (noise / NOISY).min(1.0) * (CERTAIN_IN_NOISE - CERTAIN);
        match self.course {
            Course::Step(_) => certain / 2.0,
            Course::Ramp | Course::Hold => certain,
        }
    }

    fn hold(&self) -> u32 {
        HOLDS[usize::from(self.failed).min(HOLDS.len() - 1)]
    }

    fn change(&mut self, now: Duration, rate: f64, course: Course) {
        self.rate = rate.clamp(LEAST, MOST);
        if course == Course::Hold {
            self.borne = self.rate;
        }
        self.course = course;
        self.accepted = 0;
        self.since = now;
        self.has_bound = false;
    }
}

/// What a message that is accepted, and one that is refused, adds to the likelihood that more is refused than by noise.
fn steps(noise: f64) -> (f64, f64) {
    let usual = noise.clamp(LEAST_NOISE, 0.9);
    let more = usual + MORE.max(usual / 2.0).min((1.0 - usual) / 2.0);
    (((1.0 - more) / (1.0 - usual)).ln(), (more / usual).ln())
}

impl Mark {
    /// The rate between this refusal and one at `at`, before which `taken` messages had been taken.
    fn measure(self, at: Duration, taken: u64) -> Option<f64> {
        let time = at.checked_sub(self.at).filter(|time| *time <= LONGEST_MEASURED)?;
        let messages = taken
            .checked_sub(self.taken)
            .filter(|messages| *messages >= LEAST_MEASURED)?;
        (!time.is_zero()).then(|| messages as f64 / time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests;
