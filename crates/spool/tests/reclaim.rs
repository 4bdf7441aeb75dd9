//! The disk gives back what is overwritten and removed.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use common::{add, disk_bytes, message};
use relaypool_spool::{Batch, ContentId, NewSlice, Options, Spool};

const MEBIBYTE: u64 = 1 << 20;

fn options() -> Options {
    Options {
        memtable_bytes: 256 << 10,
        ..Options::default()
    }
}

/// Waits until the tables of the database take up less than this on disk: compaction works on its own.
async fn wait_for_tables_below(folder: &std::path::Path, bytes: u64) {
    let tables = folder.join("queue/database/keyspaces");
    let start = Instant::now();
    while disk_bytes(&tables) >= bytes {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{} bytes are left",
            disk_bytes(&tables)
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn states_that_are_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), options()).unwrap();
    let slice = add(&spool, "a", 1, 1_000).await;
    // 240 MiB of states, of which the last is 1 MiB.
    for round in 0..240u8 {
        for part in 0..10 {
            let mut batch = Batch::new();
            for index in part * 100..(part + 1) * 100 {
                batch.set_state(message(slice, index), vec![round; 1_024]);
            }
            spool.commit(batch).await.unwrap();
        }
    }
    wait_for_tables_below(folder.path(), 6 * MEBIBYTE).await;
    // With the logs, of which one is being written and one waits for the tables that hold its last changes.
    assert!(disk_bytes(folder.path()) < 160 * MEBIBYTE);
    assert!(
        spool
            .states(slice)
            .unwrap()
            .all(|state| state.unwrap().1 == [239; 1_024])
    );
}

#[tokio::test]
async fn slices_that_are_removed_while_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), options()).unwrap();
    let mut queue = VecDeque::new();
    let mut stay = Vec::new();
    // 120 MiB in slices of 100 rows pass through a queue of 40; every fiftieth stays. 7 MiB are live at the end.
    for round in 0..1_000u16 {
        let mut batch = Batch::new();
        // Like a digest, in no order.
        let content = ContentId::new(
            [round.wrapping_mul(40_503).to_be_bytes(); 16]
                .concat()
                .try_into()
                .unwrap(),
        );
        batch.add_content(content, vec![1; 20 << 10]).add_slice(NewSlice {
            id: format!("slice-{round}"),
            delivery: "newsletter".to_owned(),
            content,
            details: Vec::new(),
            rows: vec![vec![2; 800]; 100],
        });
        let number = spool.commit(batch).await.unwrap().slices[0].number();
        let mut batch = Batch::new();
        for index in 0..100 {
            batch.set_state(message(number, index), vec![3; 100]);
        }
        spool.commit(batch).await.unwrap();
        if round % 50 == 0 {
            stay.push(number);
        } else {
            queue.push_back(number);
        }
        if queue.len() > 40 {
            let mut batch = Batch::new();
            batch.remove_slice(queue.pop_front().unwrap());
            spool.commit(batch).await.unwrap();
        }
    }
    wait_for_tables_below(folder.path(), 30 * MEBIBYTE).await;
    for number in stay.into_iter().chain(queue) {
        let content = spool.slice(number).unwrap().unwrap().content;
        assert_eq!(spool.content(&content).unwrap(), Some(vec![1; 20 << 10]));
        assert_eq!(spool.rows(number).unwrap().count(), 100);
        assert_eq!(spool.states(number).unwrap().count(), 100);
    }
}
