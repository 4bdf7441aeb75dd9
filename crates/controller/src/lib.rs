//! The controller: one reconciler per resource kind.
//!
//! Each reconciler is a file named after its kind and reads as its steps. What it decides is decided by pure functions
//! over plain values: [`planning`] cuts a Delivery into slices, [`progress`] sums up what senders say of them, and
//! [`assignment`] gives addresses to senders. Local mode uses the same functions without an API server.
//!
//! What every reconciler keeps to: status is written by server-side apply, only the controller's own fields, only when
//! they changed; every request has a time limit; what is wrong with an object is said in its conditions, what is wrong
//! with the API server is repeated ever more slowly; a malformed object concerns nobody but itself.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod assignment;
mod backoff;
mod conditions;
mod conflicts;
mod context;
mod delivery;
mod dkim_key;
mod dns;
mod error;
mod events;
mod guard;
mod kind;
mod memory;
mod metrics;
mod mx_policy;
pub mod planning;
mod pool_limits;
pub mod progress;
mod relay_pool;
mod report;
mod requests;
mod runner;
mod sending_ip;
mod signing_keys;
mod triggers;
mod warm_up;
mod watch;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use error::StartError;

use context::Context;
use dns::Dns;
use events::Events;
use memory::Memory;
use metrics::Metrics;
use triggers::{Queues, Watches};

/// What the controller needs to know.
#[derive(Clone)]
pub struct Config {
    /// Access to the API server. TLS needs a crypto provider installed in the process.
    pub client: Client,
    /// The only namespace to look at. Absent: all of them.
    pub namespace: Option<String>,
    /// Name servers for checking DNS records. Empty: those of the machine.
    pub dns_servers: Vec<SocketAddr>,
}

/// Objects listed in one answer, for kinds whose objects may take up to a megabyte.
const LARGE_OBJECTS_PER_PAGE: u32 = 50;

/// Runs all reconcilers until `shutdown`, and then as long as what they are doing takes, at most 15 s.
///
/// The metrics are registered when this is called, not when the future is first polled, so the registry is free again at
/// once. An API server that is away is no error: it is waited for.
///
/// # Errors
/// When the settings are unusable, or a watch ends by itself, which is a fault of this program.
pub fn run<S>(
    config: Config,
    registry: &mut Registry,
    shutdown: S,
) -> impl Future<Output = Result<(), StartError>> + Send + use<S>
where
    S: Future<Output = ()> + Send + 'static,
{
    let (watches, stores, queues) = triggers::connect();
    let metrics = Metrics::register(registry, stores.clone());
    async move {
        let context = Arc::new(Context {
            stores,
            events: Events::new(config.client.clone()),
            metrics,
            dns: Dns::new(&config.dns_servers).map_err(|error| StartError::Dns(error.into()))?,
            status_writes: Memory::default(),
            share_writes: Memory::default(),
            speeds: Memory::default(),
            lookups: Memory::default(),
            unused_keys: Memory::default(),
            client: config.client.clone(),
        });
        // Ends with this function: dropping the set ends its tasks.
        let _watching = watch(watches, &config);
        let mut shutdown = pin!(shutdown);
        tokio::select! {
            filled = context.stores.wait_until_ready() => filled.map_err(|_| StartError::WatchEnded)?,
            () = &mut shutdown => return Ok(()),
        }
        tracing::info!("all objects are known");
        let stop = CancellationToken::new();
        let mut reconciling = reconcile(queues, &context, &stop);
        shutdown.await;
        stop.cancel();
        let ended = async { while reconciling.join_next().await.is_some() {} };
        if tokio::time::timeout(runner::GRACE, ended).await.is_err() {
            tracing::warn!("some reconciles did not end in time and are given up");
        }
        Ok(())
    }
}

/// Starts the watches.
fn watch(watches: Watches, config: &Config) -> JoinSet<()> {
    let Watches {
        pools,
        ips,
        policies,
        keys,
        deliveries,
        slices,
        config_maps,
        secrets,
    } = watches;
    let small = watcher::Config::default();
    let large = watcher::Config::default().page_size(LARGE_OBJECTS_PER_PAGE);
    let mut tasks = JoinSet::new();
    tasks.spawn(pools.run(api(config), small.clone()));
    tasks.spawn(ips.run(api(config), small.clone()));
    tasks.spawn(policies.run(api(config), small.clone()));
    tasks.spawn(keys.run(api(config), small.clone()));
    tasks.spawn(deliveries.run(api(config), large.clone()));
    tasks.spawn(slices.run(api(config), large));
    tasks.spawn(config_maps.run(api(config), small.clone()));
    tasks.spawn(secrets.run(api(config), small));
    tasks
}

/// Starts the reconcilers.
fn reconcile(queues: Queues, context: &Arc<Context>, stop: &CancellationToken) -> JoinSet<()> {
    let Queues {
        pools,
        ips,
        policies,
        keys,
        deliveries,
    } = queues;
    let stores = &context.stores;
    let shared = || (context.clone(), stop.clone());
    let mut tasks = JoinSet::new();
    let (context_, stop_) = shared();
    tasks.spawn(runner::run(
        stores.pools.clone(),
        pools,
        context_,
        stop_,
        relay_pool::reconcile,
    ));
    let (context_, stop_) = shared();
    tasks.spawn(runner::run(
        stores.ips.clone(),
        ips,
        context_,
        stop_,
        sending_ip::reconcile,
    ));
    let (context_, stop_) = shared();
    tasks.spawn(runner::run(
        stores.policies.clone(),
        policies,
        context_,
        stop_,
        mx_policy::reconcile,
    ));
    let (context_, stop_) = shared();
    tasks.spawn(runner::run(
        stores.keys.clone(),
        keys,
        context_,
        stop_,
        dkim_key::reconcile,
    ));
    let (context_, stop_) = shared();
    tasks.spawn(runner::run(
        stores.deliveries.clone(),
        deliveries,
        context_,
        stop_,
        delivery::reconcile,
    ));
    tasks
}

fn api<K>(config: &Config) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match &config.namespace {
        Some(namespace) => Api::namespaced(config.client.clone(), namespace),
        None => Api::all(config.client.clone()),
    }
}
