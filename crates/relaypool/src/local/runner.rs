//! Runs planned deliveries on engines of this process, one for each pool.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use prometheus_client::registry::Registry;
use relaypool_api::delivery::DeliveryPhase;
use relaypool_api::not_in_effect::Surroundings;
use relaypool_api::{Delivery, DeliverySliceStatus, RelayPool, SendingIp};
use relaypool_controller::planning::sender_weights;
use relaypool_controller::progress::{RunState as Progress, RunView, SliceView, StatusInput, delivery_status};
use relaypool_sender::resolver::{DestinationLimits, MxResolver};
use relaypool_sender::{
    Engine, EngineConfig, KeyRing, LaneReport, NewSlice, PoolSettings, RunState, SenderMetrics, SliceReport, SourceIp,
};
use relaypool_shaping::policy::PolicySet;

use super::Objects;
use super::plan::{PlannedRun, owned_ips, planned, signing_keys, with_identity};

/// How a run is set up.
#[derive(Debug, Clone)]
pub struct RunnerOptions {
    /// Folder of plans and spools.
    pub state: PathBuf,
    /// Bytes that must stay free on the disk of the state folder.
    pub low_space: u64,
}

/// How everything stands.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The Deliveries with their status.
    pub deliveries: Vec<Delivery>,
    /// All lanes of all pools.
    pub lanes: Vec<LaneReport>,
    /// Messages accepted by receiving hosts per second.
    pub delivery_per_second: f64,
}

/// Deliveries at work.
#[derive(Default)]
pub struct Runner {
    engines: BTreeMap<String, Engine>,
    runs: Vec<Run>,
    statuses: HashMap<String, DeliverySliceStatus>,
}

struct Run {
    delivery: Delivery,
    plan: PlannedRun,
}

impl Runner {
    /// Plans what is not planned yet, opens the spools, and begins to send.
    ///
    /// # Errors
    /// When something is missing in the files without which a run could only wait. Nothing was sent then.
    pub async fn start(objects: &Objects, options: &RunnerOptions) -> anyhow::Result<Self> {
        let ips = owned_ips(objects);
        let (keys, ring) = signing_keys(objects)?;
        let plans = options.state.join("plans");
        let runs = objects
            .deliveries
            .values()
            .map(|delivery| {
                let delivery = with_identity(delivery);
                let plan = planned(&delivery, objects, &ips, &keys, &plans)?;
                Ok(Run { delivery, plan })
            })
            .collect::<anyhow::Result<Vec<Run>>>()?;
        let mut runner = Self {
            runs,
            ..Self::default()
        };
        for (name, pool) in &objects.pools {
            let engine = open_engine(name, pool, objects, ring.clone(), options).await?;
            runner.engines.insert(name.clone(), engine);
        }
        runner.hand_over().await?;
        runner.check(&ips).await?;
        // An engine without IPs sends nothing: from here on mail flows.
        for (name, engine) in &runner.engines {
            engine.set_ips(source_ips(objects, name)).await?;
        }
        Ok(runner)
    }

    /// Gives every engine its slices; those that it has from an earlier run it keeps as they are.
    async fn hand_over(&self) -> anyhow::Result<()> {
        for run in &self.runs {
            let uid = run.delivery.uid().unwrap_or_default();
            let engine = self
                .engines
                .get(&run.delivery.spec.pool)
                .context("a planned Delivery has its pool")?;
            engine.set_run_state(&uid, run_state(&run.delivery)).await?;
            let message = run
                .plan
                .message_slice
                .spec
                .message
                .as_deref()
                .context("a message slice has a message")?;
            let message = Arc::new(message.clone());
            for slice in &run.plan.slices {
                let new = NewSlice {
                    id: slice.uid().unwrap_or_default(),
                    name: slice.name_any(),
                    delivery_uid: uid.clone(),
                    message: Arc::clone(&message),
                    rows: slice.spec.rows.clone(),
                };
                engine
                    .accept(new)
                    .await
                    .with_context(|| format!("slice {}", slice.name_any()))?;
            }
        }
        Ok(())
    }

    /// Fails where a run could only wait, and holds what is in the spools of Deliveries that are not among the files.
    async fn check(&mut self, ips: &[SendingIp]) -> anyhow::Result<()> {
        for engine in self.engines.values() {
            for report in engine.slice_reports().await? {
                let uid = Some(&report.delivery_uid);
                match self.runs.iter().find(|run| run.delivery.metadata.uid.as_ref() == uid) {
                    Some(run) if !report.finished => run.check(&report, ips)?,
                    None if !report.finished => {
                        tracing::warn!(
                            slice = report.name,
                            "there are unfinished messages of a Delivery that is not among the files: they wait"
                        );
                        engine.set_run_state(&report.delivery_uid, RunState::Suspended).await?;
                    }
                    _ => {}
                }
                self.statuses.insert(report.id, report.status);
            }
        }
        Ok(())
    }

