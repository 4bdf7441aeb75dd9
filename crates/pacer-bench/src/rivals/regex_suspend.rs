//! Rules on the text of refusals, as rule-based mail servers have them: so many hits, and a limit falls or mail rests.

use std::time::Duration;

use relaypool_api::reply::Phase;
use relaypool_bounce::{Basis, Category, Verdict};
use relaypool_shaping::pacer::Grant;

use super::retries;
use super::trigger::{RecentRate, Trigger};
use crate::controller::{Controller, Message, Retry, Ticket, View};

/// Name in the tables.
pub const NAME: &str = "regex-suspend";

/// How long a suspension lasts: the shortest in use; two to four hours are usual.
const SUSPENSION: Duration = Duration::from_secs(15 * 60);

/// Time between two steps up.
const STEP_UP: Duration = Duration::from_secs(3_600);

/// The period in which hits are counted.
const PERIOD: Duration = Duration::from_secs(60);

/// What a throttle leaves of the rate.
const THROTTLE: f64 = 0.5;

/// Hits in the period that take one connection away. From 1 to 30 were tried with the public scenarios: fewer end a burst
/// over the limit sooner (A, B), more keep connections where the refusals are noise (D), all by little. From 100 on the
/// suspension comes first.
const REDUCE_AFTER: usize = 10;

/// Hits in the period that throttle the rate down. In the first minutes of C, 5 leave 80 % of the capacity, 10 nearly all
/// of it; 20 come when the provider has shut the sender out.
const THROTTLE_AFTER: usize = 10;

/// Hits in the period that suspend the path: more than it takes to find a limit connection by connection.
const SUSPEND_AFTER: usize = 500;

/// Least time between two steps of the throttle, so that one burst of refusals is one step. A minute is the default of such
/// systems, and they can be set to seconds; from 1 to 10 s are alike. Connections go one by one, as fast as the hits come:
/// with a second between two of them, A and B are lost in refusals.
const THROTTLE_INTERVAL: Duration = Duration::from_secs(1);

/// What a rule does when it fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// One connection less.
    ReduceConnections,
    /// Half of the rate, measured or set.
    ThrottleDown,
    /// Nothing for a time; then all is as before.
    Suspend,
}

/// One rule: which refusals it fits, how often they must come, and what follows.
#[derive(Debug, Clone)]
struct Rule {
    fits: fn(&Verdict) -> bool,
    trigger: Trigger,
    action: Action,
}

/// Starts at the cap and without a limit on the rate; rules take from it:
///
/// | refusal | hits | what follows |
/// |---|---|---|
/// | blocked, bad reputation | the first | nothing for 15 minutes |
/// | too many, too fast, try again later, before MAIL FROM | 10 in 60 s | a connection less |
/// | the same from MAIL FROM on | 10 in 60 s | half of the rate |
/// | the same anywhere | 500 in 60 s | nothing for 15 minutes |
///
/// A step is taken back an hour after the last step of its kind, and the next one an hour after that.
///
/// The texts are recognised by this project's classifier, which stands in for a list of patterns that is kept well; as with
/// such lists, what comes without a text (a timeout, a lost connection) fits no rule. Messages are tried again as with the
/// pacer.
///
/// The constants of this file say how the numbers were found.
#[derive(Debug, Clone)]
pub struct RegexSuspend {
    rules: Vec<Rule>,
    cap: u32,
    /// Connections taken away.
    reduced: Steps,
    throttled: Steps,
    /// What the path did before it was throttled, in messages a second.
    unthrottled: f64,
    accepted: RecentRate,
    last_started: Option<Duration>,
    suspended_until: Duration,
    open: u32,
    cuts: u64,
}

/// Steps down that are taken back one an hour.
#[derive(Debug, Clone, Copy, Default)]
struct Steps {
    down: u32,
    last: Duration,
}

impl Steps {
    fn step_down(&mut self, now: Duration) {
        self.down += 1;
        self.last = now;
    }

    fn step_up(&mut self, now: Duration) {
        while self.down > 0 && now >= self.last + STEP_UP {
            self.down -= 1;
            self.last += STEP_UP;
        }
    }
}

impl RegexSuspend {
    /// The rules, with `cap` connections to begin with.
    pub fn new(cap: u32) -> Self {
        let rule = |fits, hits, action| Rule {
            fits,
            trigger: Trigger::new(hits, PERIOD),
            action,
        };
        Self {
            rules: vec![
                rule(is_block, 1, Action::Suspend),
                rule(is_throttled_connection, REDUCE_AFTER, Action::ReduceConnections),
                rule(is_throttled_message, THROTTLE_AFTER, Action::ThrottleDown),
                rule(is_throttling, SUSPEND_AFTER, Action::Suspend),
            ],
            cap: cap.max(1),
            reduced: Steps::default(),
            throttled: Steps::default(),
            unthrottled: 0.0,
            accepted: RecentRate::default(),
            last_started: None,
            suspended_until: Duration::ZERO,
            open: 0,
            cuts: 0,
        }
    }

