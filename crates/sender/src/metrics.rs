//! Metrics of one sender. Labels have few values: outcomes and bounce categories, never domains or addresses, but for
//! the sites of the busiest lanes.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use relaypool_bounce::Category;

use crate::lane_metrics::LaneMetrics;

/// What became of an attempt, or of a message without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// Accepted by the receiving host.
    Sent,
    /// Given up for good after a refusal.
    Failed,
    /// To be tried again.
    Deferred,
    /// Given up because its validity was over.
    Expired,
    /// Not made or not addressable.
    Ignored,
    /// Stopped by the user.
    Canceled,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IpLabels {
    ip: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    outcome: Outcome,
    category: &'static str,
}

/// The metrics of one sender.
#[derive(Debug)]
pub struct SenderMetrics {
    attempts: Family<AttemptLabels, Counter>,
    pub(crate) attempt_seconds: Histogram,
    pub(crate) queued: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) accepted_messages: Counter,
    pub(crate) delivery_rate: Gauge<f64, AtomicU64>,
    pub(crate) relay_rate: Gauge<f64, AtomicU64>,
    pub(crate) report_failures: Counter,
    pub(crate) lanes: LaneMetrics,
    warm_up_sent: Family<IpLabels, Gauge>,
    warm_up_limit: Family<IpLabels, Gauge>,
}

impl SenderMetrics {
    /// Makes the metrics and registers them under `relaypool_sender_…`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            attempts: Family::default(),
            attempt_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 16)),
            queued: Gauge::default(),
            connections: Gauge::default(),
            accepted_messages: Counter::default(),
            delivery_rate: Gauge::default(),
            relay_rate: Gauge::default(),
            report_failures: Counter::default(),
            lanes: LaneMetrics::default(),
            warm_up_sent: Family::default(),
            warm_up_limit: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("relaypool_sender");
        registry.register(
            "attempts",
            "Decisions on messages by outcome, and by bounce category where a host had a part in it",
            metrics.attempts.clone(),
        );
        registry.register_with_unit(
            "attempt",
            "Time that receiving hosts took for one transaction",
            Unit::Seconds,
            metrics.attempt_seconds.clone(),
        );
        registry.register(
            "queued_messages",
            "Messages that have not come to their end",
            metrics.queued.clone(),
        );
        registry.register(
            "connections",
            "Connections to receiving hosts, open or being opened",
            metrics.connections.clone(),
        );
        registry.register(
            "accepted_messages",
            "Messages taken into the spool",
            metrics.accepted_messages.clone(),
        );
        registry.register(
            "delivery_rate",
            "Messages per second accepted by receiving hosts",
            metrics.delivery_rate.clone(),
        );
        registry.register(
            "relay_rate",
            "Messages per second taken into the spool",
            metrics.relay_rate.clone(),
        );
        registry.register(
            "report_failures",
            "Reports that the API server did not take",
            metrics.report_failures.clone(),
        );
        metrics.lanes.register(registry);
        registry.register(
            "warm_up_sent_messages",
            "Messages of today's warm-up room that are used, by SendingIp that is not warm yet",
            metrics.warm_up_sent.clone(),
        );
        registry.register(
            "warm_up_limit_messages",
            "Today's warm-up room, by SendingIp that is not warm yet",
            metrics.warm_up_limit.clone(),
        );
        metrics
    }

    pub(crate) fn set_warm_up(&self, ip: &str, sent: u64, limit: u64) {
        let labels = IpLabels { ip: ip.to_owned() };
        let value = |messages: u64| i64::try_from(messages).unwrap_or(i64::MAX);
        self.warm_up_sent.get_or_create(&labels).set(value(sent));
        self.warm_up_limit.get_or_create(&labels).set(value(limit));
    }

    pub(crate) fn forget_warm_up(&self, ip: &str) {
        let labels = IpLabels { ip: ip.to_owned() };
        self.warm_up_sent.remove(&labels);
        self.warm_up_limit.remove(&labels);
    }

    pub(crate) fn count_attempt(&self, outcome: Outcome, category: Option<Category>) {
        let category = category.map_or("none", |category| category.as_str());
        self.attempts.get_or_create(&AttemptLabels { outcome, category }).inc();
    }
}
