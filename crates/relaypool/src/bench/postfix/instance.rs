//! One instance of Postfix: its folders, its configuration, its start and its end.

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::install::POSTFIX;
use super::usage::cpu_seconds_of_family;

/// How long a start may take.
const STARTING: Duration = Duration::from_secs(60);
/// Starts that are tried when the port is taken by somebody else in the meantime.
const ATTEMPTS: usize = 5;
/// Lines of the log that an error shows.
const TAIL_LINES: usize = 6;

/// A running instance. Dropping it stops it.
#[derive(Debug)]
pub struct Instance {
    folder: PathBuf,
    address: SocketAddr,
    keeper: Keeper,
}

impl Instance {
    /// Starts an instance in `folder` that relays all mail to `sink`, over up to `connections` connections at a time.
    pub async fn start(folder: &Path, sink: SocketAddr, connections: usize) -> anyhow::Result<Self> {
        let folder = fs::canonicalize(folder).with_context(|| format!("cannot use {}", folder.display()))?;
        make_folders(&folder)?;
        let mut attempt = 1;
        loop {
            let address = free_address()?;
            let keeper = Keeper::start(&folder)?;
            write_configuration(
                &folder,
                main_cf(&folder, &keeper.data, sink, connections),
                master_cf(address),
            )?;
            let instance = Self {
                folder: folder.clone(),
                address,
                keeper,
            };
            match instance.bring_up().await {
                Ok(()) => return Ok(instance),
                Err(_) if attempt < ATTEMPTS && instance.log().contains("Address already in use") => attempt += 1,
                Err(error) => return Err(error.context(format!("Postfix does not start: {}", instance.log_tail()))),
            }
        }
    }

    /// Where it takes mail.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its folder, without symbolic links.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Processor time of all its processes so far.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let path = self.folder.join("queue/pid/master.pid");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        cpu_seconds_of_family(
            text.trim()
                .parse()
                .with_context(|| format!("{} holds no number", path.display()))?,
        )
    }

    /// The last lines of its log, for messages.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Stops it and returns when its processes are gone.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        tokio::task::spawn_blocking(move || {
            let stopped = self.keeper.stop()?;
            ensure!(stopped, "Postfix does not stop: {}", self.log_tail());
            Ok(())
        })
        .await?
    }

    /// Returns when it has greeted a client.
    async fn bring_up(&self) -> anyhow::Result<()> {
        let start = control(&self.folder, "start")?.status();
        let status = timeout(STARTING, start).await.context("the start takes too long")??;
        ensure!(status.success(), "`postfix start` failed ({status})");
        timeout(STARTING, greeting(self.address))
            .await
            .context("no greeting in time")?
    }

    fn log(&self) -> String {
        // What the commands said themselves, then what the daemons said.
        [command_log(&self.folder), self.folder.join("maillog")]
            .iter()
            .map(|path| fs::read(path).unwrap_or_default())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }
}

/// Stops an instance when it is told to, when it is dropped, and when this process ends without either, be it killed.
///
/// It is a shell that waits for the end of a pipe which only this process holds open, in a process group of its own, so
/// that Ctrl-C does not reach it. The instance is stopped by Postfix's own command, which knows its processes.
#[derive(Debug)]
struct Keeper {
    shell: Child,
    /// Where the instance keeps its lock. Not in the instance's folder, because here alone an unprivileged account must
    /// be able to walk from the root to the folder, which a checkout in somebody's home may not allow.
    data: PathBuf,
}

impl Keeper {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let log = open_log(folder)?;
        let data = make_data_folder()?;
        let script = r#"read -r _; "$1" -c "$2" stop; status=$?; rm -rf -- "$3"; exit "$status""#;
        let shell = Command::new("sh")
            .args(["-c", script, "keeper", POSTFIX])
            .arg(configuration(folder))
            .arg(&data)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().context("cannot duplicate the handle of a log file")?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        Ok(Self { shell, data })
    }

    /// Stops the instance. The answer is whether it ran and has ended. A second call repeats the answer of the first.
    fn stop(&mut self) -> anyhow::Result<bool> {
        // Waiting closes the pipe first.
        Ok(self.shell.wait().context("cannot wait for `postfix stop`")?.success())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // After a failed start there is nothing to stop, and after a failed stop nobody left to tell.
        let _ = self.stop();
    }
}

fn configuration(folder: &Path) -> PathBuf {
    folder.join("configuration")
}

fn command_log(folder: &Path) -> PathBuf {
    folder.join("postfix.log")
}

