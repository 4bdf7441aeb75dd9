//! Writing what an object answers: only the fields that are the controller's, only when they changed, and not too often.

use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams};
use relaypool_api::conditions::{ConditionType, Readiness, find_condition, is_true};
use relaypool_api::names::CONTROLLER_MANAGER;
use serde_json::{Map, Value, json};

use crate::conditions::Conditions;
use crate::context::{Context, now};
use crate::error::Error;
use crate::events::Notice;
use crate::guard::{Guarded, Malformed};
use crate::kind::{Kind, Status as _};
use crate::requests::{found, within_limit};

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reported {
    /// Nothing has changed, so nothing was written.
    Unchanged,
    /// It was written.
    Written,
    /// There was a write a moment ago: look again after this time.
    Postponed(Duration),
    /// The object is gone.
    Gone,
}

/// Writes the status of an object, and publishes what happened to it: `notices`, and by itself that it has Stalled.
pub(crate) async fn report<K: Kind>(
    context: &Context,
    object: &K,
    status: &K::KindStatus,
    notices: Vec<Notice>,
) -> Result<Reported, Error> {
    let default = K::KindStatus::default();
    let previous = object.status().unwrap_or(&default);
    let (before, after) = (own_part::<K>(previous)?, own_part::<K>(status)?);
    let reported = write_if_changed::<K>(context, object.meta(), &before, after).await?;
    if reported == Reported::Written {
        let stalled = stalled_notice(previous.conditions(), status.conditions());
        for notice in notices.into_iter().chain(stalled) {
            context.events.publish(object, notice).await;
        }
    }
    Ok(reported)
}

/// Says of a malformed object what is wrong with it. Whatever else its status says stays.
pub(crate) async fn report_malformed<K: Kind>(context: &Context, malformed: &Malformed) -> Result<Reported, Error> {
    let mut before = malformed.raw.get("status").cloned().unwrap_or_else(|| json!({}));
    remove_fields_of_others::<K>(&mut before);
    let previous: Vec<_> = before
        .get("conditions")
        .and_then(|conditions| serde_json::from_value(conditions.clone()).ok())
        .unwrap_or_default();
    let generation = malformed.metadata.generation;
    let mut conditions = Conditions::new(&previous, &K::own_conditions(), generation, now());
    conditions.readiness(Readiness::Stalled, K::INVALID_SPEC, &malformed.problem);
    let conditions = conditions.finish();

    let mut after = before.clone();
    after["conditions"] = serde_json::to_value(&conditions).map_err(encoding)?;
    after["observedGeneration"] = json!(generation);
    let reported = write_if_changed::<K>(context, &malformed.metadata, &before, after).await?;
    if reported == Reported::Written
        && let Some(notice) = stalled_notice(&previous, &conditions)
    {
        let about = Guarded::<K>::Malformed(Box::new(malformed.clone()));
        context.events.publish(&about, notice).await;
    }
    Ok(reported)
}

async fn write_if_changed<K: Kind>(
    context: &Context,
    metadata: &ObjectMeta,
    before: &Value,
    after: Value,
) -> Result<Reported, Error> {
    if *before == after {
        return Ok(Reported::Unchanged);
    }
    let uid = metadata.uid.clone().unwrap_or_default();
    let wait = context
        .status_writes
        .with(uid.clone(), Instant::now(), |last: &mut Option<Instant>| {
            last.and_then(|last| K::STATUS_SPACING.checked_sub(last.elapsed()))
        });
    if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
        return Ok(Reported::Postponed(wait));
    }
    let written = apply_status::<K>(context, metadata, before, after).await?;
    context
        .status_writes
        .with(uid, Instant::now(), |last| *last = Some(Instant::now()));
    if written.is_none() {
        return Ok(Reported::Gone);
    }
    context.metrics.status_written(K::LABEL);
    Ok(Reported::Written)
}

/// Makes the controller's fields of a status exactly these, by server-side apply. None when the object is gone.
async fn apply_status<K: Kind>(
    context: &Context,
    metadata: &ObjectMeta,
    before: &Value,
    after: Value,
) -> Result<Option<Guarded<K>>, Error> {
    let name = metadata.name.clone().unwrap_or_default();
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let api = Api::<Guarded<K>>::namespaced(context.client.clone(), &namespace);
    let action = || format!("write the status of {} {name}", K::kind(&()));
    // With the UID, the status of an object cannot get onto its successor.
    let metadata = json!({ "name": name, "namespace": namespace, "uid": metadata.uid });

    // API servers as old as 1.20 make an object that is no longer applied a null, and refuse it then. A merge patch takes
    // it away on all of them.
    let removed = removed_objects(before, &after);
    if !removed.is_empty() {
        let body = json!({ "metadata": metadata, "status": removed });
        let parameters = PatchParams {
            field_manager: Some(CONTROLLER_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let answer = within_limit(action, api.patch_status(&name, &parameters, &Patch::Merge(&body))).await;
        if found(answer)?.is_none() {
            return Ok(None);
        }
    }
    let body = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": metadata,
        "status": after,
    });
    let parameters = PatchParams::apply(CONTROLLER_MANAGER).force();
    found(within_limit(action, api.patch_status(&name, &parameters, &Patch::Apply(&body))).await)
}

/// A null for each field that was an object and is no more.
fn removed_objects(before: &Value, after: &Value) -> Map<String, Value> {
    let fields = before.as_object().into_iter().flatten();
    fields
        .filter(|(name, value)| value.is_object() && after.get(name.as_str()).is_none())
        .map(|(name, _)| (name.clone(), Value::Null))
        .collect()
}

/// The fields of a status that are the controller's, as JSON.
fn own_part<K: Kind>(status: &K::KindStatus) -> Result<Value, Error> {
    let mut value = serde_json::to_value(status).map_err(encoding)?;
    remove_fields_of_others::<K>(&mut value);
    let own: Vec<_> = K::own_conditions().iter().map(|kind| kind.as_str()).collect();
    if let Some(conditions) = value.get_mut("conditions").and_then(Value::as_array_mut) {
        conditions.retain(|condition| condition["type"].as_str().is_some_and(|kind| own.contains(&kind)));
    }
    Ok(value)
}

fn remove_fields_of_others<K: Kind>(status: &mut Value) {
    if let Some(fields) = status.as_object_mut() {
        fields.retain(|name, _| !K::FIELDS_OF_OTHERS.contains(&name.as_str()));
    }
}

/// Says that an object has just Stalled, or for another reason than before.
fn stalled_notice(
    before: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    after: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
) -> Option<Notice> {
    let stalled = find_condition(after, ConditionType::Stalled)?;
    let was_so = is_true(before, ConditionType::Stalled)
        && find_condition(before, ConditionType::Stalled).is_some_and(|before| before.reason == stalled.reason);
    (stalled.status == "True" && !was_so)
        .then(|| Notice::warning(stalled.reason.clone(), "Reconcile", stalled.message.clone()))
}

fn encoding(source: serde_json::Error) -> Error {
    Error::Encoding {
        what: "a status",
        source,
    }
}
