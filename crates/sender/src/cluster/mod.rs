//! A sender in a cluster: what it is to do comes from the API server, and what it has done goes back there.
//!
//! While the API server is away, the sender goes on with what it knows.

mod configuration;
mod lane_events;
mod pool_shares;
mod reports;
mod sites;
mod warm_ups;
mod watched;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use relaypool_api::message::MessageSnapshot;
use relaypool_api::names::{POOL_LABEL, SENDER_LABEL, label_value, signing_keys_secret};
use relaypool_api::sending_ip::SiteStatus;
use relaypool_api::validation::Validate;
use relaypool_api::{Delivery, DeliverySlice, MxPolicy, RelayPool, SendingIp, SendingIpStatus};
use tokio::sync::oneshot;

use crate::dispatcher::{GrantedShares, IntakeError, PoolShares, RunState};
use crate::engine::{Engine, EngineEnded, NewSlice};
use crate::keys;
use crate::metrics::SenderMetrics;
use configuration::Configuration;
use reports::Reporter;
use watched::Watched;

/// How often a mounted folder of keys is looked at: mounted Secrets change without an event.
const KEY_FOLDER_INTERVAL: Duration = Duration::from_secs(2);
/// How often slices that could not be taken in are tried again.
const INTAKE_RETRY: Duration = Duration::from_secs(5);

/// Which sender this is.
#[derive(Debug, Clone)]
pub struct SenderIdentity {
    /// Namespace of the pool.
    pub namespace: String,
    /// Name of the pool.
    pub pool: String,
    /// Name of the sender, `<pool>-<ordinal>`.
    pub name: String,
}

/// Settings of the work with the API server.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Which sender this is.
    pub identity: SenderIdentity,
    /// Folder where the pool's keys are mounted; none means that they are read from the pool's Secret.
    pub keys: Option<PathBuf>,
    /// Shortest time between two writes of one object's status, its end excepted.
    pub report_interval: Duration,
}

/// Works until the engine ends, or until something comes by `retire` and all shares of pool-wide limits are given back.
pub async fn run(
    config: ClusterConfig,
    client: Client,
    engine: Engine,
    metrics: Arc<SenderMetrics>,
    retire: oneshot::Receiver<()>,
) -> Result<(), EngineEnded> {
    let reporter = Reporter::new(&config, client.clone(), engine.clone(), metrics);
    let follower = Follower::start(config, client, engine).await?;
    tokio::select! {
        ended = follower.follow() => ended,
        retired = reporter.report(retire) => retired,
    }
}

/// Follows the objects that say what to do.
struct Follower {
    config: ClusterConfig,
    engine: Engine,
    configuration: Configuration,
    /// What it has of pool-wide limits. Never recalled after a restart: the API server may have given it to others by then.
    shares: GrantedShares,
    pools: Watched<RelayPool>,
    ips: Watched<SendingIp>,
    policies: Watched<MxPolicy>,
    deliveries: Watched<Delivery>,
    messages: Watched<DeliverySlice>,
    slices: Watched<DeliverySlice>,
    secrets: Option<Watched<Secret>>,
    /// Slices the engine has, by UID, with the UID of their Delivery.
    taken_in: HashMap<String, String>,
    /// Slices that can never be taken in.
    unusable: HashSet<String>,
}

impl Follower {
    async fn start(config: ClusterConfig, client: Client, engine: Engine) -> Result<Self, EngineEnded> {
        let SenderIdentity { namespace, pool, name } = &config.identity;
        let pool_label = format!("{POOL_LABEL}={}", label_value(pool));
        let own = format!("{pool_label},{SENDER_LABEL}={}", label_value(name));
        let of_all = format!("{pool_label},!{SENDER_LABEL}");
        let by_name = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let secrets = config
            .keys
            .is_none()
            .then(|| Watched::start(api::<Secret>(&client, namespace), by_name(&signing_keys_secret(pool))));
        let mut follower = Self {
            pools: Watched::start(api(&client, namespace), by_name(pool)),
            ips: Watched::start(api(&client, namespace), watcher::Config::default()),
            policies: Watched::start(api(&client, namespace), watcher::Config::default()),
            deliveries: Watched::start(api(&client, namespace), watcher::Config::default()),
            messages: Watched::start(api(&client, namespace), watcher::Config::default().labels(&of_all)),
            slices: Watched::start(api(&client, namespace), watcher::Config::default().labels(&own)),
            secrets,
            config,
            engine,
            configuration: Configuration::default(),
            shares: GrantedShares::default(),
            taken_in: HashMap::new(),
            unusable: HashSet::new(),
        };
        // Before there is anything to send.
        let no_shares = PoolShares::Granted(follower.shares.clone());
        follower.engine.set_pool_shares(no_shares).await?;
        follower.recall().await?;
        Ok(follower)
    }

