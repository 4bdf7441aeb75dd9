//! Progress: from the slices of a run and what their senders say to the status of the Delivery. Pure, and computed anew each
//! time, so a controller that was restarted loses nothing.

mod merge;
mod messages;
mod slice_view;
mod speed;
mod tally;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource as _, ResourceExt as _};
use relaypool_api::conditions::{ConditionType, DeliveryReason, Readiness};
use relaypool_api::delivery::{DeliveryPhase, Plan, Speed};
use relaypool_api::delivery_slice::SlicePhase;
use relaypool_api::not_in_effect::{NotInEffect as _, Surroundings, notice};
use relaypool_api::progress::Tally;
use relaypool_api::{Delivery, DeliveryStatus, MAX_VALIDITY, effective_validity};

use crate::conditions::Conditions;
use crate::planning::{RecipientList, SPEC_DIGEST_ANNOTATION, spec_digest};

pub use slice_view::{MAX_LISTED_MESSAGES, RowHead, Rows, RunView, SliceView, SliceViewSpec};
pub use speed::{SpeedMeter, Totals};
pub use tally::run_tally;

/// Where a run is.
#[derive(Debug, Clone, Copy)]
pub enum RunState<'a> {
    /// The message slice is there: the plan is complete and fixed.
    Planned {
        /// The message slice.
        message_slice: &'a SliceView,
        /// What it says.
        run: &'a RunView,
        /// The slices of recipients, as far as they are known.
        slices: &'a [&'a SliceView],
    },
    /// There is no plan.
    Unplanned {
        /// Reconciling, when the plan will come by itself; else Stalled.
        readiness: Readiness,
        /// Why there is none.
        reason: DeliveryReason,
        /// The same for people.
        message: &'a str,
        /// The recipients, when they are known already.
        recipients: Option<&'a RecipientList>,
    },
    /// Canceled before there was a plan.
    CanceledUnplanned,
}

/// What the status of a Delivery is made from.
#[derive(Debug, Clone, Copy)]
pub struct StatusInput<'a> {
    /// The Delivery. Of its status, only times are taken over.
    pub delivery: &'a Delivery,
    /// Where its run is.
    pub state: RunState<'a>,
    /// Its speeds over the last minute, where they are known.
    pub speed: Option<Speed>,
    /// The time.
    pub now: &'a Time,
    /// Who starts the senders.
    pub surroundings: Surroundings,
}

/// The status that the Delivery should have.
pub fn delivery_status(input: &StatusInput<'_>) -> DeliveryStatus {
    match input.state {
        RunState::Planned {
            message_slice,
            run,
            slices,
        } => planned(input, message_slice, run, slices),
        RunState::Unplanned {
            readiness,
            reason,
            message,
            recipients,
        } => unplanned(input, readiness, reason, message, recipients),
        RunState::CanceledUnplanned => canceled_unplanned(input),
    }
}

fn planned(input: &StatusInput<'_>, message_slice: &SliceView, run: &RunView, slices: &[&SliceView]) -> DeliveryStatus {
    let spec = &input.delivery.spec;
    let tally = run_tally(run, slices);
    let finished = tally.is_finished();
    let mut conditions = conditions_so_far(input);
    conditions.readiness(Readiness::Ready, DeliveryReason::Planned, plan_message(run, slices));
    completed(&mut conditions, &tally);
    let unsigned = run.dkim_keys.is_empty().then(|| {
        let domain = spec.sender.address.domain();
        format!("no DkimKey is for {domain} or a parent of it: the mail is not signed")
    });
    conditions.set_or_remove(ConditionType::DkimMissing, DeliveryReason::NoDkimKey, unsigned);
    warn_about_spec(
        &mut conditions,
        input,
        message_slice.annotations().get(SPEC_DIGEST_ANNOTATION),
    );

    DeliveryStatus {
        observed_generation: input.delivery.meta().generation,
        phase: Some(phase(input, run, &tally)),
        conditions: conditions.finish(),
        counts: Some(tally.counts(spec.email_feedback)),
        success: tally.success(spec.email_feedback).text(),
        reasons: merge::reasons(run, slices, spec.email_feedback),
        domains: merge::domains(slices),
        // Nothing moves any more once every message came to its end.
        speed: if finished { Some(Speed::default()) } else { input.speed },
        messages: messages::messages(&spec.report_detail, spec.email_feedback, run, slices),
        plan: Some(Plan {
            fingerprint: run.fingerprint.clone(),
            slices: run.slices,
        }),
        validity: Some(run.validity),
        started_at: statuses(slices).filter_map(|status| status.accepted_at.clone()).min(),
        completed_at: finished.then(|| completed_at(message_slice, slices)).flatten(),
    }
}

