//! What tools that read kstatus make of the conditions: kubectl, Flux and Argo CD decide by these rules.

#![allow(clippy::unwrap_used, clippy::panic)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use relaypool_api::conditions::{
    ConditionStatus, ConditionType, DeliveryReason, DeliverySliceReason, DkimKeyReason, MxPolicyReason, Readiness,
    Reason, RelayPoolReason, SendingIpReason, set_condition,
};
use relaypool_api::{
    DeliverySliceStatus, DeliveryStatus, DkimKeyStatus, MxPolicyStatus, RelayPoolStatus, SendingIpStatus,
};
use serde_json::{Value, json};

#[derive(Debug, PartialEq)]
enum Kstatus {
    Terminating,
    InProgress,
    Failed,
    Current,
}

/// The order of cli-utils: deletion, generation, Reconciling, Stalled, Ready; without a Ready condition, Current.
fn kstatus(object: &Value) -> Kstatus {
    let metadata = &object["metadata"];
    if !metadata["deletionTimestamp"].is_null() {
        return Kstatus::Terminating;
    }
    let observed = &object["status"]["observedGeneration"];
    if !observed.is_null() && *observed != metadata["generation"] {
        return Kstatus::InProgress;
    }
    let condition = |name: &str| {
        let conditions = object["status"]["conditions"].as_array()?;
        conditions.iter().find(|condition| condition["type"] == name)?["status"].as_str()
    };
    if condition("Reconciling") == Some("True") {
        return Kstatus::InProgress;
    }
    if condition("Stalled") == Some("True") {
        return Kstatus::Failed;
    }
    match condition("Ready") {
        None | Some("True") => Kstatus::Current,
        Some(_) => Kstatus::InProgress,
    }
}

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

/// An object of generation 2 whose status speaks of `observed`.
fn object(status: impl serde::Serialize) -> Value {
    json!({ "metadata": { "generation": 2 }, "status": status })
}

macro_rules! goes_through_all_states {
    ($name:ident, $status:ty, $pending:expr, $ready:expr, $stalled:expr) => {
        #[test]
        fn $name() {
            let mut status = <$status>::default();
            let mut say = |readiness: Readiness, reason, generation, now| {
                status.observed_generation = Some(generation);
                readiness.write(
                    &mut status.conditions,
                    reason,
                    "as it is",
                    Some(generation),
                    at(now),
                );
                object(&status)
            };
            assert_eq!(
                kstatus(&say(Readiness::Reconciling, $pending, 2, 1)),
                Kstatus::InProgress
            );
            assert_eq!(kstatus(&say(Readiness::Ready, $ready, 2, 2)), Kstatus::Current);
            assert_eq!(kstatus(&say(Readiness::Stalled, $stalled, 2, 3)), Kstatus::Failed);
            assert_eq!(kstatus(&say(Readiness::Ready, $ready, 2, 4)), Kstatus::Current);
            // What was said of the generation before says nothing of this one.
            for readiness in [Readiness::Ready, Readiness::Stalled] {
                assert_eq!(kstatus(&say(readiness, $ready, 1, 5)), Kstatus::InProgress);
            }
        }
    };
}

goes_through_all_states!(
    relay_pool,
    RelayPoolStatus,
    RelayPoolReason::WaitingForSenders,
    RelayPoolReason::SendersReporting,
    RelayPoolReason::InvalidSpec
);
goes_through_all_states!(
    sending_ip,
    SendingIpStatus,
    SendingIpReason::WaitingForSender,
    SendingIpReason::Assigned,
    SendingIpReason::DuplicateAddress
);
goes_through_all_states!(
    mx_policy,
    MxPolicyStatus,
    MxPolicyReason::Pending,
    MxPolicyReason::Accepted,
    MxPolicyReason::InvalidSpec
);
goes_through_all_states!(
    dkim_key,
    DkimKeyStatus,
    DkimKeyReason::Pending,
    DkimKeyReason::KeyLoaded,
    DkimKeyReason::NotInThisVersion
);
goes_through_all_states!(
    delivery,
    DeliveryStatus,
    DeliveryReason::Planning,
    DeliveryReason::Planned,
    DeliveryReason::InvalidTemplate
);
goes_through_all_states!(
    delivery_slice,
    DeliverySliceStatus,
    DeliverySliceReason::WaitingForKey,
    DeliverySliceReason::Accepted,
    DeliverySliceReason::Malformed
);

fn also<R: Reason>(status: &mut DeliveryStatus, kind: ConditionType, value: ConditionStatus, reason: R) {
    set_condition(&mut status.conditions, kind, value, reason, "", Some(2), at(1));
}

#[test]
fn a_planned_delivery_is_current_long_before_it_is_completed() {
    let mut status = DeliveryStatus {
        observed_generation: Some(2),
        ..DeliveryStatus::default()
    };
    Readiness::Ready.write(&mut status.conditions, DeliveryReason::Planned, "", Some(2), at(1));
    also(
        &mut status,
        ConditionType::Completed,
        ConditionStatus::False,
        DeliveryReason::InProgress,
    );
    assert_eq!(kstatus(&object(&status)), Kstatus::Current);
}

#[test]
fn warnings_do_not_make_an_object_unhealthy() {
    let mut status = DeliveryStatus {
        observed_generation: Some(2),
        ..DeliveryStatus::default()
    };
    Readiness::Ready.write(&mut status.conditions, DeliveryReason::Planned, "", Some(2), at(1));
    for (kind, reason) in [
        (ConditionType::NotInEffect, DeliveryReason::FieldsNotInEffect),
        (ConditionType::DkimMissing, DeliveryReason::NoDkimKey),
        (ConditionType::ValidityClamped, DeliveryReason::LongerThan84Hours),
    ] {
        assert!(kind.is_abnormal());
        also(&mut status, kind, ConditionStatus::True, reason);
    }
    assert_eq!(kstatus(&object(&status)), Kstatus::Current);
}

#[test]
fn an_object_that_is_being_deleted_is_terminating() {
    let mut object = object(DeliveryStatus::default());
    object["metadata"]["deletionTimestamp"] = json!("2026-11-20T10:00:00Z");
    assert_eq!(kstatus(&object), Kstatus::Terminating);
}
