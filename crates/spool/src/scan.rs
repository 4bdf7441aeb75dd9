//! Going through the messages of a slice, or through notes.

use crate::{MessageKey, ReadError, keys};

/// The rows or states of a slice in the order of their index, read as they are asked for.
///
/// It shows the spool as it was when the iterator was made. What is removed or overwritten meanwhile keeps its place on
/// disk until the iterator is dropped.
pub struct Messages(fjall::Iter);

impl Messages {
    pub(crate) fn new(entries: fjall::Iter) -> Self {
        Self(entries)
    }
}

impl Iterator for Messages {
    type Item = Result<(MessageKey, Vec<u8>), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.0.next()?.into_inner().map_err(ReadError::from);
        Some(entry.and_then(|(key, value)| {
            let key = keys::parse_message(&key).ok_or(ReadError::Damaged("the key of a message"))?;
            Ok((key, value.to_vec()))
        }))
    }
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Messages").finish_non_exhaustive()
    }
}

/// Notes in the order of their names, read as they are asked for.
///
/// It shows the spool as it was when the iterator was made; see [`Messages`].
pub struct Notes(fjall::Iter);

impl Notes {
    pub(crate) fn new(entries: fjall::Iter) -> Self {
        Self(entries)
    }
}

impl Iterator for Notes {
    type Item = Result<(String, Vec<u8>), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.0.next()?.into_inner().map_err(ReadError::from);
        Some(entry.and_then(|(key, value)| {
            let name = keys::parse_note(&key).ok_or(ReadError::Damaged("the name of a note"))?;
            Ok((name.to_owned(), value.to_vec()))
        }))
    }
}

impl std::fmt::Debug for Notes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Notes").finish_non_exhaustive()
    }
}
