//! A Kubernetes API server for one test or for several.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{GetParams, ObjectMeta, PostParams, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::assets;
use crate::certificates::Certificates;
use crate::install_crypto_provider;
use crate::ports::ReservedPort;
use crate::process::{ChildProcess, ProcessSpec};
use crate::scratch::ScratchFolder;
use crate::wait::eventually;

/// A start takes a few seconds; a busy machine with two cores may need many times that.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// How often a start is tried again with other ports, when somebody took one between reservation and use.
const PORT_ATTEMPTS: usize = 5;

/// An API server with an administrator's access to it.
///
/// As a rule it is a kube-apiserver and an etcd of its own on 127.0.0.1, with nothing else running. With
/// `RELAYPOOL_TEST_USE_CLUSTER=1` it is the cluster that `KUBECONFIG` names, which the tests then write to.
///
/// Dropping it kills the processes it started and removes their files.
#[derive(Debug)]
pub struct ControlPlane {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    /// `None` for somebody else's cluster.
    servers: Option<Servers>,
}

/// The processes of a control plane of our own. The order of the fields is the order in which they are dropped: the
/// API server before the etcd it writes to, the files last.
#[derive(Debug)]
struct Servers {
    api_server: ChildProcess,
    /// Keeps the API server's port from others while it is stopped.
    port_while_stopped: Option<ReservedPort>,
    port: u16,
    etcd: ChildProcess,
    scratch: ScratchFolder,
}

impl Servers {
    fn check_running(&mut self) -> Result<()> {
        self.etcd.check_running()?;
        self.api_server.check_running()
    }
}

impl ControlPlane {
    /// Starts a control plane, or connects to the cluster that the environment names, and returns when it answers.
    ///
    /// The first start on a machine may build kube-apiserver, which takes minutes.
    ///
    /// # Errors
    /// When the programs cannot be provided, or the servers do not start; the error shows the end of their logs.
    pub async fn start() -> Result<Self> {
        install_crypto_provider();
        if std::env::var_os("RELAYPOOL_TEST_USE_CLUSTER").is_some_and(|value| value == "1") {
            return Self::connect().await;
        }
        let assets = assets::folder().await?;
        for _ in 1..PORT_ATTEMPTS {
            match Self::start_own(assets).await {
                Err(error) if format!("{error:#}").contains("address already in use") => {}
                outcome => return outcome,
            }
        }
        Self::start_own(assets).await
    }

    async fn start_own(assets: &Path) -> Result<Self> {
        let scratch = ScratchFolder::new("control-plane")?;
        let certificates = Certificates::create_in(scratch.path())?;
        // Reserved together, so that they differ.
        let (for_etcd, for_api_server) = (ReservedPort::any()?, ReservedPort::any()?);
        let (etcd_port, port) = (for_etcd.port(), for_api_server.port());
        let kubeconfig = scratch.path().join("kubeconfig");
        write_kubeconfig(&kubeconfig, port, &certificates)?;

        drop(for_etcd);
        let mut etcd = ChildProcess::start(etcd_spec(assets, scratch.path(), etcd_port))?;
        wait_until_accepting(&mut etcd, etcd_port).await?;
        drop(for_api_server);
        let spec = api_server_spec(assets, scratch.path(), &certificates, etcd_port, port);
        let api_server = ChildProcess::start(spec)?;
        let mut control_plane = Self {
            kubeconfig,
            kubectl: assets::kubectl_of(assets),
            servers: Some(Servers {
                api_server,
                port_while_stopped: None,
                port,
                etcd,
                scratch,
            }),
        };
        control_plane.wait_until_ready().await?;
        Ok(control_plane)
    }

    async fn connect() -> Result<Self> {
        let kubeconfig = std::env::var_os("KUBECONFIG")
            .context("RELAYPOOL_TEST_USE_CLUSTER=1 needs KUBECONFIG, the path of one kubeconfig file")?;
        let kubeconfig = PathBuf::from(kubeconfig);
        ensure!(
            kubeconfig.is_file(),
            "KUBECONFIG={} is not one file",
            kubeconfig.display()
        );
        let mut control_plane = Self {
            kubeconfig,
            kubectl: PathBuf::from("kubectl"),
            servers: None,
        };
        control_plane.wait_until_ready().await?;
        Ok(control_plane)
    }