fn unplanned(
    input: &StatusInput<'_>,
    readiness: Readiness,
    reason: DeliveryReason,
    message: &str,
    recipients: Option<&RecipientList>,
) -> DeliveryStatus {
    let spec = &input.delivery.spec;
    let mut conditions = conditions_so_far(input);
    conditions.readiness(readiness, reason, message);
    conditions.set(ConditionType::Completed, false, reason, "not planned yet");
    conditions.remove(ConditionType::DkimMissing);
    warn_about_spec(&mut conditions, input, None);
    let tally = recipients.map(tally::of_recipients);
    DeliveryStatus {
        observed_generation: input.delivery.meta().generation,
        phase: Some(match readiness {
            Readiness::Stalled => DeliveryPhase::Stalled,
            Readiness::Ready | Readiness::Reconciling => DeliveryPhase::Pending,
        }),
        conditions: conditions.finish(),
        counts: tally.map(|tally| tally.counts(spec.email_feedback)),
        reasons: recipients
            .map(|list| merge::ignored_reasons(&list.ignored))
            .unwrap_or_default(),
        messages: recipients
            .map(|list| messages::ignored_messages(&spec.report_detail, list.total, &list.ignored_rows))
            .unwrap_or_default(),
        validity: Some(effective_validity(spec.validity)),
        ..DeliveryStatus::default()
    }
}

fn canceled_unplanned(input: &StatusInput<'_>) -> DeliveryStatus {
    let previous = input
        .delivery
        .status
        .as_ref()
        .and_then(|status| status.completed_at.clone());
    let mut conditions = conditions_so_far(input);
    let message = "canceled before it was planned: nothing was sent";
    conditions.readiness(Readiness::Ready, DeliveryReason::Canceled, message);
    conditions.set(ConditionType::Completed, true, DeliveryReason::Canceled, message);
    conditions.remove(ConditionType::DkimMissing);
    warn_about_spec(&mut conditions, input, None);
    DeliveryStatus {
        observed_generation: input.delivery.meta().generation,
        phase: Some(DeliveryPhase::Canceled),
        conditions: conditions.finish(),
        validity: Some(effective_validity(input.delivery.spec.validity)),
        completed_at: Some(previous.unwrap_or_else(|| input.now.clone())),
        ..DeliveryStatus::default()
    }
}

fn conditions_so_far(input: &StatusInput<'_>) -> Conditions {
    let status = input.delivery.status.as_ref();
    let previous = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let own = ConditionType::of_kind("Delivery");
    Conditions::new(previous, own, input.delivery.meta().generation, input.now.clone())
}

fn phase(input: &StatusInput<'_>, run: &RunView, tally: &Tally) -> DeliveryPhase {
    let spec = &input.delivery.spec;
    let nothing_relayed = Totals::of(run, tally).relayed == 0;
    let starts_later = run.start_at.as_ref().is_some_and(|start| start > input.now);
    match tally.is_finished() {
        // A Delivery that ended before it was canceled is no canceled one.
        true if tally.canceled > 0 => DeliveryPhase::Canceled,
        true => DeliveryPhase::Completed,
        // What is still on its way comes to an end.
        false if spec.cancel => DeliveryPhase::Sending,
        false if spec.suspend => DeliveryPhase::Suspended,
        false if starts_later && nothing_relayed => DeliveryPhase::Scheduled,
        false => DeliveryPhase::Sending,
    }
}

