//! Planning: from a Delivery and its surroundings to the slices that senders work on. Pure: the same input makes the same
//! plan, name for name and byte for byte, so that a plan that was interrupted can be finished.

mod csv_list;
mod dkim;
mod fingerprint;
mod json_lines;
mod recipients;
mod senders;
mod snapshot;
mod source;
mod split;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use kube::{Resource as _, ResourceExt as _};
use relaypool_api::delivery_slice::DeliverySliceSpec;
use relaypool_api::message::{MessageSnapshot, SigningKeyRef};
use relaypool_api::names::{DELIVERY_LABEL, POOL_LABEL, SENDER_LABEL, label_value};
use relaypool_api::types::{Domain, Duration};
use relaypool_api::{Delivery, DeliverySlice, MAX_VALIDITY, RelayPool, SendingIp};

pub use dkim::{KeyChoice, choose_keys, signing_key};
pub use recipients::{IgnoreReason, ListProblem, RecipientList};
pub use senders::{NoSender, SenderWeight, sender_weights};
pub use snapshot::spec_digest;
pub use source::{SourceKind, SourceRef};
pub use split::{SliceCut, cut};

use fingerprint::Fingerprint;

/// Annotation of the message slice: [`spec_digest`] of the Delivery at planning.
pub const SPEC_DIGEST_ANNOTATION: &str = "relaypool.dev/spec-digest";
/// Annotation of every slice: the run's fingerprint, where a list of metadata shows it.
pub const FINGERPRINT_ANNOTATION: &str = "relaypool.dev/fingerprint";
/// Most bytes of a message slice as JSON. An API server refuses requests of 1.5 MiB or, behind some proxies, of 1 MiB.
pub const MAX_MESSAGE_SLICE_BYTES: usize = 900_000;
/// Longest object name (RFC 1123 subdomain).
const MAX_NAME: usize = 253;

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct PlanInput<'a> {
    /// The Delivery, with its UID.
    pub delivery: &'a Delivery,
    /// Its pool.
    pub pool: &'a RelayPool,
    /// Its recipients.
    pub recipients: &'a RecipientList,
    /// The contents of attachments that lie in ConfigMaps and Secrets.
    pub attachments: &'a BTreeMap<SourceRef, Vec<u8>>,
    /// The SendingIps of the namespace, with their senders in the status.
    pub ips: &'a [SendingIp],
    /// The keys that sign, as [`choose_keys`] says.
    pub keys: &'a [SigningKeyRef],
}

/// A plan. The slices of recipients are created first, the message slice last: it says that the plan is complete.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The slice with the message.
    pub message_slice: DeliverySlice,
    /// The slices with recipients.
    pub slices: Vec<DeliverySlice>,
    /// What the author of the Delivery should know.
    pub warnings: Vec<PlanWarning>,
}

/// What the author of a Delivery should know about its plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanWarning {
    /// The validity asked for is longer than the longest one.
    ValidityClamped {
        /// What was asked for.
        asked: Duration,
    },
    /// Nobody signs.
    DkimMissing {
        /// The domain of the From address.
        domain: Domain,
    },
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanProblem {
    /// The Delivery has no message to plan.
    #[error("the Delivery has no message")]
    NoMessage,
    /// No sender can take it.
    #[error(transparent)]
    NoSender(#[from] NoSender),
    /// The content of an attachment was not given.
    #[error("{0} is missing")]
    ContentMissing(SourceRef),
    /// An attachment neither carries data nor refers to any.
    #[error("attachment {0} has none of data, configMapKeyRef and secretKeyRef")]
    AttachmentWithoutContent(String),
    /// The data of an attachment is broken.
    #[error("the data of attachment {filename} is not base64: {problem}")]
    AttachmentNotBase64 {
        /// The attachment.
        filename: String,
        /// Where it is broken.
        problem: base64::DecodeError,
    },
    /// The message does not fit into one object.
    #[error(
        "the message with its attachments takes {bytes} bytes as an object, and {MAX_MESSAGE_SLICE_BYTES} fit (an \
         attachment takes a third more than its file): make attachments smaller, or link to them"
    )]
    MessageTooLarge {
        /// Its size as JSON.
        bytes: usize,
    },
    /// The plan cannot be written as JSON.
    #[error("the plan cannot be written: {0}")]
    Encoding(#[from] serde_json::Error),
}