    /// Begins with what was known when the process ended.
    async fn recall(&mut self) -> Result<(), EngineEnded> {
        for report in self.engine.slice_reports().await? {
            self.taken_in.insert(report.id, report.delivery_uid);
        }
        let note = self.engine.note(configuration::NOTE).unwrap_or_else(|error| {
            tracing::warn!(error = %error, "the last configuration cannot be read");
            None
        });
        let Some(note) = note else { return Ok(()) };
        match serde_json::from_slice::<Configuration>(&note) {
            Ok(known) => {
                known
                    .apply(&self.configuration, &self.engine, &self.config.identity.pool)
                    .await?;
                self.configuration = known;
            }
            Err(error) => {
                tracing::warn!(error = %error, "the last configuration is of another version, waiting for the API server")
            }
        }
        Ok(())
    }

    async fn follow(mut self) -> Result<(), EngineEnded> {
        self.load_key_folder().await?;
        self.ready().await?;
        tracing::info!(sender = self.config.identity.name, "following the API server");
        let mut key_folder = tokio::time::interval(KEY_FOLDER_INTERVAL);
        let mut retry = tokio::time::interval(INTAKE_RETRY);
        loop {
            self.update_configuration().await?;
            self.update_shares().await?;
            self.take_in_slices().await?;
            self.forget_deleted_slices().await?;
            tokio::select! {
                () = self.pools.changed() => {}
                () = self.ips.changed() => {}
                () = self.policies.changed() => {}
                () = self.deliveries.changed() => {}
                () = self.messages.changed() => {}
                () = self.slices.changed() => {}
                () = secrets_changed(&mut self.secrets) => self.load_secret().await?,
                _ = key_folder.tick() => self.load_key_folder().await?,
                _ = retry.tick() => {}
            }
        }
    }

    /// Waits for a complete picture: taking in a slice before its Delivery is known could send what was canceled.
    async fn ready(&self) -> Result<(), EngineEnded> {
        let lists = async {
            tokio::join!(
                self.pools.ready(),
                self.ips.ready(),
                self.policies.ready(),
                self.deliveries.ready(),
                self.messages.ready(),
                self.slices.ready()
            );
        };
        tokio::select! {
            () = lists => {}
            _ = self.engine.ended() => return Err(EngineEnded),
        }
        self.load_secret().await
    }

    async fn update_configuration(&mut self) -> Result<(), EngineEnded> {
        let wanted = self.wanted();
        if wanted == self.configuration {
            return Ok(());
        }
        self.engine.lanes_shown(self.shown_of_new_ips(&wanted)).await?;
        wanted
            .apply(&self.configuration, &self.engine, &self.config.identity.pool)
            .await?;
        let json = serde_json::to_vec(&wanted).expect("a configuration always serialises");
        if let Err(error) = self.engine.set_note(configuration::NOTE, json).await {
            tracing::warn!(error = %error, "the configuration was not saved");
        }
        self.configuration = wanted;
        Ok(())
    }

    /// What the status of IPs shows that were not this sender's so far: what their owner before learned of their sites.
    fn shown_of_new_ips(&self, wanted: &Configuration) -> Vec<(String, Vec<SiteStatus>)> {
        let known: HashSet<String> = self.configuration.ips.iter().map(ResourceExt::name_any).collect();
        let new: HashSet<String> = wanted.ips.iter().map(ResourceExt::name_any).collect();
        self.ips
            .objects()
            .into_iter()
            .map(|ip| (ip.name_any(), ip.status.unwrap_or_default().sites))
            .filter(|(name, sites)| new.contains(name) && !known.contains(name) && !sites.is_empty())
            .collect()
    }

