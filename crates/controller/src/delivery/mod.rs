//! The reconciler of Deliveries: plans each once, and from then on says how far it is.

mod plan;
mod prepare;
mod sources;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use relaypool_api::conditions::{DeliveryReason, Readiness};
use relaypool_api::delivery::DeliveryPhase;
use relaypool_api::{Delivery, DeliveryStatus};

use crate::context::{Context, SURROUNDINGS, in_namespace, now};
use crate::error::Error;
use crate::events::Notice;
use crate::planning::RecipientList;
use crate::progress::{RunState, RunView, SliceView, SpeedMeter, StatusInput, Totals, delivery_status, run_tally};
use crate::report::{Reported, report};

/// How soon to look again while mail flows: speeds change without anything else that changes.
const WHILE_SENDING: Duration = Duration::from_secs(10);
/// How soon to look again at what waits for something, should no watch tell of it.
const WHILE_WAITING: Duration = Duration::from_secs(30);
/// How soon to look again when the store did not know yet what the API server does.
const STORE_LAG: Duration = Duration::from_secs(2);
/// How soon to look again at what has come to its end.
const AT_THE_END: Duration = Duration::from_secs(15 * 60);

/// Looks at one Delivery.
pub(crate) async fn reconcile(delivery: Arc<Delivery>, context: Arc<Context>) -> Result<Action, Error> {
    let slices = slices_of(&delivery, &context);
    let slices: Vec<&SliceView> = slices.iter().map(AsRef::as_ref).collect();
    let run = slices
        .iter()
        .find_map(|slice| slice.spec.message.as_ref().map(|run| (*slice, run)));
    match run {
        Some((message_slice, run)) => follow(&delivery, &context, message_slice, run, &slices).await,
        None if delivery.spec.cancel => cancel(&delivery, &context).await,
        None => start(&delivery, &context).await,
    }
}

/// A Delivery with a plan: says how far it is.
async fn follow(
    delivery: &Delivery,
    context: &Context,
    message_slice: &SliceView,
    run: &RunView,
    slices: &[&SliceView],
) -> Result<Action, Error> {
    let of_run = |slice: &&&SliceView| slice.spec.sender.is_some() && slice.spec.fingerprint == run.fingerprint;
    let slices: Vec<&SliceView> = slices.iter().filter(of_run).copied().collect();
    let totals = Totals::of(run, &run_tally(run, &slices));
    let uid = delivery.uid().unwrap_or_default();
    let speed = context.speeds.with(uid, Instant::now(), |meter: &mut SpeedMeter| {
        meter.measure(Instant::now(), totals)
    });
    let now = now();
    let status = delivery_status(&StatusInput {
        delivery,
        state: RunState::Planned {
            message_slice,
            run,
            slices: &slices,
        },
        speed,
        now: &now,
        surroundings: SURROUNDINGS,
    });
    let notices = phase_notices(delivery, &status);
    let next = match status.phase {
        Some(DeliveryPhase::Completed | DeliveryPhase::Canceled) => AT_THE_END,
        Some(DeliveryPhase::Scheduled) => until_start(run, &now).min(AT_THE_END),
        _ => WHILE_SENDING,
    };
    finish(report(context, delivery, &status, notices).await?, next)
}

/// A Delivery that was canceled before it had a plan.
async fn cancel(delivery: &Delivery, context: &Context) -> Result<Action, Error> {
    if plan::withdraw(delivery, context).await? == plan::Withdrawn::PlannedMeanwhile {
        return Ok(Action::requeue(STORE_LAG));
    }
    let status = unplanned_status(delivery, RunState::CanceledUnplanned);
    let notices = phase_notices(delivery, &status);
    finish(report(context, delivery, &status, notices).await?, AT_THE_END)
}

