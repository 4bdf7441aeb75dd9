//! Which change makes which object be looked at again.

use std::sync::Arc;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::ReconcileRequest;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt as _};
use relaypool_api::delivery::DeliverySpec;
use relaypool_api::{Delivery, DkimKey, MxPolicy, RelayPool, SendingIp};

use crate::context::{Stores, in_namespace};
use crate::guard::Guarded;
use crate::planning::{SourceKind, SourceRef};
use crate::progress::SliceView;
use crate::watch::{Watch, itself};

/// One watch for each kind.
pub(crate) struct Watches {
    pub(crate) pools: Watch<Guarded<RelayPool>>,
    pub(crate) ips: Watch<Guarded<SendingIp>>,
    pub(crate) policies: Watch<Guarded<MxPolicy>>,
    pub(crate) keys: Watch<Guarded<DkimKey>>,
    pub(crate) deliveries: Watch<Guarded<Delivery>>,
    pub(crate) slices: Watch<Guarded<SliceView>>,
    pub(crate) config_maps: Watch<PartialObjectMeta<ConfigMap>>,
    pub(crate) secrets: Watch<PartialObjectMeta<Secret>>,
}

/// Requests to look at objects of one kind.
pub(crate) type Queue<K> = UnboundedReceiver<ReconcileRequest<Guarded<K>>>;
type Requests<K> = UnboundedSender<ReconcileRequest<Guarded<K>>>;

/// One queue for each reconciler.
pub(crate) struct Queues {
    pub(crate) pools: Queue<RelayPool>,
    pub(crate) ips: Queue<SendingIp>,
    pub(crate) policies: Queue<MxPolicy>,
    pub(crate) keys: Queue<DkimKey>,
    pub(crate) deliveries: Queue<Delivery>,
}

/// Sets up the watches with their stores, and connects them to the queues.
pub(crate) fn connect() -> (Watches, Stores, Queues) {
    let (pools, pool_store) = Watch::with_store();
    let (ips, ip_store) = Watch::with_store();
    let (policies, policy_store) = Watch::with_store();
    let (keys, key_store) = Watch::with_store();
    let (deliveries, delivery_store) = Watch::with_store();
    let (slices, slice_store) = Watch::with_store();
    let mut watches = Watches {
        pools,
        ips,
        policies,
        keys,
        deliveries,
        slices,
        config_maps: Watch::without_store(),
        secrets: Watch::without_store(),
    };
    let stores = Stores {
        pools: pool_store,
        ips: ip_store,
        policies: policy_store,
        keys: key_store,
        deliveries: delivery_store,
        slices: slice_store,
    };
    let queues = Queues {
        pools: for_pools(&mut watches, &stores),
        ips: for_ips(&mut watches, &stores),
        policies: for_policies(&mut watches, &stores),
        keys: for_keys(&mut watches, &stores),
        deliveries: for_deliveries(&mut watches, &stores),
    };
    (watches, stores, queues)
}

fn for_pools(watches: &mut Watches, stores: &Stores) -> Queue<RelayPool> {
    let (requests, queue): (Requests<RelayPool>, _) = unbounded();
    watches.pools.triggers(&requests, itself);
    // The Secret with the signing keys, when somebody else touches it.
    watches.secrets.triggers(&requests, |secret| {
        let owners = secret.owner_references().iter();
        let owner = owners
            .filter(|owner| owner.kind == RelayPool::kind(&()))
            .map(|owner| owner.name.clone())
            .next();
        owner.map(|pool| ObjectRef::new(&pool).within(&namespace(secret)))
    });
    // A new limit is shared out anew.
    let pools = stores.pools.clone();
    watches.policies.triggers(&requests, move |policy| {
        references(&pools, &namespace(policy), |_| true)
    });
    // A new key version goes to every pool of the namespace.
    let pools = stores.pools.clone();
    watches
        .keys
        .triggers(&requests, move |key| references(&pools, &namespace(key), |_| true));
    queue
}

fn for_ips(watches: &mut Watches, stores: &Stores) -> Queue<SendingIp> {
    let (requests, queue): (Requests<SendingIp>, _) = unbounded();
    watches.ips.triggers(&requests, itself);
    // When an address goes away, its duplicate may use it, and a sender has room.
    let ips = stores.ips.clone();
    watches.ips.triggers(&requests, move |changed| {
        let changed_ip = changed.sound().cloned();
        let concerned = |other: &SendingIp| {
            let unassigned = other.status.as_ref().is_none_or(|status| status.sender.is_none());
            changed_ip.as_ref().is_none_or(|changed| {
                changed.name_any() != other.name_any()
                    && (other.spec.address == changed.spec.address
                        || (unassigned && other.spec.pool == changed.spec.pool))
            })
        };
        references(&ips, &namespace(changed), |other| {
            other.sound().is_some_and(|other| concerned(other))
        })
    });
    let ips = stores.ips.clone();
    watches.pools.triggers(&requests, move |pool| {
        let name = pool.name_any();
        references(&ips, &namespace(pool), |ip| {
            ip.sound().is_some_and(|ip| ip.spec.pool == name)
        })
    });
    queue
}

