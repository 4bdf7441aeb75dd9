//! Every controller by its name.

use relaypool_simulator::description::{Behaviour, Provider};

use crate::controller::Controller;
use crate::omniscient::{self, Omniscient};
use crate::pacer::{self, PacerController};
use crate::rivals::{self, Knowledge};

/// What a controller may be told about its lane. Only those that are meant to know it look at the provider.
#[derive(Debug, Clone, Copy)]
pub struct Brief<'a> {
    /// Connections at most.
    pub window_cap: u32,
    /// The provider with its true limits.
    pub provider: &'a Provider,
    /// Decides the controller's chance.
    pub seed: u64,
}

/// The names, in the order of the tables. The omniscient sender is no way to pace mail, and not among them.
pub fn names() -> Vec<&'static str> {
    [pacer::NAME].into_iter().chain(rivals::NAMES).collect()
}

/// Whether there is a controller of this name: one of the names, the omniscient sender, or the pacer without a part.
pub fn is_known(name: &str) -> bool {
    names().contains(&name) || name == omniscient::NAME || pacer::left_out(name).is_some()
}

/// A new controller; none for an unknown name.
pub fn controller(name: &str, brief: Brief<'_>) -> Option<Box<dyn Controller>> {
    if let Some(part) = pacer::left_out(name) {
        return Some(Box::new(PacerController::without(part, brief.window_cap, brief.seed)));
    }
    match name {
        pacer::NAME => Some(Box::new(PacerController::new(brief.window_cap, brief.seed))),
        omniscient::NAME => Some(Box::new(Omniscient::new(brief.provider, brief.window_cap))),
        rival => rivals::by_name(rival, brief.window_cap, &knowledge(brief.provider)),
    }
}

/// What an expert finds out about a provider: the least that each limit ever is.
fn knowledge(provider: &Provider) -> Knowledge {
    let mut knowledge = Knowledge::default();
    for behaviour in &provider.behaviours {
        match behaviour {
            Behaviour::ConnectionLimit(limit) => {
                let limits = limit.changes.iter().map(|change| change.limit).chain([limit.limit]);
                limits.for_each(|limit| lower(&mut knowledge.connections, limit));
            }
            Behaviour::Slowdown(slowdown) => lower(&mut knowledge.connections, slowdown.beyond_connections),
            Behaviour::RateLimit(limit) => {
                let rates = limit.changes.iter().map(|change| change.rate).chain([limit.rate]);
                rates.for_each(|rate| lower(&mut knowledge.messages_per_second, rate.per_second()));
            }
            Behaviour::DailyQuota(quota) => lower(&mut knowledge.per_day, quota.messages),
            Behaviour::ServiceTime(service) => knowledge.time_per_message = Some(service.time.get()),
            _ => {}
        }
    }
    knowledge
}

fn lower<T: PartialOrd>(known: &mut Option<T>, limit: T) {
    if known.as_ref().is_none_or(|known| limit < *known) {
        *known = Some(limit);
    }
}

#[cfg(test)]
mod tests {
    use relaypool_shaping::pacer::Part;
    use relaypool_simulator::scenarios::Scenario;

    use super::*;

    #[test]
    fn every_name_has_its_controller() {
        let provider = Scenario::A.provider();
        let brief = Brief {
            window_cap: 20,
            provider: &provider,
            seed: 1,
        };
        let without = Part::ALL.map(pacer::name_without);
        for name in names().into_iter().chain([omniscient::NAME]).chain(without) {
            assert!(is_known(name), "{name}");
            assert_eq!(controller(name, brief).unwrap().name(), name);
        }
        assert!(controller("guess", brief).is_none());
        assert!(!is_known("guess"));
    }

    #[test]
    fn an_expert_knows_the_least_of_moving_limits() {
        assert_eq!(knowledge(&Scenario::B.provider()).connections, Some(5));
        assert_eq!(knowledge(&Scenario::C.provider()).messages_per_second, Some(10.0));
        assert_eq!(knowledge(&Scenario::F.provider()).connections, Some(8));
        assert_eq!(knowledge(&Scenario::G.provider()).per_day, Some(5_000));
    }
}
