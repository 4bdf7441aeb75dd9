//! `relaypool explain` on manifests, with a name server on this machine.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use relaypool_simulator::Simulator;
use serde_json::{Value, json};
use support::{Files, relaypool, simulator};

const POLICIES: &str = "\
kind: MxPolicy
metadata: { name: everything }
spec:
  match: { domains: ['*'] }
  timeouts: { connect: 10s }
  retry: { firstInterval: 2m }
---
kind: MxPolicy
metadata: { name: am0 }
spec:
  match: { mxHosts: ['mta?.am0.yahoodns.net'] }
  scope: Pool
  limits: { maxConnections: 8, rate: 3600/h }
  adaptive: { max: { connections: 6 } }
---
kind: MxPolicy
metadata: { name: bank }
spec:
  match: { domains: [bank.example] }
  tls: Required
  replyRules:
    - { text: busy, code: 450, trigger: { count: 3, within: 10m }, action: { suspendFor: 1h, throttle: 10/m } }
---
kind: MxPolicy
metadata: { name: nothing-new }
spec:
  priority: -5
  match: { domains: ['*.example'] }
  timeouts: { connect: 5s }
---
kind: MxPolicy
metadata: { name: of-another-pool }
spec:
  pools: [marketing]
  match: { domains: ['*'] }
  tls: Disabled
";

async fn world() -> Simulator {
    let hosts =
        json!([{ "name": "mta5.am0.yahoodns.net", "priority": 1 }, { "name": "mta6.am0.yahoodns.net", "priority": 1 }]);
    let behind =
        json!([{ "name": "mta5.am0.yahoodns.net", "priority": 5 }, { "name": "dead.bank.example", "priority": 10 }]);
    simulator(json!({
        "providers": [{ "name": "big", "domains": ["people.example"], "mxHosts": hosts }],
        "zones": [
            { "kind": "unreachable", "name": "dead.bank.example" },
            { "kind": "mx", "name": "bank.example", "hosts": behind },
            { "kind": "nullMx", "name": "nomail.example" },
            { "kind": "servFail", "name": "broken.example" },
        ],
    }))
    .await
}

/// A pool and the policies.
fn files(simulator: &Simulator) -> Files {
    let files = Files::new();
    files
        .write("pool.yaml", &support::pool("main", "127.0.0.1", simulator))
        .write("policies.yaml", POLICIES);
    files
}

struct Answer {
    succeeded: bool,
    output: String,
    errors: String,
}

async fn explain(files: &Files, arguments: &[&str]) -> Answer {
    let mut command = relaypool();
    command.arg("explain").args(arguments).arg("-f").arg(files.yaml());
    let output = tokio::time::timeout(support::PATIENCE, command.output())
        .await
        .unwrap()
        .unwrap();
    Answer {
        succeeded: output.status.success(),
        output: String::from_utf8(output.stdout).unwrap(),
        errors: String::from_utf8(output.stderr).unwrap(),
    }
}

async fn explained(files: &Files, arguments: &[&str]) -> String {
    let answer = explain(files, arguments).await;
    assert!(answer.succeeded, "{}", answer.errors);
    answer.output
}

#[tokio::test(flavor = "multi_thread")]
async fn each_setting_is_traced_to_who_says_so() {
    let simulator = world().await;
    let files = files(&simulator);
    for (name, domain) in [("site", "people.example"), ("domain", "Bank.Example")] {
        let explained = explained(&files, &[domain]).await;
        insta::assert_snapshot!(name, without_addresses(&explained));
    }
}

