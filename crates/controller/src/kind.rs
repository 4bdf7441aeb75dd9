//! What the reconcilers of all kinds have in common.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::core::object::HasStatus;
use relaypool_api::conditions::{
    ConditionType, DeliveryReason, DkimKeyReason, MxPolicyReason, Reason, RelayPoolReason, SendingIpReason,
};
use relaypool_api::{
    Delivery, DeliveryStatus, DkimKey, DkimKeyStatus, MxPolicy, MxPolicyStatus, RelayPool, RelayPoolStatus, SendingIp,
    SendingIpStatus,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::metrics::KindLabel;

/// A kind of object that the controller reconciles.
pub(crate) trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + HasStatus<Status = <Self as Kind>::KindStatus>
    + DeserializeOwned
    + Clone
    + Debug
    + Send
    + Sync
    + 'static
{
    /// Its status.
    type KindStatus: Status;
    /// Reasons of its conditions.
    type Reason: Reason;
    /// The reason when the spec cannot be acted upon.
    const INVALID_SPEC: Self::Reason;
    /// The same in metrics.
    const LABEL: KindLabel;
    /// Fields of its status that others write: the controller never sends them.
    const FIELDS_OF_OTHERS: &'static [&'static str] = &[];
    /// Types of conditions that others write.
    const CONDITIONS_OF_OTHERS: &'static [ConditionType] = &[];
    /// Least time between two writes of the status of one object.
    const STATUS_SPACING: Duration = Duration::ZERO;

    /// Types of conditions that the controller writes.
    fn own_conditions() -> Vec<ConditionType> {
        let all = ConditionType::of_kind(&Self::kind(&())).iter();
        all.filter(|kind| !Self::CONDITIONS_OF_OTHERS.contains(kind))
            .copied()
            .collect()
    }
}

/// The status of a kind.
pub(crate) trait Status: Serialize + Clone + Debug + Default + Send + Sync {
    /// Its conditions.
    fn conditions(&self) -> &[Condition];
}

impl Kind for RelayPool {
    type KindStatus = RelayPoolStatus;
    type Reason = RelayPoolReason;
    const INVALID_SPEC: RelayPoolReason = RelayPoolReason::InvalidSpec;
    const LABEL: KindLabel = KindLabel::RelayPool;
    const FIELDS_OF_OTHERS: &'static [&'static str] = &["senders", "poolLimits", "poolLimitsRevision"];
    // Many senders report often; their sums need not follow each.
    const STATUS_SPACING: Duration = Duration::from_secs(2);
}

impl Kind for SendingIp {
    type KindStatus = SendingIpStatus;
    type Reason = SendingIpReason;
    const INVALID_SPEC: SendingIpReason = SendingIpReason::InvalidSpec;
    const LABEL: KindLabel = KindLabel::SendingIp;
    const FIELDS_OF_OTHERS: &'static [&'static str] = &["warmUp", "sites"];
    const CONDITIONS_OF_OTHERS: &'static [ConditionType] = &[ConditionType::ForwardConfirmed];
}

impl Kind for MxPolicy {
    type KindStatus = MxPolicyStatus;
    type Reason = MxPolicyReason;
    const INVALID_SPEC: MxPolicyReason = MxPolicyReason::InvalidSpec;
    const LABEL: KindLabel = KindLabel::MxPolicy;
}

impl Kind for DkimKey {
    type KindStatus = DkimKeyStatus;
    type Reason = DkimKeyReason;
    const INVALID_SPEC: DkimKeyReason = DkimKeyReason::InvalidSpec;
    const LABEL: KindLabel = KindLabel::DkimKey;
}

impl Kind for Delivery {
    type KindStatus = DeliveryStatus;
    type Reason = DeliveryReason;
    const INVALID_SPEC: DeliveryReason = DeliveryReason::InvalidSpec;
    const LABEL: KindLabel = KindLabel::Delivery;
    const STATUS_SPACING: Duration = Duration::from_secs(1);
}

macro_rules! statuses {
    ($($status:ty),+) => {$(
        impl Status for $status {
            fn conditions(&self) -> &[Condition] {
                &self.conditions
            }
        }
    )+};
}

statuses!(
    RelayPoolStatus,
    SendingIpStatus,
    MxPolicyStatus,
    DkimKeyStatus,
    DeliveryStatus
);
