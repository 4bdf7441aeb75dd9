//! The committing thread: groups, order, and how it ends.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{add, intake, message, open, open_when_released, set_state};
use relaypool_spool::{Batch, CommitError, ReadError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_commits_share_their_fsyncs() {
    const TASKS: u32 = 50;
    const COMMITS: u32 = 40;
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let slice = add(&spool, "a", 1, TASKS).await;
    let before = spool.statistics();

    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let spool = spool.clone();
            tokio::spawn(async move {
                for round in 0..COMMITS {
                    let state = round.to_be_bytes();
                    spool.commit(set_state(message(slice, task), state)).await.unwrap();
                    assert_eq!(spool.state(message(slice, task)).unwrap().unwrap(), state);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }

    let after = spool.statistics();
    assert_eq!(after.commits - before.commits, u64::from(TASKS * COMMITS));
    let groups = after.groups - before.groups;
    assert!(
        groups * 5 < u64::from(TASKS * COMMITS),
        "{groups} fsyncs for {} commits",
        TASKS * COMMITS
    );
}

#[tokio::test]
async fn a_task_that_commits_alone_gets_a_group_for_each() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    for round in 0..10u8 {
        let mut batch = Batch::new();
        batch.set_note("round", vec![round]);
        spool.commit(batch).await.unwrap();
    }
    assert_eq!(spool.statistics().groups, 10);
    // What changes nothing needs no fsync.
    spool.commit(Batch::new()).await.unwrap();
    assert_eq!(spool.statistics().groups, 10);
}

#[tokio::test]
async fn batches_are_applied_in_the_order_of_submission() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let slice = add(&spool, "a", 1, 1).await;
    let mut last = None;
    for round in 0..2_000u32 {
        last = Some(spool.submit(set_state(message(slice, 0), round.to_be_bytes())).await);
    }
    last.unwrap().await.unwrap();
    assert_eq!(spool.state(message(slice, 0)).unwrap().unwrap(), 1_999u32.to_be_bytes());
}

#[tokio::test]
async fn closing_commits_what_was_submitted_and_releases_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let other = spool.clone();
    let mut commits = Vec::new();
    for index in 0..200 {
        commits.push(spool.submit(intake(&format!("slice-{index}"), 1, 3)).await);
    }
    spool.close().await.unwrap();
    let reopened = open(folder.path());
    for commit in commits {
        commit.await.unwrap();
    }
    assert_eq!(reopened.slices().unwrap().len(), 200);

    let error = other.commit(intake("late", 1, 1)).await.unwrap_err();
    assert!(matches!(error, CommitError::Closed), "{error}");
    assert!(matches!(other.slices(), Err(ReadError::Closed)));
    other.close().await.unwrap();
    assert_eq!(reopened.slices().unwrap().len(), 200);
}

#[tokio::test]
async fn dropping_the_last_handle_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let spool = open_when_released(folder.path());
        assert_eq!(spool.slices().unwrap().len(), 20 * round);
        for index in 0..20 {
            // Not even what nobody waits for.
            drop(spool.submit(intake(&format!("{round}-{index}"), 1, 2)).await);
        }
    }
}