fn completed(conditions: &mut Conditions, tally: &Tally) {
    let (status, reason, message) = match tally.is_finished() {
        true if tally.canceled > 0 => (
            true,
            DeliveryReason::Canceled,
            "canceled, and every message came to its end",
        ),
        true => (true, DeliveryReason::AllMessagesEnded, "every message came to its end"),
        false => (false, DeliveryReason::InProgress, "messages are still on their way"),
    };
    conditions.set(ConditionType::Completed, status, reason, message);
}

/// What the plan is, and what holds slices up. It changes seldom: counts have fields of their own.
fn plan_message(run: &RunView, slices: &[&SliceView]) -> String {
    let ignored: u64 = run.ignored.values().sum();
    let recipients = run.total.saturating_sub(ignored);
    let mut message = format!("{recipients} messages in {} slices", run.slices);
    if ignored > 0 {
        message.push_str(&format!(", {ignored} rows ignored"));
    }
    let mut held: Vec<(String, &str)> = slices.iter().filter_map(|slice| held_up(slice)).collect();
    held.sort();
    if let Some((name, why)) = held.first() {
        message.push_str(&format!("; {} slices wait, such as {name}: {why}", held.len()));
    }
    message
}

fn held_up<'a>(slice: &&'a SliceView) -> Option<(String, &'a str)> {
    let status = slice.status.as_ref()?;
    if status.phase != Some(SlicePhase::Waiting) {
        return None;
    }
    let abnormal = [ConditionType::Stalled, ConditionType::Reconciling];
    let says = status
        .conditions
        .iter()
        .find(|condition| abnormal.iter().any(|kind| kind.as_str() == condition.type_) && condition.status == "True");
    Some((slice.name_any(), says.map_or("", |condition| &condition.message)))
}

/// ValidityClamped and NotInEffect. `planned` is the digest of the spec that was planned.
fn warn_about_spec(conditions: &mut Conditions, input: &StatusInput<'_>, planned: Option<&String>) {
    let spec = &input.delivery.spec;
    let clamped = spec.validity.filter(|&asked| asked > MAX_VALIDITY);
    let clamped =
        clamped.map(|asked| format!("validity {asked} is longer than {MAX_VALIDITY}: {MAX_VALIDITY} applies"));
    conditions.set_or_remove(
        ConditionType::ValidityClamped,
        DeliveryReason::LongerThan84Hours,
        clamped,
    );

    let changed = planned.is_some_and(|planned| *planned != spec_digest(spec));
    let fields = spec.fields_not_in_effect(input.surroundings);
    let reason = if changed {
        DeliveryReason::ChangedAfterStart
    } else {
        DeliveryReason::FieldsNotInEffect
    };
    let parts: Vec<String> = changed
        .then(|| {
            "the spec was changed after planning: the run goes on as it was planned, and only suspend and cancel act; \
             create another Delivery for another message or other recipients"
                .to_owned()
        })
        .into_iter()
        .chain((!fields.is_empty()).then(|| notice(&fields)))
        .collect();
    let message = (!parts.is_empty()).then(|| parts.join("; "));
    conditions.set_or_remove(ConditionType::NotInEffect, reason, message);
}

/// When the last message came to its end: what the slices say, or for a run without any, when it was planned.
fn completed_at(message_slice: &SliceView, slices: &[&SliceView]) -> Option<Time> {
    let last = statuses(slices).filter_map(|status| status.finished_at.clone()).max();
    last.or_else(|| message_slice.meta().creation_timestamp.clone())
}

fn statuses<'a>(slices: &'a [&SliceView]) -> impl Iterator<Item = &'a relaypool_api::DeliverySliceStatus> {
    slices.iter().filter_map(|slice| slice.status.as_ref())
}

/// Whether a slice has nothing left to do.
pub fn slice_finished(slice: &SliceView) -> bool {
    slice
        .status
        .as_ref()
        .is_some_and(|status| status.phase == Some(SlicePhase::Finished))
}

#[cfg(test)]
mod tests;
