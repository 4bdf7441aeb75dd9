//! What a sender tells the API server: bounded, coalesced, and never in the way of sending.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource};
use relaypool_api::conditions::{DeliverySliceReason, Readiness};
use relaypool_api::delivery_slice::DeliverySliceStatus;
use relaypool_api::names::{SITES_MANAGER, WARM_UP_MANAGER, sender_manager};
use relaypool_api::relay_pool::SenderStatus;
use relaypool_api::{DeliverySlice, RelayPool, RelayPoolStatus, SendingIp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::ClusterConfig;
use super::lane_events::{LaneEvents, LaneNotices};
use super::sites::SiteStatuses;
use super::warm_ups::WarmUpStatuses;
use crate::dispatcher::{PoolClaims, SenderReport, SliceReport};
use crate::engine::{Engine, EngineEnded};
use crate::metrics::SenderMetrics;

/// How often the engine is asked what is new.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How often the sender says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Shortest time between two writes of what it claims of pool-wide limits.
const CLAIMS_INTERVAL: Duration = Duration::from_secs(2);
/// Writes in one look: the sender's share of the API server's time.
const WRITES_AT_ONCE: usize = 10;
/// A write that takes longer is given up and repeated later.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes statuses: slices, addresses, and the sender's entry at the pool.
pub(super) struct Reporter {
    sender: String,
    pool: String,
    slices: Api<DeliverySlice>,
    ips: Api<SendingIp>,
    pools: Api<RelayPool>,
    engine: Engine,
    metrics: Arc<SenderMetrics>,
    interval: Duration,
    sites: SiteStatuses,
    notices: LaneNotices,
    events: LaneEvents,
    warm_ups: WarmUpStatuses,
    claims_written: PoolClaims,
}

impl Reporter {
    pub(super) fn new(config: &ClusterConfig, client: Client, engine: Engine, metrics: Arc<SenderMetrics>) -> Self {
        let namespace = &config.identity.namespace;
        Self {
            sender: config.identity.name.clone(),
            pool: config.identity.pool.clone(),
            slices: Api::namespaced(client.clone(), namespace),
            ips: Api::namespaced(client.clone(), namespace),
            pools: Api::namespaced(client.clone(), namespace),
            engine,
            metrics,
            interval: config.report_interval,
            sites: SiteStatuses::new(config.report_interval),
            notices: LaneNotices::default(),
            events: LaneEvents::start(client, &config.identity),
            warm_ups: WarmUpStatuses::new(config.report_interval),
            claims_written: PoolClaims::default(),
        }
    }

    /// Reports until the engine ends. Once something comes by `retire`, the sender claims nothing any more, and this returns when
    /// the API server knows that it holds nothing either.
    pub(super) async fn report(mut self, mut retire: oneshot::Receiver<()>) -> Result<(), EngineEnded> {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heartbeat_due = Instant::now();
        let mut claims_due = Instant::now();
        let mut is_retiring = false;
        loop {
            tokio::select! {
                _ = look.tick() => {}
                _ = &mut retire, if !is_retiring => {
                    is_retiring = true;
                    self.engine.give_up_pool_shares().await?;
                }
            }
            for report in self.engine.due_slice_reports(self.interval, WRITES_AT_ONCE).await? {
                if !self.write_slice(&report).await {
                    self.engine.report_again(&report.id).await?;
                }
            }
            let report = self.engine.report().await?;
            self.metrics.delivery_rate.set(report.delivery_per_second);
            self.metrics.relay_rate.set(report.relay_per_second);
            self.metrics.lanes.set(&report);
            let has_news = report.pool_claims != self.claims_written && Instant::now() >= claims_due;
            if has_news || Instant::now() >= heartbeat_due {
                heartbeat_due = Instant::now() + HEARTBEAT;
                claims_due = Instant::now() + CLAIMS_INTERVAL;
                self.write_heartbeat(&report).await;
            }
            if is_retiring && report.pool_claims.is_empty() && self.claims_written.is_empty() {
                return Ok(());
            }
            self.write_sites(&report).await;
            self.write_warm_ups(&report).await;
            let changes = self.engine.lane_changes().await?;
            for notice in self.notices.of(changes, Instant::now()) {
                self.events.publish(notice);
            }
        }
    }

    /// True when the API server took it, or the object is gone.
    async fn write_slice(&self, report: &SliceReport) -> bool {
        let status = slice_status(report);
        self.write::<DeliverySlice, _>(&self.slices, &report.name, None, &status)
            .await
    }

    /// The sender's entry at its pool: that it lives, and what it claims of pool-wide limits.
    async fn write_heartbeat(&mut self, report: &SenderReport) {
        let claims = report.pool_claims.clone();
        let entry = SenderStatus {
            name: self.sender.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            reported_at: Time(Timestamp::now()),
            queued: i64::try_from(report.queued).unwrap_or(i64::MAX),
            connections: i64::try_from(report.connections).unwrap_or(i64::MAX),
            relay_per_second: report.relay_per_second,
            delivery_per_second: report.delivery_per_second,
            pool_limits: claims.claims.clone(),
            pool_limits_revision: claims.revision,
            pool_limits_left_out: claims.left_out,
        };
        let status = RelayPoolStatus {
            senders: vec![entry],
            ..RelayPoolStatus::default()
        };
        // A claim must not get to a pool that was created anew under the same name: it has revisions of its own.
        let uid = claims.pool_uid.as_deref();
        if self.write::<RelayPool, _>(&self.pools, &self.pool, uid, &status).await {
            self.claims_written = claims;
        }
    }

    async fn write_sites(&mut self, report: &SenderReport) {
        for (ip, status) in self.sites.due(report, WRITES_AT_ONCE, Instant::now()) {
            let done = self
                .write_as::<SendingIp, _>(SITES_MANAGER, &self.ips, &ip, None, &status)
                .await;
            self.sites.attempted(ip, done.then_some(status), Instant::now());
        }
    }

    async fn write_warm_ups(&mut self, report: &SenderReport) {
        for (ip, status) in self.warm_ups.due(report, WRITES_AT_ONCE, Instant::now()) {
            let written = self.write_as::<SendingIp, _>(WARM_UP_MANAGER, &self.ips, &ip, None, &status);
            if written.await {
                self.warm_ups.written(ip, status, Instant::now());
            }
        }
    }

    /// Applies this sender's part of a status, of the object with this UID where one is given. An object that is gone needs
    /// none.
    async fn write<K, S>(&self, api: &Api<K>, name: &str, uid: Option<&str>, status: &S) -> bool
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
        S: Serialize + std::fmt::Debug,
    {
        self.write_as(&sender_manager(&self.sender), api, name, uid, status)
            .await
    }

    async fn write_as<K, S>(&self, manager: &str, api: &Api<K>, name: &str, uid: Option<&str>, status: &S) -> bool
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
        S: Serialize + std::fmt::Debug,
    {
        let mut patch = serde_json::json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": { "name": name },
            "status": status,
        });
        if let Some(uid) = uid {
            patch["metadata"]["uid"] = uid.into();
        }
        let parameters = PatchParams::apply(manager).force();
        let patch = Patch::Apply(patch);
        match tokio::time::timeout(WRITE_TIMEOUT, api.patch_status(name, &parameters, &patch)).await {
            Ok(Ok(_)) => true,
            Ok(Err(kube::Error::Api(error))) if error.code == 404 => true,
            Ok(Err(error)) => self.not_written(K::kind(&()).as_ref(), name, &error),
            Err(elapsed) => self.not_written(K::kind(&()).as_ref(), name, &elapsed),
        }
    }

    fn not_written(&self, kind: &str, name: &str, error: &(dyn std::error::Error + 'static)) -> bool {
        self.metrics.report_failures.inc();
        tracing::warn!(kind, name, error, "status not written, trying again");
        false
    }
}

fn slice_status(report: &SliceReport) -> DeliverySliceStatus {
    let mut status = report.status.clone();
    // The spec of a slice cannot change, so its generation is always the first.
    let generation = 1;
    status.observed_generation = Some(generation);
    // Moments of the slice, not of the writing: two reports that say the same must be equal.
    let since = status.finished_at.clone().or_else(|| status.accepted_at.clone());
    let since = since.unwrap_or(Time(Timestamp::UNIX_EPOCH));
    let (readiness, reason, message) = if !report.missing_keys.is_empty() {
        let message = format!("waits for signing keys: {}", report.missing_keys.join(", "));
        (Readiness::Reconciling, DeliverySliceReason::WaitingForKey, message)
    } else if report.finished {
        (
            Readiness::Ready,
            DeliverySliceReason::AllMessagesEnded,
            "every message came to its end".to_owned(),
        )
    } else {
        (
            Readiness::Ready,
            DeliverySliceReason::Accepted,
            "in the sender's spool".to_owned(),
        )
    };
    readiness.write(&mut status.conditions, reason, message, Some(generation), since);
    status
}
