//! Rules of a DkimKey.

use super::{Findings, Problem};
use crate::cel::CelRule;
use crate::dkim_key::DkimKeySpec;

pub(crate) const RECORD_NAME_IS_FIXED: CelRule = CelRule::new(
    "self.domain == oldSelf.domain && self.selector == oldSelf.selector",
    "domain and selector cannot be changed: create another DkimKey, so that late verifiers still find the old record",
);

pub(crate) const ROTATION_IS_FOR_GENERATED_KEYS: CelRule = CelRule::new(
    "!has(self.rotation) || !has(self.secretRef)",
    "only a generated key is rotated: remove rotation, or remove secretRef",
);

/// What is wrong with the spec. Empty: nothing.
pub fn validate_dkim_key(spec: &DkimKeySpec) -> Vec<Problem> {
    let mut findings = Findings::default();
    findings.check(
        "spec",
        ROTATION_IS_FOR_GENERATED_KEYS,
        spec.rotation.is_none() || spec.secret_ref.is_none(),
    );
    findings.check_longer_than_zero(
        "spec.rotation.every",
        spec.rotation.as_ref().map(|rotation| rotation.every),
    );
    findings.0
}

/// What is wrong with the step from `old` to `new`.
pub fn validate_dkim_key_update(old: &DkimKeySpec, new: &DkimKeySpec) -> Vec<Problem> {
    let mut findings = Findings::default();
    let same_record = new.domain == old.domain && new.selector == old.selector;
    findings.check("spec", RECORD_NAME_IS_FIXED, same_record);
    findings.0
}
