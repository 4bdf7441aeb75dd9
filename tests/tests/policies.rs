//! Policies on a real API server: what it takes, what it refuses, and what `relaypool explain` says of them.

#![allow(clippy::unwrap_used)]

use relaypool_simulator::worlds::demo_world;
use relaypool_tests::deployment::{Deployment, has_condition};
use relaypool_tests::process::relaypool_binary;
use serde_json::Value;
use tokio::process::Command;

/// What the program prints, in the cluster and namespace of the deployment.
async fn relaypool(deployment: &Deployment, arguments: &[&str]) -> String {
    let output = Command::new(relaypool_binary().unwrap())
        .args(arguments)
        .env("KUBECONFIG", deployment.control_plane.kubeconfig_path())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_taken_refused_and_explained() {
    let deployment = Deployment::start(demo_world(), 1).await.unwrap();
    deployment.apply_pool().await.unwrap();

    let profiles = relaypool(&deployment, &["policies"]).await;
    deployment.apply(&profiles).await.unwrap();
    deployment
        .kubectl(&["wait", "--for=condition=Ready", "mxp", "--all", "--timeout=60s"])
        .await
        .unwrap();
    let bad = "apiVersion: relaypool.dev/v1alpha1\nkind: MxPolicy\nmetadata: {name: bad}\nspec: {match: {domains: ['*']}, replyRules: [{category: ratelimited, action: {retryAfter: 1m}}]}";
    // An API server that knows CEL refuses it; one that does not leaves that to the reconciler. Both in the same words.
    let words = "must be a bounce category: invalid_recipient";
    match deployment.apply(bad).await {
        Err(refused) => assert!(refused.to_string().contains(words), "{refused}"),
        Ok(()) => {
            let stalled = |policy: &Value| has_condition(policy, "Stalled", "True");
            let policy = deployment
                .wait("the bad policy to be stalled", "mxp", "bad", stalled)
                .await
                .unwrap();
            assert!(policy["status"]["conditions"].to_string().contains(words), "{policy:#}");
        }
    }

    let policy = "apiVersion: relaypool.dev/v1alpha1\nkind: MxPolicy\nmetadata: {name: strict}\nspec: {match: {mxHosts: ['*.strict.example']}, limits: {maxConnections: 2}}";
    deployment.apply(policy).await.unwrap();
    deployment.apply(&delivery()).await.unwrap();
    deployment
        .wait("the site in the address's status", "sendingip", "ip-0", |ip| {
            ip["status"]["sites"].as_array().is_some_and(|sites| !sites.is_empty())
        })
        .await
        .unwrap();
    let arguments = ["explain", "strict.example", "-o", "json", "-n", &deployment.namespace];
    let explained: Value = serde_json::from_str(&relaypool(&deployment, &arguments).await).unwrap();
    let ip = &explained["sendingIps"][0];
    assert_eq!(ip["name"], "ip-0", "{explained:#}");
    assert_eq!(ip["sender"], "main-0", "{explained:#}");
    assert_eq!(ip["status"]["site"], "strict.example", "{explained:#}");
    assert_eq!(ip["status"]["connectionLimit"], 2, "{explained:#}");
    assert_eq!(explained["policies"][0]["name"], "strict", "{explained:#}");
}

fn delivery() -> String {
    "apiVersion: relaypool.dev/v1alpha1
kind: Delivery
metadata: {name: news}
spec:
  pool: main
  sender: {address: news@shop.example}
  message: {subject: Hello, text: Good day.}
  recipients: {inline: [{address: ada@strict.example}]}
"
    .to_owned()
}
