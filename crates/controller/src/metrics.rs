//! What the controller counts, for Prometheus.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::reflector::Store;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use relaypool_api::conditions::{ConditionType, is_true};

use crate::context::Stores;
use crate::guard::Guarded;
use crate::kind::{Kind, Status as _};

/// A kind of object that is reconciled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum KindLabel {
    RelayPool,
    SendingIp,
    MxPolicy,
    DkimKey,
    Delivery,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByKind {
    pub(crate) kind: KindLabel,
}

/// Counters and histograms of the reconcilers. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    durations: Family<ByKind, Histogram, fn() -> Histogram>,
    errors: Family<ByKind, Counter>,
    status_writes: Family<ByKind, Counter>,
}

impl Metrics {
    /// Registers everything as `relaypool_controller_…`.
    pub(crate) fn register(registry: &mut Registry, stores: Stores) -> Self {
        let metrics = Self {
            durations: Family::new_with_constructor(new_histogram),
            errors: Family::default(),
            status_writes: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("relaypool_controller");
        registry.register_with_unit(
            "reconcile_duration",
            "How long one look at an object took",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Looks at an object that failed and are repeated",
            metrics.errors.clone(),
        );
        registry.register(
            "status_writes",
            "Statuses written, because they changed",
            metrics.status_writes.clone(),
        );
        registry.register_collector(Box::new(Objects(stores)));
        metrics
    }

    pub(crate) fn reconciled(&self, kind: KindLabel, took: Duration, failed: bool) {
        self.durations
            .get_or_create(&ByKind { kind })
            .observe(took.as_secs_f64());
        // Made on first sight, so that a rate over it starts at zero.
        self.errors.get_or_create(&ByKind { kind }).inc_by(u64::from(failed));
    }

    pub(crate) fn status_written(&self, kind: KindLabel) {
        self.status_writes.get_or_create(&ByKind { kind }).inc();
    }
}

/// How an object is doing, as its status says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum ReadinessLabel {
    Ready,
    Reconciling,
    Stalled,
    /// Not looked at yet.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReadiness {
    kind: KindLabel,
    readiness: ReadinessLabel,
}

/// Counts the objects when they are asked for.
#[derive(Debug)]
struct Objects(Stores);

impl Collector for Objects {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = Family::<ByReadiness, Gauge>::default();
        count(&counts, &self.0.pools);
        count(&counts, &self.0.ips);
        count(&counts, &self.0.policies);
        count(&counts, &self.0.keys);
        count(&counts, &self.0.deliveries);
        let help = "Objects by how they are doing";
        let encoder = encoder.encode_descriptor("objects", help, None, counts.metric_type())?;
        counts.encode(encoder)
    }
}

fn count<K: Kind>(counts: &Family<ByReadiness, Gauge>, store: &Store<Guarded<K>>) {
    for object in store.state() {
        let readiness = match object.as_ref() {
            Guarded::Sound(object) => object
                .status()
                .map_or(ReadinessLabel::Unknown, |status| readiness(status.conditions())),
            Guarded::Malformed(_) => ReadinessLabel::Stalled,
        };
        counts
            .get_or_create(&ByReadiness {
                kind: K::LABEL,
                readiness,
            })
            .inc();
    }
}

fn readiness(conditions: &[Condition]) -> ReadinessLabel {
    let labels = [
        (ConditionType::Ready, ReadinessLabel::Ready),
        (ConditionType::Reconciling, ReadinessLabel::Reconciling),
        (ConditionType::Stalled, ReadinessLabel::Stalled),
    ];
    let holds = labels.into_iter().find(|(kind, _)| is_true(conditions, *kind));
    holds.map_or(ReadinessLabel::Unknown, |(_, label)| label)
}

/// 1 ms to 16 s.
fn new_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}