fn for_policies(watches: &mut Watches, stores: &Stores) -> Queue<MxPolicy> {
    let (requests, queue): (Requests<MxPolicy>, _) = unbounded();
    watches.policies.triggers(&requests, itself);
    // Those that it conflicts with now, and those that it did conflict with.
    let policies = stores.policies.clone();
    watches.policies.triggers(&requests, move |changed| {
        let name = changed.name_any();
        let masks = |policy: &MxPolicy| {
            let matches = &policy.spec.matches;
            matches
                .domains
                .iter()
                .chain(&matches.mx_hosts)
                .cloned()
                .collect::<Vec<_>>()
        };
        let changed_masks = changed.sound().map(|changed| masks(changed)).unwrap_or_default();
        references(&policies, &namespace(changed), |other| {
            other.name_any() != name
                && other.sound().is_some_and(|other| {
                    let listed = other
                        .status
                        .as_ref()
                        .is_some_and(|status| status.conflicts.contains(&name));
                    listed || masks(other).iter().any(|mask| changed_masks.contains(mask))
                })
        })
    });
    queue
}

fn for_keys(watches: &mut Watches, stores: &Stores) -> Queue<DkimKey> {
    let (requests, queue): (Requests<DkimKey>, _) = unbounded();
    watches.keys.triggers(&requests, itself);
    let keys = stores.keys.clone();
    watches.secrets.triggers(&requests, move |secret| {
        let name = secret.name_any();
        let refers = |key: &DkimKey| key.spec.secret_ref.as_ref().is_some_and(|source| source.name == name);
        references(&keys, &namespace(secret), |key| {
            key.sound().is_some_and(|key| refers(key))
        })
    });
    // When a key goes away, its namesake may take its place.
    let keys = stores.keys.clone();
    watches.keys.triggers(&requests, move |changed| {
        let record = |key: &DkimKey| (key.spec.domain.clone(), key.spec.selector.clone());
        let changed_record = changed.sound().map(|changed| record(changed));
        let name = changed.name_any();
        references(&keys, &namespace(changed), |other| {
            other.name_any() != name
                && other
                    .sound()
                    .is_some_and(|other| changed_record.as_ref() == Some(&record(other)))
        })
    });
    queue
}

fn for_deliveries(watches: &mut Watches, stores: &Stores) -> Queue<Delivery> {
    let (requests, queue): (Requests<Delivery>, _) = unbounded();
    let deliveries = &stores.deliveries;
    watches.deliveries.triggers(&requests, itself);
    watches.slices.triggers(&requests, |slice| {
        let name = slice.sound().map(|slice| slice.spec.delivery.clone());
        name.map(|name| ObjectRef::new(&name).within(&namespace(slice)))
    });
    // All others matter only until there is a plan.
    let store = deliveries.clone();
    watches.pools.triggers(&requests, move |pool| {
        let name = pool.name_any();
        unplanned(&store, &namespace(pool), |delivery| delivery.pool == name)
    });
    let store = deliveries.clone();
    watches.ips.triggers(&requests, move |ip| {
        let pool = ip.sound().map(|ip| ip.spec.pool.clone());
        unplanned(&store, &namespace(ip), |delivery| Some(&delivery.pool) == pool.as_ref())
    });
    let store = deliveries.clone();
    watches
        .keys
        .triggers(&requests, move |key| unplanned(&store, &namespace(key), |_| true));
    let store = deliveries.clone();
    watches.config_maps.triggers(&requests, move |config_map| {
        let name = config_map.name_any();
        unplanned(&store, &namespace(config_map), |delivery| {
            refers(delivery, SourceKind::ConfigMap, &name)
        })
    });
    let store = deliveries.clone();
    watches.secrets.triggers(&requests, move |secret| {
        let name = secret.name_any();
        unplanned(&store, &namespace(secret), |delivery| {
            refers(delivery, SourceKind::Secret, &name)
        })
    });
    queue
}

/// Deliveries of a namespace that fit and have no plan yet.
fn unplanned(
    store: &Store<Guarded<Delivery>>,
    namespace: &str,
    fits: impl Fn(&DeliverySpec) -> bool,
) -> Vec<ObjectRef<Guarded<Delivery>>> {
    references(store, namespace, |delivery| {
        delivery.sound().is_some_and(|delivery| {
            let planned = delivery.status.as_ref().is_some_and(|status| status.plan.is_some());
            !planned && fits(&delivery.spec)
        })
    })
}

/// Whether the recipients or an attachment of a Delivery lie in this object.
fn refers(delivery: &DeliverySpec, kind: SourceKind, name: &str) -> bool {
    let list = delivery.recipients.as_ref().and_then(SourceRef::of_recipients);
    let attachments = delivery.message.iter().flat_map(|message| &message.attachments);
    list.into_iter()
        .chain(attachments.filter_map(SourceRef::of_attachment))
        .any(|source| source.kind == kind && source.name == name)
}

/// References to the objects of a namespace that fit.
fn references<K>(store: &Store<K>, namespace: &str, fits: impl Fn(&K) -> bool) -> Vec<ObjectRef<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let objects: Vec<Arc<K>> = in_namespace(store, namespace, fits);
    objects
        .iter()
        .map(|object| ObjectRef::from_obj(object.as_ref()))
        .collect()
}

fn namespace(object: &impl Resource) -> String {
    object.meta().namespace.clone().unwrap_or_default()
}
