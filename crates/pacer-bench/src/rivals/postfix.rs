//! Postfix's concurrency scheduler (since 2.5), from its description in `SCHEDULER_README`.

use std::time::Duration;

use relaypool_api::reply::Phase;
use relaypool_bounce::Verdict;
use relaypool_shaping::pacer::Grant;

use super::retries;
use crate::controller::{Controller, Message, Retry, Ticket, View};

/// `initial_destination_concurrency`.
const INITIAL: u32 = 5;

/// How far one outcome moves the concurrency N, either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feedback {
    /// By 1: the default, and what Postfix did from the start.
    One,
    /// By 1/N.
    OneByN,
    /// By 1/√N.
    OneBySqrtN,
}

impl Feedback {
    /// Name of the rival in the tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "postfix-1",
            Self::OneByN => "postfix-1/n",
            Self::OneBySqrtN => "postfix-1/sqrt-n",
        }
    }

    fn amount(self, concurrency: u32) -> f64 {
        match self {
            Self::One => 1.0,
            Self::OneByN => 1.0 / f64::from(concurrency),
            Self::OneBySqrtN => 1.0 / f64::from(concurrency).sqrt(),
        }
    }
}

/// The concurrency goes up by one at the end of a run of good deliveries whose feedback adds up to one, and down by one at
/// the beginning of such a run of failures.
///
/// Only a failure to connect or shake hands is a failure. Whatever comes later, even a 4xx to MAIL FROM, shows a host that
/// answers, and counts as good. When failures in a row add up to more than the cohort limit, counted in concurrencies, the
/// destination is dead: nothing is sent for `minimal_backoff_time`, or until an attempt still under way succeeds. It then
/// starts afresh.
///
/// All settings are Postfix's defaults, but for the feedback, which is compared in the three styles it can have, and the
/// limit on concurrency, which is the scenario's. A higher cohort limit (2, 5 and 10 were tried) brought nothing in the
/// public scenarios and cost refusals where a provider shuts the sender out. Kinder than the original: the mail that a
/// dead destination leaves in the queue goes when the destination is back, without a backoff of its own.
///
/// Messages are tried again after 300 s up to 4 000 s, the time doubling.
#[derive(Debug, Clone)]
pub struct Postfix {
    feedback: Feedback,
    cap: u32,
    /// 0 for a dead destination.
    concurrency: u32,
    success: f64,
    failure: f64,
    failed_cohorts: f64,
    dead_until: Duration,
    open: u32,
    cuts: u64,
}

/// `default_destination_concurrency_failed_cohort_limit`.
const COHORT_LIMIT: f64 = 1.0;

impl Postfix {
    /// A scheduler with at most `cap` deliveries at a time.
    pub fn new(feedback: Feedback, cap: u32) -> Self {
        let cap = cap.max(1);
        Self {
            feedback,
            cap,
            concurrency: INITIAL.min(cap),
            success: 0.0,
            failure: 0.0,
            failed_cohorts: 0.0,
            dead_until: Duration::ZERO,
            open: 0,
            cuts: 0,
        }
    }

    fn start_afresh(&mut self) {
        self.concurrency = INITIAL.min(self.cap);
        self.success = 0.0;
        self.failure = 0.0;
        self.failed_cohorts = 0.0;
    }

    fn good(&mut self) {
        if self.concurrency == 0 {
            return self.start_afresh();
        }
        self.failed_cohorts = 0.0;
        // Where the concurrency is not used, it must not run ahead: a cut would be felt too late.
        if self.concurrency >= self.open + INITIAL {
            return;
        }
        self.success += self.feedback.amount(self.concurrency);
        while reaches_one(self.success) {
            self.concurrency += 1;
            self.success = (self.success - 1.0).max(0.0);
            self.failure = 0.0;
        }
        self.concurrency = self.concurrency.min(self.cap);
    }

    fn bad(&mut self, now: Duration) {
        if self.concurrency == 0 {
            return;
        }
        self.failed_cohorts += 1.0 / f64::from(self.concurrency);
        if self.failed_cohorts > COHORT_LIMIT + ROUNDING {
            self.concurrency = 0;
            self.dead_until = now + retries::MINIMAL_BACKOFF;
            self.cuts += 1;
            return;
        }
        let before = self.concurrency;
        self.failure -= self.feedback.amount(self.concurrency);
        while self.failure < -ROUNDING {
            self.concurrency -= 1;
            self.failure += 1.0;
            self.success = 0.0;
        }
        self.concurrency = self.concurrency.max(1);
        self.cuts += u64::from(self.concurrency < before);
    }
}

/// So much may a sum of fractions be off.
const ROUNDING: f64 = 1e-9;

/// Ten tenths are one.
fn reaches_one(sum: f64) -> bool {
    sum >= 1.0 - ROUNDING
}

/// Whether a refusal is a failure to connect or to shake hands.
fn is_handshake_failure(verdict: &Verdict) -> bool {
    matches!(
        verdict.phase,
        Some(Phase::Connect | Phase::Greeting | Phase::Ehlo | Phase::StartTls)
    )
}

