//! Carrying out a plan: slices of recipients first, the message slice last.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt as _};
use relaypool_api::names::{DELIVERY_LABEL, SENDER_LABEL, label_value};
use relaypool_api::{Delivery, DeliverySlice};

use crate::context::Context;
use crate::error::Error;
use crate::events::Notice;
use crate::planning::{FINGERPRINT_ANNOTATION, Plan};
use crate::requests::{apply, delete, within_limit};

/// Slices written at one time.
const CONCURRENT_WRITES: usize = 4;

/// Writes the slices of a plan, and removes those of a plan that was never completed.
///
/// What is there is asked from the API server, not from the store: when a message slice is there, senders may have begun,
/// and nothing may be planned again.
pub(super) async fn carry_out(delivery: &Delivery, plan: Plan, context: &Context) -> Result<(), Error> {
    let existing = Existing::list(delivery, context).await?;
    if existing.planned {
        return Ok(());
    }
    let fingerprint = plan.message_slice.spec.fingerprint.clone();
    existing.delete_all_but(&fingerprint, delivery, context).await?;

    let total: u64 = plan.slices.iter().map(|slice| slice.spec.rows.len() as u64).sum();
    let summary = format!("{total} messages in {} slices", plan.slices.len());
    stream::iter(plan.slices)
        .map(|slice| async move { apply(&context.client, &slice).await })
        .buffer_unordered(CONCURRENT_WRITES)
        .try_collect::<()>()
        .await?;
    apply(&context.client, &plan.message_slice).await?;
    context
        .events
        .publish(delivery, Notice::normal("Planned", "Plan", summary))
        .await;
    Ok(())
}

/// What became of a plan that was to be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Withdrawn {
    /// There is no slice.
    Gone,
    /// The plan was complete: senders have to stop it.
    PlannedMeanwhile,
}

/// Removes the slices of a plan that was never completed.
pub(super) async fn withdraw(delivery: &Delivery, context: &Context) -> Result<Withdrawn, Error> {
    let existing = Existing::list(delivery, context).await?;
    if existing.planned {
        return Ok(Withdrawn::PlannedMeanwhile);
    }
    existing.delete_all_but("", delivery, context).await?;
    Ok(Withdrawn::Gone)
}

/// The slices of a Delivery that the API server has.
struct Existing {
    slices: Vec<PartialObjectMeta<DeliverySlice>>,
    /// A message slice is among them.
    planned: bool,
}

impl Existing {
    async fn list(delivery: &Delivery, context: &Context) -> Result<Self, Error> {
        let label = label_value(&delivery.name_any());
        let parameters = ListParams::default().labels(&format!("{DELIVERY_LABEL}={label}"));
        let action = || format!("list the slices of Delivery {}", delivery.name_any());
        let listed = within_limit(action, api(delivery, context).list_metadata(&parameters)).await?;
        let uid = delivery.uid().unwrap_or_default();
        let is_own =
            |slice: &PartialObjectMeta<DeliverySlice>| slice.owner_references().iter().any(|owner| owner.uid == uid);
        let slices: Vec<_> = listed.items.into_iter().filter(is_own).collect();
        Ok(Self {
            planned: slices.iter().any(|slice| !slice.labels().contains_key(SENDER_LABEL)),
            slices,
        })
    }

    /// Deletes the slices of other fingerprints.
    async fn delete_all_but(&self, fingerprint: &str, delivery: &Delivery, context: &Context) -> Result<(), Error> {
        let api = api(delivery, context);
        let is_other = |slice: &&PartialObjectMeta<DeliverySlice>| {
            slice
                .annotations()
                .get(FINGERPRINT_ANNOTATION)
                .is_none_or(|of_slice| of_slice != fingerprint)
        };
        for slice in self.slices.iter().filter(is_other) {
            delete(&api, &slice.name_any()).await?;
        }
        Ok(())
    }
}

fn api(delivery: &Delivery, context: &Context) -> Api<DeliverySlice> {
    Api::namespaced(context.client.clone(), &delivery.namespace().unwrap_or_default())
}
