//! Runs one reconciler: takes requests from its queue, counts, and repeats what failed.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedReceiver;
use kube::Resource as _;
use kube::runtime::controller::{self, Action, ReconcileRequest};
use kube::runtime::reflector::{ObjectRef, Store};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::context::Context;
use crate::error::Error;
use crate::guard::Guarded;
use crate::kind::Kind;
use crate::report::{Reported, report_malformed};

/// Objects of one kind that are looked at at the same time.
const CONCURRENCY: u16 = 16;

/// Runs a reconciler until `stop`, and until what it was doing then is done. All stores must have been filled.
pub(crate) async fn run<K, F, R>(
    store: Store<Guarded<K>>,
    queue: UnboundedReceiver<ReconcileRequest<Guarded<K>>>,
    context: Arc<Context>,
    stop: CancellationToken,
    reconcile: R,
) where
    K: Kind,
    F: Future<Output = Result<Action, Error>> + Send + 'static,
    R: Fn(Arc<K>, Arc<Context>) -> F + Clone + Send + Sync + 'static,
{
    let backoff = Arc::new(Backoff::<String>::default());
    let succeeded = backoff.clone();
    let failed = backoff.clone();
    let attempt = move |object: Arc<Guarded<K>>, context: Arc<Context>| {
        let (reconcile, backoff) = (reconcile.clone(), succeeded.clone());
        Box::pin(async move {
            let outcome = measured(&object, &context, &reconcile).await;
            if outcome.is_ok() {
                backoff.forget(&key(object.as_ref()));
            }
            outcome
        })
    };
    let after_failure =
        move |object: Arc<Guarded<K>>, _: &Error, _| Action::requeue(failed.failed(key(object.as_ref())));

    let requests = queue.map(Ok::<_, Infallible>).take_until(stop.cancelled_owned());
    let config = controller::Config::default().concurrency(CONCURRENCY);
    controller::applier(attempt, after_failure, context, store, requests, config)
        .for_each(|outcome| {
            log::<K>(&backoff, outcome);
            std::future::ready(())
        })
        .await;
}

/// Looks at one object.
async fn measured<K, F, R>(object: &Guarded<K>, context: &Arc<Context>, reconcile: &R) -> Result<Action, Error>
where
    K: Kind,
    F: Future<Output = Result<Action, Error>> + Send,
    R: Fn(Arc<K>, Arc<Context>) -> F + Send + Sync,
{
    if object.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let started = Instant::now();
    let outcome = match object {
        Guarded::Sound(object) => reconcile(object.clone(), context.clone()).await,
        Guarded::Malformed(malformed) => {
            report_malformed::<K>(context, malformed)
                .await
                .map(|reported| match reported {
                    Reported::Postponed(wait) => Action::requeue(wait),
                    _ => Action::await_change(),
                })
        }
    };
    context
        .metrics
        .reconciled(K::LABEL, started.elapsed(), outcome.is_err());
    outcome
}

type Outcome<K> = Result<(ObjectRef<Guarded<K>>, Action), controller::Error<Error, Infallible>>;

fn log<K: Kind>(backoff: &Backoff<String>, outcome: Outcome<K>) {
    let kind = K::kind(&());
    match outcome {
        Ok((object, _)) => tracing::debug!(%kind, object = object.name, "looked at"),
        Err(controller::Error::ObjectNotFound(object)) => {
            let namespace = object.namespace.as_deref().unwrap_or_default();
            backoff.forget(&format!("{namespace}/{}", object.name));
        }
        Err(controller::Error::ReconcilerFailed(error, object)) => {
            tracing::warn!(%kind, object = object.name, namespace = object.namespace, %error, "will be tried again");
        }
        Err(error) => tracing::warn!(%kind, %error, "the queue failed"),
    }
}

fn key<K: Kind>(object: &Guarded<K>) -> String {
    let metadata = object.meta();
    let name = metadata.name.as_deref().unwrap_or_default();
    format!("{}/{name}", metadata.namespace.as_deref().unwrap_or_default())
}

/// Longest that reconciles which are under way may take once everything is to end.
pub(crate) const GRACE: Duration = Duration::from_secs(15);
