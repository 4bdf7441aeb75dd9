//! Metrics of lanes: how many are in which state and held by what, and the limits of the busiest.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use relaypool_api::sending_ip::{Binds, LaneState};

use crate::dispatcher::SenderReport;

/// Lanes of one sender that have metrics of their own.
const MOST_LANES: usize = 50;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StandingLabels {
    state: &'static str,
    binds: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneLabels {
    ip: String,
    site: String,
}

/// The metrics of lanes.
#[derive(Debug, Default)]
pub(crate) struct LaneMetrics {
    lanes: Gauges<StandingLabels>,
    connection_limit: Gauges<LaneLabels>,
    rate_limit: Gauges<LaneLabels>,
}

impl LaneMetrics {
    /// Registers them in the sender's registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "lanes",
            "Lanes (sending IP and site) by state and by the limit that binds",
            self.lanes.family.clone(),
        );
        registry.register(
            "lane_connection_limit",
            "Connections that a lane may have, learned or by policy; the 50 busiest lanes",
            self.connection_limit.family.clone(),
        );
        registry.register(
            "lane_rate_limit",
            "Messages per second that a lane may send, learned or by policy; those of the 50 busiest lanes that have a limit",
            self.rate_limit.family.clone(),
        );
    }

    /// Sets them all to what a report says; what it does not name any more goes.
    pub(crate) fn set(&self, report: &SenderReport) {
        self.lanes.set(report.lane_counts.iter().map(|((state, binds), count)| {
            let labels = StandingLabels {
                state: state_name(*state),
                binds: binds_name(*binds),
            };
            (labels, *count as f64)
        }));
        let busiest = || report.lanes.iter().take(MOST_LANES);
        let labels = |lane: &crate::LaneReport| LaneLabels {
            ip: lane.ip.clone(),
            site: lane.site.site.clone(),
        };
        self.connection_limit.set(busiest().filter_map(|lane| {
            let limit = lane.site.connection_limit?;
            Some((labels(lane), f64::from(limit)))
        }));
        self.rate_limit.set(busiest().filter_map(|lane| {
            let limit = lane.site.rate_limit?;
            Some((labels(lane), limit.per_second()))
        }));
    }
}

/// A family of gauges whose members come and go.
#[derive(Debug)]
struct Gauges<L: Clone + Hash + Eq> {
    family: Family<L, Gauge<f64, AtomicU64>>,
    there: Mutex<HashSet<L>>,
}

impl<L: Clone + Hash + Eq> Default for Gauges<L> {
    fn default() -> Self {
        Self {
            family: Family::default(),
            there: Mutex::default(),
        }
    }
}

impl<L: Clone + Hash + Eq + Debug> Gauges<L> {
    /// Sets the values. Members are not taken away and put back: a scrape in between would miss them.
    fn set(&self, values: impl Iterator<Item = (L, f64)>) {
        let mut there = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = std::mem::take(&mut *there);
        for (labels, value) in values {
            self.family.get_or_create(&labels).set(value);
            gone.remove(&labels);
            there.insert(labels);
        }
        for labels in gone {
            self.family.remove(&labels);
        }
    }
}

const fn state_name(state: LaneState) -> &'static str {
    match state {
        LaneState::Idle => "Idle",
        LaneState::Sending => "Sending",
        LaneState::Suspended => "Suspended",
    }
}

const fn binds_name(binds: Binds) -> &'static str {
    match binds {
        Binds::WarmUp => "WarmUp",
        Binds::PolicyRate => "PolicyRate",
        Binds::PolicyConnections => "PolicyConnections",
        Binds::PoolShare => "PoolShare",
        Binds::LearnedRate => "LearnedRate",
        Binds::LearnedConnections => "LearnedConnections",
        Binds::Suspended => "Suspended",
        Binds::NoDemand => "NoDemand",
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::LaneReport;

    fn report(lanes: usize) -> SenderReport {
        let lane = |number: usize| {
            let site = serde_json::json!({
                "site": format!("site{number}.example"), "state": "Sending", "binds": "LearnedRate",
                "connectionLimit": 7, "rateLimit": if number == 0 { Some("120/m") } else { None },
            });
            LaneReport {
                ip: "ip".to_owned(),
                sent: 0,
                failed: 0,
                site: serde_json::from_value(site).unwrap(),
            }
        };
        SenderReport {
            lanes: (0..lanes).map(lane).collect(),
            lane_counts: [((LaneState::Sending, Binds::LearnedRate), lanes as u64)].into(),
            ..SenderReport::default()
        }
    }

    #[test]
    fn labels_are_bounded_and_what_is_gone_goes() {
        let mut registry = Registry::default();
        let metrics = LaneMetrics::default();
        metrics.register(&mut registry);
        let text = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        metrics.set(&report(70));
        let said = text();
        assert!(
            said.contains("lanes{state=\"Sending\",binds=\"LearnedRate\"} 70"),
            "{said}"
        );
        assert_eq!(said.matches("lane_connection_limit{").count(), 50);
        assert!(
            said.contains("lane_rate_limit{ip=\"ip\",site=\"site0.example\"} 2"),
            "{said}"
        );
        assert_eq!(said.matches("lane_rate_limit{").count(), 1);

        metrics.set(&SenderReport::default());
        assert!(!text().contains('{'), "{}", text());
    }
}
