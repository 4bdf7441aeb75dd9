//! From a Delivery without a plan to its plan, or to what stands against it.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::{Resource as _, ResourceExt as _};
use relaypool_api::conditions::DeliveryReason;
use relaypool_api::delivery::Recipients;
use relaypool_api::message::SigningKeyRef;
use relaypool_api::not_in_effect::NotInEffect as _;
use relaypool_api::types::Domain;
use relaypool_api::validation::{Validate as _, summary};
use relaypool_api::{Delivery, DkimKey, RelayPool, SendingIp};
use relaypool_message::check_template;

use super::{Obstacle, sources};
use crate::context::{Context, by_name, in_namespace, now, sound_in_namespace};
use crate::error::Error;
use crate::guard::Guarded;
use crate::planning::{KeyChoice, NoSender, Plan, PlanInput, PlanProblem, RecipientList, SourceRef, choose_keys, plan};

/// Age in seconds that pool, SendingIps and, of an unsigned run, the Delivery itself must have before it is planned.
const SETTLING_SECONDS: i64 = 2;

/// A plan, or what stands against one.
pub(super) enum Prepared {
    Plan(Box<Plan>),
    Obstacle(Obstacle),
}

/// What is tried for a plan: the outer error is of the API server, the inner one is said in the status.
type Attempt<T> = Result<Result<T, Obstacle>, Error>;

/// Makes the plan. Reads what the Delivery refers to; writes nothing.
pub(super) async fn prepare(delivery: &Delivery, context: &Context) -> Result<Prepared, Error> {
    Ok(match attempt(delivery, context).await? {
        Ok(plan) => Prepared::Plan(Box::new(plan)),
        Err(obstacle) => Prepared::Obstacle(obstacle),
    })
}

async fn attempt(delivery: &Delivery, context: &Context) -> Attempt<Plan> {
    if let Err(obstacle) = check(delivery) {
        return Ok(Err(obstacle));
    }
    let recipients = match recipients(delivery, context).await? {
        Ok(recipients) => recipients,
        Err(obstacle) => return Ok(Err(obstacle)),
    };
    let attachments = match attachments(delivery, context).await? {
        Ok(attachments) => attachments,
        Err(obstacle) => return Ok(Err(with_recipients(obstacle, recipients))),
    };
    let planned = surroundings(delivery, context).and_then(|surroundings| {
        settled(delivery, &surroundings, now().0)?;
        let input = PlanInput {
            delivery,
            pool: &surroundings.pool,
            recipients: &recipients,
            attachments: &attachments,
            ips: &surroundings.ips,
            keys: &surroundings.keys,
        };
        plan(input).map_err(obstacle_of)
    });
    Ok(planned.map_err(|obstacle| with_recipients(obstacle, recipients)))
}

/// Shows how many recipients wait, whatever they wait for.
fn with_recipients(obstacle: Obstacle, recipients: RecipientList) -> Obstacle {
    Obstacle {
        recipients: Some(recipients),
        ..obstacle
    }
}

/// What the object itself says. No client.
fn check(delivery: &Delivery) -> Result<(), Obstacle> {
    let problems = delivery.problems();
    if !problems.is_empty() {
        return Err(Obstacle::stall(DeliveryReason::InvalidSpec, summary(&problems)));
    }
    let obstacles = delivery.spec.obstacles();
    if !obstacles.is_empty() {
        return Err(Obstacle::stall(DeliveryReason::NotInThisVersion, summary(&obstacles)));
    }
    if let Some(message) = &delivery.spec.message
        && let Err(problem) = check_template(&delivery.spec.sender, message)
    {
        return Err(Obstacle::stall(DeliveryReason::InvalidTemplate, problem.to_string()));
    }
    Ok(())
}

