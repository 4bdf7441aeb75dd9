//! A running Relaypool: controller and senders as processes against a real API server, and simulated providers.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::{Api, Client};
use relaypool_api::{Delivery, DeliveryStatus};
use relaypool_simulator::{Keep, Options, Simulator, World};
use serde_json::Value;

use crate::control_plane::ControlPlane;
use crate::crds::install_crds;
use crate::process::{ChildProcess, ProcessSpec};
use crate::scratch::ScratchFolder;
use crate::wait::eventually;

/// Name of the pool.
pub const POOL: &str = "main";
/// A wait that takes longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Relaypool at work.
pub struct Deployment {
    /// The API server.
    pub control_plane: ControlPlane,
    /// Namespace of everything.
    pub namespace: String,
    /// The providers.
    pub simulator: Simulator,
    /// The operator.
    pub controller: ChildProcess,
    /// The senders of [`POOL`].
    pub senders: Vec<ChildProcess>,
    folder: ScratchFolder,
}

impl Deployment {
    /// Starts everything; the pool itself is applied by the test.
    pub async fn start(world: World, senders: usize) -> Result<Self> {
        crate::install_crypto_provider();
        let control_plane = ControlPlane::start().await?;
        install_crds(&control_plane.client().await?, relaypool_api::crds::documents()).await?;
        let namespace = control_plane.create_namespace("mail").await?;
        let simulator = Simulator::start(
            world,
            Options {
                keep: Keep::Messages,
                ..Options::default()
            },
        )
        .await?;
        let folder = ScratchFolder::new("deployment")?;
        let controller = controller(&control_plane, &namespace, &simulator, folder.path())?;
        let senders = (0..senders)
            .map(|ordinal| sender(&control_plane, &namespace, ordinal, folder.path()))
            .collect::<Result<_>>()?;
        Ok(Self {
            control_plane,
            namespace,
            simulator,
            controller,
            senders,
            folder,
        })
    }

    /// A client for the API server.
    pub async fn client(&self) -> Result<Client> {
        self.control_plane.client().await
    }

