//! The harness itself: a control plane starts, survives the loss of its API server, and takes custom resources.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use relaypool_tests::control_plane::ControlPlane;
use relaypool_tests::crds::{has_current_crds, install_crds};
use relaypool_tests::wait::eventually;
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_is_written_outlives_the_api_server() {
    let mut control_plane = ControlPlane::start().await.unwrap();
    let namespace = control_plane.create_namespace("outlives").await.unwrap();
    control_plane
        .kubectl_ok(&[
            "--namespace",
            &namespace,
            "create",
            "configmap",
            "greeting",
            "--from-literal=text=hello",
        ])
        .await
        .unwrap();
    let client = control_plane.client().await.unwrap();
    assert_eq!(greeting(&client, &namespace).await.unwrap(), "hello");
    if !control_plane.is_own() {
        return;
    }

    control_plane.stop_api_server().unwrap();
    assert!(
        greeting(&client, &namespace).await.is_err(),
        "nobody answers while the server is stopped"
    );
    assert!(
        !control_plane
            .kubectl(&["get", "namespaces"])
            .await
            .unwrap()
            .status
            .success()
    );

    control_plane.start_api_server().await.unwrap();
    // The same client: programs under test do not get a new one either.
    let text = eventually("the client to get through again", TIMEOUT, async || {
        Ok(Some(greeting(&client, &namespace).await?))
    })
    .await
    .unwrap();
    assert_eq!(text, "hello");

    let folder: PathBuf = control_plane.kubeconfig_path().parent().unwrap().to_owned();
    control_plane.shutdown().unwrap();
    let kept_on_purpose = std::env::var_os("RELAYPOOL_TEST_KEEP").is_some_and(|value| value == "1");
    assert!(kept_on_purpose || !folder.exists(), "no files are left behind");
}

async fn greeting(client: &Client, namespace: &str) -> anyhow::Result<String> {
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let config_map = config_maps.get("greeting").await?;
    Ok(config_map.data.unwrap_or_default().remove("text").unwrap_or_default())
}

#[tokio::test]
async fn takes_custom_resources_and_their_status() {
    let control_plane = ControlPlane::start().await.unwrap();
    let client = control_plane.client().await.unwrap();
    let namespace = control_plane.create_namespace("custom").await.unwrap();
    install_crds(&client, [parrot_definition()]).await.unwrap();
    // Once more: then it is there already and gets replaced.
    install_crds(&client, [parrot_definition()]).await.unwrap();

    let kind =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("test.relaypool.dev", "v1", "Parrot"), "parrots");
    let parrots: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &kind);
    let parrot = DynamicObject::new("polly", &kind).data(json!({ "spec": { "mood": "Sad" } }));
    parrots.create(&PostParams::default(), &parrot).await.unwrap();

    let status = json!({
        "apiVersion": "test.relaypool.dev/v1",
        "kind": "Parrot",
        "status": { "words": 3 },
    });
    parrots
        .patch_status(
            "polly",
            &PatchParams::apply("relaypool-test").force(),
            &Patch::Apply(&status),
        )
        .await
        .unwrap();

    let words = control_plane
        .kubectl_ok(&[
            "--namespace",
            &namespace,
            "get",
            "parrot",
            "polly",
            "--output=jsonpath={.spec.mood} {.status.words}",
        ])
        .await
        .unwrap();
    assert_eq!(words, "Sad 3");

    // The rules of the schema hold on every server, CEL rules where the server has them.
    let moody = DynamicObject::new("moody", &kind).data(json!({ "spec": { "mood": "Purple" } }));
    assert!(parrots.create(&PostParams::default(), &moody).await.is_err());
    let silent = DynamicObject::new("silent", &kind).data(json!({ "spec": { "mood": "Silent" } }));
    let refused = parrots.create(&PostParams::default(), &silent).await.is_err();
    assert_eq!(refused, has_current_crds(&client).await.unwrap());
}

/// A definition with all that old servers refuse.
fn parrot_definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "parrots.test.relaypool.dev" },
        "spec": {
            "group": "test.relaypool.dev",
            "scope": "Namespaced",
            "names": { "kind": "Parrot", "plural": "parrots", "singular": "parrot" },
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "subresources": { "status": {} },
                "selectableFields": [{ "jsonPath": ".spec.mood" }],
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "spec": {
                            "type": "object",
                            "properties": {
                                "mood": { "type": "string", "nullable": true, "enum": ["Happy", "Sad", "Silent", null] },
                            },
                            "x-kubernetes-validations": [{
                                "rule": "!has(self.mood) || self.mood != 'Silent'",
                                "message": "a parrot is never silent",
                            }],
                        },
                        "status": {
                            "type": "object",
                            "properties": { "words": { "type": "integer" } },
                        },
                    },
                } },
            }],
        },
    })
}
