//! The reconciler of SendingIps: gives each address to one sender, once.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::controller::Action;
use kube::{Api, Resource as _, ResourceExt as _};
use relaypool_api::conditions::{ConditionType, Readiness, SendingIpReason};
use relaypool_api::names::sender_name;
use relaypool_api::not_in_effect::{NotInEffect as _, notice};
use relaypool_api::sending_ip::LaneState;
use relaypool_api::validation::{Validate as _, summary};
use relaypool_api::{RelayPool, SendingIp, SendingIpStatus};

use crate::assignment::{Assignment, assign};
use crate::conditions::Conditions;
use crate::context::{Context, SURROUNDINGS, by_name, now, sound_in_namespace};
use crate::error::Error;
use crate::events::Notice;
use crate::guard::Guarded;
use crate::kind::Kind as _;
use crate::report::report;
use crate::requests::get;
use crate::warm_up;

/// How soon to look again when the store did not know yet what the API server does.
const STORE_LAG: Duration = Duration::from_millis(500);

/// Sites that the condition SitesSuspended names; the status has more.
const MOST_NAMED_SITES: usize = 5;

/// Looks at one address.
pub(crate) async fn reconcile(ip: Arc<SendingIp>, context: Arc<Context>) -> Result<Action, Error> {
    let decision = decide(&ip, &context);
    let newly_assigned = match (&decision, sender_of(&ip)) {
        (Decision::Sender(sender), None) => Some(sender.clone()),
        _ => None,
    };
    if newly_assigned.is_some() && !still_unassigned(&ip, &context).await? {
        return Ok(Action::requeue(STORE_LAG));
    }
    let status = status(&ip, &decision);
    let notices = warm_up::notices(&ip, previous_conditions(&ip), &status.conditions);
    let assigned = newly_assigned.map(|sender| {
        let note = format!("{} belongs to sender {sender} from now on", ip.spec.address);
        Notice::normal("Assigned", "Assign", note)
    });
    let notices = assigned.into_iter().chain(notices).collect();
    report(&context, ip.as_ref(), &status, notices).await?;
    Ok(Action::await_change())
}

/// What is decided for an address.
#[derive(Debug, PartialEq)]
enum Decision {
    /// It belongs to this sender.
    Sender(String),
    /// It belongs to this sender, which the pool has no longer.
    SenderGone(String),
    /// It waits; no person is needed.
    Wait(SendingIpReason, String),
    /// A person must change something.
    Stall(SendingIpReason, String),
}

/// Decides from what the stores hold. No client.
fn decide(ip: &SendingIp, context: &Context) -> Decision {
    let problems = ip.problems();
    if !problems.is_empty() {
        return Decision::Stall(SendingIpReason::InvalidSpec, summary(&problems));
    }
    let obstacles = ip.spec.obstacles();
    if !obstacles.is_empty() {
        return Decision::Stall(SendingIpReason::NotInThisVersion, summary(&obstacles));
    }
    let namespace = ip.namespace().unwrap_or_default();
    let pool = by_name(&context.stores.pools, &namespace, &ip.spec.pool);
    let Some(pool) = pool.as_deref().and_then(Guarded::sound) else {
        let message = format!("there is no usable RelayPool {} in namespace {namespace}", ip.spec.pool);
        return Decision::Wait(SendingIpReason::PoolNotFound, message);
    };
    let ips = sound_in_namespace(&context.stores.ips, &namespace);
    decide_in_pool(ip, pool, &ips)
}

fn decide_in_pool(ip: &SendingIp, pool: &RelayPool, ips: &[Arc<SendingIp>]) -> Decision {
    let replicas = u32::try_from(pool.spec.replicas).unwrap_or_default();
    let valid = |other: &&SendingIp| {
        other.problems().is_empty() && other.spec.obstacles().is_empty() && other.meta().deletion_timestamp.is_none()
    };
    let ips: Vec<_> = ips.iter().map(AsRef::as_ref).filter(valid).collect();
    match assign(&ip.spec.pool, replicas, &ips).remove(&ip.name_any()) {
        Some(Assignment::Sender(sender)) => {
            let exists = (0..replicas).any(|ordinal| sender_name(&ip.spec.pool, ordinal) == sender);
            if exists {
                Decision::Sender(sender)
            } else {
                Decision::SenderGone(sender)
            }
        }
        Some(Assignment::Duplicate(holder)) => Decision::Stall(
            SendingIpReason::DuplicateAddress,
            format!(
                "SendingIp {holder} has the address {} already: delete one of the two",
                ip.spec.address
            ),
        ),
        // The store may not know the object yet that it is asked about; it will.
        Some(Assignment::NoSenders) | None => Decision::Wait(
            SendingIpReason::WaitingForSender,
            format!(
                "pool {} has no sender that could own the address: its replicas are {replicas}",
                ip.spec.pool
            ),
        ),
    }
}

