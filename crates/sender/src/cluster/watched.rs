//! A kind of object, kept up to date in memory.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::Resource;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::DefaultBackoff;
use kube::runtime::{WatchStreamExt, watcher};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Longest time between two attempts. The default is a minute, and an API server that comes back costs two of them: a watch
/// that goes on at a version it has forgotten is refused, and only the next attempt lists anew.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The objects of one kind that a selector finds. An object that cannot be read is left out and logged: it must not stop
/// the others.
pub(super) struct Watched<K: Resource<DynamicType = ()> + 'static> {
    store: Store<DeserializeGuard<K>>,
    changes: watch::Receiver<u64>,
    _task: AbortOnDropHandle<()>,
}

impl<K> Watched<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq + Clone + Default,
{
    /// Begins to watch. Errors of the API server are retried for ever, at growing intervals.
    pub(super) fn start(api: Api<DeserializeGuard<K>>, config: watcher::Config) -> Self {
        let (store, writer) = reflector::store();
        let (changed, changes) = watch::channel(0);
        let events = watcher(api, config).backoff(BoundedBackoff(DefaultBackoff::default()));
        let mut events = Box::pin(reflector::reflector(writer, events));
        let task = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Ok(_) => changed.send_modify(|count| *count += 1),
                    Err(error) => {
                        tracing::warn!(kind = %K::kind(&()), error = %error, "watch failed, trying again");
                    }
                }
            }
        });
        Self {
            store,
            changes,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Waits for the first complete list.
    pub(super) async fn ready(&self) {
        // Fails only when the task is gone, which this value keeps alive.
        let _ = self.store.wait_until_ready().await;
    }

    /// Waits until something has changed since the last call. Safe to drop.
    pub(super) async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The watch task never ends while this value lives; should it, nothing changes any more.
            std::future::pending::<()>().await;
        }
    }

    /// UIDs of the objects of now that cannot be read.
    pub(super) fn unreadable(&self) -> Vec<String> {
        let invalid =
            |object: Arc<DeserializeGuard<K>>| object.0.as_ref().err().and_then(|invalid| invalid.metadata.uid.clone());
        self.store.state().into_iter().filter_map(invalid).collect()
    }

    /// The objects of now that can be read.
    pub(super) fn objects(&self) -> Vec<K> {
        self.store.state().into_iter().filter_map(readable).collect()
    }
}

/// Grows as usual, up to [`LONGEST_WAIT`], of which a random part is taken off: senders must not come back all at once.
struct BoundedBackoff(DefaultBackoff);

impl Iterator for BoundedBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let longest = LONGEST_WAIT.mul_f64(rand::random_range(0.5..=1.0));
        self.0.next().map(|wait| wait.min(longest))
    }
}

impl Backoff for BoundedBackoff {
    fn reset(&mut self) {
        self.0.reset();
    }
}

fn readable<K: Resource<DynamicType = ()> + Clone>(object: Arc<DeserializeGuard<K>>) -> Option<K> {
    match &object.0 {
        Ok(object) => Some(object.clone()),
        Err(invalid) => {
            tracing::warn!(
                kind = %K::kind(&()),
                name = invalid.metadata.name.as_deref().unwrap_or_default(),
                error = %invalid.error,
                "object cannot be read"
            );
            None
        }
    }
}
