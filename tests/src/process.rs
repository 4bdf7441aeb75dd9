//! Programs that a test starts, watches and kills.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::wait::eventually;

/// How much of a log an error shows, in lines.
const TAIL_LINES: usize = 40;

/// What to start: a program, its arguments, its environment, and where its output goes.
#[derive(Clone, Debug)]
pub struct ProcessSpec {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    log: PathBuf,
}

impl ProcessSpec {
    /// A process called `name` in messages. Its standard output and error go to `<log_folder>/<name>.log`.
    pub fn new(name: &str, program: impl Into<PathBuf>, log_folder: &Path) -> Self {
        Self {
            name: name.to_owned(),
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            log: log_folder.join(format!("{name}.log")),
        }
    }

    /// The `relaypool` binary: `$RELAYPOOL_BIN`, else built by cargo first (see [`relaypool_binary`]).
    ///
    /// # Errors
    /// When there is no such file, or it does not build.
    pub fn relaypool(name: &str, log_folder: &Path) -> Result<Self> {
        Ok(Self::new(name, relaypool_binary()?, log_folder))
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets one environment variable; the rest is inherited.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    fn command(&self) -> Result<Command> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot open {}", self.log.display()))?;
        let mut command = if has_setpriv() {
            // Asks the kernel to kill the process when the test process dies, then becomes the program: same id.
            let mut wrapper = Command::new("setpriv");
            wrapper.args(["--pdeathsig", "KILL", "--"]).arg(&self.program);
            wrapper
        } else {
            Command::new(&self.program)
        };
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot duplicate the handle of a log file")?)
            .stderr(log);
        Ok(command)
    }
}

/// A process that was started from a [`ProcessSpec`]. Dropping it kills it.
///
/// Its id stays its own until this type has collected its exit status, so signals never reach a stranger.
#[derive(Debug)]
pub struct ChildProcess {
    spec: ProcessSpec,
    state: State,
    /// Where in the log the present run began, in bytes.
    log_start: u64,
}

#[derive(Debug)]
enum State {
    Running(Child),
    Ended(ExitStatus),
}

impl ChildProcess {
    /// Starts a process. That it starts does not mean that it stays: wait for a sign of life, and see
    /// [`check_running`](Self::check_running).
    ///
    /// # Errors
    /// When the program or its log file cannot be opened.
    pub fn start(spec: ProcessSpec) -> Result<Self> {
        let log_start = fs::metadata(&spec.log).map_or(0, |metadata| metadata.len());
        let child = spawn(spec.command()?)
            .with_context(|| format!("cannot start {} ({})", spec.name, spec.program.display()))?;
        Ok(Self {
            spec,
            state: State::Running(child),
            log_start,
        })
    }

    /// The name given to the process.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The process id while it runs.
    pub fn id(&self) -> Option<u32> {
        match &self.state {
            State::Running(child) => Some(child.id()),
            State::Ended(_) => None,
        }
    }

    /// The exit status, or `None` while the process runs.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        if let State::Running(child) = &mut self.state
            && let Some(status) = child
                .try_wait()
                .with_context(|| format!("cannot ask for {}", self.spec.name))?
        {
            self.state = State::Ended(status);
        }
        Ok(match &self.state {
            State::Running(_) => None,
            State::Ended(status) => Some(*status),
        })
    }

    /// Does nothing while the process runs.
    ///
    /// # Errors
    /// When it has ended; the error shows the end of its log.
    pub fn check_running(&mut self) -> Result<()> {
        match self.exit_status()? {
            None => Ok(()),
            Some(status) => Err(self.with_log(anyhow!("{} ended: {status}", self.spec.name))),
        }
    }

    /// Kills the process as a power cut would (SIGKILL), and returns when it is gone. One that has ended stays as is.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill9(&mut self) -> Result<ExitStatus> {
        let State::Running(child) = &mut self.state else {
            return self.exit_status()?.context("an ended process has a status");
        };
        child
            .kill()
            .with_context(|| format!("cannot kill {}", self.spec.name))?;
        let status = child
            .wait()
            .with_context(|| format!("cannot wait for {}", self.spec.name))?;
        self.state = State::Ended(status);
        Ok(status)
    }

    /// Asks the process to end (SIGTERM) and returns at once; see [`wait_for_exit`](Self::wait_for_exit).
    ///
    /// # Errors
    /// When it has ended already.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal("TERM")
    }

    /// Sends the signal of that name without `SIG`: `STOP` freezes the process, `CONT` lets it go on.
    ///
    /// # Errors
    /// When the process has ended already, or the signal is unknown.
    pub fn signal(&mut self, signal: &str) -> Result<()> {
        self.check_running()?;
        let id = self.id().context("a running process has an id")?;
        // The kill of the shell: there is one on every machine, while the program of that name may be missing.
        let output = Command::new("sh")
            .args(["-c", r#"kill -s "$1" "$2""#, "sh", signal])
            .arg(id.to_string())
            .stdin(Stdio::null())
            .output()
            .context("cannot start sh")?;
        ensure!(
            output.status.success(),
            "cannot send SIG{signal} to {}: {}",
            self.spec.name,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// Waits until the process has ended by itself or by a signal.
    ///
    /// # Errors
    /// When it still runs after `timeout`; the error shows the end of its log.
    pub async fn wait_for_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.spec.name);
        let outcome = eventually(&what, timeout, async || self.exit_status()).await;
        outcome.map_err(|error| self.with_log(error))
    }

    /// Starts the same program with the same arguments once more, after killing it if it still runs. The log goes on
    /// in the same file.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn restart(&mut self) -> Result<()> {
        self.kill9()?;
        *self = Self::start(self.spec.clone())?;
        Ok(())
    }

    /// Waits until the present run has written `text` to its log.
    ///
    /// # Errors
    /// When the process ends first, or `timeout` passes; the error shows the end of its log.
    pub async fn wait_for_log(&mut self, text: &str, timeout: Duration) -> Result<()> {
        let what = format!("{} to log {text:?}", self.spec.name);
        let outcome = eventually(&what, timeout, async || {
            // Asked before the log is read, so that the last words of a process are not missed.
            let ended = self.exit_status()?;
            if self.log()?.contains(text) {
                return Ok(Some(Ok(())));
            }
            Ok(ended.map(|status| Err(anyhow!("{} ended without logging {text:?}: {status}", self.spec.name))))
        })
        .await;
        outcome.and_then(|result| result).map_err(|error| self.with_log(error))
    }

    /// What the present run has written so far.
    ///
    /// # Errors
    /// When the log file cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = fs::read(&self.spec.log).with_context(|| format!("cannot read {}", self.spec.log.display()))?;
        let start = usize::try_from(self.log_start).unwrap_or(usize::MAX).min(bytes.len());
        Ok(String::from_utf8_lossy(&bytes[start..]).into_owned())
    }

    /// The log file, with the output of all runs.
    pub fn log_path(&self) -> &Path {
        &self.spec.log
    }

    /// The last lines of the present run's log, for messages.
    pub fn log_tail(&self) -> String {
        match self.log() {
            Ok(log) => {
                let lines: Vec<&str> = log.lines().collect();
                lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
            }
            Err(error) => format!("({error:#})"),
        }
    }

    /// The error, with the end of the log below it.
    pub(crate) fn with_log(&self, error: anyhow::Error) -> anyhow::Error {
        let (name, tail) = (&self.spec.name, self.log_tail());
        anyhow!("{error:#}\n--- end of the log of {name} ---\n{tail}\n---")
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // Best effort: an error here could only hide the one a test fails with.
        let _ = self.kill9();
    }
}

