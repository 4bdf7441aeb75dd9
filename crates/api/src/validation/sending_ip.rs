//! Rules of a SendingIp.

use super::{Findings, Problem, message::count, text};
use crate::cel::CelRule;
use crate::sending_ip::{Egress, SendingIpSpec};

pub(crate) const POOL_IS_FIXED: CelRule = CelRule::new(
    "self.pool == oldSelf.pool",
    "pool cannot be changed: delete this SendingIp and create one in the other pool",
);

pub(crate) const ADDRESS_IS_FIXED: CelRule = CelRule::new(
    "self.address == oldSelf.address",
    "address cannot be changed: create a new SendingIp, because reputation belongs to the address",
);

pub(crate) const ONE_EGRESS: CelRule = CelRule::new(
    "[has(self.bind), has(self.socks5), has(self.proxyProtocol)].filter(set, set).size() <= 1",
    "set only one of egress.bind, egress.socks5 and egress.proxyProtocol",
);

pub(crate) const WARM_HAS_NO_SCHEDULE: CelRule = CelRule::new(
    "!self.alreadyWarm || !has(self.schedule)",
    "an address that is alreadyWarm has no warm-up schedule: remove one of the two",
);

pub(crate) const SOME_PROVIDER_LIMIT: CelRule = CelRule::new(
    "has(self.maxPercent) || has(self.maxMessages)",
    "a provider needs maxPercent or maxMessages",
);

/// What is wrong with the spec. Empty: nothing.
pub fn validate_sending_ip(spec: &SendingIpSpec) -> Vec<Problem> {
    let mut findings = Findings::default();
    if let Some(egress) = &spec.egress {
        check_egress(&mut findings, egress);
    }
    if let Some(warm_up) = &spec.warm_up {
        let holds = !warm_up.already_warm || warm_up.schedule.is_none();
        findings.check("spec.warmUp", WARM_HAS_NO_SCHEDULE, holds);
        for (index, provider) in warm_up.providers.iter().enumerate() {
            let limited = provider.max_percent.is_some() || provider.max_messages.is_some();
            let field = format!("spec.warmUp.providers[{index}]");
            findings.check(field, SOME_PROVIDER_LIMIT, limited);
        }
    }
    findings.0
}

/// What is wrong with the step from `old` to `new`.
pub fn validate_sending_ip_update(old: &SendingIpSpec, new: &SendingIpSpec) -> Vec<Problem> {
    let mut findings = Findings::default();
    findings.check("spec", POOL_IS_FIXED, new.pool == old.pool);
    findings.check("spec", ADDRESS_IS_FIXED, new.address == old.address);
    findings.0
}

fn check_egress(findings: &mut Findings, egress: &Egress) {
    let ways = [
        egress.bind.is_some(),
        egress.socks5.is_some(),
        egress.proxy_protocol.is_some(),
    ];
    findings.check("spec.egress", ONE_EGRESS, count(ways) <= 1);
    for (field, proxy) in [("socks5", &egress.socks5), ("proxyProtocol", &egress.proxy_protocol)] {
        findings.check(
            format_args!("spec.egress.{field}"),
            text::HOST_AND_PORT,
            proxy.as_deref().is_none_or(text::is_host_and_port),
        );
    }
}
