//! The conditions that the controller writes on one object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use relaypool_api::conditions::{
    ConditionStatus, ConditionType, Readiness, Reason, is_true, remove_condition, set_condition,
};

/// Conditions of one object, as they were and as they become. Conditions of others are left out from the start: with
/// server-side apply, what is not sent stays theirs.
#[derive(Debug, Clone)]
pub struct Conditions {
    list: Vec<Condition>,
    generation: Option<i64>,
    now: Time,
}

impl Conditions {
    /// Starts with those of `previous` that are of one of the types in `own`. `generation` is the one of the spec that was
    /// looked at.
    pub fn new(previous: &[Condition], own: &[ConditionType], generation: Option<i64>, now: Time) -> Self {
        let is_own = |condition: &&Condition| own.iter().any(|kind| kind.as_str() == condition.type_);
        Self {
            list: previous.iter().filter(is_own).cloned().collect(),
            generation,
            now,
        }
    }

    /// Writes Ready, Reconciling and Stalled.
    pub fn readiness(&mut self, readiness: Readiness, reason: impl Reason, message: impl Into<String>) {
        readiness.write(&mut self.list, reason, message, self.generation, self.now.clone());
    }

    /// Writes one condition.
    pub fn set(
        &mut self,
        kind: ConditionType,
        status: impl Into<ConditionStatus>,
        reason: impl Reason,
        message: impl Into<String>,
    ) {
        let now = self.now.clone();
        set_condition(
            &mut self.list,
            kind,
            status.into(),
            reason,
            message,
            self.generation,
            now,
        );
    }

    /// Writes a condition that is True with this message, or takes it away.
    pub fn set_or_remove(&mut self, kind: ConditionType, reason: impl Reason, message: Option<String>) {
        match message {
            Some(message) => self.set(kind, true, reason, message),
            None => remove_condition(&mut self.list, kind),
        }
    }

    /// Takes a condition away.
    pub fn remove(&mut self, kind: ConditionType) {
        remove_condition(&mut self.list, kind);
    }

    /// The conditions to write.
    pub fn finish(self) -> Vec<Condition> {
        self.list
    }
}

/// True when the object says that it is in force.
pub fn ready(conditions: &[Condition]) -> bool {
    is_true(conditions, ConditionType::Ready)
}