    async fn update_shares(&mut self) -> Result<(), EngineEnded> {
        let pool = self.pools.objects().into_iter().next();
        let shares = pool_shares::granted(pool.as_ref(), &self.config.identity.name, &self.shares);
        if shares != self.shares {
            self.shares = shares.clone();
            self.engine.set_pool_shares(PoolShares::Granted(shares)).await?;
        }
        Ok(())
    }

    fn wanted(&self) -> Configuration {
        let SenderIdentity { pool, name, .. } = &self.config.identity;
        let mut wanted = Configuration {
            pool: self.configuration.pool.clone(),
            ..Configuration::default()
        };
        wanted.set_pool(self.pools.objects().first());
        wanted.ips = self
            .ips
            .objects()
            .into_iter()
            .filter(|ip| is_owned(ip, pool, name))
            .map(|ip| without_noise(ip, &self.configuration.ips))
            .collect();
        wanted.ips.sort_by_key(SendingIp::name_any);
        wanted.policies = self.policies_for(pool);
        wanted.runs = self.run_states();
        wanted
    }

    fn policies_for(&self, pool: &str) -> BTreeMap<String, relaypool_api::MxPolicySpec> {
        let is_for_pool =
            |policy: &MxPolicy| policy.spec.pools.is_empty() || policy.spec.pools.iter().any(|name| name == pool);
        self.policies
            .objects()
            .into_iter()
            .filter(|policy| is_for_pool(policy) && policy.problems().is_empty())
            .map(|policy| (policy.name_any(), policy.spec))
            .collect()
    }

    /// What is wanted with each Delivery of the pool; one that is gone while its slices are here is canceled.
    fn run_states(&self) -> BTreeMap<String, RunState> {
        let pool = &self.config.identity.pool;
        let mut states: BTreeMap<String, RunState> = self
            .deliveries
            .objects()
            .into_iter()
            .filter(|delivery| &delivery.spec.pool == pool)
            .filter_map(|delivery| Some((delivery.uid()?, run_state(&delivery))))
            .collect();
        // One that cannot be read is there all the same: what was wanted with it before goes on.
        for uid in self.deliveries.unreadable() {
            let before = self.configuration.runs.get(&uid).copied().unwrap_or_default();
            states.entry(uid).or_insert(before);
        }
        for delivery in self.taken_in.values() {
            states.entry(delivery.clone()).or_insert(RunState::Canceled);
        }
        states
    }

    /// Takes in slices whose plan is complete: whose message slice is there.
    async fn take_in_slices(&mut self) -> Result<(), EngineEnded> {
        let messages: HashMap<(String, String), Arc<MessageSnapshot>> = self
            .messages
            .objects()
            .into_iter()
            .filter_map(|slice| {
                let message = slice.spec.message?;
                Some(((slice.spec.delivery_uid, slice.spec.fingerprint), Arc::new(*message)))
            })
            .collect();
        for slice in self.slices.objects() {
            let Some(id) = slice.uid() else { continue };
            let is_live = self
                .configuration
                .runs
                .get(&slice.spec.delivery_uid)
                .is_some_and(|state| *state != RunState::Canceled);
            let key = (slice.spec.delivery_uid.clone(), slice.spec.fingerprint.clone());
            let Some(message) = messages.get(&key).filter(|_| is_live) else {
                continue;
            };
            if self.taken_in.contains_key(&id) || self.unusable.contains(&id) {
                continue;
            }
            self.take_in(id, slice, Arc::clone(message)).await?;
        }
        Ok(())
    }

    async fn take_in(
        &mut self,
        id: String,
        slice: DeliverySlice,
        message: Arc<MessageSnapshot>,
    ) -> Result<(), EngineEnded> {
        let name = slice.name_any();
        let delivery_uid = slice.spec.delivery_uid.clone();
        let new = NewSlice {
            id: id.clone(),
            name: name.clone(),
            delivery_uid: delivery_uid.clone(),
            message,
            rows: slice.spec.rows,
        };
        match self.engine.accept(new).await {
            Ok(_) => {
                tracing::info!(slice = name, "slice taken in");
                self.taken_in.insert(id, delivery_uid);
            }
            Err(IntakeError::Ending) => return Err(EngineEnded),
            Err(IntakeError::Template(error)) => {
                tracing::error!(slice = name, error = %error, "slice cannot be used");
                self.unusable.insert(id);
            }
            Err(error) => tracing::warn!(slice = name, error = %error, "slice not taken in, trying again"),
        }
        Ok(())
    }