    fn connections(&self) -> u32 {
        self.cap - self.reduced.down
    }

    /// Messages a second, while throttled.
    fn rate(&self) -> Option<f64> {
        let steps = i32::try_from(self.throttled.down).unwrap_or(i32::MAX);
        (steps > 0).then(|| (self.unthrottled * THROTTLE.powi(steps)).max(LEAST_RATE))
    }

    /// When the rate lets the next attempt start.
    fn next_by_rate(&self) -> Option<Duration> {
        let apart = Duration::from_secs_f64(1.0 / self.rate()?);
        Some(self.last_started? + apart)
    }

    fn apply(&mut self, now: Duration, action: Action) {
        match action {
            Action::ReduceConnections if self.connections() > 1 => self.reduced.step_down(now),
            Action::ThrottleDown if self.may_throttle(now) => {
                if self.throttled.down == 0 {
                    self.unthrottled = self.accepted.per_second(now);
                }
                self.throttled.step_down(now);
            }
            Action::Suspend => self.suspended_until = now + SUSPENSION,
            Action::ReduceConnections | Action::ThrottleDown => return,
        }
        self.cuts += 1;
    }

    fn may_throttle(&self, now: Duration) -> bool {
        match self.rate() {
            None => true,
            Some(rate) => rate > LEAST_RATE && now >= self.throttled.last + THROTTLE_INTERVAL,
        }
    }
}

/// No throttle goes below this, in messages a second.
const LEAST_RATE: f64 = 1.0 / 60.0;

fn is_block(verdict: &Verdict) -> bool {
    matches!(
        verdict.category,
        Category::ReputationDeferral | Category::ReputationBlock | Category::MailBlock | Category::RdnsRequired
    )
}

/// "Too many", "too fast", "try again later".
fn is_throttling(verdict: &Verdict) -> bool {
    verdict.basis != Basis::Failure
        && verdict.is_path_feedback()
        && matches!(
            verdict.category,
            Category::RateLimited | Category::Transient | Category::Undetermined
        )
}

fn is_throttled_connection(verdict: &Verdict) -> bool {
    is_throttling(verdict) && is_opening(verdict.phase)
}

fn is_throttled_message(verdict: &Verdict) -> bool {
    is_throttling(verdict) && !is_opening(verdict.phase)
}

fn is_opening(phase: Option<Phase>) -> bool {
    matches!(
        phase,
        Some(Phase::Connect | Phase::Greeting | Phase::Ehlo | Phase::StartTls)
    )
}