/// Plans a run.
///
/// # Errors
/// When something is missing that may come, or the Delivery must be changed first.
pub fn plan(input: PlanInput<'_>) -> Result<Plan, PlanProblem> {
    let spec = &input.delivery.spec;
    let replicas = u32::try_from(input.pool.spec.replicas).unwrap_or_default();
    let senders = sender_weights(&spec.pool, replicas, spec.ip_affinity.as_ref(), input.ips)?;
    let cuts = cut(&input.recipients.rows, &senders);
    // A million rows make a thousand slices; four billion slices fit nowhere.
    let count = u32::try_from(cuts.len()).unwrap_or(u32::MAX);
    let mut snapshot = snapshot::message_snapshot(&input, count)?;
    snapshot.fingerprint = fingerprint(&input, &snapshot, &cuts)?;

    let run = Run {
        delivery: input.delivery,
        fingerprint: snapshot.fingerprint.clone(),
    };
    let slices = cuts
        .iter()
        .enumerate()
        .map(|(number, cut)| run.recipient_slice(number, cut, &input));
    let slices = slices.collect();
    let warnings = warnings(input.delivery, &snapshot);
    let message_slice = run.message_slice(snapshot);
    let bytes = serde_json::to_vec(&message_slice)?.len();
    if bytes > MAX_MESSAGE_SLICE_BYTES {
        return Err(PlanProblem::MessageTooLarge { bytes });
    }
    Ok(Plan {
        message_slice,
        slices,
        warnings,
    })
}

/// Digest over everything that the slices say: equal fingerprints mean equal slices.
fn fingerprint(input: &PlanInput<'_>, snapshot: &MessageSnapshot, cuts: &[SliceCut]) -> Result<String, PlanProblem> {
    let mut fingerprint = Fingerprint::new();
    fingerprint.add(&(input.delivery.uid(), &input.delivery.spec.run_id, snapshot))?;
    for cut in cuts {
        fingerprint.add(&(&cut.sender, &input.recipients.rows[cut.rows.clone()]))?;
    }
    Ok(fingerprint.finish())
}

fn warnings(delivery: &Delivery, snapshot: &MessageSnapshot) -> Vec<PlanWarning> {
    let clamped = delivery.spec.validity.filter(|&asked| asked > MAX_VALIDITY);
    let unsigned = snapshot
        .dkim_keys
        .is_empty()
        .then(|| snapshot.sender.address.domain().clone());
    let clamped = clamped.map(|asked| PlanWarning::ValidityClamped { asked });
    clamped
        .into_iter()
        .chain(unsigned.map(|domain| PlanWarning::DkimMissing { domain }))
        .collect()
}

/// What all slices of a run have in common.
struct Run<'a> {
    delivery: &'a Delivery,
    fingerprint: String,
}

impl Run<'_> {
    fn recipient_slice(&self, number: usize, cut: &SliceCut, input: &PlanInput<'_>) -> DeliverySlice {
        let mut slice = self.slice(&number.to_string());
        slice.spec.sender = Some(cut.sender.clone());
        slice.spec.rows = input.recipients.rows[cut.rows.clone()].to_vec();
        slice
            .labels_mut()
            .insert(SENDER_LABEL.to_owned(), label_value(&cut.sender));
        slice
    }

    fn message_slice(&self, snapshot: MessageSnapshot) -> DeliverySlice {
        let mut slice = self.slice(MESSAGE_SUFFIX);
        slice.spec.message = Some(Box::new(snapshot));
        let digest = spec_digest(&self.delivery.spec);
        slice
            .annotations_mut()
            .insert(SPEC_DIGEST_ANNOTATION.to_owned(), digest);
        slice
    }

    fn slice(&self, suffix: &str) -> DeliverySlice {
        let name = self.delivery.name_any();
        let pool = &self.delivery.spec.pool;
        let labels = [
            (DELIVERY_LABEL.to_owned(), label_value(&name)),
            (POOL_LABEL.to_owned(), label_value(pool)),
        ];
        DeliverySlice {
            metadata: ObjectMeta {
                name: Some(slice_name(&name, &self.fingerprint, suffix)),
                namespace: self.delivery.namespace(),
                labels: Some(labels.into()),
                annotations: Some([(FINGERPRINT_ANNOTATION.to_owned(), self.fingerprint.clone())].into()),
                owner_references: self
                    .delivery
                    .controller_owner_ref(&())
                    .map(|owner| vec![blocking(owner)]),
                ..ObjectMeta::default()
            },
            spec: DeliverySliceSpec {
                delivery: name,
                delivery_uid: self.delivery.uid().unwrap_or_default(),
                pool: pool.clone(),
                fingerprint: self.fingerprint.clone(),
                message: None,
                sender: None,
                rows: Vec::new(),
            },
            status: None,
        }
    }
}

/// With this, a Delivery that is deleted in the foreground stays until its slices are gone.
fn blocking(owner: OwnerReference) -> OwnerReference {
    OwnerReference {
        block_owner_deletion: Some(true),
        ..owner
    }
}

/// What the name of a message slice ends with, behind the fingerprint.
const MESSAGE_SUFFIX: &str = "message";

/// `<delivery>-<first 8 characters of the fingerprint>-<suffix>`, the Delivery's name cut so that the whole is a name.
fn slice_name(delivery: &str, fingerprint: &str, suffix: &str) -> String {
    let digest: String = fingerprint.chars().take(8).collect();
    let room = MAX_NAME - digest.len() - suffix.len() - 2;
    let start: String = delivery.chars().take(room).collect();
    format!("{}-{digest}-{suffix}", start.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests;
