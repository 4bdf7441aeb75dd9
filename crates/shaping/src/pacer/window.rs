//! How many connections a site bears.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::part::Part;

/// Connections of a lane that knows nothing yet.
pub(super) const INITIAL: u32 = 5;

/// No window grows beyond this; the hard limits are far below.
const LARGEST: u32 = 10_000;

/// Messages to be accepted, and seconds, between a probe that failed and the next: few at first, for a single failure may be
/// chance.
const HOLDS: [(u32, u64); 5] = [(20, 2), (80, 8), (200, 20), (400, 40), (600, 60)];

/// What it is where probes are not spaced.
const SHORT_HOLD: (u32, u64) = (0, 2);

/// On a quiet lane so many messages take long: after this time the next probe may go all the same.
const LONGEST_HOLD: Duration = Duration::from_secs(900);

/// The connections a lane may have: what is proven, and probes above it.
///
/// An attempt that is accepted while `n` connections are open proves that the site bears `n`. An attempt above the size of
/// the window is a probe. After the first proof probes go at once, twice as many with each success, spread over the time
/// that a message takes, so that the first refusal stops the rest. A failed probe ends that for a time that is counted in
/// accepted messages: what probing costs is a small share of the mail, whatever the speed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Window {
    /// Connections that need no probe.
    size: u32,
    /// The most connections an accepted attempt was made with, since something spoke against it.
    proven: u32,
    /// Probes that may be under way; none while the window holds.
    step: u32,
    /// Probes under way.
    probing: u32,
    /// When the next probe may go.
    probe_at: Duration,
    /// Where the probes of this step lead.
    target: u32,
    /// Failures above what is proven, in a row.
    failures: u32,
    hold: Option<Hold>,
    /// Which of the `HOLDS` comes next.
    holds: u8,
    /// Connections that learning never goes below: these are no probes, and what fails on them speaks against the path.
    #[serde(skip)]
    least: u32,
    /// Left out, for measurements.
    #[serde(skip)]
    without: Option<Part>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Hold {
    accepted: u32,
    from: Duration,
    until: Duration,
}

/// What became of an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// There were no more connections than are proven: it says nothing against the window.
    Proven,
    /// It may have been one connection too many; it is not certain yet.
    Perhaps,
    /// It was one connection too many. The window is lower now, or holds.
    Cut,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            size: INITIAL,
            proven: 0,
            step: INITIAL,
            probing: 0,
            probe_at: Duration::ZERO,
            target: INITIAL * 2,
            failures: 0,
            hold: None,
            holds: 0,
            least: 1,
            without: None,
        }
    }
}

impl Window {
    /// A window of a size that was found to be what is borne.
    pub(super) fn found(size: u32) -> Self {
        let size = size.clamp(1, LARGEST);
        Self {
            size,
            proven: size,
            step: 0,
            target: size,
            hold: Some(Hold {
                accepted: HOLDS[0].0,
                from: Duration::ZERO,
                until: LONGEST_HOLD,
            }),
            ..Self::default()
        }
    }

    /// Never fewer connections than this.
    pub(super) fn at_least(&mut self, least: u32) {
        self.least = least;
        self.size = self.size.max(least);
        self.target = self.target.max(self.size);
    }

    /// From now on without this part.
    pub(super) fn leave_out(&mut self, part: Part) {
        self.without = Some(part);
    }

    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Connections that may be open, probes included.
    pub(super) fn limit(&self) -> u32 {
        self.size.saturating_add(self.step)
    }

    /// Whether another connection may open beside `open` ones; the moment when it may, where only time is missing.
    pub(super) fn may_open(&mut self, now: Duration, open: u32) -> Result<(), Option<Duration>> {
        if open < self.size {
            return Ok(());
        }
        self.end_hold(now);
        if self.proven < self.size || self.probing >= self.step || open >= self.limit() {
            return Err(None);
        }
        if now < self.probe_at {
            return Err(Some(self.probe_at));
        }
        Ok(())
    }

    /// An attempt is made on a new connection, the `open`th. `usual` is what a message takes. True when it is a probe.
    pub(super) fn opened(&mut self, now: Duration, open: u32, usual: Option<Duration>) -> bool {
        if open <= self.size {
            return false;
        }
        self.probing = self.probing.saturating_add(1);
        // Before the first outcome there is nothing to spread them over, and nothing to grow on either.
        self.probe_at = now + usual.unwrap_or_default() / self.step.max(1);
        true
    }