/// What the address answers. No client.
fn status(ip: &SendingIp, decision: &Decision) -> SendingIpStatus {
    let previous = previous_conditions(ip);
    let generation = ip.meta().generation;
    let mut conditions = Conditions::new(previous, &SendingIp::own_conditions(), generation, now());
    match decision {
        Decision::Sender(sender) if ip.spec.suspend => {
            let message = format!("sender {sender} owns the address, and nothing is sent from it, as asked");
            conditions.readiness(Readiness::Ready, SendingIpReason::Suspended, message);
        }
        Decision::Sender(sender) => {
            let message = warm_up::with_stage(format!("sender {sender} owns the address"), ip);
            conditions.readiness(Readiness::Ready, SendingIpReason::Assigned, message);
        }
        Decision::SenderGone(sender) => {
            let message = format!(
                "sender {sender} owns the address, but pool {} has fewer senders now",
                ip.spec.pool
            );
            conditions.readiness(Readiness::Reconciling, SendingIpReason::SenderNotReporting, message);
        }
        Decision::Wait(reason, message) => conditions.readiness(Readiness::Reconciling, *reason, message),
        Decision::Stall(reason, message) => conditions.readiness(Readiness::Stalled, *reason, message),
    }
    conditions.set_or_remove(
        ConditionType::SitesSuspended,
        SendingIpReason::RefusedBySites,
        suspended_sites(ip.status.as_ref()),
    );
    conditions.set_or_remove(
        ConditionType::WarmUpHeld,
        SendingIpReason::ProviderRefused,
        warm_up::held(ip),
    );
    let fields = ip.spec.fields_not_in_effect(SURROUNDINGS);
    let not_in_effect = (!fields.is_empty()).then(|| notice(&fields));
    conditions.set_or_remove(
        ConditionType::NotInEffect,
        SendingIpReason::FieldsNotInEffect,
        not_in_effect,
    );

    let sender = match decision {
        Decision::Sender(sender) | Decision::SenderGone(sender) => Some(sender.clone()),
        // An address that has a sender keeps it, whatever is wrong with it now.
        Decision::Wait(..) | Decision::Stall(..) => sender_of(ip).map(str::to_owned),
    };
    SendingIpStatus {
        observed_generation: generation,
        conditions: conditions.finish(),
        sender,
        ..SendingIpStatus::default()
    }
}

/// What the sender says of the sites to which nothing is sent for a while; none when there are no such sites.
fn suspended_sites(status: Option<&SendingIpStatus>) -> Option<String> {
    let status = status?;
    let count = status.suspended_sites.filter(|count| *count > 0)?;
    let named: Vec<String> = status
        .sites
        .iter()
        .filter(|site| site.state == LaneState::Suspended)
        .take(MOST_NAMED_SITES)
        .map(|site| match &site.suspended_until {
            Some(until) => format!("{} until {}", site.site, until.0),
            None => site.site.clone(),
        })
        .collect();
    let sites = if count == 1 { "site" } else { "sites" };
    let others = usize::try_from(count).unwrap_or(usize::MAX).saturating_sub(named.len());
    let others = if others > 0 && !named.is_empty() {
        format!(" and {others} more")
    } else {
        String::new()
    };
    let colon = if named.is_empty() { "" } else { ": " };
    Some(format!(
        "nothing is sent for a while to {count} {sites}{colon}{}{others}",
        named.join(", ")
    ))
}

/// Whether the API server, too, knows no sender of the address. The store may be behind, and an address must never get a
/// second sender.
async fn still_unassigned(ip: &SendingIp, context: &Context) -> Result<bool, Error> {
    let namespace = ip.namespace().unwrap_or_default();
    let api = Api::<Guarded<SendingIp>>::namespaced(context.client.clone(), &namespace);
    let current = get(&api, &ip.name_any()).await?;
    let current = current.as_ref().and_then(Guarded::sound);
    Ok(current.is_some_and(|current| current.uid() == ip.uid() && sender_of(current).is_none()))
}

fn previous_conditions(ip: &SendingIp) -> &[Condition] {
    ip.status.as_ref().map_or(&[], |status| &status.conditions)
}

fn sender_of(ip: &SendingIp) -> Option<&str> {
    ip.status.as_ref()?.sender.as_deref()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(suspended: u32, sites: &[(&str, &str)]) -> Option<String> {
        let sites: Vec<_> = sites
            .iter()
            .map(|(site, state)| {
                json!({ "site": site, "state": state, "binds": "NoDemand", "suspendedUntil": "2026-11-20T10:00:00Z" })
            })
            .collect();
        let status = json!({ "suspendedSites": suspended, "sites": sites });
        suspended_sites(Some(&serde_json::from_value(status).unwrap()))
    }

    #[test]
    fn suspended_sites_are_counted_and_some_are_named() {
        assert_eq!(suspended_sites(None), None);
        assert_eq!(said(0, &[("a.example", "Sending")]), None);
        assert_eq!(
            said(1, &[("a.example", "Suspended"), ("b.example", "Idle")]).unwrap(),
            "nothing is sent for a while to 1 site: a.example until 2026-11-20T10:00:00Z"
        );
        let many = ["a", "b", "c", "d", "e", "f"].map(|site| (site, "Suspended"));
        let message = said(80, &many).unwrap();
        assert!(message.contains("80 sites: a until"), "{message}");
        assert!(
            message.ends_with("e until 2026-11-20T10:00:00Z and 75 more"),
            "{message}"
        );
        // None of the busiest sites is suspended: the others are not named anywhere.
        assert_eq!(said(3, &[]).unwrap(), "nothing is sent for a while to 3 sites");
    }
}
