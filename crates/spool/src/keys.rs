//! The keys under which things lie in the database.
//!
//! `rows` and `states` are keyed by message alone and `contents` by content id; the small things share the `index`, told
//! apart by their first byte. The index of a row is big-endian, so that the rows of a slice lie together and in order.
//!
//! The number of a slice is written with its bits reversed, which strews slices over the whole range of keys. A queue
//! grows at one end and dies at the other, and in plain order its keys would defeat compaction: that prefers to move
//! files which overlap nothing, as all new ones would, and would never come to those that hold what was removed. Strewn,
//! old and new lie in the same files, and what was removed goes when they are next rewritten.

use fjall::UserKey;

use crate::{ContentId, MessageKey, SliceNumber};

/// One key-value space of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Table {
    /// Slices, their names, reference counts of contents, notes.
    Index,
    /// Content id to bytes.
    Contents,
    /// Message to row.
    Rows,
    /// Message to state.
    States,
}

const SLICE: u8 = b's';
const SLICE_ID: u8 = b'i';
const CONTENT_REFERENCES: u8 = b'c';
const NEXT_SLICE: u8 = b'n';
const NOTE: u8 = b'N';

/// Bytes of the number of a slice in a key.
const NUMBER_BYTES: usize = size_of::<u64>();

pub(crate) fn slice(number: SliceNumber) -> UserKey {
    tagged(SLICE, &strew(number))
}

/// The prefix of every key made by [`slice`]. They are not in the order of the numbers.
pub(crate) fn slices() -> [u8; 1] {
    [SLICE]
}

/// The number in a key made by [`slice`]; `None` for any other key.
pub(crate) fn parse_slice(key: &[u8]) -> Option<SliceNumber> {
    parse_strewn(key.strip_prefix(&[SLICE])?)
}

pub(crate) fn slice_id(id: &str) -> UserKey {
    tagged(SLICE_ID, id.as_bytes())
}

pub(crate) fn content_references(id: &ContentId) -> UserKey {
    tagged(CONTENT_REFERENCES, id.as_bytes())
}

pub(crate) fn next_slice() -> UserKey {
    UserKey::from([NEXT_SLICE])
}

pub(crate) fn note(name: &str) -> UserKey {
    tagged(NOTE, name.as_bytes())
}

/// The name in a key made by [`note`]; `None` for any other key.
pub(crate) fn parse_note(key: &[u8]) -> Option<&str> {
    str::from_utf8(key.strip_prefix(&[NOTE])?).ok()
}

pub(crate) fn content(id: &ContentId) -> UserKey {
    UserKey::from(id.as_bytes())
}

pub(crate) fn message(key: MessageKey) -> UserKey {
    let mut bytes = [0; NUMBER_BYTES + size_of::<u32>()];
    bytes[..NUMBER_BYTES].copy_from_slice(&strew(key.slice));
    bytes[NUMBER_BYTES..].copy_from_slice(&key.index.to_be_bytes());
    UserKey::from(bytes)
}

/// The prefix of every key made by [`message`] for a row of this slice.
pub(crate) fn messages(slice: SliceNumber) -> [u8; NUMBER_BYTES] {
    strew(slice)
}

/// The message in a key made by [`message`]; `None` for any other key.
pub(crate) fn parse_message(key: &[u8]) -> Option<MessageKey> {
    let (slice, index) = key.split_at_checked(NUMBER_BYTES)?;
    Some(MessageKey {
        slice: parse_strewn(slice)?,
        index: u32::from_be_bytes(index.try_into().ok()?),
    })
}

fn strew(number: SliceNumber) -> [u8; NUMBER_BYTES] {
    number.get().reverse_bits().to_be_bytes()
}

fn parse_strewn(bytes: &[u8]) -> Option<SliceNumber> {
    let reversed = u64::from_be_bytes(bytes.try_into().ok()?);
    Some(SliceNumber::new(reversed.reverse_bits()))
}

fn tagged(tag: u8, name: &[u8]) -> UserKey {
    let mut key = Vec::with_capacity(1 + name.len());
    key.push(tag);
    key.extend_from_slice(name);
    UserKey::from(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_of_a_slice_are_neighbours_in_order() {
        let messages_of = |slice: u64| {
            [0, 1, 255, 256, u32::MAX].map(|index| MessageKey {
                slice: SliceNumber::new(slice),
                index,
            })
        };
        for slice in [0, 1, 255, 256, 0x0102_0304_0506_0708, u64::MAX] {
            let keys = messages_of(slice);
            let encoded = keys.map(message);
            assert!(encoded.is_sorted());
            assert!(
                encoded
                    .iter()
                    .all(|key| key.starts_with(&messages(SliceNumber::new(slice))))
            );
            assert_eq!(encoded.map(|key| parse_message(&key).unwrap()), keys);
        }
        let others = messages(SliceNumber::new(256));
        assert!(messages_of(0).iter().all(|key| !message(*key).starts_with(&others)));
    }

    #[test]
    fn a_slice_key_is_told_apart_from_others() {
        let number = SliceNumber::new(0x0102_0304_0506_0708);
        assert_eq!(parse_slice(&slice(number)), Some(number));
        assert_eq!(parse_slice(&slice_id("123456789")), None);
        assert_eq!(parse_slice(b"s123"), None);
        assert_eq!(parse_slice(b"s"), None);
        assert_eq!(parse_message(b"short"), None);
        assert_eq!(parse_message(b"123456789"), None);
    }
}
