//! What the spool's payloads mean: rows, slice details and message states, encoded with postcard.
//!
//! Fields are only ever added at the end together with a new spool format version, because postcard has no field names. What
//! may be missing follows a record instead, as a record of its own: a program that does not know it leaves it unread.

use std::collections::BTreeMap;

use relaypool_api::delivery_slice::SliceRow;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A point in time in milliseconds since the Unix epoch: what is durable must not depend on when the process started.
pub type Millis = u64;

/// Longest reply text that is kept of a message.
const MAX_REPLY: usize = 400;

/// A payload in the spool could not be read: the disk or another program changed it.
#[derive(Debug, thiserror::Error)]
#[error("a {what} in the spool is damaged: {reason}")]
pub struct DamagedRecord {
    what: &'static str,
    reason: String,
}

/// One recipient, as it lies in the spool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredRow {
    /// Row in the recipient list of the Delivery.
    pub(crate) index: u64,
    /// The address as planned.
    pub(crate) address: String,
    /// The variables as a JSON object: postcard cannot hold values of any shape.
    variables: String,
}

impl StoredRow {
    pub(crate) fn new(row: &SliceRow) -> Self {
        let variables = serde_json::to_string(&row.recipient.variables)
            .expect("a map from strings to JSON values always serialises");
        Self {
            index: row.index,
            address: row.recipient.address.clone(),
            variables,
        }
    }

    pub(crate) fn variables(&self) -> Result<BTreeMap<String, serde_json::Value>, DamagedRecord> {
        serde_json::from_str(&self.variables).map_err(|error| DamagedRecord {
            what: "row",
            reason: error.to_string(),
        })
    }
}

/// What is kept of a slice beside its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SliceDetails {
    /// Name of the DeliverySlice.
    pub(crate) name: String,
    /// When the slice became durable here: validity counts from it, and it is the Date of its messages.
    pub(crate) accepted_at: Millis,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum MessageStatus {
    Waiting,
    Sent,
    Failed,
    Ignored,
    Canceled,
}

/// The durable state of a message. One without a record waits for its first attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StateRecord {
    pub(crate) status: MessageStatus,
    /// Attempts that reached a verdict.
    pub(crate) attempts: u16,
    /// When it is tried again, while it waits.
    pub(crate) due: Millis,
    /// When it came to its end, or when the last attempt was.
    pub(crate) at: Millis,
    /// The last thing that went wrong.
    pub(crate) last: Option<Box<LastResult>>,
    /// Follows the record, where there is something to say.
    #[serde(skip)]
    pub(crate) tried: Option<Box<Tried>>,
}

/// What is kept of the attempts of a message that still waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tried {
    /// Name of the SendingIp it was last tried from.
    pub(crate) ip: String,
    /// When a host first put it off, of those attempts that were made from there.
    pub(crate) first_refused: Option<Millis>,
}

impl StateRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = encode(self);
        if let Some(tried) = &self.tried {
            bytes.extend(encode(tried));
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DamagedRecord> {
        let damaged = |error: postcard::Error| DamagedRecord {
            what: "message state",
            reason: error.to_string(),
        };
        let (mut record, rest): (Self, _) = postcard::take_from_bytes(bytes).map_err(damaged)?;
        if !rest.is_empty() {
            record.tried = Some(Box::new(postcard::from_bytes(rest).map_err(damaged)?));
        }
        Ok(record)
    }
}

/// The last thing that went wrong with a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LastResult {
    /// Error reason, such as `User unknown`.
    pub(crate) reason: String,
    /// Bounce code and category, where a verdict gave the reason.
    pub(crate) bounce_code: Option<u16>,
    pub(crate) category: Option<String>,
    /// The reply, code first, or what went wrong before there was one.
    pub(crate) reply: String,
}

impl LastResult {
    pub(crate) fn new(
        reason: impl Into<String>,
        bounce_code: Option<u16>,
        category: Option<String>,
        reply: &str,
    ) -> Self {
        Self {
            reason: reason.into(),
            bounce_code,
            category,
            reply: shortened(reply),
        }
    }
}

fn shortened(reply: &str) -> String {
    match reply.char_indices().nth(MAX_REPLY) {
        Some((end, _)) => format!("{}…", &reply[..end]),
        None => reply.to_owned(),
    }
}

pub(crate) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    postcard::to_stdvec(record).expect("records of plain fields always serialise into memory")
}

pub(crate) fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DamagedRecord> {
    postcard::from_bytes(bytes).map_err(|error| DamagedRecord {
        what,
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_any_variable() {
        let row: SliceRow = serde_json::from_value(serde_json::json!({
            "index": 7, "address": "ada@example.com", "variables": { "name": "Ada\r\n", "order": { "items": [1, 2.5, null] } }
        }))
        .unwrap();
        let stored: StoredRow = decode("row", &encode(&StoredRow::new(&row))).unwrap();
        assert_eq!(stored.index, 7);
        assert_eq!(stored.address, row.recipient.address);
        assert_eq!(stored.variables().unwrap(), row.recipient.variables);
    }

    #[test]
    fn damage_is_an_error() {
        assert!(StateRecord::decode(&[9, 9, 9]).is_err());
    }

    #[test]
    fn what_follows_a_state_may_be_missing() {
        let mut record = StateRecord {
            status: MessageStatus::Waiting,
            attempts: 3,
            due: 1_000,
            at: 500,
            last: Some(Box::new(LastResult::new("r", Some(1), None, "451 later"))),
            tried: Some(Box::new(Tried {
                ip: "first".to_owned(),
                first_refused: Some(400),
            })),
        };
        let bytes = record.encode();
        assert_eq!(StateRecord::decode(&bytes).unwrap(), record);
        assert!(StateRecord::decode(&bytes[..bytes.len() - 1]).is_err());
        record.tried = None;
        assert_eq!(record.encode(), encode(&record), "as it was before anything followed");
        assert_eq!(StateRecord::decode(&record.encode()).unwrap(), record);
        assert_eq!(
            decode::<StateRecord>("state", &bytes).unwrap(),
            record,
            "an older program reads on"
        );
    }

    #[test]
    fn long_replies_are_cut_between_characters() {
        let reply = "é".repeat(1_000);
        assert_eq!(
            LastResult::new("r", None, None, &reply).reply.chars().count(),
            MAX_REPLY + 1
        );
    }
}
