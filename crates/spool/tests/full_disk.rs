//! A disk that is full, on a small file system made for the purpose. Mounting it takes the right to; without, the test
//! says so and ends.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{content_bytes, content_id, intake, message, new_slice, set_state};
use relaypool_spool::{Batch, CommitError, Options, SliceNumber, Spool};

/// A file system in memory, unmounted when dropped.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: &Path, size: &str) -> Result<Self, String> {
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], path)?;
        Ok(Self { path: path.to_owned() })
    }

    fn resize(&self, size: &str) {
        mount(&["-o", &format!("remount,size={size}")], &self.path).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, so that a test that fails with files open leaves no mount behind either.
        let status = Command::new("umount").arg("-l").arg(&self.path).status();
        assert!(status.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn mount(arguments: &[&str], path: &Path) -> Result<(), String> {
    let output = Command::new("mount")
        .args(arguments)
        .arg(path)
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[tokio::test]
async fn a_full_disk_stops_the_spool_and_loses_nothing() {
    // Small memtables let the disk run full while the database writes in the background; large ones, while it logs.
    for memtable_bytes in [256 << 10, 64 << 20] {
        let folder = tempfile::tempdir().unwrap();
        let disk = match SmallDisk::mount(folder.path(), "24m") {
            Ok(disk) => disk,
            Err(reason) => {
                eprintln!("skipped: cannot mount a file system: {reason}");
                return;
            }
        };
        let options = Options {
            memtable_bytes,
            ..Options::default()
        };
        let spool = Spool::open(folder.path(), options.clone()).unwrap();
        let acknowledged = fill(&spool).await;
        assert!(acknowledged.len() > 10);

        let failure = within_a_minute(spool.failed()).await;
        let error = spool.commit(intake("late", 1, 1)).await.unwrap_err();
        assert!(matches!(error, CommitError::Failed(_)), "{error}");
        assert_eq!(
            error_text(&failure),
            error_text(&spool.clone().close().await.unwrap_err())
        );
        drop(spool);

        // While the disk is full it may be opened or not, but what it shows is complete.
        if let Ok(spool) = Spool::open(folder.path(), options.clone()) {
            check(&spool, &acknowledged);
            let _ = within_a_minute(spool.close()).await;
        }

        disk.resize("64m");
        let spool = Spool::open(folder.path(), options).unwrap();
        check(&spool, &acknowledged);
        spool.commit(intake("after", 1, 1)).await.unwrap();
        spool.close().await.unwrap();
        drop(disk);
    }
}

/// Compares with the slices that were acknowledged; further ones are whole.
fn check(spool: &Spool, acknowledged: &[SliceNumber]) {
    let slices = spool.slices().unwrap();
    for number in acknowledged {
        assert!(
            slices.iter().any(|slice| slice.number == *number),
            "slice {number} is lost"
        );
        assert_eq!(spool.state(message(*number, 0)).unwrap(), Some(vec![5; 100]));
    }
    for slice in slices {
        assert_eq!(spool.rows(slice.number).unwrap().count(), 100);
    }
    assert_eq!(spool.content(&content_id(1)).unwrap(), Some(content_bytes(1)));
}

/// Takes in slices of 100 rows and sets a state in each until the spool fails; those whose state is acknowledged.
async fn fill(spool: &Spool) -> Vec<SliceNumber> {
    let mut acknowledged = Vec::new();
    loop {
        let mut batch = Batch::new();
        let mut slice = new_slice(&format!("slice-{}", acknowledged.len()), 1, 0);
        slice.rows = vec![vec![4; 800]; 100];
        batch.add_content(content_id(1), content_bytes(1)).add_slice(slice);
        let number = match within_a_minute(spool.commit(batch)).await {
            Ok(committed) => committed.slices[0].number(),
            Err(CommitError::Failed(_)) => return acknowledged,
            Err(error) => panic!("{error}"),
        };
        match within_a_minute(spool.commit(set_state(message(number, 0), [5; 100]))).await {
            Ok(_) => acknowledged.push(number),
            Err(CommitError::Failed(_)) => return acknowledged,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn within_a_minute<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.unwrap()
}

fn error_text(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