    /// A kubeconfig file of an administrator, for the programs under test.
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig
    }

    /// Whether the API server is this test's own, so that it can be stopped and nobody else sees its objects.
    pub fn is_own(&self) -> bool {
        self.servers.is_some()
    }

    /// A new client of an administrator. It belongs to the calling test's runtime.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn client(&self) -> Result<Client> {
        Ok(Client::try_from(self.config().await?)?)
    }

    /// The client configuration of an administrator, to change before making a client from it.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn config(&self) -> Result<Config> {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)
            .with_context(|| format!("cannot read {}", self.kubeconfig.display()))?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        if self.is_own() {
            // A proxy from the environment does not know our loopback.
            config.proxy_url = None;
        }
        Ok(config)
    }

    /// Runs `kubectl` as administrator and returns its output, whatever its exit status.
    ///
    /// # Errors
    /// When kubectl cannot be started.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<Output> {
        self.kubectl_with_input(arguments, "").await
    }

    /// As [`kubectl`](Self::kubectl), with `input` on standard input, for `apply --filename -`.
    ///
    /// # Errors
    /// When kubectl cannot be started.
    pub async fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let mut command = Command::new(&self.kubectl);
        command
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(servers) = &self.servers {
            // kubectl caches what a server offers under its home folder, by address: an earlier test's server may
            // have had the same port.
            command.env("HOME", servers.scratch.path());
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", self.kubectl.display()))?;
        let mut stdin = child.stdin.take().context("the standard input of kubectl is a pipe")?;
        let write = async move {
            // A kubectl that fails early does not read its input; what it printed says more than this error.
            let _ = stdin.write_all(input.as_bytes()).await;
        };
        let ((), output) = tokio::join!(write, child.wait_with_output());
        output.context("cannot read the output of kubectl")
    }

    /// Runs `kubectl` as administrator and returns its standard output.
    ///
    /// # Errors
    /// When it cannot be started, or fails; the error shows what it wrote to standard error.
    pub async fn kubectl_ok(&self, arguments: &[&str]) -> Result<String> {
        let output = self.kubectl(arguments).await?;
        ensure!(
            output.status.success(),
            "kubectl {} failed ({}): {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        String::from_utf8(output.stdout).context("the output of kubectl is not UTF-8")
    }

    /// Creates a namespace with a name nobody else has, starting with `prefix`, and returns the name. Tests that share
    /// a control plane keep apart by it.
    ///
    /// # Errors
    /// When the API server refuses or is away.
    pub async fn create_namespace(&self, prefix: &str) -> Result<String> {
        let namespaces: Api<Namespace> = Api::all(self.client().await?);
        let metadata = ObjectMeta {
            generate_name: Some(format!("{prefix}-")),
            ..ObjectMeta::default()
        };
        let namespace = Namespace {
            metadata,
            ..Namespace::default()
        };
        let created = namespaces.create(&PostParams::default(), &namespace).await?;
        created.metadata.name.context("a created namespace has a name")
    }

    /// Kills the API server, as if its node had lost power. Connections to it are refused from then on. etcd keeps
    /// running, so nothing that was written is lost.
    ///
    /// # Errors
    /// When it has ended by itself before, or the cluster is not ours.
    pub fn stop_api_server(&mut self) -> Result<()> {
        let servers = self.own_servers()?;
        servers.api_server.check_running()?;
        servers.api_server.kill9()?;
        // Without the reservation the port is only likely to stay free, which is good enough.
        servers.port_while_stopped = ReservedPort::again(servers.port).ok();
        Ok(())
    }

    /// Starts the API server again, at the same address and with the same data, and returns when it answers.
    ///
    /// # Errors
    /// When it runs already, does not start, or the cluster is not ours.
    pub async fn start_api_server(&mut self) -> Result<()> {
        let servers = self.own_servers()?;
        servers.etcd.check_running()?;
        ensure!(servers.api_server.exit_status()?.is_some(), "the API server is running");
        servers.port_while_stopped = None;
        servers.api_server.restart()?;
        self.wait_until_ready().await
    }

    /// Ends the processes and removes their files, as dropping does, but tells what went wrong. A cluster that is not
    /// ours is left as it is.
    ///
    /// # Errors
    /// When a process had ended by itself, which is to say crashed, or cannot be killed. An API server that was stopped
    /// by [`stop_api_server`](Self::stop_api_server) is no error.
    pub fn shutdown(mut self) -> Result<()> {
        let Some(servers) = &mut self.servers else {
            return Ok(());
        };
        if servers.port_while_stopped.is_none() {
            servers.api_server.check_running()?;
        }
        servers.etcd.check_running()?;
        servers.api_server.kill9()?;
        servers.etcd.kill9()?;
        Ok(())
    }

    fn own_servers(&mut self) -> Result<&mut Servers> {
        self.servers.as_mut().context(
            "this is a cluster named by KUBECONFIG, whose API server the tests cannot stop; \
             unset RELAYPOOL_TEST_USE_CLUSTER for a control plane of their own",
        )
    }

    /// Waits until the API server answers an authorised `/readyz` with 200 and has made its first namespace.
    async fn wait_until_ready(&mut self) -> Result<()> {
        let mut config = self.config().await?;
        // The loop below is the retry: the client's own would hide what the server answers meanwhile.
        config.default_retry = false;
        config.connect_timeout = Some(Duration::from_secs(5));
        config.read_timeout = Some(Duration::from_secs(10));
        let client = Client::try_from(config)?;
        let namespaces: Api<Namespace> = Api::all(client.clone());

        let outcome = eventually("the API server to be ready", START_TIMEOUT, async || {
            if let Some(Err(error)) = self.servers.as_mut().map(Servers::check_running) {
                return Ok(Some(Err(error)));
            }
            // A request for a thing called "readyz" in a collection without a path: kube has no other public way to
            // name a path that is no resource.
            client
                .request_text(Request::new("").get("readyz", &GetParams::default())?)
                .await?;
            Ok(namespaces.get_opt("default").await?.map(|_| Ok(())))
        })
        .await;
        match (outcome, &self.servers) {
            (Ok(result), _) => result,
            (Err(error), Some(servers)) => Err(servers.api_server.with_log(servers.etcd.with_log(error))),
            (Err(error), None) => Err(error),
        }
    }
}

