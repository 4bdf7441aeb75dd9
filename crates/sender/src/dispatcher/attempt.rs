//! What an attempt came to, and what follows for the message, the lane and the books.

use std::time::Duration;

use relaypool_api::reply::{Phase, Reply};
use relaypool_bounce::{Action, Failure, Reading, Verdict, classify, classify_failure};
use relaypool_shaping::pacer::Sent;
use relaypool_shaping::warm_up::Taken;
use relaypool_spool::{Batch, Commit, MessageKey, SliceNumber};
use tokio::sync::oneshot;

use super::Dispatcher;
use super::lane::{Assignment, LaneId, LastRefusal, SessionId, pacer_time};
use super::run::{RunId, RunState};
use super::slice::Place;
use super::timers::Timer;
use crate::ledger::{LastResult, MessageStatus, Millis};
use crate::metrics::Outcome;
use crate::resolver::RouteError;

/// What an attempt to send a message came to.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// The receiving host took it (or, in test mode, the address).
    Accepted,
    /// The host said no.
    Refused { phase: Phase, reply: Reply },
    /// It failed without a reply.
    Failed { failure: Failure, detail: String },
    /// It cannot be made for this recipient.
    Ignored { reason: String },
}

/// A session's report of one attempt.
pub(crate) struct AttemptReport {
    pub(crate) session: SessionId,
    pub(crate) key: MessageKey,
    pub(crate) attempt: Attempt,
    /// How long the host took, from the first command to the last reply.
    pub(crate) took: Duration,
    /// Where the next message goes; none when the session is over.
    pub(crate) next: Option<oneshot::Sender<Option<Assignment>>>,
}

/// Where an attempt was made: its lane, and the note that the pacer took of it. None where it did not come so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) lane: Option<LaneId>,
    pub(super) sent: Option<Sent>,
}

/// What follows for a message.
pub(super) enum Decision {
    End(MessageStatus),
    /// The attempt is counted.
    RetryAt(Millis),
    /// The attempt is not counted: the path was refused, not the message.
    WaitUntil(Millis),
    /// The path is at fault, not the message: it waits in its lane.
    Hold,
}

impl Attempt {
    pub(crate) fn no_route(error: RouteError) -> Self {
        Self::Failed {
            failure: error.failure(),
            detail: error.to_string(),
        }
    }

    /// The verdict on what went wrong; none when nothing did, or nothing that a host had a part in.
    fn verdict(&self) -> Option<Verdict> {
        match self {
            Self::Accepted | Self::Ignored { .. } => None,
            Self::Refused { phase, reply } => Some(classify(&Reading::new(*phase, reply))),
            Self::Failed { failure, .. } => Some(classify_failure(*failure)),
        }
    }

    /// Whether a receiving host has seen the attempt.
    pub(crate) fn met_a_host(&self) -> bool {
        match self {
            Self::Accepted | Self::Refused { .. } => true,
            Self::Failed { failure, .. } => classify_failure(*failure)
                .phase
                .is_some_and(|phase| phase != Phase::Connect),
            Self::Ignored { .. } => false,
        }
    }

    /// The words for a report.
    fn text(&self) -> String {
        match self {
            Self::Accepted => String::new(),
            Self::Refused { reply, .. } => reply.to_string(),
            Self::Failed { detail, .. } => detail.clone(),
            Self::Ignored { reason } => reason.clone(),
        }
    }
}

impl Dispatcher {
    /// A session reports an attempt, and asks for its next message if it can go on.
    pub(crate) fn attempted(&mut self, report: AttemptReport, now: Millis) {
        let (lane, sent, room) = match self.sessions.get_mut(&report.session) {
            Some(session) => {
                session.flying = None;
                (Some(session.lane), session.sent.take(), session.room.take())
            }
            None => (None, None, None),
        };
        self.metrics.attempt_seconds.observe(report.took.as_secs_f64());
        let recording = self.decide(report.key, lane, sent, room, &report.attempt, now);
        if let Some(session) = self.sessions.get_mut(&report.session) {
            session.recording = recording;
        }
        if let Some(next) = report.next {
            self.next_for(report.session, next, now);
        }
        if let Some(lane) = lane {
            self.work(lane, now);
        }
    }

