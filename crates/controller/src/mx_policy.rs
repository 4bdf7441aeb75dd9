//! The reconciler of MxPolicies: checks each and names those that only its name ranks against. Senders read the policies
//! themselves.

use std::sync::Arc;

use kube::runtime::controller::Action;
use kube::{Resource as _, ResourceExt as _};
use relaypool_api::conditions::{ConditionType, MxPolicyReason, Readiness};
use relaypool_api::not_in_effect::{NotInEffect as _, notice};
use relaypool_api::validation::{Validate as _, summary};
use relaypool_api::{MxPolicy, MxPolicyStatus};

use crate::conditions::Conditions;
use crate::conflicts::conflicts;
use crate::context::{Context, SURROUNDINGS, now, sound_in_namespace};
use crate::error::Error;
use crate::kind::Kind as _;
use crate::report::report;

/// Looks at one policy.
pub(crate) async fn reconcile(policy: Arc<MxPolicy>, context: Arc<Context>) -> Result<Action, Error> {
    let namespace = policy.namespace().unwrap_or_default();
    let others = sound_in_namespace(&context.stores.policies, &namespace);
    let status = status(&policy, conflicts(&policy, others.iter().map(AsRef::as_ref)));
    report(&context, policy.as_ref(), &status, Vec::new()).await?;
    Ok(Action::await_change())
}

/// What the policy answers. No client.
fn status(policy: &MxPolicy, conflicts: Vec<String>) -> MxPolicyStatus {
    let previous = policy
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    let generation = policy.meta().generation;
    let mut conditions = Conditions::new(previous, &MxPolicy::own_conditions(), generation, now());

    let problems = policy.problems();
    let obstacles = policy.spec.obstacles();
    if !problems.is_empty() {
        conditions.readiness(Readiness::Stalled, MxPolicyReason::InvalidSpec, summary(&problems));
    } else if !obstacles.is_empty() {
        conditions.readiness(
            Readiness::Stalled,
            MxPolicyReason::NotInThisVersion,
            summary(&obstacles),
        );
    } else {
        conditions.readiness(Readiness::Ready, MxPolicyReason::Accepted, "the policy is in force");
    }
    let conflicting = (!conflicts.is_empty()).then(|| {
        format!(
            "same masks, priority and fields as {}: the name decides which wins; give them different priorities",
            conflicts.join(", ")
        )
    });
    conditions.set_or_remove(
        ConditionType::Conflicting,
        MxPolicyReason::SameMasksAndPriority,
        conflicting,
    );
    let fields = policy.spec.fields_not_in_effect(SURROUNDINGS);
    let not_in_effect = (!fields.is_empty()).then(|| notice(&fields));
    conditions.set_or_remove(
        ConditionType::NotInEffect,
        MxPolicyReason::FieldsNotInEffect,
        not_in_effect,
    );
    MxPolicyStatus {
        observed_generation: generation,
        conditions: conditions.finish(),
        conflicts,
    }
}