/// Waits until a server accepts connections to its port on 127.0.0.1.
async fn wait_until_accepting(server: &mut ChildProcess, port: u16) -> Result<()> {
    let what = format!("{} to accept connections", server.name());
    let outcome = eventually(&what, START_TIMEOUT, async || {
        if let Err(error) = server.check_running() {
            return Ok(Some(Err(error)));
        }
        TcpStream::connect(("127.0.0.1", port)).await?;
        Ok(Some(Ok(())))
    })
    .await;
    outcome.unwrap_or_else(|error| Err(server.with_log(error)))
}

fn etcd_spec(assets: &Path, folder: &Path, port: u16) -> ProcessSpec {
    // Only one member: nobody ever connects to its peer port, so that may be any.
    let peer = "http://127.0.0.1:0";
    ProcessSpec::new("etcd", assets.join("etcd"), folder)
        .arg("--data-dir")
        .arg(folder.join("etcd"))
        .args(["--listen-client-urls", &format!("http://127.0.0.1:{port}")])
        .args(["--advertise-client-urls", &format!("http://127.0.0.1:{port}")])
        .args(["--listen-peer-urls", peer])
        .args(["--initial-advertise-peer-urls", peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        // Its data ends with the test: it must not wait for the disk.
        .arg("--unsafe-no-fsync")
}

/// Flags that 1.20 and current releases have in common.
fn api_server_spec(assets: &Path, folder: &Path, files: &Certificates, etcd_port: u16, port: u16) -> ProcessSpec {
    let with_path = |flag: &str, path: &Path| {
        let mut argument = OsStr::new(flag).to_owned();
        argument.push("=");
        argument.push(path);
        argument
    };
    ProcessSpec::new("kube-apiserver", assets.join("kube-apiserver"), folder)
        .arg(format!("--etcd-servers=http://127.0.0.1:{etcd_port}"))
        .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
        .arg(format!("--secure-port={port}"))
        .arg(with_path("--tls-cert-file", &files.server_certificate))
        .arg(with_path("--tls-private-key-file", &files.server_key))
        .arg(with_path("--client-ca-file", &files.authority))
        .arg("--authorization-mode=RBAC")
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg(with_path(
            "--service-account-signing-key-file",
            &files.service_account_key,
        ))
        .arg(with_path(
            "--service-account-key-file",
            &files.service_account_public_key,
        ))
        .arg("--service-cluster-ip-range=10.96.0.0/16")
        // A loopback address is no valid endpoint of the service `kubernetes`, and nobody here uses that service.
        .arg("--endpoint-reconciler-type=none")
        // Both wait for kube-controller-manager: the first refuses pods in a namespace without a default service
        // account, the second puts a finalizer on volume claims that nobody would take off.
        .arg("--disable-admission-plugins=ServiceAccount,StorageObjectInUseProtection")
}

fn write_kubeconfig(path: &Path, port: u16, files: &Certificates) -> Result<()> {
    let name = "relaypool-test";
    let kubeconfig: Value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": name,
            "cluster": {
                "server": format!("https://127.0.0.1:{port}"),
                "certificate-authority": text(&files.authority)?,
            },
        }],
        "users": [{
            "name": name,
            "user": {
                "client-certificate": text(&files.admin_certificate)?,
                "client-key": text(&files.admin_key)?,
            },
        }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
        "current-context": name,
    });
    // JSON is YAML.
    fs::write(path, kubeconfig.to_string()).with_context(|| format!("cannot write {}", path.display()))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| anyhow!("{} is not UTF-8", path.display()))
}