    /// How everything stands now.
    pub async fn snapshot(&mut self) -> anyhow::Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        for engine in self.engines.values() {
            for report in engine.due_slice_reports(Duration::ZERO, usize::MAX).await? {
                self.statuses.insert(report.id, report.status);
            }
            let report = engine.report().await?;
            snapshot.delivery_per_second += report.delivery_per_second;
            snapshot.lanes.extend(report.lanes);
        }
        for run in &mut self.runs {
            run.renew_status(&self.statuses);
            snapshot.deliveries.push(run.delivery.clone());
        }
        Ok(snapshot)
    }

    /// Resolves when a spool has failed.
    pub async fn failed(&self) -> anyhow::Error {
        let waits = self.engines.values().map(|engine| Box::pin(engine.failed()));
        let (failure, ..) = futures::future::select_all(waits).await;
        anyhow::anyhow!("the spool failed, nothing can be recorded: {failure}")
    }

    /// Ends: open transactions finish, the rest stays in the spools for the next run.
    pub async fn drain(self, grace: Duration) {
        for (pool, engine) in self.engines {
            if !engine.drain(grace).await {
                tracing::warn!(pool, "some transactions did not finish in time and will be repeated");
            }
        }
    }
}

impl Run {
    /// Fails where the run lacks what it needs to go on. `report` is of one of its slices that is not at its end.
    fn check(&self, report: &SliceReport, ips: &[SendingIp]) -> anyhow::Result<()> {
        if run_state(&self.delivery) != RunState::Running {
            return Ok(());
        }
        let name = self.delivery.name_any();
        if let Some(key) = report.missing_keys.first() {
            anyhow::bail!(
                "Delivery {name} was planned to be signed with {key}, and no DkimKey among the files has this key: put \
                 it back, or make another run with spec.runId"
            );
        }
        let spec = &self.delivery.spec;
        let awake: Vec<SendingIp> = ips.iter().filter(|ip| !ip.spec.suspend).cloned().collect();
        sender_weights(&spec.pool, 1, spec.ip_affinity.as_ref(), &awake)
            .with_context(|| format!("Delivery {name} could only wait"))
            .map(drop)
    }

    fn renew_status(&mut self, statuses: &HashMap<String, DeliverySliceStatus>) {
        let views: Vec<SliceView> = self
            .plan
            .slices
            .iter()
            .map(|slice| {
                let mut view = SliceView::from(slice);
                view.status = slice.uid().and_then(|uid| statuses.get(&uid).cloned());
                view
            })
            .collect();
        let message_slice = SliceView::from(&self.plan.message_slice);
        let Some(run) = self.plan.message_slice.spec.message.as_deref().map(RunView::from) else {
            return;
        };
        let status = delivery_status(&StatusInput {
            delivery: &self.delivery,
            state: Progress::Planned {
                message_slice: &message_slice,
                run: &run,
                slices: &views.iter().collect::<Vec<_>>(),
            },
            speed: None,
            now: &Time(Timestamp::now()),
            surroundings: Surroundings::Elsewhere,
        });
        self.delivery.status = Some(status);
    }
}

impl Snapshot {
    /// True when nothing more will happen: every message came to its end, or waits for its Delivery to be resumed.
    pub fn is_settled(&self) -> bool {
        self.deliveries
            .iter()
            .all(|delivery| is_finished(delivery) || delivery.spec.suspend)
    }

    /// Names of the Deliveries with messages that wait until they are resumed.
    pub fn suspended(&self) -> impl Iterator<Item = String> {
        let waiting = |delivery: &&Delivery| delivery.spec.suspend && !is_finished(delivery);
        self.deliveries.iter().filter(waiting).map(ResourceExt::name_any)
    }
}

fn is_finished(delivery: &Delivery) -> bool {
    let phase = delivery.status.as_ref().and_then(|status| status.phase);
    matches!(phase, Some(DeliveryPhase::Completed | DeliveryPhase::Canceled))
}

fn source_ips(objects: &Objects, pool: &str) -> Vec<SourceIp> {
    let of_pool = objects.ips.values().filter(|ip| ip.spec.pool == pool);
    of_pool.map(SourceIp::from).collect()
}

/// An engine without IPs.
async fn open_engine(
    name: &str,
    pool: &RelayPool,
    objects: &Objects,
    keys: KeyRing,
    options: &RunnerOptions,
) -> anyhow::Result<Engine> {
    let spool = options.state.join("spool").join(name);
    std::fs::create_dir_all(&spool).with_context(|| format!("cannot make {}", spool.display()))?;
    let ips = source_ips(objects, name);
    let limits = DestinationLimits {
        allow_private: pool.spec.allow_private_destinations,
        own_names: ips.iter().map(|ip| ip.ehlo_name.clone()).collect::<HashSet<_>>(),
        own_addresses: ips.iter().map(|ip| ip.address).collect::<HashSet<_>>(),
    };
    let resolver = MxResolver::new(&pool.spec.dns.servers, pool.spec.dns.timeout.map(Into::into), limits)
        .with_context(|| format!("RelayPool {name}"))?;
    let config = EngineConfig {
        spool,
        settings: PoolSettings::new(name, &pool.spec),
        low_space: options.low_space,
    };
    let metrics = Arc::new(SenderMetrics::register(&mut Registry::default()));
    let engine = Engine::open(config, resolver, metrics).await?;
    let policies = objects
        .policies
        .values()
        .filter(|policy| policy.spec.pools.is_empty() || policy.spec.pools.iter().any(|pool| pool == name))
        .map(|policy| (policy.name_any(), policy.spec.clone()))
        .collect();
    engine
        .set_policies(PolicySet::of_pool(policies, pool.spec.provider_profiles))
        .await?;
    engine.set_keys(keys).await?;
    Ok(engine)
}

fn run_state(delivery: &Delivery) -> RunState {
    match (delivery.spec.cancel, delivery.spec.suspend) {
        (true, _) => RunState::Canceled,
        (false, true) => RunState::Suspended,
        (false, false) => RunState::Running,
    }
}
