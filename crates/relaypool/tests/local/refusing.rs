//! Files that cannot be used: what is wrong, and where, before anything is sent.

use relaypool_api::dkim_key::DkimAlgorithm;
use relaypool_message::dkim::generate;

use super::support::{Files, delivery, rows};

/// Nothing listens there, and nothing will be asked.
const POOL: &str = "\
apiVersion: relaypool.dev/v1alpha1
kind: RelayPool
metadata:
  name: main
spec:
  dns:
    servers: [\"127.0.0.1:1\"]
---
apiVersion: relaypool.dev/v1alpha1
kind: SendingIp
metadata:
  name: first
spec:
  pool: main
  address: 127.0.0.1
  ehloName: out.shop.example
";

pub fn ed25519() -> String {
    generate(DkimAlgorithm::Ed25519).unwrap()
}

/// A DkimKey and its Secret.
pub fn key(algorithm: &str, pem: &str) -> String {
    let pem: String = pem.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "\
kind: DkimKey
metadata:
  name: shop
spec:
  domain: shop.example
  selector: s1
  algorithm: {algorithm}
  secretRef:
    name: shop-dkim
---
kind: Secret
metadata:
  name: shop-dkim
stringData:
  private.pem: |
{pem}"
    )
}

/// Sound files.
fn files() -> Files {
    let files = Files::new();
    files
        .write("pool.yaml", POOL)
        .write("key.yaml", &key("Ed25519", &ed25519()))
        .write("news.yaml", &delivery("news", "main", &rows(3, "inbox.example"), ""));
    files
}