/// A Delivery without a plan: plans it, or says why that must wait.
async fn start(delivery: &Delivery, context: &Context) -> Result<Action, Error> {
    let obstacle = match prepare::prepare(delivery, context).await? {
        prepare::Prepared::Plan(plan) => {
            // The message slice comes back through the watch, and with it the next look.
            plan::carry_out(delivery, *plan, context).await?;
            return Ok(Action::requeue(STORE_LAG));
        }
        prepare::Prepared::Obstacle(obstacle) => obstacle,
    };
    let Obstacle {
        readiness,
        reason,
        message,
        recipients,
    } = &obstacle;
    let status = unplanned_status(
        delivery,
        RunState::Unplanned {
            readiness: *readiness,
            reason: *reason,
            message,
            recipients: recipients.as_ref(),
        },
    );
    let next = if *reason == DeliveryReason::Planning {
        STORE_LAG
    } else {
        WHILE_WAITING
    };
    finish(report(context, delivery, &status, Vec::new()).await?, next)
}

/// Why a Delivery is not planned now.
#[derive(Debug)]
struct Obstacle {
    /// Reconciling, when it will go away by itself or by something other than the Delivery; Stalled otherwise.
    readiness: Readiness,
    reason: DeliveryReason,
    message: String,
    /// The recipients, when they are known already.
    recipients: Option<RecipientList>,
}

impl Obstacle {
    fn wait(reason: DeliveryReason, message: impl Into<String>) -> Self {
        Self {
            readiness: Readiness::Reconciling,
            reason,
            message: message.into(),
            recipients: None,
        }
    }

    fn stall(reason: DeliveryReason, message: impl Into<String>) -> Self {
        Self {
            readiness: Readiness::Stalled,
            ..Self::wait(reason, message)
        }
    }
}

/// All slices of this very Delivery: one of the same name that was deleted had another UID.
fn slices_of(delivery: &Delivery, context: &Context) -> Vec<Arc<SliceView>> {
    let uid = delivery.uid().unwrap_or_default();
    let namespace = delivery.namespace().unwrap_or_default();
    let slices = in_namespace(&context.stores.slices, &namespace, |slice| {
        slice.sound().is_some_and(|slice| slice.spec.delivery_uid == uid)
    });
    slices.iter().filter_map(|slice| slice.sound().cloned()).collect()
}

fn unplanned_status(delivery: &Delivery, state: RunState<'_>) -> DeliveryStatus {
    delivery_status(&StatusInput {
        delivery,
        state,
        speed: None,
        now: &now(),
        surroundings: SURROUNDINGS,
    })
}

fn until_start(run: &RunView, now: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Time) -> Duration {
    let start = run.start_at.as_ref().map_or(now.0, |start| start.0);
    // The status shows whole seconds, and so does a start.
    Duration::try_from(start.duration_since(now.0)).unwrap_or_default() + Duration::from_secs(1)
}

fn finish(reported: Reported, next: Duration) -> Result<Action, Error> {
    Ok(match reported {
        Reported::Postponed(wait) => Action::requeue(wait),
        Reported::Unchanged | Reported::Written => Action::requeue(next),
        Reported::Gone => Action::await_change(),
    })
}

/// What a person should be told when the phase changes.
fn phase_notices(delivery: &Delivery, status: &DeliveryStatus) -> Vec<Notice> {
    use DeliveryPhase::{Canceled, Completed, Suspended};
    let before = delivery.status.as_ref().and_then(|status| status.phase);
    let counts = status.counts.unwrap_or_default();
    let summary = format!(
        "{} sent, {} failed, {} canceled, {} ignored of {}",
        counts.sent, counts.failed, counts.canceled, counts.ignored, counts.total
    );
    let notice = match (before, status.phase) {
        (before, after) if before == after => None,
        (_, Some(Completed)) => Some(Notice::normal("Completed", "Report", summary)),
        (_, Some(Canceled)) => Some(Notice::normal("Canceled", "Report", summary)),
        (_, Some(Suspended)) => Some(Notice::normal(
            "Suspended",
            "Report",
            "nothing is sent until suspend is taken back",
        )),
        (Some(Suspended), Some(_)) => Some(Notice::normal("Resumed", "Report", "mail flows again")),
        _ => None,
    };
    notice.into_iter().collect()
}
