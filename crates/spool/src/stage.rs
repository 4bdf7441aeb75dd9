//! Turning batches into changes of the database.
//!
//! The batches of a group are applied one after another to a stage that lies over the database: each sees what those
//! before it have changed. One that is refused is taken back alone. What remains is written in one go, a key that was
//! changed several times only once.

use std::collections::HashMap;

use fjall::{UserKey, UserValue};

use crate::batch::Operation;
use crate::keys::{self, Table};
use crate::record::StoredSlice;
use crate::store::Store;
use crate::{
    AddedSlice, Batch, CommitError, Committed, ContentId, MAX_BATCH_BYTES, MAX_BATCH_CHANGES, MAX_NAME_BYTES,
    MessageKey, NewSlice, ReadError, Refusal, SliceNumber,
};

type Key = (Table, UserKey);

/// The value to be under a key, `None` to remove it.
type Change = Option<UserValue>;

/// Changes over the database that are not written yet.
pub(crate) struct Stage<'a> {
    store: &'a Store,
    changes: HashMap<Key, Change>,
    /// What the batch being applied has put out of `changes`, oldest first.
    replaced: Vec<(Key, Option<Change>)>,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self {
            store,
            changes: HashMap::new(),
            replaced: Vec::new(),
        }
    }

    /// Applies a batch, or nothing of it when it is refused.
    pub(crate) fn apply(&mut self, batch: Batch) -> Result<Committed, CommitError> {
        let result = self.apply_operations(batch);
        if result.is_err() {
            self.take_back();
        }
        self.replaced.clear();
        result
    }

    /// How many changes there are.
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// The changes to write.
    pub(crate) fn into_changes(self) -> HashMap<Key, Change> {
        self.changes
    }

    fn apply_operations(&mut self, batch: Batch) -> Result<Committed, CommitError> {
        if batch.bytes() > MAX_BATCH_BYTES {
            return Err(Refusal::TooLarge(batch.bytes()).into());
        }
        let mut offered = HashMap::new();
        let mut committed = Committed::default();
        let mut changes = 0;
        for operation in batch.operations {
            changes += self.changes_of(&operation)?;
            if changes > MAX_BATCH_CHANGES {
                return Err(Refusal::TooManyChanges.into());
            }
            match operation {
                Operation::AddContent(id, bytes) => {
                    offered.insert(id, UserValue::from(bytes));
                }
                Operation::AddSlice(slice) => committed.slices.push(self.add_slice(slice, &offered)?),
                Operation::SetState(key, state) => self.set_state(key, state)?,
                Operation::SetSliceDetails(slice, details) => self.set_slice_details(slice, &details)?,
                Operation::RemoveSlice(slice) => self.remove_slice(slice)?,
                Operation::SetNote(name, bytes) => {
                    check_name(&name)?;
                    self.put(Table::Index, keys::note(&name), bytes);
                }
                Operation::RemoveNote(name) => {
                    check_name(&name)?;
                    self.remove(Table::Index, keys::note(&name));
                }
            }
        }
        Ok(committed)
    }

    /// The changes that an operation counts for: bounds the memory it takes before it takes it.
    fn changes_of(&self, operation: &Operation) -> Result<usize, ReadError> {
        let rows = match operation {
            Operation::AddSlice(slice) => slice.rows.len(),
            Operation::RemoveSlice(slice) => match self.get(Table::Index, keys::slice(*slice))? {
                Some(record) => decode(&record)?.rows as usize,
                None => return Ok(1),
            },
            _ => return Ok(1),
        };
        Ok(4 + 2 * rows)
    }

    fn add_slice(
        &mut self,
        slice: NewSlice,
        offered: &HashMap<ContentId, UserValue>,
    ) -> Result<AddedSlice, CommitError> {
        check_name(&slice.id)?;
        if let Some(number) = self.number(&slice.id)? {
            return Ok(AddedSlice::AlreadyThere(number));
        }
        let rows = u32::try_from(slice.rows.len()).expect("the rows of a slice are fewer than a batch's changes");
        self.refer_to_content(&slice, offered)?;
        let number = self.next_number()?;
        let record = StoredSlice {
            rows,
            content: *slice.content.as_bytes(),
            id: &slice.id,
            delivery: &slice.delivery,
            details: &slice.details,
        };
        self.put(Table::Index, keys::slice(number), record.encode());
        self.put(Table::Index, keys::slice_id(&slice.id), number.get().to_be_bytes());
        for (index, row) in (0..rows).zip(slice.rows) {
            self.put(Table::Rows, keys::message(MessageKey { slice: number, index }), row);
        }
        Ok(AddedSlice::Added(number))
    }

    fn set_state(&mut self, key: MessageKey, state: Vec<u8>) -> Result<(), CommitError> {
        let record = self.existing_slice(key.slice)?;
        let rows = decode(&record)?.rows;
        if key.index >= rows {
            return Err(Refusal::UnknownMessage(key, rows).into());
        }
        self.put(Table::States, keys::message(key), state);
        Ok(())
    }

    fn set_slice_details(&mut self, slice: SliceNumber, details: &[u8]) -> Result<(), CommitError> {
        let record = self.existing_slice(slice)?;
        let changed = StoredSlice {
            details,
            ..decode(&record)?
        };
        self.put(Table::Index, keys::slice(slice), changed.encode());
        Ok(())
    }

    fn remove_slice(&mut self, slice: SliceNumber) -> Result<(), CommitError> {
        let Some(record) = self.get(Table::Index, keys::slice(slice))? else {
            return Ok(());
        };
        let record = decode(&record)?;
        self.remove(Table::Index, keys::slice(slice));
        self.remove(Table::Index, keys::slice_id(record.id));
        for index in 0..record.rows {
            let key = keys::message(MessageKey { slice, index });
            self.remove(Table::Rows, key.clone());
            self.remove(Table::States, key);
        }
        self.release_content(&record.content())
    }

    /// Counts one more slice that refers to its content, which is stored when it is the first.
    fn refer_to_content(
        &mut self,
        slice: &NewSlice,
        offered: &HashMap<ContentId, UserValue>,
    ) -> Result<(), CommitError> {
        let content = slice.content;
        let references = self.content_references(&content)?;
        if references == 0 {
            let Some(bytes) = offered.get(&content) else {
                return Err(Refusal::UnknownContent {
                    slice: slice.id.clone(),
                    content,
                }
                .into());
            };
            self.put(Table::Contents, keys::content(&content), bytes.clone());
        }
        self.set_content_references(&content, references + 1);
        Ok(())
    }

    /// Counts one slice less that refers to a content, which is removed when it was the last.
    fn release_content(&mut self, content: &ContentId) -> Result<(), CommitError> {
        match self.content_references(content)? {
            0 => Err(ReadError::Damaged("the count of slices that refer to a content").into()),
            1 => {
                self.remove(Table::Contents, keys::content(content));
                self.remove(Table::Index, keys::content_references(content));
                Ok(())
            }
            references => {
                self.set_content_references(content, references - 1);
                Ok(())
            }
        }
    }

    fn content_references(&self, content: &ContentId) -> Result<u64, ReadError> {
        let stored = self.get(Table::Index, keys::content_references(content))?;
        stored.map_or(Ok(0), |bytes| decode_number(&bytes))
    }

    fn set_content_references(&mut self, content: &ContentId, references: u64) {
        let key = keys::content_references(content);
        self.put(Table::Index, key, references.to_be_bytes());
    }

    fn number(&self, id: &str) -> Result<Option<SliceNumber>, ReadError> {
        let stored = self.get(Table::Index, keys::slice_id(id))?;
        stored
            .map(|bytes| decode_number(&bytes).map(SliceNumber::new))
            .transpose()
    }

    /// Takes the next slice number. The count lies on disk, so that a number is not used again after the last slice has
    /// been removed and the spool opened anew.
    fn next_number(&mut self) -> Result<SliceNumber, ReadError> {
        let stored = self.get(Table::Index, keys::next_slice())?;
        let number = stored.map_or(Ok(0), |bytes| decode_number(&bytes))?;
        self.put(Table::Index, keys::next_slice(), (number + 1).to_be_bytes());
        Ok(SliceNumber::new(number))
    }

    fn existing_slice(&self, slice: SliceNumber) -> Result<UserValue, CommitError> {
        self.get(Table::Index, keys::slice(slice))?
            .ok_or_else(|| Refusal::UnknownSlice(slice).into())
    }

    fn get(&self, table: Table, key: UserKey) -> Result<Option<UserValue>, ReadError> {
        let key = (table, key);
        match self.changes.get(&key) {
            Some(change) => Ok(change.clone()),
            None => Ok(self.store.get(table, &key.1)?),
        }
    }

    fn put(&mut self, table: Table, key: UserKey, value: impl Into<UserValue>) {
        self.change((table, key), Some(value.into()));
    }

    fn remove(&mut self, table: Table, key: UserKey) {
        self.change((table, key), None);
    }

    fn change(&mut self, key: Key, change: Change) {
        let before = self.changes.insert(key.clone(), change);
        self.replaced.push((key, before));
    }

    fn take_back(&mut self) {
        while let Some((key, before)) = self.replaced.pop() {
            match before {
                Some(change) => self.changes.insert(key, change),
                None => self.changes.remove(&key),
            };
        }
    }
}

fn decode(record: &[u8]) -> Result<StoredSlice<'_>, ReadError> {
    StoredSlice::decode(record).map_err(|_| ReadError::Damaged("the record of a slice"))
}

fn decode_number(bytes: &[u8]) -> Result<u64, ReadError> {
    let bytes = bytes.try_into().map_err(|_| ReadError::Damaged("a number"))?;
    Ok(u64::from_be_bytes(bytes))
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if name.len() > MAX_NAME_BYTES {
        return Err(Refusal::NameTooLong(name.len()));
    }
    Ok(())
}
