//! Installing custom resource definitions (CRDs), on servers old and new.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams, Request};
use kube::{Api, Client, ResourceExt as _};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::wait::eventually;

const SERVED_TIMEOUT: Duration = Duration::from_secs(60);

/// The first Kubernetes minor version (of major 1) that takes our CRDs as they are.
const FIRST_CURRENT_MINOR: u32 = 25;

/// Creates the definitions, or replaces the ones that exist, and returns when the server serves all of them.
///
/// Each may be a `CustomResourceDefinition` or its JSON. For servers older than 1.25, and for those that do not say how
/// old they are, everything such a server refuses is taken out first, above all CEL rules: tests of those need
/// [`has_current_crds`].
///
/// # Errors
/// When the server refuses a definition, or does not serve it within a minute.
pub async fn install_crds(client: &Client, definitions: impl IntoIterator<Item = impl Serialize>) -> Result<()> {
    let current = has_current_crds(client).await?;
    let mut installed = Vec::new();
    for definition in definitions {
        let mut definition = serde_json::to_value(definition).context("a definition is not JSON")?;
        if !current {
            strip_for_old_servers(&mut definition);
        }
        installed.push(create_or_replace(client, definition).await?);
    }
    for name in installed {
        wait_until_served(client, &name).await?;
    }
    Ok(())
}

/// Whether the server evaluates CEL rules in CRDs and takes all the fields ours have.
///
/// # Errors
/// When the server does not answer.
pub async fn has_current_crds(client: &Client) -> Result<bool> {
    let version = client
        .apiserver_version()
        .await
        .context("cannot ask for the server's version")?;
    Ok(minor_version(&version).is_some_and(|minor| minor >= FIRST_CURRENT_MINOR))
}

/// The minor version; a major other than 1 counts as newer than all. `None` when the server does not say, as some that
/// people build themselves do.
fn minor_version(version: &Info) -> Option<u32> {
    // Providers add to both: minor "20+", gitVersion "v1.20.2-gke.100".
    let (git_major, git_minor) = version
        .git_version
        .trim_start_matches('v')
        .split_once('.')
        .unwrap_or_default();
    let number = |text: &str| {
        let end = text
            .find(|character: char| !character.is_ascii_digit())
            .unwrap_or(text.len());
        text[..end].parse::<u32>().ok()
    };
    let major = number(&version.major).or_else(|| number(git_major))?;
    let minor = number(&version.minor).or_else(|| number(git_minor))?;
    match major {
        // v0.0.0 is what a build without version flags calls itself.
        0 => None,
        1 => Some(minor),
        _ => Some(u32::MAX),
    }
}

/// Removes what servers before 1.25 refuse or misread: CEL rules, selectable fields, and the `null` that a schema of an
/// optional enum lists among its values.
fn strip_for_old_servers(definition: &mut Value) {
    if let Some(versions) = definition.pointer_mut("/spec/versions").and_then(Value::as_array_mut) {
        for version in versions.iter_mut().filter_map(Value::as_object_mut) {
            version.remove("selectableFields");
            if let Some(schema) = version
                .get_mut("schema")
                .and_then(|schema| schema.get_mut("openAPIV3Schema"))
            {
                strip_schema(schema);
            }
        }
    }
}

/// Below a schema, these keywords hold schemas by name: a property may itself be called "enum".
const NAMED_SCHEMAS: [&str; 4] = ["properties", "patternProperties", "definitions", "dependencies"];

fn strip_schema(schema: &mut Value) {
    match schema {
        Value::Object(keywords) => strip_keywords(keywords),
        Value::Array(alternatives) => alternatives.iter_mut().for_each(strip_schema),
        _ => {}
    }
}

fn strip_keywords(keywords: &mut Map<String, Value>) {
    keywords.remove("x-kubernetes-validations");
    for (keyword, value) in keywords {
        match (keyword.as_str(), value) {
            ("enum", Value::Array(values)) => values.retain(|value| !value.is_null()),
            // Data, not schemas.
            ("default" | "example", _) => {}
            (keyword, Value::Object(named)) if NAMED_SCHEMAS.contains(&keyword) => {
                named.values_mut().for_each(strip_schema);
            }
            (_, value) => strip_schema(value),
        }
    }
}

