//! Finding the programs of a control plane.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;
use tokio::sync::OnceCell;

/// The folder with `kube-apiserver`, `etcd` and, as a rule, `kubectl`.
///
/// The provisioning script decides which; on a machine that never ran it, it builds them, which takes minutes.
pub(crate) async fn folder() -> Result<&'static Path> {
    static FOLDER: OnceCell<PathBuf> = OnceCell::const_new();
    FOLDER.get_or_try_init(provision).await.map(PathBuf::as_path)
}

async fn provision() -> Result<PathBuf> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/provision/kubernetes.sh");
    let output = Command::new("bash")
        .arg(script)
        .stdin(Stdio::null())
        // What it does and why it fails is for the person who waits.
        .stderr(Stdio::inherit())
        .output()
        .await
        .context("cannot start bash")?;
    ensure!(
        output.status.success(),
        "{script} failed ({}): see its messages above",
        output.status
    );
    let stdout = String::from_utf8(output.stdout).context("the path of the assets is not UTF-8")?;
    let folder = stdout
        .lines()
        .last()
        .with_context(|| format!("{script} printed no path"))?;
    Ok(PathBuf::from(folder))
}

/// The `kubectl` of `folder`, else the one on PATH.
pub(crate) fn kubectl_of(folder: &Path) -> PathBuf {
    let own = folder.join("kubectl");
    if own.is_file() { own } else { PathBuf::from("kubectl") }
}
