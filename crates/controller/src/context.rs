//! What the reconcilers share.

use std::collections::HashMap;
use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::store::WriterDropped;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource, ResourceExt as _};
use relaypool_api::not_in_effect::Surroundings;
use relaypool_api::{Delivery, DkimKey, MxPolicy, RelayPool, SendingIp};

use crate::dkim_key::Lookup;
use crate::dns::Dns;
use crate::events::Events;
use crate::guard::Guarded;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::progress::{SliceView, SpeedMeter};

/// Who starts the senders: this version of the controller does not.
pub(crate) const SURROUNDINGS: Surroundings = Surroundings::Elsewhere;

/// What the reconcilers share.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) stores: Stores,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    pub(crate) dns: Dns,
    /// When the status of an object was written last, by UID.
    pub(crate) status_writes: Memory<String, Option<Instant>>,
    /// When the shares of a pool's limits were written last, by UID.
    pub(crate) share_writes: Memory<String, Option<Instant>>,
    /// Speeds of Deliveries, by UID.
    pub(crate) speeds: Memory<String, SpeedMeter>,
    /// The last lookups of DKIM records, by UID of the DkimKey.
    pub(crate) lookups: Memory<String, Option<Lookup>>,
    /// Since when a key version is in nobody's use, by UID of the RelayPool and entry.
    pub(crate) unused_keys: Memory<String, HashMap<String, Instant>>,
}

/// All objects as last seen.
#[derive(Clone, Debug)]
pub(crate) struct Stores {
    pub(crate) pools: Store<Guarded<RelayPool>>,
    pub(crate) ips: Store<Guarded<SendingIp>>,
    pub(crate) policies: Store<Guarded<MxPolicy>>,
    pub(crate) keys: Store<Guarded<DkimKey>>,
    pub(crate) deliveries: Store<Guarded<Delivery>>,
    pub(crate) slices: Store<Guarded<SliceView>>,
}

impl Stores {
    /// Returns once every store has been filled: from then on, what is not there does not exist.
    ///
    /// Only one task may wait, and no reconciler may run before: of several tasks that wait for one store, kube wakes the
    /// last only.
    pub(crate) async fn wait_until_ready(&self) -> Result<(), WriterDropped> {
        let Self {
            pools,
            ips,
            policies,
            keys,
            deliveries,
            slices,
        } = self;
        pools.wait_until_ready().await?;
        ips.wait_until_ready().await?;
        policies.wait_until_ready().await?;
        keys.wait_until_ready().await?;
        deliveries.wait_until_ready().await?;
        slices.wait_until_ready().await
    }
}

/// The time.
pub(crate) fn now() -> Time {
    Time(Timestamp::now())
}

/// The object of a name, sound or not.
pub(crate) fn by_name<K>(store: &Store<K>, namespace: &str, name: &str) -> Option<std::sync::Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.get(&ObjectRef::new(name).within(namespace))
}

/// The objects of a namespace that fit, sound or not.
pub(crate) fn in_namespace<K>(store: &Store<K>, namespace: &str, fits: impl Fn(&K) -> bool) -> Vec<std::sync::Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.state_filter(|object| object.namespace().as_deref() == Some(namespace) && fits(object))
}

/// The sound objects of a namespace.
pub(crate) fn sound_in_namespace<K>(store: &Store<Guarded<K>>, namespace: &str) -> Vec<std::sync::Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let objects = in_namespace(store, namespace, |object| object.sound().is_some());
    objects.iter().filter_map(|object| object.sound().cloned()).collect()
}
