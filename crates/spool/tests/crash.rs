//! Killed at any moment, a spool keeps what it has acknowledged, and every slice is there whole or not at all.
//!
//! The test runs this binary again as a writer that says on its standard output what has been acknowledged, kills it,
//! opens the spool and compares; thirty times over with the same spool.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::message;
use relaypool_spool::{Batch, ContentId, NewSlice, Options, SliceNumber, SliceRecord, Spool};

const FOLDER: &str = "SPOOL_CRASH_FOLDER";
const ROUND: &str = "SPOOL_CRASH_ROUND";
const ROUNDS: u64 = 30;
const TASKS: u64 = 4;
/// Slices that each task of the writer keeps.
const KEPT: usize = 6;

fn options() -> Options {
    Options {
        // Small, so that the writer is also killed while tables are written and compacted.
        memtable_bytes: 128 << 10,
        ..Options::default()
    }
}

/// Everything about a slice follows from its id, "round-task-count".
fn slice_of(id: &str) -> NewSlice {
    let count: usize = id.rsplit('-').next().unwrap().parse().unwrap();
    NewSlice {
        id: id.to_owned(),
        delivery: format!("delivery of {id}"),
        content: content_of(id),
        details: id.as_bytes().to_vec(),
        rows: (0..1 + count * 7 % 60)
            .map(|index| format!("{id}/{index} ").repeat(700).into_bytes())
            .collect(),
    }
}

/// Three slices in a row share a content.
fn content_of(id: &str) -> ContentId {
    let (task, count) = id.rsplit_once('-').unwrap();
    let mut bytes = [0; 32];
    let name = format!("{task}-{}", count.parse::<u64>().unwrap() / 3);
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    ContentId::new(bytes)
}

fn content_bytes(id: &ContentId) -> Vec<u8> {
    id.as_bytes().repeat(200)
}

/// The writer; run in a process of its own by the test below, otherwise it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let spool = Spool::open(Path::new(&folder), options()).unwrap();
    let there = spool.slices().unwrap();
    let states = Arc::new(AtomicU64::new(round * 1_000_000_000));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let own: Vec<_> = there
                .iter()
                .filter(|slice| slice.number.get() % TASKS == task)
                .cloned()
                .collect();
            tokio::spawn(write(spool.clone(), format!("{round}-{task}"), own, states.clone()))
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

async fn write(spool: Spool, name: String, mut slices: Vec<SliceRecord>, states: Arc<AtomicU64>) {
    for count in 0u64.. {
        let id = format!("{name}-{count}");
        let slice = slice_of(&id);
        let mut batch = Batch::new();
        batch
            .add_content(slice.content, content_bytes(&slice.content))
            .add_slice(slice);
        let number = spool.commit(batch).await.unwrap().slices[0].number();
        say(format!("added {number} {id}"));
        slices.push(spool.slice(number).unwrap().unwrap());

        for slice in slices.iter().rev().take(3) {
            let mut batch = Batch::new();
            let mut set = Vec::new();
            for index in (0..slice.rows).step_by(1 + count as usize % 5) {
                let state = states.fetch_add(1, Ordering::Relaxed);
                batch.set_state(message(slice.number, index), state.to_be_bytes().to_vec());
                set.push(format!("state {} {index} {state}", slice.number));
            }
            spool.commit(batch).await.unwrap();
            say(set.join("\n"));
        }
        if slices.len() > KEPT {
            let oldest = slices.remove(0).number;
            say(format!("removing {oldest}"));
            let mut batch = Batch::new();
            batch.remove_slice(oldest);
            spool.commit(batch).await.unwrap();
            say(format!("removed {oldest}"));
        }
    }
}

fn say(lines: String) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{lines}").unwrap();
    output.flush().unwrap();
}

/// What must be in the spool.
#[derive(Default)]
struct Expected {
    slices: BTreeMap<SliceNumber, Slice>,
    removed: HashSet<SliceNumber>,
    contents: HashSet<ContentId>,
}

#[derive(Default)]
struct Slice {
    id: String,
    /// The removal was begun: it may be there or not.
    removing: bool,
    /// The newest acknowledged state of each message.
    states: BTreeMap<u32, u64>,
}

impl Expected {
    fn read(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        let number = |word: usize| SliceNumber::new(words[word].parse().unwrap());
        match words[0] {
            "added" => {
                let slice = self.slices.entry(number(1)).or_default();
                slice.id = words[2].to_owned();
            }
            "state" => {
                let slice = self.slices.get_mut(&number(1)).unwrap();
                slice
                    .states
                    .insert(words[2].parse().unwrap(), words[3].parse().unwrap());
            }
            "removing" => self.slices.get_mut(&number(1)).unwrap().removing = true,
            "removed" => {
                self.slices.remove(&number(1)).unwrap();
                self.removed.insert(number(1));
            }
            _ => panic!("unexpected line: {line}"),
        }
    }

