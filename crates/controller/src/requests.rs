//! Requests to the API server, each under a time limit.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Resource, ResourceExt as _};
use relaypool_api::names::CONTROLLER_MANAGER;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// Longest one request may take. The client itself repeats some requests for minutes.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Waits for an answer. `action` completes the sentence "cannot …".
pub(crate) async fn within_limit<T>(
    action: impl FnOnce() -> String,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Error> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(Error::Api {
            action: action(),
            source: Box::new(source),
        }),
        Err(_) => Err(Error::Timeout {
            action: action(),
            after: TIMEOUT,
        }),
    }
}

/// The answer, or none where there is no such object.
pub(crate) fn found<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Error::Api { source, .. }) if is_not_found(&source) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_not_found(error: &kube::Error) -> bool {
    // By the code: the reason is empty in some answers of old servers.
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Reads an object; none when there is none.
pub(crate) async fn get<K>(api: &Api<K>, name: &str) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let action = || format!("read {} {name}", K::kind(&()));
    within_limit(action, api.get_opt(name)).await
}

/// Creates an object or changes it to what is given, by server-side apply: doing it twice is doing it once.
pub(crate) async fn apply<K>(client: &kube::Client, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize,
{
    let name = object.name_any();
    let api = Api::<K>::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let parameters = PatchParams::apply(CONTROLLER_MANAGER).force();
    let action = || format!("apply {} {name}", K::kind(&()));
    within_limit(action, api.patch(&name, &parameters, &Patch::Apply(object))).await?;
    Ok(())
}

/// Deletes an object, if it is still there.
pub(crate) async fn delete<K>(api: &Api<K>, name: &str) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let action = || format!("delete {} {name}", K::kind(&()));
    let answer = within_limit(action, api.delete(name, &DeleteParams::background())).await;
    found(answer).map(drop)
}