    /// A probe has its outcome, or never will.
    pub(super) fn probe_ended(&mut self) {
        self.probing = self.probing.saturating_sub(1);
    }

    /// No more connections than this are open: so no more probes are under way.
    pub(super) fn open_now(&mut self, open: u32) {
        self.probing = self.probing.min(open);
    }

    /// An attempt that was made as one of `open` connections was accepted in good time.
    pub(super) fn accepted(&mut self, now: Duration, open: u32) {
        self.count_down(now);
        if open > self.proven {
            self.proven = open.min(LARGEST);
            self.failures = 0;
        }
        // More may be proven than the size: by connections that were open already when it became smaller.
        if self.step > 0 && self.proven >= self.size {
            self.size = self.proven;
            if self.size >= self.target {
                // All of the step is borne: the next is twice as large.
                self.step = self.step.saturating_mul(2).min(self.size);
                self.target = self.size.saturating_add(self.step).min(LARGEST);
                self.holds = self.holds.saturating_sub(1);
            }
        }
    }

    fn count_down(&mut self, now: Duration) {
        let Some(hold) = &mut self.hold else { return };
        hold.accepted = hold.accepted.saturating_sub(1);
        self.end_hold(now);
    }

    fn end_hold(&mut self, now: Duration) {
        let Some(hold) = &self.hold else { return };
        if (hold.accepted == 0 && now >= hold.from) || now >= hold.until {
            self.hold = None;
            self.step = 1;
            self.target = self.size.saturating_add(1);
        }
    }

    /// An attempt that was made as one of `open` connections failed. So many failures in a row are certain.
    pub(super) fn failed(&mut self, now: Duration, open: u32, certain: u32) -> Failed {
        let is_proven = open <= self.proven && self.without != Some(Part::ProvenWindow);
        if is_proven || open <= self.least.max(1) {
            return Failed::Proven;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < certain {
            return Failed::Perhaps;
        }
        self.size = self.size.min(open - 1);
        self.hold_now(now);
        Failed::Cut
    }

    fn hold_now(&mut self, now: Duration) {
        let (accepted, seconds) = match self.without {
            Some(Part::ProbeSpacing) => SHORT_HOLD,
            _ => HOLDS[usize::from(self.holds).min(HOLDS.len() - 1)],
        };
        self.holds = self.holds.saturating_add(1).min(HOLDS.len() as u8 - 1);
        self.hold = Some(Hold {
            accepted,
            from: now + Duration::from_secs(seconds),
            until: now + LONGEST_HOLD,
        });
        self.step = 0;
        self.failures = 0;
    }

    /// Too much fails at a size that was borne so far: nothing is proven any more, and nothing is probed until more is known.
    pub(super) fn doubt(&mut self, now: Duration) {
        self.proven = 0;
        self.holds = 0;
        self.hold_now(now);
    }

    /// The same window as before a cut that did not help.
    pub(super) fn undo(&mut self, before: &Self) {
        let (probing, least) = (self.probing, self.least);
        self.clone_from(before);
        self.probing = probing;
        self.at_least(least);
    }

    /// What was kept over a restart, cut to what can be. The connections did not survive.
    pub(super) fn restored(self, now: Duration) -> Self {
        let size = self.size.clamp(1, LARGEST);
        let step = match self.hold {
            Some(_) => 0,
            None => self.step.clamp(1, LARGEST),
        };
        Self {
            size,
            proven: self.proven.min(LARGEST),
            step,
            probing: 0,
            probe_at: now,
            target: self.target.clamp(size, LARGEST),
            failures: 0,
            hold: self.hold.map(|hold| Hold {
                accepted: hold.accepted.min(HOLDS[HOLDS.len() - 1].0),
                from: hold.from.min(now + LONGEST_HOLD),
                until: hold.until.min(now + LONGEST_HOLD),
            }),
            holds: self.holds.min(HOLDS.len() as u8 - 1),
            least: 1,
            without: None,
        }
    }
}

#[cfg(test)]
mod tests;