/// Reads the list of recipients.
async fn recipients(delivery: &Delivery, context: &Context) -> Attempt<RecipientList> {
    let Some(recipients) = &delivery.spec.recipients else {
        return Ok(Err(Obstacle::stall(
            DeliveryReason::InvalidSpec,
            "spec.recipients is missing",
        )));
    };
    let list = match (&recipients.inline, SourceRef::of_recipients(recipients)) {
        (Some(inline), _) => RecipientList::from_inline(inline),
        (None, Some(source)) => match read_list(delivery, context, recipients, &source).await? {
            Ok(list) => list,
            Err(obstacle) => return Ok(Err(obstacle)),
        },
        (None, None) => {
            return Ok(Err(Obstacle::stall(
                DeliveryReason::InvalidSpec,
                "spec.recipients is empty",
            )));
        }
    };
    if list.rows.is_empty() {
        let obstacle = Obstacle::stall(DeliveryReason::NoRecipients, nobody(&list));
        return Ok(Err(with_recipients(obstacle, list)));
    }
    Ok(Ok(list))
}

async fn read_list(
    delivery: &Delivery,
    context: &Context,
    recipients: &Recipients,
    source: &SourceRef,
) -> Attempt<RecipientList> {
    let namespace = delivery.namespace().unwrap_or_default();
    let Some(text) = sources::read(context, &namespace, source).await? else {
        let message = format!("the recipients are not there: {source} is missing");
        return Ok(Err(Obstacle::wait(DeliveryReason::RecipientsNotFound, message)));
    };
    let lists = [&recipients.config_map_key_ref, &recipients.secret_key_ref];
    let format = lists
        .into_iter()
        .flatten()
        .map(|list| list.format)
        .next()
        .unwrap_or_default();
    Ok(RecipientList::parse(&text, format)
        .map_err(|problem| Obstacle::stall(DeliveryReason::InvalidRecipients, format!("{source}: {problem}"))))
}

fn nobody(list: &RecipientList) -> String {
    if list.total == 0 {
        return "the list of recipients has no rows".to_owned();
    }
    let reasons: Vec<_> = list
        .ignored
        .iter()
        .map(|(reason, count)| format!("{count} × {reason}"))
        .collect();
    let first = list
        .ignored_rows
        .first()
        .map(|row| format!("; {}", row.reason))
        .unwrap_or_default();
    format!(
        "none of the {} rows can get the mail: {}{first}",
        list.total,
        reasons.join(", ")
    )
}

/// Reads the attachments that lie elsewhere.
async fn attachments(delivery: &Delivery, context: &Context) -> Attempt<BTreeMap<SourceRef, Vec<u8>>> {
    let Some(message) = &delivery.spec.message else {
        return Ok(Ok(BTreeMap::new()));
    };
    let namespace = delivery.namespace().unwrap_or_default();
    let contents = sources::attachments(context, &namespace, message).await?;
    Ok(contents.map_err(|source| {
        let message = format!("an attachment is not there: {source} is missing");
        Obstacle::wait(DeliveryReason::AttachmentNotFound, message)
    }))
}

/// What a plan needs of other objects of ours.
struct Surroundings {
    pool: Arc<RelayPool>,
    ips: Vec<SendingIp>,
    keys: Vec<SigningKeyRef>,
}

/// Collects it from the stores. No client.
fn surroundings(delivery: &Delivery, context: &Context) -> Result<Surroundings, Obstacle> {
    let namespace = delivery.namespace().unwrap_or_default();
    let pool = by_name(&context.stores.pools, &namespace, &delivery.spec.pool);
    let pool = pool.as_deref().and_then(Guarded::sound).cloned();
    let pool = pool
        .filter(|pool| pool.meta().deletion_timestamp.is_none())
        .ok_or_else(|| {
            let message = format!(
                "there is no usable RelayPool {} in namespace {namespace}",
                delivery.spec.pool
            );
            Obstacle::wait(DeliveryReason::PoolNotFound, message)
        })?;
    let ips = sound_in_namespace(&context.stores.ips, &namespace);
    let ips = ips
        .iter()
        .filter(|ip| ip.spec.pool == delivery.spec.pool)
        .map(|ip| (**ip).clone());
    Ok(Surroundings {
        pool,
        ips: ips.collect(),
        keys: signing_keys(delivery, context, &namespace)?,
    })
}

