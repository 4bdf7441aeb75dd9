//! The recipients of a run: every row of the list either as one to send to, or as one that is ignored and why.

use std::collections::{BTreeMap, HashSet};

use relaypool_api::delivery::{ListFormat, Recipient};
use relaypool_api::delivery_slice::{MAX_SLICE_BYTES, SliceRow};
use relaypool_api::message::IgnoredRow;
use relaypool_api::types::EmailAddress;
use serde_json::Value;

use super::csv_list;
use super::json_lines;

/// Most ignored rows that are listed one by one; the others are counted.
const MAX_LISTED: usize = 100;
/// Longest address of an ignored row that is shown, in characters.
const MAX_SHOWN_ADDRESS: usize = 320;
/// Longest explanation of an ignored row, in characters.
const MAX_DETAIL: usize = 256;

/// A list of recipients, read. [`total`](Self::total) is always the number of [`rows`](Self::rows) plus the sum of
/// [`ignored`](Self::ignored): no row is lost.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecipientList {
    /// Rows of the list, ignored ones included.
    pub total: u64,
    /// Rows to send to, in the order of the list. Each address is valid and occurs once.
    pub rows: Vec<SliceRow>,
    /// Rows that are ignored, by reason.
    pub ignored: BTreeMap<String, u64>,
    /// The first 100 rows that are ignored.
    pub ignored_rows: Vec<IgnoredRow>,
}

/// Why a list cannot be read at all. One bad row is no such reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListProblem {
    /// Nothing there, not even a header.
    #[error("the list is empty: its first row must name the columns, one of them address or email")]
    Empty,
    /// The header has an open quote, or is not UTF-8.
    #[error("the first row cannot be read ({0}): it must name the columns, one of them address or email")]
    MalformedHeader(String),
    /// The header lacks a column for the address.
    #[error("no column is named address or email; the first row names: {}", .0.join(", "))]
    NoAddressColumn(Vec<String>),
    /// Two columns have one name, so a template could not tell them apart.
    #[error("two columns are named '{0}'")]
    DuplicateColumn(String),
}

/// Why a row is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IgnoreReason {
    /// It is not written as the format demands.
    MalformedRow,
    /// It has no address, or an empty one.
    AddressNotSpecified,
    /// Its address is none.
    MalformedAddress,
    /// An earlier row has the same address.
    Duplicate,
    /// Its variables do not fit into a slice.
    TooLarge,
}

impl IgnoreReason {
    /// The reason as the status shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MalformedRow => "Malformed row",
            Self::AddressNotSpecified => "Address not specified",
            Self::MalformedAddress => "Malformed address",
            Self::Duplicate => "Duplicate",
            Self::TooLarge => "Row too large",
        }
    }
}

impl RecipientList {
    /// Reads a list that is part of a Delivery.
    pub fn from_inline(recipients: &[Recipient]) -> Self {
        let mut reader = ListReader::default();
        for recipient in recipients {
            reader.row(&recipient.address, recipient.variables.clone());
        }
        reader.finish()
    }

    /// Reads the text of a list.
    ///
    /// # Errors
    /// When the text as a whole is no such list. Bad rows are not an error: they are among the ignored.
    pub fn parse(text: &[u8], format: ListFormat) -> Result<Self, ListProblem> {
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        match format {
            ListFormat::Csv => csv_list::read(text),
            ListFormat::JsonLines => Ok(json_lines::read(text)),
        }
    }
}

/// Takes the rows of a list one after the other, whatever their format.
#[derive(Default)]
pub(super) struct ListReader {
    list: RecipientList,
    seen: HashSet<String>,
}

impl ListReader {
    /// A row that could be read.
    pub(super) fn row(&mut self, address: &str, variables: BTreeMap<String, Value>) {
        let written = address.trim();
        if written.is_empty() {
            return self.ignore(IgnoreReason::AddressNotSpecified, "", "has no address");
        }
        let address = match written.parse::<EmailAddress>() {
            Ok(address) => address,
            Err(problem) => return self.ignore(IgnoreReason::MalformedAddress, written, &problem.to_string()),
        };
        if self.seen.contains(&address.comparison_key()) {
            return self.ignore(IgnoreReason::Duplicate, written, "an earlier row has this address");
        }
        let row = SliceRow {
            index: self.list.total,
            recipient: Recipient {
                address: address.to_string(),
                variables,
            },
        };
        if row_bytes(&row) > MAX_SLICE_BYTES {
            let detail = format!("its variables take more than {MAX_SLICE_BYTES} bytes");
            return self.ignore(IgnoreReason::TooLarge, written, &detail);
        }
        self.seen.insert(address.comparison_key());
        self.list.rows.push(row);
        self.list.total += 1;
    }

    /// A row that is not written as the format demands. `address` is as much of it as can be made out.
    pub(super) fn malformed(&mut self, address: &str, detail: &str) {
        self.ignore(IgnoreReason::MalformedRow, address, detail);
    }

    fn ignore(&mut self, reason: IgnoreReason, address: &str, detail: &str) {
        let index = self.list.total;
        self.list.total += 1;
        *self.list.ignored.entry(reason.as_str().to_owned()).or_default() += 1;
        if self.list.ignored_rows.len() < MAX_LISTED {
            let detail = first_characters(detail, MAX_DETAIL);
            self.list.ignored_rows.push(IgnoredRow {
                index,
                address: first_characters(address.trim(), MAX_SHOWN_ADDRESS),
                reason: format!("row {index}: {detail}"),
            });
        }
    }

    pub(super) fn finish(self) -> RecipientList {
        self.list
    }
}

/// Size of a row within a slice, as JSON, in bytes.
pub(super) fn row_bytes(row: &SliceRow) -> usize {
    let mut counter = ByteCounter(0);
    match serde_json::to_writer(&mut counter, row) {
        Ok(()) => counter.0,
        // Keys are strings and values are JSON already: nothing is left that could fail, and if it did, the row must
        // not get into a slice.
        Err(_) => usize::MAX,
    }
}

struct ByteCounter(usize);

impl std::io::Write for ByteCounter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn first_characters(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}
