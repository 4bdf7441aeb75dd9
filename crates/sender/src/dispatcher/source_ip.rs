//! The sending IPs of this sender.

use std::collections::BTreeMap;
use std::net::IpAddr;

use relaypool_api::{Domain, SendingIp};

use super::warm_up::WarmUpStart;

/// A sending IP that this sender owns.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceIp {
    /// Name of the SendingIp.
    pub name: String,
    /// The address that connections are bound to.
    pub bind: IpAddr,
    /// The address that receiving hosts see.
    pub address: IpAddr,
    /// The name for EHLO.
    pub ehlo_name: Domain,
    /// Share relative to other IPs.
    pub weight: u32,
    /// Nothing leaves from it.
    pub suspended: bool,
    /// Labels of the SendingIp, for the affinity of Deliveries.
    pub labels: BTreeMap<String, String>,
    /// Its warm-up; none for one that is warm.
    pub warm_up: Option<WarmUpStart>,
}

impl From<&SendingIp> for SourceIp {
    fn from(object: &SendingIp) -> Self {
        let spec = &object.spec;
        Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            bind: spec
                .egress
                .as_ref()
                .and_then(|egress| egress.bind)
                .unwrap_or(spec.address),
            address: spec.address,
            ehlo_name: spec.ehlo_name.clone(),
            weight: spec.weight,
            suspended: spec.suspend,
            labels: object.metadata.labels.clone().unwrap_or_default(),
            warm_up: WarmUpStart::of(object),
        }
    }
}
