//! Who may open a spool, and in which format.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{add, open};
use relaypool_spool::{OpenError, Options, Spool};

/// The folder that [`open_the_folder_of_the_environment`] is to open.
const FOLDER: &str = "SPOOL_TEST_FOLDER";

#[tokio::test]
async fn a_spool_is_opened_once_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let error = Spool::open(folder.path(), Options::default()).unwrap_err();
    assert!(matches!(&error, OpenError::Locked { directory } if directory == folder.path()));
    assert!(error.to_string().contains("in use"), "{error}");
    assert!(open_in_another_process(folder.path()).contains("in use"));

    add(&spool, "a", 1, 1).await;
    spool.close().await.unwrap();
    assert_eq!(open_in_another_process(folder.path()), "opened with 1 slices\n");
}

/// Run in a process of its own by the test above; otherwise it has nothing to do.
#[test]
fn open_the_folder_of_the_environment() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let answer = match Spool::open(Path::new(&folder), Options::default()) {
        Ok(spool) => format!("opened with {} slices", spool.slices().unwrap().len()),
        Err(error) => error.to_string(),
    };
    writeln!(std::io::stderr(), "{answer}").unwrap();
}

fn open_in_another_process(folder: &Path) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "open_the_folder_of_the_environment"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    add(&spool, "a", 1, 1).await;
    spool.close().await.unwrap();

    let format = folder.path().join("queue/FORMAT");
    let written = std::fs::read(&format).unwrap();
    std::fs::write(&format, "relaypool-spool 12\n").unwrap();
    let error = Spool::open(folder.path(), Options::default()).unwrap_err();
    assert!(matches!(
        error,
        OpenError::NewerFormat {
            found: 12,
            supported: 1,
            ..
        }
    ));
    let text = error.to_string();
    assert!(text.contains("format 12") && text.contains("up to 1"), "{text}");

    std::fs::write(&format, "something else").unwrap();
    let error = Spool::open(folder.path(), Options::default()).unwrap_err();
    assert!(matches!(&error, OpenError::UnreadableFormat { file } if *file == format));
    std::fs::remove_file(&format).unwrap();
    let error = Spool::open(folder.path(), Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::File { .. }), "{error}");

    std::fs::write(&format, written).unwrap();
    assert_eq!(open(folder.path()).slices().unwrap().len(), 1);
}

#[test]
fn a_folder_that_cannot_be_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let error = Spool::open(&file.join("spool"), Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::File { action: "create", .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_database_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    add(&spool, "a", 1, 1).await;
    spool.close().await.unwrap();
    let version = folder.path().join("queue/database/version");
    std::fs::write(&version, "junk").unwrap();
    let error = Spool::open(folder.path(), Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Database { .. }), "{error}");
    // The lock is released again.
    let error = Spool::open(folder.path(), Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Database { .. }), "{error}");
    std::fs::write(&version, b"FJL\x03").unwrap();
    // The database does not expect a folder here, and panics.
    let junk = folder.path().join("queue/database/7.jnl");
    std::fs::create_dir(&junk).unwrap();
    let error = Spool::open(folder.path(), Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    std::fs::remove_dir(&junk).unwrap();
    assert_eq!(open(folder.path()).slices().unwrap().len(), 1);
}
