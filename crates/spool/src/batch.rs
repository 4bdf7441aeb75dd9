//! A set of changes that become durable together.

use crate::{ContentId, MessageKey, NewSlice, SliceNumber};

/// The largest batch, in bytes: the sum of its payloads and names, and 64 for each operation and row.
pub const MAX_BATCH_BYTES: usize = 64 * 1024 * 1024;

/// The most changes in a batch. The addition or removal of a slice counts four and twice its rows, anything else one.
pub const MAX_BATCH_CHANGES: usize = 262_144;

/// The longest name of a slice or a note, in bytes.
pub const MAX_NAME_BYTES: usize = 1024;

/// What an operation costs beside its payload: its key and bookkeeping.
pub(crate) const OPERATION_BYTES: usize = 64;

/// Changes to apply together, all or none, in the order in which they were added.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) operations: Vec<Operation>,
    bytes: usize,
}

#[derive(Debug)]
pub(crate) enum Operation {
    AddContent(ContentId, Vec<u8>),
    AddSlice(NewSlice),
    SetState(MessageKey, Vec<u8>),
    SetSliceDetails(SliceNumber, Vec<u8>),
    RemoveSlice(SliceNumber),
    SetNote(String, Vec<u8>),
    RemoveNote(String),
}

impl Batch {
    /// An empty batch; committing it changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Brings the bytes of a content for slices that this batch adds after it.
    ///
    /// A content lives as long as a slice refers to it: it is stored with the first such slice, is left as it is when
    /// it is there already, and is not stored at all when no slice of this batch needs it.
    pub fn add_content(&mut self, id: ContentId, bytes: Vec<u8>) -> &mut Self {
        self.push(bytes.len(), Operation::AddContent(id, bytes))
    }

    /// Takes in a slice with all its rows. A slice of the same [`id`](NewSlice::id) that is there already is left as it
    /// is, and the commit answers [`AddedSlice::AlreadyThere`](crate::AddedSlice::AlreadyThere). A removed slice is
    /// forgotten: its id would be taken in anew.
    pub fn add_slice(&mut self, slice: NewSlice) -> &mut Self {
        let rows: usize = slice.rows.iter().map(|row| row.len() + OPERATION_BYTES).sum();
        let bytes = rows + slice.id.len() + slice.delivery.len() + slice.details.len();
        self.push(bytes, Operation::AddSlice(slice))
    }

    /// Sets or replaces the state of a message. The commit is refused when its slice is not there.
    pub fn set_state(&mut self, key: MessageKey, state: Vec<u8>) -> &mut Self {
        self.push(state.len(), Operation::SetState(key, state))
    }

    /// Replaces the details of a slice. The commit is refused when the slice is not there.
    pub fn set_slice_details(&mut self, slice: SliceNumber, details: Vec<u8>) -> &mut Self {
        self.push(details.len(), Operation::SetSliceDetails(slice, details))
    }

    /// Removes a slice with its rows and states, and its content when no other slice refers to it. Nothing happens when
    /// the slice is not there.
    pub fn remove_slice(&mut self, slice: SliceNumber) -> &mut Self {
        self.push(0, Operation::RemoveSlice(slice))
    }

    /// Sets or replaces a small named value that belongs to no slice.
    pub fn set_note(&mut self, name: impl Into<String>, bytes: Vec<u8>) -> &mut Self {
        let name = name.into();
        self.push(name.len() + bytes.len(), Operation::SetNote(name, bytes))
    }

    /// Removes a note. Nothing happens when it is not there.
    pub fn remove_note(&mut self, name: impl Into<String>) -> &mut Self {
        let name = name.into();
        self.push(name.len(), Operation::RemoveNote(name))
    }

    /// True when nothing has been added.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The size that counts against [`MAX_BATCH_BYTES`] and the queue, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn push(&mut self, bytes: usize, operation: Operation) -> &mut Self {
        self.bytes = self.bytes.saturating_add(bytes + OPERATION_BYTES);
        self.operations.push(operation);
        self
    }
}
