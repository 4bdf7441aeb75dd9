//! The part of a DeliverySlice that progress is computed from. A slice may take half a megabyte, a view of it without
//! variables and message a few kilobytes, and the controller keeps views of all slices in memory.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use kube::api::ObjectMeta;
use relaypool_api::DeliverySlice;
use relaypool_api::delivery_slice::DeliverySliceStatus;
use relaypool_api::message::{IgnoredRow, MessageSnapshot, SigningKeyRef};
use relaypool_api::types::Duration;
use serde::Deserialize;

/// Most recipients of a Delivery whose messages are listed one by one.
pub const MAX_LISTED_MESSAGES: usize = 100;

/// A DeliverySlice without message and variables.
#[derive(Debug, Clone, Deserialize)]
pub struct SliceView {
    /// Metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is needed of the spec.
    pub spec: SliceViewSpec,
    /// The status.
    #[serde(default)]
    pub status: Option<DeliverySliceStatus>,
}

/// What is needed of the spec of a slice.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceViewSpec {
    /// The Delivery, by name.
    pub delivery: String,
    /// The Delivery, by UID.
    pub delivery_uid: String,
    /// The pool.
    pub pool: String,
    /// The run's fingerprint.
    pub fingerprint: String,
    /// The run, in the message slice.
    #[serde(default)]
    pub message: Option<RunView>,
    /// The sender that owns the slice, in a slice of recipients.
    #[serde(default)]
    pub sender: Option<String>,
    /// The recipients.
    #[serde(default)]
    pub rows: Rows,
}

/// What is needed of the message of a run.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunView {
    /// Keys that must sign.
    #[serde(default)]
    pub dkim_keys: Vec<SigningKeyRef>,
    /// How long to try.
    pub validity: Duration,
    /// Not before this moment.
    #[serde(default)]
    pub start_at: Option<Time>,
    /// The run's fingerprint.
    pub fingerprint: String,
    /// Rows of the recipient list.
    pub total: u64,
    /// Slices of recipients.
    pub slices: u32,
    /// Rows excluded at planning, by reason.
    #[serde(default)]
    pub ignored: BTreeMap<String, u64>,
    /// The first of them.
    #[serde(default)]
    pub ignored_rows: Vec<IgnoredRow>,
}

/// How many recipients a slice has, and who they are when there are few.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Vec<RowHead>")]
pub struct Rows {
    /// How many.
    pub count: usize,
    /// Who, by position; empty when there are more than [`MAX_LISTED_MESSAGES`], so that they cannot be listed anyway.
    pub heads: Vec<RowHead>,
}

/// A recipient without variables.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RowHead {
    /// Row in the recipient list.
    pub index: u64,
    /// The address.
    pub address: String,
}

impl From<Vec<RowHead>> for Rows {
    fn from(heads: Vec<RowHead>) -> Self {
        Self {
            count: heads.len(),
            heads: if heads.len() > MAX_LISTED_MESSAGES {
                Vec::new()
            } else {
                heads
            },
        }
    }
}

impl From<&DeliverySlice> for SliceView {
    fn from(slice: &DeliverySlice) -> Self {
        let spec = &slice.spec;
        let head = |row: &relaypool_api::delivery_slice::SliceRow| RowHead {
            index: row.index,
            address: row.recipient.address.clone(),
        };
        Self {
            metadata: slice.metadata.clone(),
            spec: SliceViewSpec {
                delivery: spec.delivery.clone(),
                delivery_uid: spec.delivery_uid.clone(),
                pool: spec.pool.clone(),
                fingerprint: spec.fingerprint.clone(),
                message: spec.message.as_deref().map(RunView::from),
                sender: spec.sender.clone(),
                rows: spec.rows.iter().map(head).collect::<Vec<_>>().into(),
            },
            status: slice.status.clone(),
        }
    }
}

impl From<&MessageSnapshot> for RunView {
    fn from(snapshot: &MessageSnapshot) -> Self {
        Self {
            dkim_keys: snapshot.dkim_keys.clone(),
            validity: snapshot.validity,
            start_at: snapshot.start_at.clone(),
            fingerprint: snapshot.fingerprint.clone(),
            total: snapshot.total,
            slices: snapshot.slices,
            ignored: snapshot.ignored.clone(),
            ignored_rows: snapshot.ignored_rows.clone(),
        }
    }
}

impl Resource for SliceView {
    type DynamicType = ();
    type Scope = <DeliverySlice as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        DeliverySlice::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        DeliverySlice::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        DeliverySlice::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        DeliverySlice::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_view_read_from_json_is_the_view_of_the_object() {
        let row = |index: usize| json!({ "index": index, "address": format!("r{index}@example.com"), "variables": { "a": [1] } });
        let slice = |rows: usize| {
            json!({
                "apiVersion": "relaypool.dev/v1alpha1",
                "kind": "DeliverySlice",
                "metadata": { "name": "news-1" },
                "spec": {
                    "delivery": "news", "deliveryUid": "u", "pool": "p", "fingerprint": "f", "sender": "p-0",
                    "rows": (0..rows).map(row).collect::<Vec<_>>(),
                },
            })
        };
        for (rows, listed) in [(3, 3), (100, 100), (101, 0)] {
            let read: SliceView = serde_json::from_value(slice(rows)).unwrap();
            let object: DeliverySlice = serde_json::from_value(slice(rows)).unwrap();
            assert_eq!(read.spec.rows, SliceView::from(&object).spec.rows);
            assert_eq!((read.spec.rows.count, read.spec.rows.heads.len()), (rows, listed));
        }
    }
}
