//! Rules of a DeliverySlice.

use super::{Findings, Problem, message};
use crate::cel::CelRule;
use crate::delivery_slice::DeliverySliceSpec;

pub(crate) const SPEC_IS_FIXED: CelRule = CelRule::new(
    "self == oldSelf",
    "the spec of a DeliverySlice cannot be changed: it is what a sender has taken over",
);

pub(crate) const MESSAGE_OR_SENDER: CelRule = CelRule::new(
    "has(self.message) != has(self.sender)",
    "a slice has either a message (for all senders) or a sender with its recipients",
);

/// What is wrong with the spec. Empty: nothing.
pub fn validate_delivery_slice(spec: &DeliverySliceSpec) -> Vec<Problem> {
    let mut findings = Findings::default();
    findings.check(
        "spec",
        MESSAGE_OR_SENDER,
        spec.message.is_some() != spec.sender.is_some(),
    );
    if let Some(snapshot) = &spec.message {
        message::check(&mut findings, "spec.message.message", &snapshot.message);
    }
    findings.0
}

/// What is wrong with the step from `old` to `new`.
pub fn validate_delivery_slice_update(old: &DeliverySliceSpec, new: &DeliverySliceSpec) -> Vec<Problem> {
    let mut findings = Findings::default();
    findings.check("spec", SPEC_IS_FIXED, new == old);
    findings.0
}