    /// Compares, and takes over what is there without having been acknowledged: from now on it must stay.
    fn check(&mut self, spool: &Spool) {
        let there: BTreeMap<_, _> = spool
            .slices()
            .unwrap()
            .into_iter()
            .map(|slice| (slice.number, slice))
            .collect();
        for (number, slice) in &self.slices {
            assert!(slice.removing || there.contains_key(number), "slice {number} is lost");
        }
        let lost: Vec<_> = self
            .slices
            .keys()
            .filter(|number| !there.contains_key(number))
            .copied()
            .collect();
        for number in lost {
            self.slices.remove(&number);
            self.removed.insert(number);
        }
        for number in &self.removed {
            assert!(!there.contains_key(number), "slice {number} is back");
            assert_eq!(spool.rows(*number).unwrap().count(), 0);
            assert_eq!(spool.states(*number).unwrap().count(), 0);
        }
        for (number, record) in &there {
            let slice = self.slices.entry(*number).or_default();
            if slice.id.is_empty() {
                slice.id = record.id.clone();
            }
            slice.removing = false;
            check_slice(spool, record, slice);
        }
        let needed: HashSet<_> = there.values().map(|slice| slice.content).collect();
        self.contents.extend(&needed);
        for content in &self.contents {
            let bytes = needed.contains(content).then(|| content_bytes(content));
            assert!(spool.content(content).unwrap() == bytes, "content {content}");
        }
    }
}

fn check_slice(spool: &Spool, record: &SliceRecord, expected: &mut Slice) {
    let NewSlice {
        id,
        delivery,
        content,
        details,
        rows,
    } = slice_of(&expected.id);
    assert_eq!(
        (
            &record.id,
            &record.delivery,
            record.content,
            &record.details,
            record.rows as usize
        ),
        (&id, &delivery, content, &details, rows.len())
    );
    let stored: Vec<_> = spool.rows(record.number).unwrap().map(|row| row.unwrap().1).collect();
    assert!(stored == rows, "slice {} is not whole", record.number);
    for state in spool.states(record.number).unwrap() {
        let (key, state) = state.unwrap();
        let state = u64::from_be_bytes(state.try_into().unwrap());
        let acknowledged = expected.states.insert(key.index, state);
        assert!(
            acknowledged.is_none_or(|acknowledged| acknowledged <= state),
            "state of {key} is lost"
        );
    }
    let states = spool.states(record.number).unwrap().count();
    assert_eq!(
        states,
        expected.states.len(),
        "states of slice {} are lost",
        record.number
    );
}

/// Ends the writer with the test, whatever becomes of that.
struct Writer(Child);

impl Writer {
    fn start(folder: &Path, round: u64) -> Self {
        let writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "write_until_killed", "--nocapture"])
            .env(FOLDER, folder)
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(writer)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It has ended already, unless the test fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = Expected::default();
    let mut acknowledgements = 0;
    for round in 0..ROUNDS {
        let mut writer = Writer::start(folder.path(), round);
        let lines = BufReader::new(writer.0.stdout.take().unwrap()).lines();
        // What the test harness says of itself is no acknowledgement.
        let mut lines = lines.map_while(Result::ok).filter_map(|line| {
            let start = ["added ", "state ", "removing ", "removed "]
                .iter()
                .filter_map(|word| line.find(word))
                .min()?;
            Some(line[start..].to_owned())
        });
        // A third of the rounds die while the spool is created or recovered, the others after more and more work.
        if round % 3 == 0 {
            std::thread::sleep(Duration::from_millis(round * 2));
        } else {
            for line in lines.by_ref().take(round as usize * 60) {
                expected.read(&line);
                acknowledgements += 1;
            }
        }
        writer.0.kill().unwrap();
        // What was said before it died counts.
        for line in lines {
            expected.read(&line);
            acknowledgements += 1;
        }
        let status = writer.0.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "the writer ended by itself: {status}");

        let spool = Spool::open(folder.path(), options()).unwrap();
        expected.check(&spool);
        spool.close().await.unwrap();
    }
    assert!(acknowledgements > 10_000 && expected.removed.len() > 100);
    // The database has begun another log at least once.
    assert!(!folder.path().join("queue/database/0.jnl").exists());
}
