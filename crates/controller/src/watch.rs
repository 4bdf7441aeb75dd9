//! One watch for each kind of object, however many reconcilers look at it.
//!
//! A change is first put into the store and then told to the listeners, so a reconcile that a change caused finds it in
//! the store. Two watches of one kind could not promise that.

use std::collections::HashSet;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedSender;
use kube::runtime::controller::ReconcileRequest;
use kube::runtime::reflector::store::{Store, Writer};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::runtime::{WatchStreamExt as _, controller::ReconcileReason};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// What is told about each object that changed or is gone.
type Listener<T> = Box<dyn Fn(&T) + Send>;

/// A watch of one kind.
pub(crate) struct Watch<T>
where
    T: Resource<DynamicType = ()> + Clone + 'static,
{
    /// None where changes are told and nothing is kept.
    stored: Option<(Store<T>, Writer<T>)>,
    listeners: Vec<Listener<T>>,
}

impl<T> Watch<T>
where
    T: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// A watch that keeps the objects in a store, which is empty until the watch runs.
    pub(crate) fn with_store() -> (Self, Store<T>) {
        let (store, writer) = reflector::store();
        let watch = Self {
            stored: Some((store.clone(), writer)),
            listeners: Vec::new(),
        };
        (watch, store)
    }

    /// A watch that only tells of changes. It may miss that an object went away.
    pub(crate) fn without_store() -> Self {
        Self {
            stored: None,
            listeners: Vec::new(),
        }
    }

    /// Asks `queue` for a reconcile of what `related` names, whenever an object changes or goes away.
    pub(crate) fn triggers<K, I>(
        &mut self,
        queue: &UnboundedSender<ReconcileRequest<K>>,
        related: impl Fn(&T) -> I + Send + 'static,
    ) where
        K: Resource<DynamicType = ()> + 'static,
        I: IntoIterator<Item = ObjectRef<K>>,
    {
        let queue = queue.clone();
        self.listeners.push(Box::new(move |object| {
            let cause = ObjectRef::from_obj(object).erase();
            for obj_ref in related(object) {
                let reason = ReconcileReason::RelatedObjectUpdated {
                    obj_ref: Box::new(cause.clone()),
                };
                // A queue is closed only while everything ends.
                let _ = queue.unbounded_send(ReconcileRequest { obj_ref, reason });
            }
        }));
    }

    /// Follows the objects for ever. What goes wrong is logged and tried again, more slowly at first, then every few seconds.
    pub(crate) async fn run(mut self, api: Api<T>, config: watcher::Config) {
        // Who wrote which field is a large part of an object, and nobody here asks.
        let without_managed_fields = |object: &mut T| object.meta_mut().managed_fields = None;
        let mut events = pin!(
            watcher(api, config)
                .backoff(BoundedBackoff::default())
                .modify(without_managed_fields)
        );
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.take(&event),
                Err(error) => tracing::warn!(kind = %T::kind(&()), %error, "cannot watch"),
            }
        }
    }

    fn take(&mut self, event: &Event<T>) {
        let changed = match &mut self.stored {
            Some((store, writer)) => take_into_store(event, store, writer),
            None => None,
        };
        match (event, changed) {
            (_, Some(changed)) => changed.iter().for_each(|object| self.tell(object)),
            (Event::Apply(object) | Event::Delete(object), None) => self.tell(object),
            (Event::InitApply(object), None) if self.stored.is_none() => self.tell(object),
            (Event::Init | Event::InitApply(_) | Event::InitDone, None) => {}
        }
    }

    fn tell(&self, object: &T) {
        for listener in &self.listeners {
            listener(object);
        }
    }
}

/// Puts an event into the store. When it completes a list, returns the objects of the list and those that are missing from
/// it: they went away while there was no watch, and nothing else tells of them.
fn take_into_store<T>(event: &Event<T>, store: &Store<T>, writer: &mut Writer<T>) -> Option<Vec<Arc<T>>>
where
    T: Resource<DynamicType = ()> + Clone + 'static,
{
    let Event::InitDone = event else {
        writer.apply_watcher_event(event);
        return None;
    };
    let before = store.state();
    writer.apply_watcher_event(event);
    let now = store.state();
    let known: HashSet<_> = now.iter().map(|object| ObjectRef::from_obj(object.as_ref())).collect();
    let gone = before
        .into_iter()
        .filter(|object| !known.contains(&ObjectRef::from_obj(object.as_ref())));
    let gone: Vec<_> = gone.collect();
    Some(gone.into_iter().chain(now.iter().cloned()).collect())
}

/// The object itself, for a reconciler of the kind that is watched.
pub(crate) fn itself<T: Resource<DynamicType = ()>>(object: &T) -> Option<ObjectRef<T>> {
    Some(ObjectRef::from_obj(object))
}

/// Longest time between two attempts. kube's own is a minute, and an API server that comes back costs two of them: a watch
/// that goes on at a version it has forgotten is refused, and only the next attempt lists anew.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// kube's backoff, cut at [`LONGEST_WAIT`].
#[derive(Default)]
struct BoundedBackoff(DefaultBackoff);

impl Iterator for BoundedBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|wait| wait.min(LONGEST_WAIT))
    }
}

impl Backoff for BoundedBackoff {
    fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc::unbounded;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    use super::*;

    fn object(name: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some("mail".to_owned()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    #[test]
    fn tells_after_the_store_knows_and_of_what_went_away_unseen() {
        let (mut watch, store) = Watch::<ConfigMap>::with_store();
        let (queue, mut requests) = unbounded();
        watch.triggers(&queue, {
            let store = store.clone();
            move |object: &ConfigMap| {
                let there = store.get(&ObjectRef::from_obj(object)).is_some();
                let name = format!("{}-{there}", object.metadata.name.clone().unwrap());
                [ObjectRef::<ConfigMap>::new(&name)]
            }
        });
        let mut told = || {
            let mut names: Vec<_> = std::iter::from_fn(|| requests.try_recv().ok())
                .map(|request: ReconcileRequest<ConfigMap>| request.obj_ref.name)
                .collect();
            names.sort();
            names
        };

        watch.take(&Event::Init);
        watch.take(&Event::InitApply(object("a")));
        watch.take(&Event::InitApply(object("b")));
        assert!(told().is_empty(), "a list counts when it is complete");
        watch.take(&Event::InitDone);
        assert_eq!(told(), ["a-true", "b-true"]);

        watch.take(&Event::Apply(object("c")));
        watch.take(&Event::Delete(object("a")));
        assert_eq!(told(), ["a-false", "c-true"]);

        // The watch broke; meanwhile b was deleted.
        watch.take(&Event::Init);
        watch.take(&Event::InitApply(object("c")));
        watch.take(&Event::InitDone);
        assert_eq!(told(), ["b-false", "c-true"]);
    }
}
