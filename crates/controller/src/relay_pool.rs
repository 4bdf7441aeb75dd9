//! The reconciler of RelayPools: sums up what its senders report, shares pool-wide limits out among them, and keeps the
//! Secret with the signing keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::ObjectMeta;
use kube::runtime::controller::Action;
use kube::{Api, Resource as _, ResourceExt as _};
use relaypool_api::conditions::{ConditionType, Readiness, RelayPoolReason};
use relaypool_api::message::SigningKeyRef;
use relaypool_api::names::{POOL_LABEL, label_value, sender_name, signing_key_entry, signing_keys_secret};
use relaypool_api::not_in_effect::{NotInEffect as _, notice};
use relaypool_api::relay_pool::SenderStatus;
use relaypool_api::validation::{Validate as _, summary};
use relaypool_api::{DkimKey, RelayPool, RelayPoolStatus};
use relaypool_message::dkim::SigningKey;

use crate::conditions::Conditions;
use crate::context::{Context, SURROUNDINGS, in_namespace, now, sound_in_namespace};
use crate::error::Error;
use crate::kind::Kind as _;
use crate::planning::signing_key;
use crate::pool_limits::share_out;
use crate::report::{Reported, report};
use crate::requests::{apply, get};
use crate::signing_keys::{entries_in_use, retained};

/// A sender that has not reported for this long does not count.
const REPORT_AGE: SignedDuration = SignedDuration::from_secs(60);
/// How often to look at the age of reports: nobody tells when one becomes old.
const INTERVAL: Duration = Duration::from_secs(12);

/// Looks at one pool.
pub(crate) async fn reconcile(pool: Arc<RelayPool>, context: Arc<Context>) -> Result<Action, Error> {
    // Neither waits for the other to succeed.
    let shared_out = share_out(&pool, &context).await;
    let problems = pool.problems();
    let status = status(&pool, &summary(&problems), now().0);
    let reported = report(&context, pool.as_ref(), &status, Vec::new()).await?;
    if problems.is_empty() && reported != Reported::Gone {
        keep_signing_keys(&pool, &context).await?;
    }
    let shares_again = shared_out?;
    let again = match reported {
        Reported::Postponed(wait) => wait,
        _ => INTERVAL,
    };
    Ok(Action::requeue(shares_again.map_or(again, |wait| wait.min(again))))
}

/// What the pool answers. No client.
fn status(pool: &RelayPool, problems: &str, now: Timestamp) -> RelayPoolStatus {
    let senders = pool
        .status
        .as_ref()
        .map(|status| status.senders.as_slice())
        .unwrap_or_default();
    let is_fresh = |sender: &&SenderStatus| now.duration_since(sender.reported_at.0) < REPORT_AGE;
    let fresh: Vec<_> = senders.iter().filter(is_fresh).collect();
    let tenth = |speed: f64| (speed * 10.0).round() / 10.0;
    RelayPoolStatus {
        observed_generation: pool.meta().generation,
        conditions: pool_conditions(pool, problems, &fresh, now),
        replicas: Some(i32::try_from(fresh.len()).unwrap_or(i32::MAX)),
        // What a sender that is away has queued is still queued.
        queued: Some(senders.iter().map(|sender| sender.queued).fold(0, i64::saturating_add)),
        relay_per_second: Some(tenth(fresh.iter().map(|sender| sender.relay_per_second).sum())),
        delivery_per_second: Some(tenth(fresh.iter().map(|sender| sender.delivery_per_second).sum())),
        senders: Vec::new(),
        pool_limits: Vec::new(),
        pool_limits_revision: None,
    }
}

fn pool_conditions(
    pool: &RelayPool,
    problems: &str,
    fresh: &[&SenderStatus],
    now: Timestamp,
) -> Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    let previous = pool
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    let own = RelayPool::own_conditions();
    let mut conditions = Conditions::new(previous, &own, pool.meta().generation, now.into());
    let missing = missing_senders(pool, fresh);
    let replicas = pool.spec.replicas;
    if !problems.is_empty() {
        conditions.readiness(Readiness::Stalled, RelayPoolReason::InvalidSpec, problems);
    } else if replicas == 0 {
        let message = "replicas is 0: nothing is sent, as asked";
        conditions.readiness(Readiness::Ready, RelayPoolReason::ScaledToZero, message);
    } else if let Some(first) = missing.first() {
        let message = format!(
            "{} of {replicas} senders have not reported within the last minute, such as {first}",
            missing.len()
        );
        conditions.readiness(Readiness::Reconciling, RelayPoolReason::WaitingForSenders, message);
    } else {
        let message = format!("all {replicas} senders reported within the last minute");
        conditions.readiness(Readiness::Ready, RelayPoolReason::SendersReporting, message);
    }
    let fields = pool.spec.fields_not_in_effect(SURROUNDINGS);
    let not_in_effect = (!fields.is_empty()).then(|| notice(&fields));
    conditions.set_or_remove(
        ConditionType::NotInEffect,
        RelayPoolReason::FieldsNotInEffect,
        not_in_effect,
    );
    conditions.finish()
}