fn open_log(folder: &Path) -> anyhow::Result<fs::File> {
    let path = command_log(folder);
    let file = OpenOptions::new().create(true).append(true).open(&path);
    file.with_context(|| format!("cannot open {}", path.display()))
}

/// The control command of the instance, with its output in the log.
fn control(folder: &Path, action: &str) -> anyhow::Result<tokio::process::Command> {
    let log = open_log(folder)?;
    let mut command = tokio::process::Command::new(POSTFIX);
    command
        .arg("-c")
        .arg(configuration(folder))
        .arg(action)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot duplicate the handle of a log file")?)
        .stderr(log)
        // The daemons must not get the signals that a terminal sends to our group.
        .process_group(0);
    Ok(command)
}

fn make_folders(folder: &Path) -> anyhow::Result<()> {
    for path in [configuration(folder), folder.join("queue")] {
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    Ok(())
}

/// A folder among the system's temporary ones that belongs to the mail system's account.
fn make_data_folder() -> anyhow::Result<PathBuf> {
    let folder = tempfile::Builder::new().prefix("relaypool-postfix-").tempdir();
    let folder = folder.context("cannot make a temporary folder")?;
    // The account comes with the package.
    let output = Command::new("chown")
        .arg("postfix")
        .arg(folder.path())
        .output()
        .context("cannot start chown")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "cannot give a folder to the account postfix, which needs root: {}",
        said.trim()
    );
    Ok(folder.keep())
}

/// An address of loopback whose port was free a moment ago. Somebody else may take it before Postfix does.
fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot bind a port of 127.0.0.1")?;
    listener.local_addr().context("cannot read the address of a socket")
}

async fn greeting(address: SocketAddr) -> anyhow::Result<()> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to {address}"))?;
    let mut line = String::new();
    BufReader::new(stream)
        .read_line(&mut line)
        .await
        .context("cannot read the greeting")?;
    ensure!(line.starts_with("220"), "unexpected greeting {:?}", line.trim_end());
    Ok(())
}

fn write_configuration(folder: &Path, main_cf: String, master_cf: String) -> anyhow::Result<()> {
    for (name, text) in [("main.cf", main_cf), ("master.cf", master_cf)] {
        let path = configuration(folder).join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn main_cf(folder: &Path, data: &Path, sink: SocketAddr, connections: usize) -> String {
    let (folder, data) = (folder.display(), data.display());
    let (address, port) = (sink.ip(), sink.port());
    format!(
        "\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {data}
maillog_file = {folder}/maillog
maillog_file_prefixes = {folder}
mail_owner = postfix
setgid_group = postdrop

# Loopback only, no names looked up.
myhostname = relay.bench.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_peername_lookup = no

# No local mail, no maps to ask.
alias_maps =
alias_database =
local_recipient_maps =
smtputf8_enable = no
smtpd_relay_restrictions = permit_mynetworks, reject

# All mail goes to the sink.
relayhost = [{address}]:{port}

# As fast as it can be.
default_process_limit = 200
default_destination_concurrency_limit = {connections}
smtp_destination_concurrency_limit = {connections}
initial_destination_concurrency = {connections}
qmgr_message_active_limit = 100000
qmgr_message_recipient_limit = 100000
in_flow_delay = 0

# Handing an open connection from one process to the next costs more than a new one on loopback: with the cache,
# Postfix was about a fifth slower.
smtp_connection_cache_on_demand = no
"
    )
}

fn master_cf(own: SocketAddr) -> String {
    format!(
        "\
# service type  private unpriv  chroot  wakeup  maxproc command
{own}   inet    n       -       n       -       -       smtpd
cleanup         unix    n       -       n       -       0       cleanup
qmgr            unix    n       -       n       300     1       qmgr
rewrite         unix    -       -       n       -       -       trivial-rewrite
bounce          unix    -       -       n       -       0       bounce
defer           unix    -       -       n       -       0       bounce
trace           unix    -       -       n       -       0       bounce
verify          unix    -       -       n       -       1       verify
flush           unix    n       -       n       1000?   0       flush
proxymap        unix    -       -       n       -       -       proxymap
smtp            unix    -       -       n       -       -       smtp
showq           unix    n       -       n       -       -       showq
error           unix    -       -       n       -       -       error
retry           unix    -       -       n       -       -       error
anvil           unix    -       -       n       -       1       anvil
scache          unix    -       -       n       -       1       scache
postlog         unix-dgram n    -       n       -       1       postlogd
"
    )
}
