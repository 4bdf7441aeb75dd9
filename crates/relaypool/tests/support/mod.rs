//! The built program, and a folder of YAML for it.

#![allow(dead_code)] // each test file uses its part

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use relaypool_simulator::{Keep, Options, Simulator, World};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

/// A wait that takes longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with YAML files and state. The program is run with it.
pub struct Files {
    folder: TempDir,
}

/// A program that came to its end.
pub struct Ended {
    pub exit: ExitStatus,
    pub output: String,
    pub errors: String,
}

/// A running program; it is killed when this is dropped.
pub struct Running(Child);

pub fn relaypool() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relaypool"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for variable in ["RUST_LOG", "RUST_BACKTRACE", "RUST_LIB_BACKTRACE", "RELAYPOOL_LOG_JSON"] {
        command.env_remove(variable);
    }
    command.kill_on_drop(true);
    command
}

pub async fn simulator(world: Value) -> Simulator {
    let world: World = serde_json::from_value(world).unwrap();
    let options = Options {
        keep: Keep::Messages,
        ..Options::default()
    };
    Simulator::start(world, options).await.unwrap()
}

/// A pool that sends to the simulator only, with one SendingIp.
pub fn pool(name: &str, address: &str, simulator: &Simulator) -> String {
    format!(
        "\
apiVersion: relaypool.dev/v1alpha1
kind: RelayPool
metadata:
  name: {name}
spec:
  dns:
    servers: [\"{}\"]
  smtpPort: {}
  allowPrivateDestinations: true
---
apiVersion: relaypool.dev/v1alpha1
kind: SendingIp
metadata:
  name: {name}-ip
spec:
  pool: {name}
  address: {address}
  ehloName: out.{name}.example
",
        simulator.dns_address(),
        simulator.smtp_port()
    )
}

/// A Delivery to rows of the ConfigMap of the same name; `more` are lines of its spec.
pub fn delivery(name: &str, pool: &str, rows: &[String], more: &str) -> String {
    let rows: String = rows.iter().map(|row| format!("    {row}\n")).collect();
    format!(
        "\
apiVersion: v1
kind: ConfigMap
metadata:
  name: {name}
data:
  list.csv: |
    email,name
{rows}---
apiVersion: relaypool.dev/v1alpha1
kind: Delivery
metadata:
  name: {name}
spec:
  pool: {pool}
  sender:
    address: news@shop.example
  message:
    subject: Hello {{{{ name }}}}
    text: Dear {{{{ name }}}}, good day.
  recipients:
    configMapKeyRef:
      name: {name}
      key: list.csv
{more}"
    )
}

/// Rows for `user0@domain`, `user1@domain`, ….
pub fn rows(count: usize, domain: &str) -> Vec<String> {
    (0..count)
        .map(|user| format!("user{user}@{domain},No. {user}"))
        .collect()
}

impl Files {
    pub fn new() -> Self {
        let files = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(files.yaml()).unwrap();
        files
    }

    pub fn yaml(&self) -> PathBuf {
        self.folder.path().join("yaml")
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Writes a file, over the one of this name.
    pub fn write(&self, name: &str, text: &str) -> &Self {
        std::fs::write(self.yaml().join(name), text).unwrap();
        self
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.yaml().join(name)).unwrap();
    }

    /// Changes a part of a file.
    pub fn replace(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.yaml().join(name)).unwrap();
        assert!(text.contains(from), "{name} has no '{from}'");
        self.write(name, &text.replace(from, to));
    }

    /// Starts `relaypool local`.
    pub fn start(&self) -> Running {
        let mut command = relaypool();
        command.arg("local").arg("--file").arg(self.yaml());
        command.arg("--state").arg(self.state());
        Running(command.spawn().unwrap())
    }

    /// Runs `relaypool local` to its end.
    pub async fn run(&self) -> Ended {
        self.start().ended().await
    }

    /// Runs `relaypool local` and returns what it says is wrong. It must have ended by itself.
    pub async fn refusal(&self) -> String {
        let ended = self.run().await;
        assert_eq!(ended.exit.code(), Some(1), "{ended}");
        assert_eq!(ended.output, "", "nothing on standard output when nothing was done");
        ended.errors
    }
}

impl Running {
    pub fn kill9(&mut self) {
        self.0.start_kill().unwrap();
    }

    /// Sends a signal, by its name without `SIG`. The process is not waited for yet, so its id is still its own.
    pub fn signal(&self, name: &str) {
        let id = self.0.id().expect("the program runs").to_string();
        let sent = std::process::Command::new("sh")
            .args(["-c", r#"kill -s "$1" "$2""#, "sh", name, &id])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Sends a signal again and again until the program has ended.
    pub async fn insist(mut self, name: &str) -> Ended {
        while self.0.try_wait().unwrap().is_none() {
            self.signal(name);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.ended().await
    }

    pub async fn ended(mut self) -> Ended {
        let (mut output, mut errors) = (String::new(), String::new());
        let (mut stdout, mut stderr) = (self.0.stdout.take().unwrap(), self.0.stderr.take().unwrap());
        let all = async {
            let (exit, read, read_errors) = tokio::join!(
                self.0.wait(),
                stdout.read_to_string(&mut output),
                stderr.read_to_string(&mut errors)
            );
            read.and(read_errors).unwrap();
            exit.unwrap()
        };
        let exit = tokio::time::timeout(PATIENCE, all).await.expect("the program ends");
        Ended { exit, output, errors }
    }
}

impl Ended {
    /// What a run that reached its end printed.
    pub fn success(self) -> Self {
        assert!(self.exit.success(), "{self}");
        self
    }

    /// The status of a Delivery in the printed YAML.
    pub fn status(&self, delivery: &str) -> Value {
        let documents =
            serde_yaml::Deserializer::from_str(&self.output).map(|document| Value::deserialize(document).unwrap());
        let mut found = documents.filter(|document| document["metadata"]["name"] == delivery);
        let mut document = found
            .next()
            .unwrap_or_else(|| panic!("there is no Delivery {delivery}: {self}"));
        assert_eq!(document["kind"], "Delivery");
        document["status"].take()
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{}\n--- output\n{}\n--- errors\n{}",
            self.exit, self.output, self.errors
        )
    }
}

/// A number in the counts of a status.
pub fn count(status: &Value, what: &str) -> u64 {
    status["counts"][what]
        .as_u64()
        .unwrap_or_else(|| panic!("no count {what} in {status:#}"))
}
