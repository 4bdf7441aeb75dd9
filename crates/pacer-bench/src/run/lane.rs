//! One lane: the messages, the controller that paces them, and the provider that takes them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use relaypool_api::reply::Phase;
use relaypool_bounce::{Failure, Reading, Verdict, classify, classify_failure};
use relaypool_shaping::pacer::Grant;
use relaypool_simulator::description::Answer;
use relaypool_simulator::model::{Attempt, ProviderModel};

use super::backlog::Backlog;
use super::plan::{LanePlan, Plan};
use super::tally::Tally;
use super::timeline::Timeline;
use super::{Agenda, LaneOutcome, What};
use crate::controller::{Controller, Message, Retry, Ticket};

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const RETURN_PATH: &str = "sender@example.org";

pub(super) struct Lane<'a> {
    position: usize,
    plan: &'a LanePlan,
    deadline: Duration,
    controller: Box<dyn Controller>,
    model: ProviderModel,
    domain: String,
    backlog: Backlog,
    running: HashMap<u64, (Ticket, Attempt)>,
    /// The earliest time for which the lane is on the agenda.
    wake: Option<Duration>,
    verdicts: Vec<(Phase, Arc<Answer>, Verdict)>,
    tally: Tally,
    timeline: Timeline,
}

impl<'a> Lane<'a> {
    pub(super) fn new(position: usize, plan: &Plan, lane: &'a LanePlan, controller: Box<dyn Controller>) -> Self {
        Self {
            position,
            plan: lane,
            deadline: plan.deadline.unwrap_or_default(),
            controller,
            model: ProviderModel::new(&lane.provider, plan.seed),
            domain: lane
                .provider
                .domains
                .first()
                .map(ToString::to_string)
                .unwrap_or_default(),
            backlog: Backlog::new(lane.supply.clone()),
            running: HashMap::new(),
            wake: None,
            verdicts: Vec::new(),
            tally: Tally::default(),
            timeline: Timeline::new(plan.duration),
        }
    }

    /// True if a message was delivered.
    pub(super) fn happens(&mut self, now: Duration, what: What, agenda: &mut Agenda) -> bool {
        self.timeline.advance(now, || self.controller.view(now));
        let mut is_delivery = false;
        match what {
            What::AttemptEnds { attempt } => is_delivery = self.attempt_ends(now, attempt),
            What::Wake if self.wake == Some(now) => self.wake = None,
            // An earlier time came in between.
            What::Wake => return false,
        }
        self.start_attempts(now, agenda);
        is_delivery
    }

    /// Starts what may start, and plans when to ask again.
    pub(super) fn start_attempts(&mut self, now: Duration, agenda: &mut Agenda) {
        while self.backlog.has_ready(now) {
            match self.controller.may_start(now) {
                Grant::Now if self.running.len() < self.plan.window_cap as usize => self.start_attempt(now, agenda),
                Grant::Now | Grant::No => return,
                Grant::At(at) => return self.wake_at(at.max(now + Duration::from_nanos(1)), agenda),
            }
        }
        if let Some(due) = self.backlog.next_due() {
            self.wake_at(due, agenda);
        }
    }

    fn wake_at(&mut self, at: Duration, agenda: &mut Agenda) {
        if self.wake.is_none_or(|wake| at < wake) {
            self.wake = Some(at);
            agenda.plan(at, self.position, What::Wake);
        }
    }

    fn start_attempt(&mut self, now: Duration, agenda: &mut Agenda) {
        let Some(message) = self.backlog.take(now) else {
            return;
        };
        let ticket = self.controller.started(now, message);
        let recipient = format!("r{}@{}", message.number, self.domain);
        let attempt = self.model.attempt(now, SOURCE, RETURN_PATH, &recipient);
        let number = self.tally.attempts;
        self.tally.attempts += 1;
        agenda.plan(
            now.saturating_add(attempt.takes),
            self.position,
            What::AttemptEnds { attempt: number },
        );
        self.running.insert(number, (ticket, attempt));
    }

    fn attempt_ends(&mut self, now: Duration, number: u64) -> bool {
        let Some((ticket, attempt)) = self.running.remove(&number) else {
            return false;
        };
        self.model.disconnect(attempt.connection);
        let is_accepted = attempt.is_accepted();
        self.timeline.count(is_accepted);
        if is_accepted {
            self.accepted(now, ticket);
        } else {
            let verdict = self.verdict(&attempt);
            self.refused(now, ticket, &verdict);
        }
        is_accepted
    }

    fn accepted(&mut self, now: Duration, ticket: Ticket) {
        self.tally.accepted += 1;
        self.tally.accepted_by_deadline += u64::from(now <= self.deadline);
        // A quota counts a message when it is announced.
        if let Some(day) = self.tally.day(self.plan.days.number(ticket.started)) {
            day.accepted += 1;
        }
        self.controller.accepted(now, ticket);
        if let Some(until) = self.controller.released(now) {
            self.backlog.release(until);
        }
    }

    fn refused(&mut self, now: Duration, ticket: Ticket, verdict: &Verdict) {
        self.tally.refused += 1;
        if let Some(day) = self.tally.day(self.plan.days.number(ticket.started)) {
            day.refused += 1;
        }
        let retry = self.controller.refused(now, ticket, verdict);
        let message = Message {
            first_refused: ticket.message.first_refused.or(Some(now)),
            ..ticket.message
        };
        let again = Message {
            attempt: message.attempt.saturating_add(1),
            ..message
        };
        match retry {
            Retry::Never => self.tally.failed += 1,
            Retry::WithLane => self.backlog.hold(message),
            Retry::At(due) => self.backlog.wait(again, due),
        }
    }

    /// What the refusal means: the judgement that the sender itself would come to.
    fn verdict(&mut self, attempt: &Attempt) -> Verdict {
        let Some(answer) = &attempt.reply else {
            return classify_failure(Failure::ConnectionLost(attempt.phase));
        };
        // A provider has few replies, and repeats them often.
        let known = self
            .verdicts
            .iter()
            .find(|(phase, known, _)| *phase == attempt.phase && known == answer);
        if let Some((_, _, verdict)) = known {
            return verdict.clone();
        }
        let verdict = classify(&Reading::new(attempt.phase, &answer.reply()));
        self.verdicts.push((attempt.phase, Arc::clone(answer), verdict.clone()));
        verdict
    }

    /// Nothing is left to send.
    pub(super) fn is_done(&self) -> bool {
        self.running.is_empty() && self.backlog.tried() == 0 && self.backlog.untried() == Some(0)
    }

    pub(super) fn finish(mut self, elapsed: Duration) -> LaneOutcome {
        let view = self.controller.view(elapsed);
        self.timeline.advance(elapsed, || view);
        self.tally.running = self.running.len() as u64;
        self.tally.waiting = self.backlog.tried();
        self.tally.begun = self.backlog.begun();
        self.tally.blocks = self.model.lockouts();
        LaneOutcome {
            tally: self.tally,
            view,
            timeline: self.timeline,
        }
    }
}