    /// Decides on a message after an attempt, tells the lane's pacer, and records the result.
    pub(crate) fn decide(
        &mut self,
        key: MessageKey,
        lane: Option<LaneId>,
        sent: Option<Sent>,
        room: Option<Taken>,
        attempt: &Attempt,
        now: Millis,
    ) -> Option<Commit> {
        let mut verdict = attempt.verdict();
        let effects = match (lane, &mut verdict) {
            (Some(lane), Some(verdict)) => self.show_to_rules(lane, attempt, verdict, now),
            _ => None,
        };
        self.tell_lane(lane, sent, attempt, verdict.as_ref(), now);
        if let (Some(lane), Some(effects)) = (lane, &effects) {
            self.obey_rule(lane, effects, now);
        }
        // After the rules: they suspend lanes, too.
        if let Some(lane) = lane.filter(|_| sent.is_some() && !matches!(attempt, Attempt::Ignored { .. })) {
            self.lane_learned(lane, verdict.as_ref(), now);
        }
        if let (Some(lane), Some(room)) = (lane, room) {
            self.settle_room(key, lane, room, attempt, verdict.as_ref(), now);
        }
        let retry_after = effects.and_then(|effects| effects.retry_after);
        let decision = self.decision(key, Way { lane, sent }, attempt, verdict.as_ref(), retry_after, now);
        if let Some(lane) = lane {
            self.path_changed(lane, attempt, verdict.as_ref(), now);
            if matches!(attempt, Attempt::Accepted) {
                self.release_deferred(lane, now);
            }
        }
        self.count(key, attempt, verdict.as_ref(), &decision);
        let slot = self.slot_mut(key)?;
        if slot.status != MessageStatus::Waiting {
            return None;
        }
        if let Some(last) = last_result(attempt, verdict.as_ref()) {
            slot.last = Some(Box::new(last));
        }
        match decision {
            Decision::End(status) => return Some(self.end(key, status, now)),
            Decision::RetryAt(due) => {
                slot.attempts = slot.attempts.saturating_add(1);
                self.wait_until(key, due);
            }
            Decision::WaitUntil(due) => self.wait_until(key, due),
            Decision::Hold => self.requeue(key),
        }
        if let (Some(lane), Some(verdict)) = (lane, &verdict) {
            self.remember_attempt(key, lane, attempt, verdict, now);
            if matches!(decision, Decision::RetryAt(_)) {
                self.defer(key, lane, verdict, now);
            }
        }
        self.mark_dirty(key.slice);
        Some(self.record(key, now))
    }

    fn wait_until(&mut self, key: MessageKey, due: Millis) {
        if let Some(slot) = self.slot_mut(key) {
            slot.due = due;
            slot.place = Place::Due;
            self.timers.set(due, Timer::Due(key));
        }
    }

    fn decision(
        &mut self,
        key: MessageKey,
        way: Way,
        attempt: &Attempt,
        verdict: Option<&Verdict>,
        retry_after: Option<Duration>,
        now: Millis,
    ) -> Decision {
        let Some(verdict) = verdict else {
            let accepted = matches!(attempt, Attempt::Accepted);
            return Decision::End(if accepted {
                MessageStatus::Sent
            } else {
                MessageStatus::Ignored
            });
        };
        let slice = &self.slices[&key.slice];
        if verdict.action == Action::Fail {
            return Decision::End(MessageStatus::Failed);
        }
        if self.run(slice.run).state == RunState::Canceled {
            return Decision::End(MessageStatus::Canceled);
        }
        if now >= slice.expires_at {
            return Decision::End(MessageStatus::Failed);
        }
        self.next_attempt(key, way, verdict, retry_after, now)
    }

    fn tell_lane(
        &mut self,
        lane: Option<LaneId>,
        sent: Option<Sent>,
        attempt: &Attempt,
        verdict: Option<&Verdict>,
        now: Millis,
    ) {
        let (Some(lane), Some(sent)) = (lane, sent) else { return };
        let lane = self.lane_mut(lane);
        match (attempt, verdict) {
            (Attempt::Accepted, _) => {
                lane.pacer.accepted(pacer_time(now), sent);
                lane.delivered.count(now);
                lane.sent += 1;
            }
            (_, Some(verdict)) => {
                lane.pacer.feedback(pacer_time(now), sent, verdict);
                lane.last_refusal = Some(LastRefusal {
                    at: now,
                    reply: attempt.text(),
                    category: verdict.category.as_str(),
                    retry_after: verdict.hint.retry_after,
                });
                lane.failed += u64::from(verdict.action == Action::Fail);
            }
            (_, None) => lane.pacer.unused(sent),
        }
    }

    fn count(&mut self, key: MessageKey, attempt: &Attempt, verdict: Option<&Verdict>, decision: &Decision) {
        let outcome = match decision {
            Decision::End(MessageStatus::Sent) => Outcome::Sent,
            Decision::End(MessageStatus::Failed) => Outcome::Failed,
            Decision::End(MessageStatus::Canceled) => Outcome::Canceled,
            Decision::End(_) => Outcome::Ignored,
            Decision::RetryAt(_) | Decision::WaitUntil(_) | Decision::Hold => Outcome::Deferred,
        };
        self.metrics
            .count_attempt(outcome, verdict.map(|verdict| verdict.category));
        tracing::debug!(message = %key, ?outcome, reply = %attempt.text(), "attempt");
    }