/// Simulators choose the addresses of their hosts so that several can run at once.
fn without_addresses(text: &str) -> String {
    let line = |line: &str| match line.split_once(" 127.") {
        Some((start, _)) => format!("{start} (address)\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_get_json() {
    let simulator = world().await;
    let files = files(&simulator);
    let json: Value = serde_json::from_str(&explained(&files, &["bank.example", "-o", "json"]).await).unwrap();
    assert_eq!(json["lane"], "am0.yahoodns.net (bank)");
    assert_eq!(json["mx"]["hosts"][0]["name"], "mta5.am0.yahoodns.net");
    let setting = |name: &str| {
        let settings = json["settings"].as_array().unwrap().iter();
        settings
            .clone()
            .find(|setting| setting["setting"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(
        setting("tls"),
        json!({ "setting": "tls", "value": "Required", "from": { "kind": "MxPolicy", "name": "bank", "matchedBy": "domain" } })
    );
    assert_eq!(
        setting("limits.maxMessagesPerConnection")["from"],
        json!({ "kind": "BuiltInProfile", "name": "yahoo" })
    );
    assert_eq!(setting("adaptive.min.rate")["value"], Value::Null);
    assert_eq!(json["sendingIps"], Value::Null);
    let order: Vec<&str> = json["policies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|policy| policy["name"].as_str().unwrap())
        .collect();
    assert_eq!(order, ["bank", "am0", "everything", "nothing-new", "yahoo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn domains_without_a_way_are_answers_too() {
    let simulator = world().await;
    let files = files(&simulator);
    for (domain, words, fate) in [
        (
            "nomail.example",
            "says by a null MX that it takes no mail",
            "messages fail at once (invalid_domain)",
        ),
        (
            "nowhere.example",
            "domain nowhere.example does not exist",
            "messages fail at once (invalid_domain)",
        ),
        (
            "broken.example",
            "name servers failed for broken.example",
            "messages are tried again",
        ),
    ] {
        let output = explained(&files, &[domain]).await;
        assert!(output.contains(words) && output.contains(fate), "{output}");
        assert!(
            output.contains("retry.firstInterval"),
            "what holds all the same is shown: {output}"
        );
        assert!(!output.contains("built-in profile yahoo"), "{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_can_be_given_by_hand() {
    let files = Files::new();
    files.write("policies.yaml", POLICIES);
    let output = explained(&files, &["anything.test", "--mx", "mx00.gmx.net,mx01.gmx.net"]).await;
    assert!(
        output.contains("Pool    none; with the defaults") && output.contains("Site    gmx.net"),
        "{output}"
    );
    assert!(output.contains("built-in profile gmx"), "{output}");

    files.write(
        "pool.yaml",
        "kind: RelayPool\nmetadata: { name: main }\nspec: { providerProfiles: Disabled, mode: Static }\n",
    );
    let output = explained(&files, &["anything.test", "--mx", "mx00.gmx.net"]).await;
    assert!(
        !output.contains("built-in profile gmx") && output.contains("without built-in profiles"),
        "{output}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_explained_is_an_error_that_says_why() {
    let simulator = world().await;
    let files = files(&simulator);
    files.write(
        "other.yaml",
        "kind: RelayPool\nmetadata: { name: marketing }\nspec: {}\n",
    );
    for (arguments, words) in [
        (&["people.example"][..], "name one of main, marketing with --pool"),
        (
            &["people.example", "--pool", "sales"],
            "there is no RelayPool sales; there are main, marketing",
        ),
        (&["not a domain", "--pool", "main"], "not a domain"),
    ] {
        let answer = explain(&files, arguments).await;
        assert!(!answer.succeeded && answer.output.is_empty(), "{}", answer.output);
        assert!(answer.errors.contains(words), "{}", answer.errors);
    }
    let output = explained(
        &files,
        &["people.example", "--pool", "marketing", "--mx", "mx.people.example"],
    )
    .await;
    assert!(
        output.contains("MxPolicy of-another-pool (by every domain)"),
        "{output}"
    );
}

/// As kubectl calls its plugins.
#[test]
fn the_plugin_calls_itself_as_the_user_does() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-relaypool");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_relaypool"), &plugin).unwrap();
    let help = std::process::Command::new(&plugin)
        .args(["explain", "--help"])
        .output()
        .unwrap();
    let said = String::from_utf8(help.stdout).unwrap();
    assert!(
        said.contains("Usage: kubectl relaypool explain [OPTIONS] <DOMAIN>"),
        "{said}"
    );
    let explained = std::process::Command::new(&plugin)
        .args(["explain", "people.example", "--mx", "mx1.comcast.net", "-f"])
        .arg(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8(explained.stderr).unwrap();
    assert!(said.contains("has no .yaml or .yml file"), "{said}");
}