impl Controller for RegexSuspend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn may_start(&mut self, now: Duration) -> Grant {
        self.reduced.step_up(now);
        self.throttled.step_up(now);
        if now < self.suspended_until {
            return Grant::At(self.suspended_until);
        }
        if self.open >= self.connections() {
            return Grant::No;
        }
        match self.next_by_rate() {
            Some(at) if at > now => Grant::At(at),
            _ => Grant::Now,
        }
    }

    fn started(&mut self, now: Duration, message: Message) -> Ticket {
        self.open += 1;
        self.last_started = Some(now);
        Ticket {
            started: now,
            message,
            sent: None,
        }
    }

    fn accepted(&mut self, now: Duration, _ticket: Ticket) {
        self.open = self.open.saturating_sub(1);
        self.accepted.count(now);
    }

    fn refused(&mut self, now: Duration, ticket: Ticket, verdict: &Verdict) -> Retry {
        self.open = self.open.saturating_sub(1);
        // A suspension is neither lengthened nor joined by other steps while it lasts.
        if now >= self.suspended_until {
            let fired: Vec<Action> = self
                .rules
                .iter_mut()
                .filter(|rule| (rule.fits)(verdict))
                .filter_map(|rule| rule.trigger.hit(now).then_some(rule.action))
                .collect();
            for action in fired {
                self.apply(now, action);
            }
        }
        retries::as_by_pacer(now, &ticket, verdict)
    }

    fn view(&self, now: Duration) -> View {
        View {
            window: f64::from(self.connections()),
            rate: self.rate(),
            is_suspended: now < self.suspended_until,
            cuts: self.cuts,
            cuts_undone: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use relaypool_bounce::{Reading, classify};

    use super::*;

    const NEUTRAL: &str = "421 4.3.2 try again later";

    fn verdict(phase: Phase, text: &str) -> Verdict {
        let reply = text
            .parse::<relaypool_simulator::description::Answer>()
            .unwrap()
            .reply();
        classify(&Reading::new(phase, &reply))
    }

    /// One attempt that starts and ends at `now`.
    fn attempt(rules: &mut RegexSuspend, now: Duration, refusal: Option<&Verdict>) {
        let message = Message {
            number: 0,
            attempt: 1,
            first_refused: None,
        };
        let ticket = rules.started(now, message);
        match refusal {
            Some(refusal) => {
                rules.refused(now, ticket, refusal);
            }
            None => rules.accepted(now, ticket),
        }
    }

    fn refuse(rules: &mut RegexSuspend, now: u64, times: usize, phase: Phase, text: &str) {
        for _ in 0..times {
            attempt(rules, Duration::from_secs(now), Some(&verdict(phase, text)));
        }
    }

    #[test]
    fn enough_refused_connections_take_one_away_and_an_hour_gives_it_back() {
        let mut rules = RegexSuspend::new(20);
        refuse(&mut rules, 0, REDUCE_AFTER - 1, Phase::Greeting, NEUTRAL);
        assert_eq!(rules.connections(), 20);
        refuse(&mut rules, 59, 1, Phase::Greeting, NEUTRAL);
        assert_eq!((rules.connections(), rules.cuts), (19, 1));
        refuse(&mut rules, 61, REDUCE_AFTER, Phase::Greeting, NEUTRAL);
        assert_eq!(rules.connections(), 18);

        for (second, connections) in [(3_660, 18), (3_661, 19), (7_260, 19), (7_261, 20), (90_000, 20)] {
            assert_eq!(rules.may_start(Duration::from_secs(second)), Grant::Now);
            assert_eq!(rules.connections(), connections, "{second}");
        }
    }

    #[test]
    fn seldom_refusals_change_nothing() {
        let mut rules = RegexSuspend::new(20);
        for hit in 0..100 {
            refuse(&mut rules, hit * 10, 1, Phase::Greeting, NEUTRAL);
        }
        assert_eq!((rules.connections(), rules.cuts), (20, 0));
    }

    #[test]
    fn refused_messages_halve_the_rate() {
        let mut rules = RegexSuspend::new(20);
        for second in 0..60 {
            for _ in 0..8 {
                attempt(&mut rules, Duration::from_secs(second), None);
            }
        }
        refuse(&mut rules, 60, THROTTLE_AFTER, Phase::MailFrom, NEUTRAL);
        let rate = rules.rate().unwrap();
        assert!((3.8..4.2).contains(&rate), "{rate}");
        let now = Duration::from_secs(60);
        let Grant::At(next) = rules.may_start(now) else {
            panic!("the last attempt was just now");
        };
        assert!((0.2..0.3).contains(&(next - now).as_secs_f64()));
        assert_eq!(rules.may_start(next), Grant::Now);
        assert_eq!(rules.connections(), 20);

        refuse(&mut rules, 60, THROTTLE_AFTER, Phase::MailFrom, NEUTRAL);
        assert_eq!(rules.cuts, 1, "one burst is one step");
        refuse(&mut rules, 61, THROTTLE_AFTER, Phase::MailFrom, NEUTRAL);
        assert_eq!(rules.rate(), Some(rate / 2.0));
    }

    #[test]
    fn too_many_refusals_and_the_first_block_suspend_for_a_fixed_time() {
        let mut rules = RegexSuspend::new(20);
        let until = Grant::At(Duration::from_secs(10) + SUSPENSION);
        refuse(&mut rules, 10, SUSPEND_AFTER, Phase::Greeting, NEUTRAL);
        assert_eq!(rules.may_start(Duration::from_secs(10)), until);
        // Outcomes of what was under way do not lengthen it.
        refuse(&mut rules, 20, SUSPEND_AFTER, Phase::Greeting, NEUTRAL);
        assert_eq!(rules.may_start(Duration::from_secs(20)), until);
        assert_eq!(rules.may_start(Duration::from_secs(910)), Grant::Now);

        let mut rules = RegexSuspend::new(20);
        refuse(
            &mut rules,
            10,
            1,
            Phase::Greeting,
            "554 5.7.1 your IP address has a poor reputation",
        );
        assert_eq!(rules.may_start(Duration::from_secs(10)), until);
    }

    #[test]
    fn what_is_about_a_recipient_fits_no_rule() {
        let mut rules = RegexSuspend::new(20);
        refuse(&mut rules, 0, 1_000, Phase::RcptTo, "550 5.1.1 no such user");
        refuse(&mut rules, 0, 1_000, Phase::RcptTo, "451 4.7.1 greylisted");
        assert_eq!((rules.cuts, rules.rate()), (0, None));
    }
}
