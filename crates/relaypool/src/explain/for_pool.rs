//! What a pool goes by: from YAML files, or from the cluster.

use anyhow::{Context, bail};
use kube::api::ListParams;
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config, ResourceExt};
use relaypool_api::mx_policy::MxPolicySpec;
use relaypool_api::relay_pool::RelayPoolSpec;
use relaypool_api::validation::Validate;
use relaypool_api::{MxPolicy, RelayPool, SendingIp};

use crate::local::Objects;

/// A pool, and what it goes by.
pub struct ForPool {
    /// Its name; none where there is no RelayPool, and the settings are the defaults.
    pub name: Option<String>,
    /// Its settings.
    pub spec: RelayPoolSpec,
    /// The policies of its namespace.
    pub policies: Vec<(String, MxPolicySpec)>,
    /// Its sending IPs, in the order of their names.
    pub ips: Vec<SendingIp>,
    /// Whether their status is that of a cluster.
    pub is_live: bool,
}

impl ForPool {
    /// The pool of this name, or the only one.
    pub fn from_objects(objects: &Objects, name: Option<&str>) -> anyhow::Result<Self> {
        let pools = objects.pools.values().cloned().collect();
        let policies = objects.policies.values().cloned().collect();
        Self::new(pools, policies, objects.ips.values().cloned().collect(), name, false)
    }

    /// The pool of this name, or the only one, of a namespace.
    pub async fn from_cluster(
        context: Option<&str>,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> anyhow::Result<Self> {
        let config = match context {
            Some(context) => {
                let options = KubeConfigOptions {
                    context: Some(context.to_owned()),
                    ..KubeConfigOptions::default()
                };
                Config::from_kubeconfig(&options).await.map_err(anyhow::Error::from)
            }
            None => Config::infer().await.map_err(anyhow::Error::from),
        };
        let config = config.context("cannot find a cluster; name a folder of YAML files with -f to do without one")?;
        let namespace = namespace.unwrap_or(&config.default_namespace).to_owned();
        let client = Client::try_from(config).context("cannot make a client for the cluster")?;
        let everything = ListParams::default();
        let pools: Api<RelayPool> = Api::namespaced(client.clone(), &namespace);
        let policies: Api<MxPolicy> = Api::namespaced(client.clone(), &namespace);
        let ips: Api<SendingIp> = Api::namespaced(client, &namespace);
        let (pools, policies, ips) = tokio::try_join!(
            pools.list(&everything),
            policies.list(&everything),
            ips.list(&everything)
        )
        .with_context(|| format!("cannot read the objects of namespace {namespace}"))?;
        let found = Self::new(pools.items, policies.items, ips.items, name, true);
        found.with_context(|| format!("namespace {namespace}"))
    }

    fn new(
        pools: Vec<RelayPool>,
        policies: Vec<MxPolicy>,
        ips: Vec<SendingIp>,
        name: Option<&str>,
        is_live: bool,
    ) -> anyhow::Result<Self> {
        let names = || pools.iter().map(ResourceExt::name_any).collect::<Vec<_>>().join(", ");
        let pool = match (name, pools.as_slice()) {
            (Some(name), _) => match pools.iter().find(|pool| pool.name_any() == name) {
                Some(pool) => Some(pool),
                None if pools.is_empty() => bail!("there is no RelayPool {name}, nor any other"),
                None => bail!("there is no RelayPool {name}; there are {}", names()),
            },
            (None, []) => None,
            (None, [pool]) => Some(pool),
            (None, _) => bail!("there are several RelayPools: name one of {} with --pool", names()),
        };
        let name = pool.map(ResourceExt::name_any);
        let spec = match pool {
            Some(pool) => pool.spec.clone(),
            // As the schema's defaults make it.
            None => serde_json::from_value(serde_json::json!({}))?,
        };
        let mut ips: Vec<SendingIp> = ips
            .into_iter()
            .filter(|ip| name.as_ref().is_some_and(|name| ip.spec.pool == *name))
            .collect();
        ips.sort_by_key(ResourceExt::name_any);
        Ok(Self {
            name,
            spec,
            // Senders pass over what is not valid.
            policies: policies
                .into_iter()
                .filter(|policy| policy.problems().is_empty())
                .map(|policy| (policy.name_any(), policy.spec))
                .collect(),
            ips,
            is_live,
        })
    }
}
