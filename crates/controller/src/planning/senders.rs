//! Which senders a run goes to, and how much of it each gets.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt as _};
use kube::{Resource as _, ResourceExt as _};
use relaypool_api::SendingIp;
use relaypool_api::conditions::{ConditionType, is_true};
use relaypool_api::names::sender_name;

/// What a sender can take of a run: the summed weights of its usable SendingIps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderWeight {
    /// Name of the sender.
    pub sender: String,
    /// Its weight, never 0.
    pub weight: u64,
}

/// Why no sender can take a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSender {
    /// No SendingIp of the pool has a sender, fits the affinity, and may be used.
    #[error("pool {pool} has no SendingIp that can be used{}{}", if *affinity { " and fits ipAffinity" } else { "" }, why_not(*weightless))]
    NoSendingIp {
        /// The pool.
        pool: String,
        /// The Delivery chooses SendingIps by their labels.
        affinity: bool,
        /// SendingIps that would fit but have weight 0, so that only an affinity can choose them.
        weightless: usize,
    },
    /// `ipAffinity` is no valid selector.
    #[error("ipAffinity is not a label selector: {0}")]
    BadAffinity(String),
}

fn why_not(weightless: usize) -> String {
    match weightless {
        0 => String::new(),
        count => format!(" ({count} with weight 0 would be used only by ipAffinity)"),
    }
}

/// The senders for a run through the pool, in the order of their ordinals. Suspended SendingIps count only where there is
/// no other, so that their mail waits instead of being refused.
///
/// # Errors
/// When there is none.
pub fn sender_weights(
    pool: &str,
    replicas: u32,
    affinity: Option<&LabelSelector>,
    ips: &[SendingIp],
) -> Result<Vec<SenderWeight>, NoSender> {
    let selector = affinity
        .map(|selector| Selector::try_from(selector.clone()))
        .transpose()
        .map_err(|problem| NoSender::BadAffinity(problem.to_string()))?;
    let ordinals: BTreeMap<String, u32> = (0..replicas)
        .map(|ordinal| (sender_name(pool, ordinal), ordinal))
        .collect();
    let usable: Vec<Usable> = ips
        .iter()
        .filter(|ip| selector.as_ref().is_none_or(|selector| selector.matches(ip.labels())))
        .filter_map(|ip| usable(pool, &ordinals, ip))
        .collect();

    let weightless = usable.iter().filter(|ip| ip.weight == 0).count();
    let mut chosen: Vec<Usable> = usable
        .into_iter()
        .filter(|ip| ip.weight > 0 || selector.is_some())
        .collect();
    if chosen.iter().any(|ip| !ip.suspended) {
        chosen.retain(|ip| !ip.suspended);
    }
    if chosen.iter().all(|ip| ip.weight == 0) {
        // Asked for by affinity, and none before the others.
        chosen.iter_mut().for_each(|ip| ip.weight = 1);
    }

    let mut weights = BTreeMap::<u32, u64>::new();
    for ip in chosen.iter().filter(|ip| ip.weight > 0) {
        *weights.entry(ip.ordinal).or_default() += ip.weight;
    }
    if weights.is_empty() {
        return Err(NoSender::NoSendingIp {
            pool: pool.to_owned(),
            affinity: selector.is_some(),
            weightless: if selector.is_some() { 0 } else { weightless },
        });
    }
    let named = |(ordinal, weight)| SenderWeight {
        sender: sender_name(pool, ordinal),
        weight,
    };
    Ok(weights.into_iter().map(named).collect())
}

struct Usable {
    ordinal: u32,
    weight: u64,
    suspended: bool,
}

/// A SendingIp of the pool with a sender that exists and nothing against it.
fn usable(pool: &str, ordinals: &BTreeMap<String, u32>, ip: &SendingIp) -> Option<Usable> {
    let status = ip.status.as_ref()?;
    let ordinal = *ordinals.get(status.sender.as_deref()?)?;
    let unfit = ip.spec.pool != pool
        || ip.meta().deletion_timestamp.is_some()
        || is_true(&status.conditions, ConditionType::Stalled);
    (!unfit).then_some(Usable {
        ordinal,
        weight: u64::from(ip.spec.weight),
        suspended: ip.spec.suspend,
    })
}