impl Controller for Postfix {
    fn name(&self) -> &'static str {
        self.feedback.name()
    }

    fn may_start(&mut self, now: Duration) -> Grant {
        if self.concurrency == 0 {
            if now < self.dead_until {
                return Grant::At(self.dead_until);
            }
            self.start_afresh();
        }
        if self.open < self.concurrency {
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
        self.good();
        self.open = self.open.saturating_sub(1);
    }

    fn refused(&mut self, now: Duration, ticket: Ticket, verdict: &Verdict) -> Retry {
        if is_handshake_failure(verdict) {
            self.bad(now);
        } else {
            self.good();
        }
        self.open = self.open.saturating_sub(1);
        retries::as_by_postfix(now, &ticket, verdict)
    }

    fn view(&self, now: Duration) -> View {
        View {
            window: f64::from(self.concurrency),
            rate: None,
            is_suspended: self.concurrency == 0 && now < self.dead_until,
            cuts: self.cuts,
            cuts_undone: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use relaypool_bounce::{Failure, classify_failure};
    use relaypool_simulator::scenarios::Scenario;

    use super::*;
    use crate::rivals::playground::Playground;

    fn postfix(feedback: Feedback, concurrency: u32) -> Postfix {
        Postfix {
            concurrency,
            open: concurrency,
            ..Postfix::new(feedback, 20)
        }
    }

    /// Published: the share of first attempts deferred by a server that takes 5 connections, with a limit of 20.
    #[test]
    fn defers_what_was_measured_for_it() {
        for (feedback, published) in [
            (Feedback::OneByN, 16.5),
            (Feedback::OneBySqrtN, 24.5),
            (Feedback::One, 49.7),
        ] {
            let mut playground = Playground::new(&Scenario::A.provider(), 1).without_retries();
            let played = playground.play(&mut Postfix::new(feedback, 20), Duration::from_secs(1_000));
            let deferred = 100.0 * played.refused as f64 / played.attempts as f64;
            assert!((deferred - published).abs() < 3.0, "{feedback:?}: {deferred}");
        }
    }

    #[test]
    fn goes_up_at_the_end_of_a_run_and_down_at_the_beginning() {
        let mut postfix = postfix(Feedback::OneByN, 10);
        postfix.open = 20;
        for _ in 0..9 {
            postfix.good();
        }
        assert_eq!(postfix.concurrency, 10);
        postfix.good();
        assert_eq!(postfix.concurrency, 11);

        postfix.concurrency = 10;
        let concurrencies: Vec<u32> = (0..11)
            .map(|_| {
                postfix.bad(Duration::ZERO);
                postfix.failed_cohorts = 0.0;
                postfix.concurrency
            })
            .collect();
        assert_eq!(concurrencies, [9, 9, 9, 9, 9, 9, 9, 9, 9, 8, 8]);
    }

    #[test]
    fn does_not_run_ahead_of_what_is_used() {
        let mut postfix = postfix(Feedback::One, 6);
        postfix.open = 2;
        for _ in 0..20 {
            postfix.good();
        }
        assert_eq!(postfix.concurrency, 2 + INITIAL);
        postfix.open = 100;
        for _ in 0..20 {
            postfix.good();
        }
        assert_eq!(postfix.concurrency, 20, "nor over the limit");
    }

    #[test]
    fn more_than_a_cohort_of_failures_is_a_dead_destination_for_a_while() {
        let mut postfix = postfix(Feedback::OneByN, 5);
        let at = Duration::from_secs(100);
        let back = at + Duration::from_secs(300);
        // 1/5 and then 1/4 each: 0.95 after four.
        for _ in 0..4 {
            postfix.bad(at);
        }
        assert_eq!(postfix.concurrency, 4);
        postfix.bad(at);
        assert_eq!(postfix.may_start(at), Grant::At(back));
        assert!(postfix.view(at).is_suspended);
        postfix.open = 0;
        assert_eq!(postfix.may_start(back), Grant::Now);
        assert_eq!(postfix.concurrency, INITIAL);
        assert_eq!(postfix.cuts, 2);
    }

    #[test]
    fn a_success_still_under_way_brings_a_dead_destination_back() {
        let mut postfix = postfix(Feedback::OneByN, 1);
        postfix.bad(Duration::ZERO);
        postfix.bad(Duration::ZERO);
        assert_eq!(postfix.concurrency, 0);
        postfix.good();
        assert_eq!(postfix.concurrency, INITIAL);
    }

    #[test]
    fn only_failures_to_connect_or_shake_hands_are_failures() {
        for (failure, expected) in [
            (Failure::ConnectTimeout, 9),
            (Failure::Timeout(Phase::Greeting), 9),
            (Failure::TlsFailed, 9),
            (Failure::Timeout(Phase::MailFrom), 11),
            (Failure::ConnectionLost(Phase::EndOfData), 11),
        ] {
            let mut postfix = postfix(Feedback::One, 10);
            let ticket = postfix.started(
                Duration::ZERO,
                Message {
                    number: 0,
                    attempt: 1,
                    first_refused: None,
                },
            );
            postfix.refused(Duration::ZERO, ticket, &classify_failure(failure));
            assert_eq!(postfix.concurrency, expected, "{failure:?}");
        }
    }
}
