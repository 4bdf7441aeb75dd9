//! Additive increase, multiplicative decrease: how TCP, and many clients of services with limits, find their concurrency.

use std::time::Duration;

use relaypool_bounce::Verdict;
use relaypool_shaping::pacer::Grant;

use super::retries;
use crate::controller::{Controller, Message, Retry, Ticket, View};

/// Name in the tables.
pub const NAME: &str = "aimd";

/// The window at the start, as with the others.
const INITIAL: f64 = 5.0;

/// What a refusal leaves of the window.
///
/// 0.9 is in use too. In shortened runs of the public scenarios A, B and D (200, 2 400 and 600 s) it delivers more (100, 95
/// and 26 % of capacity against 90, 79 and 10 %), with three times the refusals in A and B; in C (300 s), most of the mail
/// of the mix, it delivers a quarter of what 0.5 does. 0.5 is the better one over all.
pub const DECREASE: f64 = 0.5;

/// A window of attempts: one more for each window of acceptances, and a fixed part less at a refusal, at most once per
/// round trip: a refusal of an attempt that began before the last cut is no news.
///
/// It grows only while it is used, so that it does not run ahead. Only refusals about the path count, as with the pacer.
/// Messages are tried again as with the pacer.
#[derive(Debug, Clone)]
pub struct Aimd {
    decrease: f64,
    cap: f64,
    window: f64,
    last_cut: Option<Duration>,
    open: u32,
    cuts: u64,
}

impl Aimd {
    /// A window of at most `cap` that is cut to [`DECREASE`] of itself.
    pub fn new(cap: u32) -> Self {
        Self::with_decrease(cap, DECREASE)
    }

    /// A window of at most `cap` that is cut to `decrease` (0 to 1) of itself.
    pub fn with_decrease(cap: u32, decrease: f64) -> Self {
        let cap = f64::from(cap.max(1));
        Self {
            decrease,
            cap,
            window: INITIAL.min(cap),
            last_cut: None,
            open: 0,
            cuts: 0,
        }
    }

    /// Attempts that may be under way.
    fn attempts(&self) -> u32 {
        self.window as u32
    }
}

impl Controller for Aimd {
    fn name(&self) -> &'static str {
        NAME
    }

    fn may_start(&mut self, _now: Duration) -> Grant {
        if self.open < self.attempts() {
            Grant::Now
        } else {
            Grant::No
        }
    }

    fn started(&mut self, now: Duration, message: Message) -> Ticket {
        self.open += 1;
        Ticket {
            started: now,
            message,
            sent: None,
        }
    }

    fn accepted(&mut self, _now: Duration, _ticket: Ticket) {
        if self.open >= self.attempts() {
            self.window = (self.window + 1.0 / self.window).min(self.cap);
        }
        self.open = self.open.saturating_sub(1);
    }

    fn refused(&mut self, now: Duration, ticket: Ticket, verdict: &Verdict) -> Retry {
        self.open = self.open.saturating_sub(1);
        let is_news = self.last_cut.is_none_or(|cut| ticket.started >= cut);
        if verdict.is_path_feedback() && is_news {
            self.window = (self.window * self.decrease).max(1.0);
            self.last_cut = Some(now);
            self.cuts += 1;
        }
        retries::as_by_pacer(now, &ticket, verdict)
    }

    fn view(&self, _now: Duration) -> View {
        View {
            window: self.window,
            rate: None,
            is_suspended: false,
            cuts: self.cuts,
            cuts_undone: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use relaypool_api::reply::Phase;
    use relaypool_bounce::{Action, Category, Failure, classify_failure};
    use relaypool_simulator::scenarios::Scenario;

    use super::*;
    use crate::rivals::playground::Playground;

    const MESSAGE: Message = Message {
        number: 0,
        attempt: 1,
        first_refused: None,
    };

    fn fill(aimd: &mut Aimd, now: Duration) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        while aimd.may_start(now) == Grant::Now {
            tickets.push(aimd.started(now, MESSAGE));
        }
        tickets
    }

    #[test]
    fn a_window_of_acceptances_is_one_more() {
        let mut aimd = Aimd::new(20);
        let mut tickets = fill(&mut aimd, Duration::ZERO);
        for round in 1..=10 {
            let now = Duration::from_secs(round);
            for ticket in std::mem::take(&mut tickets) {
                aimd.accepted(now, ticket);
                tickets.extend(fill(&mut aimd, now));
            }
        }
        assert!((14.0..=15.0).contains(&aimd.window), "{}", aimd.window);
    }

    #[test]
    fn one_round_trip_is_one_cut() {
        let mut aimd = Aimd::with_decrease(20, 0.5);
        aimd.window = 16.0;
        let refusal = classify_failure(Failure::Timeout(Phase::Greeting));
        let tickets = fill(&mut aimd, Duration::ZERO);
        assert_eq!(tickets.len(), 16);
        let at = Duration::from_secs(1);
        for ticket in tickets {
            aimd.refused(at, ticket, &refusal);
        }
        assert_eq!((aimd.window, aimd.cuts), (8.0, 1));

        let next = fill(&mut aimd, at);
        aimd.refused(Duration::from_secs(2), next[0], &refusal);
        assert_eq!((aimd.window, aimd.cuts), (4.0, 2));
    }

    #[test]
    fn what_is_not_about_the_path_changes_nothing_and_one_is_left_always() {
        let mut aimd = Aimd::new(20);
        let ticket = aimd.started(Duration::ZERO, MESSAGE);
        aimd.refused(
            Duration::ZERO,
            ticket,
            &Verdict::of(Category::Greylisted, Action::Retry),
        );
        assert_eq!(aimd.window, INITIAL);
        let refusal = classify_failure(Failure::ConnectRefused);
        for second in 1..20 {
            let now = Duration::from_secs(second);
            let ticket = aimd.started(now, MESSAGE);
            aimd.refused(now, ticket, &refusal);
        }
        assert_eq!(aimd.may_start(Duration::from_secs(20)), Grant::Now);
        assert_eq!(aimd.window, 1.0);
    }

    #[test]
    fn a_deeper_cut_is_refused_less_and_delivers_less() {
        let [half, tenth] = [0.5, 0.9].map(|decrease| {
            let mut playground = Playground::new(&Scenario::A.provider(), 1);
            playground.play(&mut Aimd::with_decrease(20, decrease), Duration::from_secs(400))
        });
        assert!(half.refused * 2 < tenth.refused, "{half:?} {tenth:?}");
        assert!(half.accepted < tenth.accepted, "{half:?} {tenth:?}");
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let mut aimd = Aimd::new(20);
        let ticket = aimd.started(Duration::ZERO, MESSAGE);
        aimd.accepted(Duration::from_secs(1), ticket);
        assert_eq!(aimd.window, INITIAL);
    }
}
