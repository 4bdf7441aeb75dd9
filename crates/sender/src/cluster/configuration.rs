//! What a sender was last told, kept in its spool: a sender that restarts while the API server is away goes on with it.

use std::collections::{BTreeMap, HashSet};

use relaypool_api::mx_policy::MxPolicySpec;
use relaypool_api::relay_pool::{ProviderProfiles, RelayPoolSpec};
use relaypool_api::{RelayPool, SendingIp};
use relaypool_shaping::policy::PolicySet;
use serde::{Deserialize, Serialize};

use crate::dispatcher::{PoolSettings, RunState, SourceIp};
use crate::engine::{Engine, EngineEnded};
use crate::resolver::{DestinationLimits, MxResolver, ResolverError};

/// Name of the note in the spool.
pub(super) const NOTE: &str = "configuration";

/// Everything a sender needs to know to send what is in its spool, secrets excepted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Configuration {
    pub(super) pool: Option<RelayPoolSpec>,
    /// The SendingIps that this sender owns.
    pub(super) ips: Vec<SendingIp>,
    /// Policies for the pool, by name.
    pub(super) policies: BTreeMap<String, MxPolicySpec>,
    /// What is wanted with Deliveries, by UID.
    pub(super) runs: BTreeMap<String, RunState>,
}

impl Configuration {
    pub(super) fn set_pool(&mut self, pool: Option<&RelayPool>) {
        // A pool that is deleted for the moment keeps its settings: mail in the spool still has to go out.
        if let Some(pool) = pool {
            self.pool = Some(pool.spec.clone());
        }
    }

    /// Tells the engine what differs from what it was told before.
    pub(super) async fn apply(&self, before: &Self, engine: &Engine, pool_name: &str) -> Result<(), EngineEnded> {
        if self.pool != before.pool || self.ips != before.ips {
            self.apply_pool(engine, pool_name).await?;
        }
        if self.policies != before.policies || self.profiles() != before.profiles() {
            let policies = self
                .policies
                .iter()
                .map(|(name, spec)| (name.clone(), spec.clone()))
                .collect();
            let profiles = self.profiles().unwrap_or_default();
            engine.set_policies(PolicySet::of_pool(policies, profiles)).await?;
        }
        for (uid, state) in &self.runs {
            if before.runs.get(uid) != Some(state) {
                engine.set_run_state(uid, *state).await?;
            }
        }
        // Last, because sending begins with them: by then, all the rest must be in force.
        if self.usable_ips() != before.usable_ips() {
            let ips = self.usable_ips().iter().map(SourceIp::from).collect();
            engine.set_ips(ips).await?;
        }
        Ok(())
    }

    /// None before the pool is known.
    fn profiles(&self) -> Option<ProviderProfiles> {
        self.pool.as_ref().map(|pool| pool.provider_profiles)
    }

    /// None before the pool is known: it says where names are looked up and what may be connected to.
    fn usable_ips(&self) -> &[SendingIp] {
        if self.pool.is_some() { &self.ips } else { &[] }
    }

    async fn apply_pool(&self, engine: &Engine, pool_name: &str) -> Result<(), EngineEnded> {
        let Some(pool) = &self.pool else { return Ok(()) };
        engine.set_settings(PoolSettings::new(pool_name, pool)).await?;
        match self.resolver(pool) {
            Ok(resolver) => engine.set_resolver(resolver).await,
            Err(error) => {
                tracing::error!(error = %error, "DNS settings of the pool cannot be used, keeping those of before");
                Ok(())
            }
        }
    }

    fn resolver(&self, pool: &RelayPoolSpec) -> Result<MxResolver, ResolverError> {
        let own_names: HashSet<_> = self.ips.iter().map(|ip| ip.spec.ehlo_name.clone()).collect();
        let own_addresses: HashSet<_> = self.ips.iter().map(|ip| ip.spec.address).collect();
        let limits = DestinationLimits {
            allow_private: pool.allow_private_destinations,
            own_names,
            own_addresses,
        };
        MxResolver::new(&pool.dns.servers, pool.dns.timeout.map(Into::into), limits)
    }
}
