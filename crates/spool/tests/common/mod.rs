//! What the tests have in common.

#![allow(dead_code)] // each test binary uses its part

use std::path::Path;

use relaypool_spool::{AddedSlice, Batch, ContentId, MessageKey, NewSlice, OpenError, Options, SliceNumber, Spool};

pub fn open(directory: &Path) -> Spool {
    Spool::open(directory, Options::default()).unwrap()
}

/// Opens a spool whose last handle has just been dropped: its folder is released soon after.
pub fn open_when_released(directory: &Path) -> Spool {
    loop {
        match Spool::open(directory, Options::default()) {
            Err(OpenError::Locked { .. }) => std::thread::yield_now(),
            result => return result.unwrap(),
        }
    }
}

pub fn content_id(number: u8) -> ContentId {
    ContentId::new([number; 32])
}

pub fn message(slice: SliceNumber, index: u32) -> MessageKey {
    MessageKey { slice, index }
}

pub fn new_slice(id: &str, content: u8, rows: u32) -> NewSlice {
    NewSlice {
        id: id.to_owned(),
        delivery: "newsletter".to_owned(),
        content: content_id(content),
        details: Vec::new(),
        rows: (0..rows)
            .map(|index| format!("{id} row {index}").into_bytes())
            .collect(),
    }
}

/// A batch of one slice with its content.
pub fn intake(id: &str, content: u8, rows: u32) -> Batch {
    let mut batch = Batch::new();
    batch
        .add_content(content_id(content), content_bytes(content))
        .add_slice(new_slice(id, content, rows));
    batch
}

pub fn content_bytes(content: u8) -> Vec<u8> {
    format!("content {content}").into_bytes()
}

pub fn set_state(key: MessageKey, state: impl Into<Vec<u8>>) -> Batch {
    let mut batch = Batch::new();
    batch.set_state(key, state.into());
    batch
}

pub async fn add(spool: &Spool, id: &str, content: u8, rows: u32) -> SliceNumber {
    match spool.commit(intake(id, content, rows)).await.unwrap().slices[..] {
        [AddedSlice::Added(number)] => number,
        ref other => panic!("slice {id} was not added: {other:?}"),
    }
}

/// Bytes that a folder takes up on disk.
pub fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Files come and go while the database works.
        match path.symlink_metadata() {
            Ok(data) if data.is_dir() => bytes += disk_bytes(&path),
            Ok(data) => bytes += data.blocks() * 512,
            Err(_) => {}
        }
    }
    bytes
}
