//! Reading what a Delivery refers to.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use relaypool_api::message::MessageTemplate;

use crate::context::Context;
use crate::error::Error;
use crate::planning::{SourceKind, SourceRef};
use crate::requests::get;

/// The content of one key, or none where the object or the key is missing.
pub(super) async fn read(context: &Context, namespace: &str, source: &SourceRef) -> Result<Option<Vec<u8>>, Error> {
    let SourceRef { kind, name, key } = source;
    match kind {
        SourceKind::ConfigMap => {
            let api = Api::<ConfigMap>::namespaced(context.client.clone(), namespace);
            let Some(found) = get(&api, name).await? else {
                return Ok(None);
            };
            let text = found.data.and_then(|mut data| data.remove(key)).map(String::into_bytes);
            Ok(text.or_else(|| found.binary_data?.remove(key).map(|data| data.0)))
        }
        SourceKind::Secret => {
            let api = Api::<Secret>::namespaced(context.client.clone(), namespace);
            let found = get(&api, name).await?;
            Ok(found.and_then(|secret| secret.data?.remove(key)).map(|data| data.0))
        }
    }
}

/// The contents of the attachments that lie elsewhere, or the first that is missing.
pub(super) async fn attachments(
    context: &Context,
    namespace: &str,
    message: &MessageTemplate,
) -> Result<Result<BTreeMap<SourceRef, Vec<u8>>, SourceRef>, Error> {
    let mut contents = BTreeMap::new();
    for source in message.attachments.iter().filter_map(SourceRef::of_attachment) {
        if contents.contains_key(&source) {
            continue;
        }
        match read(context, namespace, &source).await? {
            Some(content) => contents.insert(source, content),
            None => return Ok(Err(source)),
        };
    }
    Ok(Ok(contents))
}