/// Senders that the pool should have and that have not reported.
fn missing_senders(pool: &RelayPool, fresh: &[&SenderStatus]) -> Vec<String> {
    let reported: BTreeSet<_> = fresh.iter().map(|sender| sender.name.as_str()).collect();
    let replicas = u32::try_from(pool.spec.replicas).unwrap_or_default();
    let names = (0..replicas).map(|ordinal| sender_name(&pool.name_any(), ordinal));
    names.filter(|name| !reported.contains(name.as_str())).collect()
}

/// Keeps the Secret from which the senders of the pool sign: an entry for each key version that signs now, and for each
/// one that an unfinished run names.
async fn keep_signing_keys(pool: &RelayPool, context: &Context) -> Result<(), Error> {
    let namespace = pool.namespace().unwrap_or_default();
    let secrets = Api::<Secret>::namespaced(context.client.clone(), &namespace);
    let name = signing_keys_secret(&pool.name_any());
    let existing = get(&secrets, &name).await?;
    let data = existing
        .as_ref()
        .and_then(|secret| secret.data.clone())
        .unwrap_or_default();

    let mut wanted = current_entries(context, &namespace, &secrets, &data).await?;
    let needed: BTreeSet<String> = wanted
        .keys()
        .cloned()
        .chain(in_use(pool, context, &namespace))
        .collect();
    let uid = pool.uid().unwrap_or_default();
    let kept = context.unused_keys.with(uid, Instant::now(), |unused| {
        retained(data.clone(), &needed, unused, Instant::now())
    });
    for (entry, key) in kept {
        wanted.entry(entry).or_insert(key);
    }
    if existing.is_some() && wanted == data {
        return Ok(());
    }
    apply(&context.client, &keys_secret(pool, wanted)).await
}

/// Entries that unfinished runs of the pool need.
fn in_use(pool: &RelayPool, context: &Context, namespace: &str) -> BTreeSet<String> {
    let slices = in_namespace(&context.stores.slices, namespace, |slice| slice.sound().is_some());
    let views = slices.iter().filter_map(|slice| slice.sound());
    entries_in_use(&pool.name_any(), views.map(AsRef::as_ref))
}

/// Entries of the versions that sign now: from the Secret of the pool where it has them, else from the DkimKeys' own.
async fn current_entries(
    context: &Context,
    namespace: &str,
    secrets: &Api<Secret>,
    data: &BTreeMap<String, ByteString>,
) -> Result<BTreeMap<String, ByteString>, Error> {
    let mut entries = BTreeMap::new();
    for key in sound_in_namespace(&context.stores.keys, namespace) {
        let Some(reference) = signing_key(&key) else { continue };
        let entry = signing_key_entry(&reference);
        match data.get(&entry).filter(|pem| is_version(pem, &reference)) {
            Some(pem) => {
                entries.insert(entry, pem.clone());
            }
            None => entries.extend(read_key(&key, secrets).await?),
        }
    }
    Ok(entries)
}

/// The key in the DkimKey's own Secret, whatever version it has by now; none when it cannot be used.
async fn read_key(key: &DkimKey, secrets: &Api<Secret>) -> Result<Option<(String, ByteString)>, Error> {
    let Some(source) = &key.spec.secret_ref else {
        return Ok(None);
    };
    let secret = get(secrets, &source.name).await?;
    let Some(pem) = secret.and_then(|secret| secret.data?.remove(&source.key)) else {
        return Ok(None);
    };
    let Ok(signing) = SigningKey::from_pem(&pem.0, key.spec.algorithm) else {
        return Ok(None);
    };
    let reference = SigningKeyRef {
        domain: key.spec.domain.clone(),
        selector: key.spec.selector.clone(),
        algorithm: key.spec.algorithm,
        version: signing.version(),
    };
    Ok(Some((signing_key_entry(&reference), pem)))
}

fn is_version(pem: &ByteString, reference: &SigningKeyRef) -> bool {
    SigningKey::from_pem(&pem.0, reference.algorithm).is_ok_and(|key| key.version() == reference.version)
}

fn keys_secret(pool: &RelayPool, data: BTreeMap<String, ByteString>) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(signing_keys_secret(&pool.name_any())),
            namespace: pool.namespace(),
            labels: Some([(POOL_LABEL.to_owned(), label_value(&pool.name_any()))].into()),
            owner_references: pool.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..Secret::default()
    }
}
