//! The YAML that the demo applies, written out so that a reader can look at it and try it again.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use relaypool_api::dkim_key::DkimAlgorithm;
use relaypool_message::dkim::{SigningKey, generate};

/// Rows of the recipient list.
pub const RECIPIENTS: usize = 2_000;

/// The domain that the mail is from.
const SENDER_DOMAIN: &str = "shop.example";

/// Where the simulated providers are.
#[derive(Debug, Clone, Copy)]
pub struct DemoNetwork {
    /// Their DNS server.
    pub dns: SocketAddr,
    /// The port of their MX hosts.
    pub smtp_port: u16,
}

/// A DNS record to publish: name and text.
pub type TxtRecord = (String, String);

/// Writes the files into a folder; returns the DKIM records that verifiers will need.
pub fn demo_files(folder: &Path, network: DemoNetwork) -> anyhow::Result<Vec<TxtRecord>> {
    let (keys, records) = dkim_keys()?;
    for (name, text) in [
        ("1-pool.yaml", pool(network)),
        ("2-policies.yaml", POLICIES.to_owned()),
        ("3-dkim.yaml", keys),
        ("4-recipients.yaml", recipients()),
        ("5-delivery.yaml", DELIVERY.to_owned()),
    ] {
        let file = folder.join(name);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(records)
}

fn pool(network: DemoNetwork) -> String {
    let DemoNetwork { dns, smtp_port } = network;
    format!(
        "\
# A pool that sends to the simulated providers of this machine only.
apiVersion: relaypool.dev/v1alpha1
kind: RelayPool
metadata:
  name: demo
spec:
  returnPathDomain: bounces.{SENDER_DOMAIN}
  dns:
    servers: [\"{dns}\"]
  smtpPort: {smtp_port}
  allowPrivateDestinations: true
---
apiVersion: relaypool.dev/v1alpha1
kind: SendingIp
metadata:
  name: first
spec:
  pool: demo
  address: 127.0.0.1
  ehloName: out1.{SENDER_DOMAIN}
---
apiVersion: relaypool.dev/v1alpha1
kind: SendingIp
metadata:
  name: second
spec:
  pool: demo
  address: 127.0.0.2
  ehloName: out2.{SENDER_DOMAIN}
"
    )
}

const POLICIES: &str = "\
# Retry after seconds instead of minutes, so that the demo does not take hours.
apiVersion: relaypool.dev/v1alpha1
kind: MxPolicy
metadata:
  name: everyone
spec:
  match:
    domains: [\"*\"]
  limits:
    maxConnections: 10
  retry:
    firstInterval: 2s
    maxInterval: 8s
";

const DELIVERY: &str = "\
apiVersion: relaypool.dev/v1alpha1
kind: Delivery
metadata:
  name: autumn-sale
spec:
  pool: demo
  sender:
    address: news@shop.example
    name: The Shop
    replyTo: help@shop.example
  message:
    subject: \"{{ name }}, your basket is waiting\"
    text: |
      Hello {{ name }},

      {{ items }} articles are in your basket. They are yours for {{ discount }} % less until Sunday.

      The Shop
    html: |
      <h1>Hello {{ name }}</h1>
      <p>{{ items }} articles are in your basket. They are yours for <b>{{ discount }} %</b> less until Sunday.</p>
    listUnsubscribe:
      url: \"https://shop.example/unsubscribe?who={{ address | urlencode }}\"
      oneClick: true
  recipients:
    configMapKeyRef:
      name: customers
      key: customers.csv
  # Full mailboxes are tried again until this is over; then their messages fail.
  validity: 45s
";

/// Two keys for one domain: every message has both signatures.
fn dkim_keys() -> anyhow::Result<(String, Vec<TxtRecord>)> {
    let mut yaml = String::new();
    let mut records = Vec::new();
    for (name, selector, algorithm, kind) in [
        ("rsa", "rsa2026", DkimAlgorithm::Rsa, "Rsa"),
        ("ed25519", "ed2026", DkimAlgorithm::Ed25519, "Ed25519"),
    ] {
        let pem = generate(algorithm)?;
        let key = SigningKey::from_pem(pem.as_bytes(), algorithm)?;
        records.push((format!("{selector}._domainkey.{SENDER_DOMAIN}"), key.dns_record()));
        write!(
            yaml,
            "\
---
apiVersion: relaypool.dev/v1alpha1
kind: DkimKey
metadata:
  name: {name}
spec:
  domain: {SENDER_DOMAIN}
  selector: {selector}
  algorithm: {kind}
  secretRef:
    name: dkim-{name}
---
apiVersion: v1
kind: Secret
metadata:
  name: dkim-{name}
stringData:
  private.pem: |
{}",
            indented(&pem)
        )?;
    }
    Ok((yaml, records))
}

fn recipients() -> String {
    let mut csv = String::from("email,name,items,discount\n");
    for row in 0..RECIPIENTS {
        // Writing to a String cannot fail.
        let _ = writeln!(csv, "{}", recipient(row));
    }
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: customers\ndata:\n  customers.csv: |\n{}",
        indented(&csv)
    )
}

/// Mostly good addresses at three providers, and the mistakes that real lists have.
fn recipient(row: usize) -> String {
    const NAMES: [&str; 8] = ["Ada", "Grace", "Søren", "Nadia", "李雷", "José", "Ingrid", "Omar"];
    let name = NAMES[row % NAMES.len()];
    let (items, discount) = (1 + row % 5, 5 * (1 + row % 4));
    let address = match row {
        _ if row % 400 == 399 => format!("customer{}@generous.example", row - 1),
        _ if row % 500 == 250 => "not an address".to_owned(),
        _ if row % 250 == 120 => format!("customer{row}@gone-{row}.example"),
        _ if row % 1_000 == 777 => format!("customer{row}@nomail.example"),
        _ => format!("customer{row}@{}", domain(row)),
    };
    format!("{address},{name},{items},{discount}")
}

fn domain(row: usize) -> &'static str {
    match row % 10 {
        0..=3 | 8 => "generous.example",
        4 => "lavish.example",
        5 | 6 | 9 => "strict.example",
        _ => "village.example",
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