    /// Slices whose objects are gone leave the spool once all their messages have come to their end.
    async fn forget_deleted_slices(&mut self) -> Result<(), EngineEnded> {
        let there: HashSet<String> = self.slices.objects().iter().filter_map(ResourceExt::uid).collect();
        let gone: Vec<String> = self
            .taken_in
            .keys()
            .filter(|id| !there.contains(*id))
            .cloned()
            .collect();
        for id in gone {
            if self.engine.forget(&id).await? {
                self.taken_in.remove(&id);
            }
        }
        self.unusable.retain(|id| there.contains(id));
        Ok(())
    }

    async fn load_secret(&self) -> Result<(), EngineEnded> {
        let Some(secrets) = &self.secrets else { return Ok(()) };
        let entries = secrets.objects().into_iter().filter_map(|secret| secret.data).flatten();
        let keys = keys::key_ring(entries.map(|(name, pem)| (name, pem.0)));
        self.engine.set_keys(keys).await
    }

    async fn load_key_folder(&self) -> Result<(), EngineEnded> {
        let Some(folder) = &self.config.keys else { return Ok(()) };
        match keys::read_folder(folder) {
            Ok(keys) => self.engine.set_keys(keys).await,
            Err(error) => {
                tracing::warn!(folder = %folder.display(), error = %error, "signing keys cannot be read");
                Ok(())
            }
        }
    }
}

fn api<K>(client: &Client, namespace: &str) -> Api<DeserializeGuard<K>>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    DeserializeGuard<K>: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), namespace)
}

fn is_owned(ip: &SendingIp, pool: &str, sender: &str) -> bool {
    ip.spec.pool == pool && ip.status.as_ref().and_then(|status| status.sender.as_deref()) == Some(sender)
}

/// What matters to a sender of a SendingIp: without it, every report on the address would look like a change. Of the status
/// that is the warm-up as the sender before left it: as it was when the address came to this one, for from then on this one
/// writes it.
fn without_noise(ip: SendingIp, known: &[SendingIp]) -> SendingIp {
    let mut plain = SendingIp::new(&ip.name_any(), ip.spec);
    plain.metadata.labels = ip.metadata.labels;
    let known = known.iter().find(|known| known.name_any() == plain.name_any());
    plain.status = match known {
        Some(known) => known.status.clone(),
        None => ip.status.map(|status| SendingIpStatus {
            warm_up: status.warm_up,
            ..SendingIpStatus::default()
        }),
    };
    plain
}

fn run_state(delivery: &Delivery) -> RunState {
    let is_deleted = delivery.metadata.deletion_timestamp.is_some();
    match (is_deleted || delivery.spec.cancel, delivery.spec.suspend) {
        (true, _) => RunState::Canceled,
        (false, true) => RunState::Suspended,
        (false, false) => RunState::Running,
    }
}

async fn secrets_changed(secrets: &mut Option<Watched<Secret>>) {
    match secrets {
        Some(secrets) => secrets.changed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use relaypool_api::sending_ip::WarmUpStatus;

    use super::*;

    fn ip(stage: u32) -> SendingIp {
        let spec = serde_json::json!({ "pool": "p", "address": "192.0.2.1", "ehloName": "mx.example.com" });
        let mut ip = SendingIp::new("first", serde_json::from_value(spec).unwrap());
        let warm_up = WarmUpStatus {
            stage: Some(stage),
            ..WarmUpStatus::default()
        };
        ip.status = Some(SendingIpStatus {
            sender: Some("p-0".into()),
            warm_up: Some(warm_up),
            ..SendingIpStatus::default()
        });
        ip
    }

    #[test]
    fn the_warm_up_is_that_of_the_moment_at_which_the_address_came() {
        let came = without_noise(ip(3), &[]);
        let status = came.status.clone().unwrap();
        assert_eq!((status.sender, status.warm_up.unwrap().stage), (None, Some(3)));
        assert_eq!(without_noise(ip(4), std::slice::from_ref(&came)), came);
    }
}