/// Returns the name of the definition.
async fn create_or_replace(client: &Client, definition: Value) -> Result<String> {
    // Sent as the JSON it is: a typed definition would drop fields that this version of the types does not know.
    let kind = ApiResource::erase::<CustomResourceDefinition>(&());
    let definitions: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    let mut definition: DynamicObject =
        serde_json::from_value(definition).context("a definition lacks apiVersion, kind or metadata")?;
    let name = definition.metadata.name.clone().context("a definition lacks a name")?;

    // Another test may install the same definition meanwhile; then the next look decides anew.
    let what = format!("the definition {name} to be taken");
    let outcome = eventually(&what, SERVED_TIMEOUT, async || {
        let existing = definitions.get_opt(&name).await?;
        definition.metadata.resource_version = existing.as_ref().and_then(|existing| existing.resource_version());
        let parameters = PostParams::default();
        let result = if existing.is_some() {
            definitions.replace(&name, &parameters, &definition).await
        } else {
            definitions.create(&parameters, &definition).await
        };
        match result {
            Ok(_) => Ok(Some(Ok(()))),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            Err(error @ kube::Error::Api(_)) => Ok(Some(Err(error))),
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    outcome.with_context(|| format!("the server refuses the definition {name}"))?;
    Ok(name)
}

/// Waits until the definition is established and every version it serves can be listed, which comes a little later.
async fn wait_until_served(client: &Client, name: &str) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let outcome = eventually(
        &format!("the definition {name} to be served"),
        SERVED_TIMEOUT,
        async || {
            let definition = definitions.get(name).await?;
            let conditions = definition
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            let condition = |kind: &str, status: &str| {
                conditions
                    .iter()
                    .find(|item| item.type_ == kind && item.status == status)
            };
            if let Some(refused) = condition("NamesAccepted", "False") {
                return Ok(Some(Err(refused.message.clone().unwrap_or_default())));
            }
            if condition("Established", "True").is_none() {
                return Ok(None);
            }
            for version in definition.spec.versions.iter().filter(|version| version.served) {
                let path = format!(
                    "/apis/{}/{}/{}",
                    definition.spec.group, version.name, definition.spec.names.plural
                );
                client
                    .request_text(Request::new(path).list(&ListParams::default().limit(1))?)
                    .await?;
            }
            Ok(Some(Ok(())))
        },
    )
    .await?;
    if let Err(message) = outcome {
        bail!("the names of the definition {name} are not accepted: {message}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn version(major: &str, minor: &str, git_version: &str) -> Info {
        Info {
            major: major.to_owned(),
            minor: minor.to_owned(),
            git_version: git_version.to_owned(),
            ..Info::default()
        }
    }

    #[test]
    fn reads_the_minor_version_from_whatever_the_server_says() {
        assert_eq!(minor_version(&version("1", "20", "v1.20.2")), Some(20));
        assert_eq!(minor_version(&version("1", "31+", "v1.31.4-eks-abc")), Some(31));
        assert_eq!(minor_version(&version("", "", "v1.20.2")), Some(20));
        assert_eq!(minor_version(&version("2", "0", "v2.0.0")), Some(u32::MAX));
        assert_eq!(minor_version(&version("", "", "v0.0.0-master+$Format:%H$")), None);
        assert_eq!(minor_version(&version("", "", "")), None);
    }

    #[test]
    fn strips_what_old_servers_refuse_and_nothing_else() {
        let mut definition = json!({
            "spec": { "versions": [{
                "name": "v1",
                "selectableFields": [{ "jsonPath": ".spec.pool" }],
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "x-kubernetes-validations": [{ "rule": "true" }],
                    "properties": {
                        "mode": { "enum": ["Adaptive", "Static", null], "nullable": true },
                        "enum": { "type": "array", "items": { "x-kubernetes-validations": [], "type": "string" } },
                        "selectableFields": { "type": "string", "default": { "enum": [null] } },
                    },
                } },
            }] },
        });
        strip_for_old_servers(&mut definition);
        let expected = json!({
            "spec": { "versions": [{
                "name": "v1",
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "mode": { "enum": ["Adaptive", "Static"], "nullable": true },
                        "enum": { "type": "array", "items": { "type": "string" } },
                        "selectableFields": { "type": "string", "default": { "enum": [null] } },
                    },
                } },
            }] },
        });
        assert_eq!(definition, expected);
    }
}