/// One change each, and the words of the refusal.
const MISTAKES: [(&str, &str, &str, &[&str]); 22] = [
    // YAML
    ("pool.yaml", "  dns:\n", "  dns: [\n", &["pool.yaml:8: "]),
    ("news.yaml", "  pool: main\n", "\tpool: main\n", &["news.yaml:17: "]),
    (
        "pool.yaml",
        "[\"127.0.0.1:1\"]",
        "127.0.0.1",
        &["pool.yaml:7: ", "spec.dns.servers"],
    ),
    (
        "pool.yaml",
        "  address: 127.0.0.1\n",
        "  address: localhost\n",
        &["pool.yaml:15: ", "spec.address"],
    ),
    (
        "pool.yaml",
        "kind: SendingIp",
        "kind: SendingIP",
        &["pool.yaml:10: ", "kind 'SendingIP' is not known here"],
    ),
    // Fields
    (
        "news.yaml",
        "subject:",
        "subjct:",
        &[
            "news.yaml:13: Delivery news: spec.message.subjct",
            "did you mean subject?",
        ],
    ),
    (
        "pool.yaml",
        "  ehloName:",
        "  helo:",
        &["pool.yaml:10: SendingIp first: spec.helo: there is no such field"],
    ),
    (
        "pool.yaml",
        "  dns:\n",
        "  smtpPort: 70000\n  dns:\n",
        &["pool.yaml:6: spec.smtpPort: must be at most 65535"],
    ),
    (
        "pool.yaml",
        "  name: main\n",
        "  name: Main_\n",
        &["RelayPool Main_: metadata.name is made of lower case letters"],
    ),
    (
        "pool.yaml",
        "  name: first\n",
        "  labels: {}\n",
        &["metadata.name is missing"],
    ),
    // Rules
    (
        "news.yaml",
        "    text: ",
        "    priority: ",
        &["Delivery news: spec.message.priority"],
    ),
    (
        "news.yaml",
        "    text: Dear {{ name }}, good day.\n",
        "",
        &["Delivery news: spec.message", "a message needs text, html or both"],
    ),
    (
        "news.yaml",
        "  pool: main\n",
        "  pool: main\n  relay: {}\n",
        &["set exactly one of recipients"],
    ),
    (
        "pool.yaml",
        "  address: 127.0.0.1\n",
        "  address: 127.0.0.1\n  egress: { socks5: 'proxy:1080' }\n",
        &["spec.egress.socks5"],
    ),
    // What is referred to
    (
        "news.yaml",
        "      key: list.csv",
        "      key: lists.csv",
        &["Delivery news", "key lists.csv of ConfigMap news is missing"],
    ),
    (
        "news.yaml",
        "  pool: main",
        "  pool: maine",
        &["Delivery news: there is no RelayPool maine"],
    ),
    (
        "pool.yaml",
        "  pool: main",
        "  pool: maine",
        &["Delivery news", "pool main has no SendingIp that can be used"],
    ),
    (
        "key.yaml",
        "    name: shop-dkim",
        "    name: shop-dkin",
        &["DkimKey shop", "key private.pem of Secret shop-dkin is missing"],
    ),
    (
        "key.yaml",
        "  private.pem:",
        "  private.key:",
        &["DkimKey shop", "key private.pem of Secret shop-dkim is missing"],
    ),
    // The message and the recipients
    (
        "news.yaml",
        "subject: Hello {{ name }}",
        "subject: Hello {{ name",
        &["Delivery news", "message.subject line 1: "],
    ),
    (
        "news.yaml",
        "    email,name\n",
        "    mail,name\n",
        &[
            "key list.csv of ConfigMap news",
            "no column is named address or email",
            "mail, name",
        ],
    ),
    (
        "news.yaml",
        "inbox.example,",
        ",",
        &["none of the 3 rows of the list can get the mail: 3 × Malformed address"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_is_named_with_its_place() {
    let files = files();
    let mut unclear = Vec::new();
    for (file, from, to, words) in MISTAKES {
        let sound = std::fs::read_to_string(files.yaml().join(file)).unwrap();
        assert!(sound.contains(from), "{from}");
        files.write(file, &sound.replace(from, to));
        let refusal = files.refusal().await;
        let missing: Vec<_> = words.iter().filter(|word| !refusal.contains(**word)).collect();
        if !missing.is_empty() {
            unclear.push(format!("'{to}' is answered without {missing:?}: {refusal}"));
        }
        files.write(file, &sound);
    }
    assert!(unclear.is_empty(), "{}", unclear.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_and_files_that_are_of_no_use_are_named() {
    let files = Files::new();
    let yaml = files.yaml();
    let refusal = files.refusal().await;
    assert!(
        refusal.contains(&format!("{} has no .yaml or .yml file", yaml.display())),
        "{refusal}"
    );

    files.write("pool.yaml", POOL);
    let refusal = files.refusal().await;
    assert!(
        refusal.contains("there is no Delivery in") && refusal.contains("1 pools"),
        "{refusal}"
    );

    files.write("again.yaml", POOL);
    let refusal = files.refusal().await;
    assert!(
        refusal.contains("pool.yaml:2: RelayPool main: there is another of this kind and name"),
        "{refusal}"
    );

    std::fs::write(yaml.join("again.yaml"), b"kind: \xff\xfe").unwrap();
    let refusal = files.refusal().await;
    assert!(
        refusal.contains("cannot read") && refusal.contains("again.yaml"),
        "{refusal}"
    );

    std::fs::remove_dir_all(&yaml).unwrap();
    let refusal = files.refusal().await;
    assert!(
        refusal.contains(&format!("cannot read {}", yaml.display())),
        "{refusal}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_that_cannot_be_made_is_named() {
    let files = files();
    std::fs::write(files.state(), "a file").unwrap();
    let refusal = files.refusal().await;
    assert!(
        refusal.contains("cannot make") && refusal.contains(files.state().to_str().unwrap()),
        "{refusal}"
    );
}

/// A message about a key goes to logs and tickets.
#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_key_is_named_and_never_shown() {
    let files = files();
    let (rsa, ed25519) = (generate(DkimAlgorithm::Rsa).unwrap(), ed25519());
    let half = rsa.lines().take(10).collect::<Vec<_>>().join("\n");
    let unheaded: String = rsa.lines().filter(|line| !line.starts_with('-')).collect();
    for (algorithm, pem) in [("Rsa", &ed25519), ("Ed25519", &rsa), ("Rsa", &half), ("Rsa", &unheaded)] {
        files.write("key.yaml", &key(algorithm, pem));
        let refusal = files.refusal().await;
        assert!(
            refusal.contains("DkimKey shop") && refusal.contains("Secret shop-dkim"),
            "{refusal}"
        );
        shows_nothing_of(pem, &refusal);
    }
    // Mistakes in the YAML around it.
    for (from, to) in [
        ("stringData:\n  private.pem: |", "stringData: |"),
        ("stringData", "data"),
        ("|\n", "[\n"),
    ] {
        files.write("key.yaml", &key("Rsa", &rsa).replace(from, to));
        let refusal = files.refusal().await;
        assert!(refusal.contains("key.yaml:"), "{refusal}");
        shows_nothing_of(&rsa, &refusal);
    }
}

fn shows_nothing_of(pem: &str, refusal: &str) {
    let body = pem.lines().filter(|line| !line.starts_with('-'));
    for line in body {
        let part: String = line.chars().take(16).collect();
        assert!(!refusal.contains(&part), "{refusal}");
    }
}
