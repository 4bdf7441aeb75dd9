//! `relaypool sender`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use kube::Client;
use prometheus_client::registry::Registry;
use relaypool_api::relay_pool::RelayPoolSpec;
use relaypool_sender::cluster::{ClusterConfig, SenderIdentity};
use relaypool_sender::resolver::{DestinationLimits, MxResolver};
use relaypool_sender::{Engine, EngineConfig, PoolSettings, SenderMetrics};
use tokio::sync::oneshot;

use super::termination;
use crate::admin::{self, Readiness};

/// Longest that a sender which is to end waits for its shares of pool-wide limits to be taken from it.
const RETIRING: Duration = Duration::from_secs(10);

/// Arguments of `relaypool sender`. In a pod they come from its environment.
#[derive(Args)]
pub struct Sender {
    /// Namespace of the pool.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    namespace: String,
    /// Name of the pool.
    #[arg(long, env = "RELAYPOOL_POOL")]
    pool: String,
    /// Name of this sender, `<pool>-<ordinal>`.
    #[arg(long, env = "POD_NAME")]
    name: String,
    /// Folder of the spool. One sender only; what is in it is not sent by any other.
    #[arg(long, env = "RELAYPOOL_SPOOL", default_value = "/var/lib/relaypool/spool")]
    spool: PathBuf,
    /// Folder where the pool's DKIM keys are mounted. Absent: they are read from the pool's Secret.
    #[arg(long, env = "RELAYPOOL_DKIM_KEYS")]
    dkim_keys: Option<PathBuf>,
    /// Address of the admin port (metrics, probes).
    #[arg(long, env = "RELAYPOOL_ADMIN", default_value = "[::]:9090")]
    admin: SocketAddr,
    /// How long open transactions may take to finish when the process is told to end, in seconds.
    #[arg(long, env = "RELAYPOOL_GRACE_SECONDS", default_value_t = 25)]
    grace_seconds: u64,
    /// Shortest time between two writes of one object's status, in seconds.
    #[arg(long, default_value_t = 10)]
    report_seconds: u64,
    /// MiB that must stay free on the spool's disk; below, no new work is taken in.
    #[arg(long, default_value_t = 64)]
    low_space_mebibytes: u64,
}

impl Sender {
    /// Runs until told to end, or until the spool fails.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut registry = Registry::default();
        let metrics = Arc::new(SenderMetrics::register(&mut registry));
        let readiness = Readiness::default();
        admin::serve(self.admin, registry, readiness.clone()).await?;

        let engine = Engine::open(self.engine_config()?, self.resolver()?, Arc::clone(&metrics)).await?;
        let client = Client::try_default().await.context("cannot find the API server")?;
        let (retire, retiring) = oneshot::channel();
        let config = self.cluster_config();
        let work = relaypool_sender::cluster::run(config, client, engine.clone(), metrics, retiring);
        let mut work = pin!(work);
        readiness.set(true);

        tokio::select! {
            ended = &mut work => ended.context("the engine ended by itself")?,
            failure = engine.failed() => anyhow::bail!("the spool failed, nothing can be recorded: {failure}"),
            signal = termination() => signal?,
        }
        readiness.set(false);
        let told = Instant::now();
        let grace = Duration::from_secs(self.grace_seconds);
        if engine.report().await.is_ok_and(|report| report.pool_claims.is_known()) {
            // Other senders of the pool wait for what this one has of pool-wide limits.
            // Work that has ended by itself needs no telling.
            let _ = retire.send(());
            if tokio::time::timeout(RETIRING.min(grace), work).await.is_err() {
                tracing::warn!("shares of pool-wide limits were not given back in time and stay with this sender");
            }
        }
        tracing::info!("draining: open transactions finish, the rest stays in the spool");
        if !engine.drain(grace.saturating_sub(told.elapsed())).await {
            tracing::warn!("some transactions did not finish in time and will be repeated");
        }
        Ok(())
    }

    fn engine_config(&self) -> anyhow::Result<EngineConfig> {
        std::fs::create_dir_all(&self.spool)
            .with_context(|| format!("cannot make spool folder {}", self.spool.display()))?;
        Ok(EngineConfig {
            spool: self.spool.clone(),
            settings: PoolSettings::new(&self.pool, &default_pool()?),
            low_space: self.low_space_mebibytes << 20,
        })
    }

    /// Until the pool is known: the machine's name servers, public destinations only.
    fn resolver(&self) -> anyhow::Result<MxResolver> {
        Ok(MxResolver::new(&[], None, DestinationLimits::default())?)
    }

    fn cluster_config(&self) -> ClusterConfig {
        ClusterConfig {
            identity: SenderIdentity {
                namespace: self.namespace.clone(),
                pool: self.pool.clone(),
                name: self.name.clone(),
            },
            keys: self.dkim_keys.clone(),
            report_interval: Duration::from_secs(self.report_seconds),
        }
    }
}

/// A pool as the schema's defaults make it.
fn default_pool() -> anyhow::Result<RelayPoolSpec> {
    Ok(serde_json::from_value(serde_json::json!({}))?)
}
