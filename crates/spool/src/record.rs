//! What the spool knows of a slice, outside and on disk.

use serde::{Deserialize, Serialize};

use crate::{ContentId, SliceNumber};

/// A slice to take in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSlice {
    /// The slice's name outside this spool, unique among its slices. Taking in the same name again changes nothing.
    pub id: String,
    /// The delivery the slice belongs to.
    pub delivery: String,
    /// The content its messages are made from: added by the same batch or held by a slice already there.
    pub content: ContentId,
    /// The caller's own data about the slice; see [`Batch::set_slice_details`](crate::Batch::set_slice_details).
    pub details: Vec<u8>,
    /// One entry per message, in order. Rows never change.
    pub rows: Vec<Vec<u8>>,
}

/// A slice as the spool holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceRecord {
    /// Its number in this spool.
    pub number: SliceNumber,
    /// Its name outside this spool.
    pub id: String,
    /// The delivery it belongs to.
    pub delivery: String,
    /// The content its messages are made from.
    pub content: ContentId,
    /// How many rows it has: they are numbered from 0 to `rows - 1`.
    pub rows: u32,
    /// The caller's own data about the slice.
    pub details: Vec<u8>,
}

/// The record on disk (postcard), under the slice's number. Borrowed, because the committing thread reads one for every
/// state it writes and needs no copy of the texts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredSlice<'a> {
    pub(crate) rows: u32,
    pub(crate) content: [u8; 32],
    pub(crate) id: &'a str,
    pub(crate) delivery: &'a str,
    pub(crate) details: &'a [u8],
}

impl<'a> StoredSlice<'a> {
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(bytes)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a record of plain fields always serialises into memory")
    }

    pub(crate) fn content(&self) -> ContentId {
        ContentId::new(self.content)
    }

    pub(crate) fn into_record(self, number: SliceNumber) -> SliceRecord {
        SliceRecord {
            number,
            id: self.id.to_owned(),
            delivery: self.delivery.to_owned(),
            content: self.content(),
            rows: self.rows,
            details: self.details.to_vec(),
        }
    }
}