/// The `relaypool` binary: `$RELAYPOOL_BIN` if set, else the debug build, which cargo makes or updates first (once per
/// test process), so that no test runs a stale one.
///
/// # Errors
/// When the file is missing or does not build.
pub fn relaypool_binary() -> Result<PathBuf> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);

    if let Some(path) = std::env::var_os("RELAYPOOL_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "RELAYPOOL_BIN={} is not a file", path.display());
        return Ok(path);
    }
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = &*built {
        return Ok(path.clone());
    }
    let path = build_relaypool()?;
    *built = Some(path.clone());
    Ok(path)
}

fn build_relaypool() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "build",
            "--package",
            "relaypool",
            "--bin",
            "relaypool",
            "--message-format",
            "json-render-diagnostics",
        ])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "relaypool does not build: see the messages above"
    );
    // One JSON object a line; the one for the binary names the file.
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Value = serde_json::from_str(line).unwrap_or_default();
        if message["target"]["name"] == "relaypool"
            && let Some(path) = message["executable"].as_str()
        {
            return Ok(PathBuf::from(path));
        }
    }
    bail!("cargo built relaypool but did not say where it is")
}

/// Whether util-linux's `setpriv` is there.
fn has_setpriv() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

/// Starts a command from a thread that lives as long as this process.
///
/// The kernel's "kill me when my parent dies" means the parent *thread*, and a test's thread ends with the test: a
/// control plane that several tests share would die with the first one.
fn spawn(command: Command) -> io::Result<Child> {
    type Request = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();

    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        thread::spawn(move || {
            for (mut command, reply) in requests {
                // Nobody waits for the reply any more only when the caller's thread is gone.
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let (reply, answer) = mpsc::channel();
    spawner.send((command, reply)).map_err(io::Error::other)?;
    answer.recv().map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn shell(folder: &Path, script: &str) -> ChildProcess {
        ChildProcess::start(ProcessSpec::new("shell", "sh", folder).args(["-c", script])).unwrap()
    }

    #[tokio::test]
    async fn terminates_and_restarts_with_the_same_arguments() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell(
            folder.path(),
            "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done",
        );
        process.wait_for_log("ready", LONG).await.unwrap();
        process.terminate().unwrap();
        assert_eq!(process.wait_for_exit(LONG).await.unwrap().code(), Some(7));
        assert!(process.terminate().is_err(), "there is nothing left to signal");

        process.restart().unwrap();
        assert!(process.id().is_some());
        process.wait_for_log("ready", LONG).await.unwrap();
        assert_eq!(
            process.log().unwrap(),
            "ready\n",
            "the log of the run before is not part of it"
        );
        assert_eq!(process.kill9().unwrap().code(), None);
        assert_eq!(fs::read_to_string(process.log_path()).unwrap(), "ready\nready\n");
    }

    #[tokio::test]
    async fn errors_show_the_end_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell(folder.path(), "echo out of cheese >&2; exit 1");
        let error = process.wait_for_log("ready", LONG).await.unwrap_err();
        assert!(error.to_string().contains("out of cheese"), "{error}");
    }

    #[tokio::test]
    async fn dropping_kills_and_the_end_of_the_starting_thread_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let mut process = thread::spawn(move || shell(&path, "echo ready; exec sleep 1000"))
            .join()
            .unwrap();
        process.wait_for_log("ready", LONG).await.unwrap();
        process.check_running().unwrap();

        let folder_of_process = PathBuf::from(format!("/proc/{}", process.id().unwrap()));
        drop(process);
        if cfg!(target_os = "linux") {
            assert!(!folder_of_process.exists());
        }
    }
}
