//! Rules of a RelayPool.

use super::{Findings, Problem, text};
use crate::cel::CelRule;
use crate::relay_pool::{Intake, ObjectStore, RelayPoolSpec, name_server};

pub(crate) const NAME_SERVERS: CelRule = CelRule::new(
    r"self.all(server, server.matches('^([0-9.]+(:[0-9]+)?|[0-9a-fA-F:.]+|\\[[0-9a-fA-F:.]+\\](:[0-9]+)?)$'))",
    "each entry of dns.servers must be an IP address with an optional port, such as 10.0.0.53 or 127.0.0.1:5353",
);

pub(crate) const ALLOWED_NETWORKS: CelRule = CelRule::new(
    "self.all(network, network.matches('^[0-9a-fA-F:.]+/[0-9]{1,3}$'))",
    "each entry of intake.smtp.allowedNetworks must be a network in CIDR form, such as 10.0.0.0/8",
);

pub(crate) const STORES_HAVE_THEIR_OWN_NAMES: CelRule = CelRule::new(
    "self.all(store, self.exists_one(other, other.name == store.name))",
    "objectStores must not have two entries of one name",
);

/// What is wrong with the spec. Empty: nothing.
pub fn validate_relay_pool(spec: &RelayPoolSpec) -> Vec<Problem> {
    let mut findings = Findings::default();
    findings.check(
        "spec.storage.size",
        text::SIZE,
        spec.storage.size.as_deref().is_none_or(text::is_size),
    );
    findings.check(
        "spec.dns.servers",
        NAME_SERVERS,
        spec.dns.servers.iter().all(|server| name_server(server).is_some()),
    );
    findings.check_longer_than_zero("spec.dns.timeout", spec.dns.timeout);
    if let Some(intake) = &spec.intake {
        check_intake(&mut findings, intake);
    }
    check_object_stores(&mut findings, &spec.object_stores);
    findings.0
}

/// What is wrong with the step from `old` to `new`: nothing, for every field of a pool may change.
pub fn validate_relay_pool_update(_old: &RelayPoolSpec, _new: &RelayPoolSpec) -> Vec<Problem> {
    Vec::new()
}

fn check_intake(findings: &mut Findings, intake: &Intake) {
    if let Some(smtp) = &intake.smtp {
        findings.check(
            "spec.intake.smtp.allowedNetworks",
            ALLOWED_NETWORKS,
            smtp.allowed_networks.iter().all(|network| text::is_network(network)),
        );
    }
}

fn check_object_stores(findings: &mut Findings, stores: &[ObjectStore]) {
    let one_of_each = stores
        .iter()
        .all(|store| stores.iter().filter(|other| other.name == store.name).count() == 1);
    findings.check("spec.objectStores", STORES_HAVE_THEIR_OWN_NAMES, one_of_each);
    for (index, store) in stores.iter().enumerate() {
        findings.check(
            format_args!("spec.objectStores[{index}].url"),
            text::STORE_URL,
            text::is_store_url(&store.url),
        );
    }
}
