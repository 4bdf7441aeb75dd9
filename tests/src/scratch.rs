//! A folder that is gone when its test is, even when the test is killed.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

/// A temporary folder, removed on drop; set `RELAYPOOL_TEST_KEEP=1` to keep it and read the logs in it.
///
/// A test that is killed (by a runner's timeout) runs no destructor, and one etcd leaves over 60 MB behind. So a small
/// shell waits for the end of a pipe that only this process holds open, and then removes the folder.
#[derive(Debug)]
pub(crate) struct ScratchFolder {
    folder: TempDir,
    janitor: Option<Child>,
}

impl ScratchFolder {
    /// Creates a folder whose name starts with `relaypool-` and `purpose`.
    pub(crate) fn new(purpose: &str) -> Result<Self> {
        let mut folder = tempfile::Builder::new()
            .prefix(&format!("relaypool-{purpose}-"))
            .tempdir()
            .context("cannot create a temporary folder")?;
        if std::env::var_os("RELAYPOOL_TEST_KEEP").is_some_and(|value| value == "1") {
            folder.disable_cleanup(true);
            return Ok(Self { folder, janitor: None });
        }
        let janitor = Command::new("sh")
            .args(["-c", r#"read -r _; rm -rf -- "$1""#, "janitor"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C and test runners end the process group of a test: the janitor must outlive it.
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        Ok(Self {
            folder,
            janitor: Some(janitor),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        if let Some(mut janitor) = self.janitor.take() {
            // Waiting closes the pipe first, so the janitor removes the folder and ends.
            let _ = janitor.wait();
        }
    }
}