/// Waits for what may be applied together with what is there: a plan is made once, and must not miss the second of two
/// SendingIps, or the DkimKey, only because the API server saw it a moment later. No client.
fn settled(delivery: &Delivery, surroundings: &Surroundings, now: Timestamp) -> Result<(), Obstacle> {
    let unsigned = surroundings.keys.is_empty().then_some(delivery.meta());
    let young = surroundings
        .ips
        .iter()
        .map(SendingIp::meta)
        .chain([surroundings.pool.meta()])
        .chain(unsigned)
        .filter_map(|meta| meta.creation_timestamp.as_ref())
        // A moment in the future is a clock that differs: it says nothing.
        .any(|created| (0..SETTLING_SECONDS).contains(&now.duration_since(created.0).as_secs()));
    if young {
        return Err(Obstacle::wait(
            DeliveryReason::Planning,
            "waits a moment for what is applied together with it",
        ));
    }
    Ok(())
}

/// The keys that sign: none only where no DkimKey is meant for the domain.
fn signing_keys(delivery: &Delivery, context: &Context, namespace: &str) -> Result<Vec<SigningKeyRef>, Obstacle> {
    let domain = delivery.spec.sender.address.domain();
    let keys = sound_in_namespace(&context.stores.keys, namespace);
    match choose_keys(domain, keys.iter().map(AsRef::as_ref)) {
        KeyChoice::Sign(keys) => Ok(keys),
        KeyChoice::Wait { key, message } => {
            let message = format!("DkimKey {key} is meant to sign and is not Ready: {message}");
            Err(Obstacle::wait(DeliveryReason::DkimKeyNotReady, message))
        }
        KeyChoice::NoKey => match malformed_key(domain, context, namespace) {
            Some(key) => {
                let message = format!("DkimKey {key} may be meant to sign, and it cannot be read");
                Err(Obstacle::wait(DeliveryReason::DkimKeyNotReady, message))
            }
            None => Ok(Vec::new()),
        },
    }
}

/// A DkimKey that cannot be read and may be for the domain.
fn malformed_key(domain: &Domain, context: &Context, namespace: &str) -> Option<String> {
    let may_sign = |key: &Guarded<DkimKey>| {
        let Guarded::Malformed(malformed) = key else {
            return false;
        };
        let of_key = malformed
            .raw
            .pointer("/spec/domain")
            .and_then(serde_json::Value::as_str);
        let of_key = of_key.and_then(|domain| domain.parse::<Domain>().ok());
        of_key.is_none_or(|of_key| domain.is_within(&of_key))
    };
    let keys = in_namespace(&context.stores.keys, namespace, may_sign);
    keys.iter().map(|key| key.name_any()).min()
}

/// Says why there is no plan.
fn obstacle_of(problem: PlanProblem) -> Obstacle {
    let message = problem.to_string();
    match problem {
        PlanProblem::NoSender(NoSender::NoSendingIp { .. }) => Obstacle::wait(DeliveryReason::NoSendingIp, message),
        PlanProblem::NoSender(NoSender::BadAffinity(_)) | PlanProblem::NoMessage => {
            Obstacle::stall(DeliveryReason::InvalidSpec, message)
        }
        PlanProblem::ContentMissing(_) => Obstacle::wait(DeliveryReason::AttachmentNotFound, message),
        PlanProblem::AttachmentWithoutContent(_) | PlanProblem::AttachmentNotBase64 { .. } => {
            Obstacle::stall(DeliveryReason::InvalidAttachment, message)
        }
        PlanProblem::MessageTooLarge { .. } | PlanProblem::Encoding(_) => {
            Obstacle::stall(DeliveryReason::TooLarge, message)
        }
    }
}