    /// Runs kubectl in the namespace; an exit code other than zero is an error.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let all: Vec<&str> = ["--namespace", &self.namespace]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        self.control_plane.kubectl_ok(&all).await
    }

    /// `kubectl apply` of one or more objects.
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        let arguments = ["--namespace", self.namespace.as_str(), "apply", "-f", "-"];
        let output = self.control_plane.kubectl_with_input(&arguments, yaml).await?;
        ensure!(
            output.status.success(),
            "kubectl apply: {}\n{yaml}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Applies a sample folder by kustomize, with its pool pointed at this deployment's providers.
    pub async fn apply_sample(&self, sample: &str) -> Result<()> {
        let overlay = self.folder.path().join("overlay");
        std::fs::create_dir_all(&overlay)?;
        let samples = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../manifests/samples")
            .join(sample);
        copy_folder(&samples, &overlay.join("base"))?;
        // patchesJson6902 is what both old and current kubectl understand.
        std::fs::write(
            overlay.join("kustomization.yaml"),
            "bases: [base]\npatchesJson6902:\n- target: { group: relaypool.dev, version: v1alpha1, kind: RelayPool, name: main }\n  path: pool.json\n",
        )?;
        let patch = serde_json::json!([
            { "op": "replace", "path": "/spec/dns/servers/0", "value": self.simulator.dns_address().to_string() },
            { "op": "replace", "path": "/spec/smtpPort", "value": self.simulator.smtp_port() },
        ]);
        std::fs::write(overlay.join("pool.json"), patch.to_string())?;
        let overlay = overlay.to_str().context("a temporary path is UTF-8")?.to_owned();
        self.kubectl(&["apply", "-k", &overlay]).await.map(drop)
    }

    /// The pool and one SendingIp for each sender, pointed at this deployment's providers.
    pub async fn apply_pool(&self) -> Result<()> {
        let mut yaml = format!(
            "apiVersion: relaypool.dev/v1alpha1\nkind: RelayPool\nmetadata: {{ name: {POOL} }}\nspec:\n  replicas: {}\n  dns: {{ servers: [\"{}\"] }}\n  smtpPort: {}\n  allowPrivateDestinations: true\n",
            self.senders.len(),
            self.simulator.dns_address(),
            self.simulator.smtp_port()
        );
        for ordinal in 0..self.senders.len() {
            write!(
                yaml,
                "---\napiVersion: relaypool.dev/v1alpha1\nkind: SendingIp\nmetadata: {{ name: ip-{ordinal} }}\nspec: {{ pool: {POOL}, address: 127.0.0.{}, ehloName: out{ordinal}.sender.example }}\n",
                ordinal + 1
            )?;
        }
        self.apply(&yaml).await
    }

    /// An object as JSON.
    pub async fn get(&self, kind: &str, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(
            &self.kubectl(&["get", kind, name, "-o", "json"]).await?,
        )?)
    }

    /// Waits until an object fits the condition.
    pub async fn wait(&self, what: &str, kind: &str, name: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let found = eventually(what, PATIENCE, async || {
            let object = self.get(kind, name).await?;
            if fits(&object) {
                Ok(Some(object))
            } else {
                anyhow::bail!("so far: {:#}", object["status"])
            }
        });
        found.await.with_context(|| self.logs())
    }

    /// Waits until the status of a Delivery fits the condition, and returns it. Cheaper than [`wait`](Self::wait), which
    /// starts kubectl for every look.
    pub async fn wait_for_status(
        &self,
        what: &str,
        delivery: &str,
        fits: impl Fn(&DeliveryStatus) -> bool,
    ) -> Result<DeliveryStatus> {
        let deliveries: Api<Delivery> = Api::namespaced(self.client().await?, &self.namespace);
        let found = eventually(what, PATIENCE, async || {
            let status = deliveries.get_status(delivery).await?.status.unwrap_or_default();
            if fits(&status) {
                Ok(Some(status))
            } else {
                anyhow::bail!("so far: {:#}", serde_json::to_value(&status)?)
            }
        });
        found.await.with_context(|| self.logs())
    }

    /// The ends of all logs, for failures.
    pub fn logs(&self) -> String {
        let all = std::iter::once(&self.controller).chain(&self.senders);
        all.map(|process| format!("=== {}\n{}\n", process.name(), process.log_tail()))
            .collect()
    }
}

fn controller(
    control_plane: &ControlPlane,
    namespace: &str,
    simulator: &Simulator,
    folder: &Path,
) -> Result<ChildProcess> {
    let spec = ProcessSpec::relaypool("controller", folder)?
        .args(["controller", "--namespace", namespace, "--admin", "127.0.0.1:0"])
        .args(["--dns-server", &simulator.dns_address().to_string()])
        .env("KUBECONFIG", control_plane.kubeconfig_path());
    ChildProcess::start(spec)
}

fn sender(control_plane: &ControlPlane, namespace: &str, ordinal: usize, folder: &Path) -> Result<ChildProcess> {
    let name = format!("{POOL}-{ordinal}");
    let spec = ProcessSpec::relaypool(&name, folder)?
        .args([
            "sender",
            "--namespace",
            namespace,
            "--pool",
            POOL,
            "--name",
            &name,
            "--admin",
            "127.0.0.1:0",
        ])
        .args(["--report-seconds", "1", "--spool"])
        .arg(folder.join(format!("spool-{ordinal}")))
        .env("KUBECONFIG", control_plane.kubeconfig_path());
    ChildProcess::start(spec)
}

fn copy_folder(from: &Path, to: &PathBuf) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("no sample {}", from.display()))? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Whether a condition of an object has this status.
pub fn has_condition(object: &Value, kind: &str, status: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|conditions| {
        conditions
            .iter()
            .any(|condition| condition["type"] == kind && condition["status"] == status)
    })
}

/// A number in the counts of a Delivery.
pub fn count(delivery: &Value, what: &str) -> u64 {
    delivery["status"]["counts"][what].as_u64().unwrap_or(0)
}
