//! Random operations, compared with a model in memory.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{content_bytes, content_id, message};
use proptest::prelude::*;
use relaypool_spool::{AddedSlice, Batch, CommitError, NewSlice, Options, SliceNumber, SliceRecord, Spool};

#[derive(Debug, Clone)]
enum Operation {
    AddContent(u8),
    AddSlice { id: u8, content: u8, rows: u8 },
    SetState { slice: u64, index: u32, state: Vec<u8> },
    SetDetails { slice: u64, details: Vec<u8> },
    RemoveSlice(u64),
    SetNote(u8, Vec<u8>),
    RemoveNote(u8),
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Operation>),
    Reopen,
}

/// Few names and numbers, so that operations meet; large values now and then, so that tables are written.
fn operation() -> impl Strategy<Value = Operation> {
    let bytes = || prop_oneof![8 => prop::collection::vec(any::<u8>(), 0..8), 1 => Just(vec![7; 20_000])];
    prop_oneof![
        3 => (0..4u8).prop_map(Operation::AddContent),
        4 => (0..8u8, 0..4u8, 0..5u8).prop_map(|(id, content, rows)| Operation::AddSlice { id, content, rows }),
        6 => (0..8u64, 0..5u32, bytes()).prop_map(|(slice, index, state)| Operation::SetState { slice, index, state }),
        1 => (0..8u64, bytes()).prop_map(|(slice, details)| Operation::SetDetails { slice, details }),
        2 => (0..8u64).prop_map(Operation::RemoveSlice),
        2 => (0..3u8, bytes()).prop_map(|(name, bytes)| Operation::SetNote(name, bytes)),
        1 => (0..3u8).prop_map(Operation::RemoveNote),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop::collection::vec(operation(), 0..5).prop_map(Step::Commit),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    slices: BTreeMap<SliceNumber, SliceRecord>,
    rows: BTreeMap<(SliceNumber, u32), Vec<u8>>,
    states: BTreeMap<(SliceNumber, u32), Vec<u8>>,
    notes: BTreeMap<u8, Vec<u8>>,
    next: u64,
}

impl Model {
    /// The model after a batch and its answers, or `None` when it must be refused. Numbers of slices are relative to the
    /// newest, so that they stay among those in use.
    fn after(&self, operations: &[Operation], batch: &mut Batch) -> Option<(Self, Vec<AddedSlice>)> {
        let mut model = self.clone();
        let mut answers = Vec::new();
        let mut offered = Vec::new();
        let mut accepted = true;
        let number = |slice: u64| SliceNumber::new(self.next.saturating_sub(slice));
        for operation in operations {
            match operation.clone() {
                Operation::AddContent(content) => {
                    batch.add_content(content_id(content), content_bytes(content));
                    offered.push(content_id(content));
                }
                Operation::AddSlice { id, content, rows } => {
                    let slice = new_slice(id, content, rows);
                    batch.add_slice(slice.clone());
                    match model.add_slice(slice, &offered) {
                        Some(answer) => answers.push(answer),
                        None => accepted = false,
                    }
                }
                Operation::SetState { slice, index, state } => {
                    let slice = number(slice);
                    batch.set_state(message(slice, index), state.clone());
                    accepted &= model.slices.get(&slice).is_some_and(|record| index < record.rows);
                    model.states.insert((slice, index), state);
                }
                Operation::SetDetails { slice, details } => {
                    let slice = number(slice);
                    batch.set_slice_details(slice, details.clone());
                    match model.slices.get_mut(&slice) {
                        Some(record) => record.details = details,
                        None => accepted = false,
                    }
                }
                Operation::RemoveSlice(slice) => {
                    let slice = number(slice);
                    batch.remove_slice(slice);
                    model.slices.remove(&slice);
                    model.rows.retain(|(of, _), _| *of != slice);
                    model.states.retain(|(of, _), _| *of != slice);
                }
                Operation::SetNote(name, bytes) => {
                    batch.set_note(name.to_string(), bytes.clone());
                    model.notes.insert(name, bytes);
                }
                Operation::RemoveNote(name) => {
                    batch.remove_note(name.to_string());
                    model.notes.remove(&name);
                }
            }
        }
        accepted.then_some((model, answers))
    }

    fn add_slice(&mut self, slice: NewSlice, offered: &[relaypool_spool::ContentId]) -> Option<AddedSlice> {
        if let Some(record) = self.slices.values().find(|record| record.id == slice.id) {
            return Some(AddedSlice::AlreadyThere(record.number));
        }
        let stored = self.slices.values().any(|record| record.content == slice.content);
        if !stored && !offered.contains(&slice.content) {
            return None;
        }
        let number = SliceNumber::new(self.next);
        self.next += 1;
        let record = SliceRecord {
            number,
            id: slice.id,
            delivery: slice.delivery,
            content: slice.content,
            rows: slice.rows.len() as u32,
            details: slice.details,
        };
        self.slices.insert(number, record);
        self.rows
            .extend((0..).zip(slice.rows).map(|(index, row)| ((number, index), row)));
        Some(AddedSlice::Added(number))
    }

    /// What the spool holds, read in every way there is.
    fn read(spool: &Spool, next: u64) -> Self {
        let mut model = Self {
            next,
            ..Self::default()
        };
        for record in spool.slices().unwrap() {
            assert_eq!(spool.slice(record.number).unwrap().as_ref(), Some(&record));
            model.slices.insert(record.number, record);
        }
        for number in (0..next).map(SliceNumber::new) {
            for row in spool.rows(number).unwrap() {
                let (key, row) = row.unwrap();
                assert_eq!(spool.row(key).unwrap().as_ref(), Some(&row));
                model.rows.insert((key.slice, key.index), row);
            }
            for state in spool.states(number).unwrap() {
                let (key, state) = state.unwrap();
                assert_eq!(spool.state(key).unwrap().as_ref(), Some(&state));
                model.states.insert((key.slice, key.index), state);
            }
        }
        for content in 0..4 {
            let needed = model.slices.values().any(|slice| slice.content == content_id(content));
            let expected = needed.then(|| content_bytes(content));
            assert_eq!(spool.content(&content_id(content)).unwrap(), expected);
        }
        for name in 0..3 {
            if let Some(note) = spool.note(&name.to_string()).unwrap() {
                model.notes.insert(name, note);
            }
        }
        model
    }
}

fn new_slice(id: u8, content: u8, rows: u8) -> NewSlice {
    let rows = u32::from(rows);
    let mut slice = common::new_slice(&format!("slice-{id}"), content, rows);
    slice.details = vec![id];
    slice
}

fn open(folder: &Path) -> Spool {
    let options = Options {
        memtable_bytes: 16 << 10,
        ..Options::default()
    };
    Spool::open(folder, options).unwrap()
}

async fn run(steps: Vec<Step>) {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Commit(operations) => {
                let mut batch = Batch::new();
                let expected = model.after(&operations, &mut batch);
                match (spool.commit(batch).await, expected) {
                    (Ok(committed), Some((after, slices))) => {
                        assert_eq!(committed.slices, slices);
                        model = after;
                    }
                    (Err(CommitError::Refused(_)), None) => {}
                    (result, expected) => panic!("{operations:?}: {result:?} instead of {expected:?}"),
                }
            }
            Step::Reopen => {
                spool.close().await.unwrap();
                spool = open(folder.path());
            }
        }
        assert_eq!(Model::read(&spool, model.next), model);
    }
    spool.close().await.unwrap();
    assert_eq!(Model::read(&open(folder.path()), model.next), model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_spool_does_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(run(steps));
    }
}