    /// A message that cannot be made or addressed.
    pub(crate) fn ignore(&mut self, key: MessageKey, reason: &str, now: Millis) {
        let attempt = Attempt::Ignored {
            reason: reason.to_owned(),
        };
        drop(self.decide(key, None, None, None, &attempt, now));
    }

    /// A message has come to its end.
    fn end(&mut self, key: MessageKey, status: MessageStatus, now: Millis) -> Commit {
        self.close_slot(key, status, now);
        self.record(key, now)
    }

    fn close_slot(&mut self, key: MessageKey, status: MessageStatus, now: Millis) {
        let Some(slice) = self.slices.get_mut(&key.slice) else {
            return;
        };
        let slot = &mut slice.slots[key.index as usize];
        let attempted = matches!(status, MessageStatus::Sent | MessageStatus::Failed) && slot.place == Place::Flying;
        slot.attempts = slot.attempts.saturating_add(u16::from(attempted));
        slot.status = status;
        slot.place = Place::Done;
        slot.due = 0;
        slot.tried = None;
        if status == MessageStatus::Sent {
            // A soft bounce that a later attempt healed is no reason any more.
            slot.last = None;
            if let Some(domain) = slot.domain() {
                slice.meters.entry(domain).or_default().count(now);
            }
            self.delivered.count(now);
        }
        slice.dirty = true;
        slice.unfinished -= 1;
        self.metrics.queued.dec();
        if slice.unfinished == 0 {
            slice.finished_at = Some(now);
        }
    }

    /// Hands the state of a message to the spool. The caller may wait for it to be durable.
    fn record(&self, key: MessageKey, now: Millis) -> Commit {
        let mut batch = Batch::new();
        if let Some(slot) = self
            .slices
            .get(&key.slice)
            .and_then(|slice| slice.slots.get(key.index as usize))
        {
            batch.set_state(key, slot.record(now).encode());
        }
        self.spool.submit_now(batch)
    }

    /// Validity is over: what has not come to its end fails, for the reason of its last temporary failure.
    pub(crate) fn expire_slice(&mut self, number: SliceNumber, now: Millis) {
        self.end_all(
            number,
            MessageStatus::Failed,
            Some("Validity over before the first attempt"),
            now,
        );
    }

    /// Ends what is queued of a run as Canceled.
    pub(crate) fn cancel_run(&mut self, run: RunId, now: Millis) {
        let slices: Vec<SliceNumber> = self
            .slices
            .values()
            .filter(|slice| slice.run == run)
            .map(|slice| slice.number)
            .collect();
        for slice in slices {
            self.end_all(slice, MessageStatus::Canceled, None, now);
        }
        self.runs[run.0 as usize].parked.clear();
    }

    /// Ends every message of a slice that is not with a session; those are decided when their attempt is over.
    fn end_all(&mut self, number: SliceNumber, status: MessageStatus, default_reason: Option<&str>, now: Millis) {
        let Some(slice) = self.slices.get(&number) else { return };
        let waiting: Vec<MessageKey> = (0_u32..)
            .zip(&slice.slots)
            .filter(|(_, slot)| slot.status == MessageStatus::Waiting && slot.place != Place::Flying)
            .map(|(index, _)| MessageKey { slice: number, index })
            .collect();
        let mut batch = Batch::new();
        for key in waiting {
            self.close_slot(key, status, now);
            let Some(slot) = self.slot_mut(key) else { continue };
            if let (None, Some(reason)) = (&slot.last, default_reason) {
                slot.last = Some(Box::new(LastResult::new("Not defined", Some(1), None, reason)));
            }
            batch.set_state(key, slot.record(now).encode());
            self.metrics.count_attempt(
                if status == MessageStatus::Failed {
                    Outcome::Expired
                } else {
                    Outcome::Canceled
                },
                None,
            );
        }
        if !batch.is_empty() {
            drop(self.spool.submit_now(batch));
        }
    }

    fn mark_dirty(&mut self, slice: SliceNumber) {
        if let Some(slice) = self.slices.get_mut(&slice) {
            slice.dirty = true;
        }
    }
}

fn last_result(attempt: &Attempt, verdict: Option<&Verdict>) -> Option<LastResult> {
    match verdict {
        Some(verdict) => Some(LastResult::new(
            verdict.reason().text(),
            Some(verdict.code()),
            Some(verdict.category.as_str().to_owned()),
            &attempt.text(),
        )),
        None => match attempt {
            Attempt::Ignored { reason } => Some(LastResult::new(reason.clone(), None, None, "")),
            _ => None,
        },
    }
}
