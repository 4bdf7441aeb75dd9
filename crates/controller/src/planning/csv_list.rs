//! Lists as comma-separated values (RFC 4180).
//!
//! The `csv` crate reads the cells. It forgives a quote that is never closed by reading everything up to the next quote as
//! one cell, which would swallow recipients without a word. So the text is first cut where RFC 4180 is broken: the line
//! with the bad quote becomes one malformed row, and reading goes on behind it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::recipients::{ListProblem, ListReader, RecipientList};

/// Reads a list whose first row names the columns.
pub(super) fn read(text: &[u8]) -> Result<RecipientList, ListProblem> {
    let mut columns = None;
    let mut reader = ListReader::default();
    for piece in pieces(text) {
        match (piece, &columns) {
            (Piece::Malformed(_), None) => {
                return Err(ListProblem::MalformedHeader("a quote is not closed".to_owned()));
            }
            (Piece::Malformed(line), Some(_)) => {
                reader.malformed(
                    &String::from_utf8_lossy(line),
                    "a quote is not closed, or text follows a closed one",
                );
            }
            (Piece::Records(records), _) => {
                for cells in records_of(records) {
                    match &columns {
                        None => columns = Some(Columns::read(&cells)?),
                        Some(columns) => columns.row(&cells, &mut reader),
                    }
                }
            }
        }
    }
    columns.ok_or(ListProblem::Empty)?;
    Ok(reader.finish())
}

/// What the header says.
struct Columns {
    /// Name of each column. Cells of a column without a name cannot be referred to, and are left out.
    names: Vec<String>,
    /// Which column holds the address.
    address: usize,
}

impl Columns {
    fn read(cells: &csv::ByteRecord) -> Result<Self, ListProblem> {
        let names = cells
            .iter()
            .map(|cell| std::str::from_utf8(cell).map(|name| name.trim().to_owned()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| ListProblem::MalformedHeader("it is not UTF-8".to_owned()))?;
        let column = |wanted: &str| names.iter().position(|name| name.eq_ignore_ascii_case(wanted));
        let Some(address) = column("address").or_else(|| column("email")) else {
            return Err(ListProblem::NoAddressColumn(names));
        };
        for (place, name) in names.iter().enumerate() {
            if !name.is_empty() && names[..place].contains(name) {
                return Err(ListProblem::DuplicateColumn(name.clone()));
            }
        }
        Ok(Self { names, address })
    }

    fn row(&self, cells: &csv::ByteRecord, reader: &mut ListReader) {
        let address = String::from_utf8_lossy(cells.get(self.address).unwrap_or_default());
        if cells.len() != self.names.len() {
            let detail = format!("has {} cells, but there are {} columns", cells.len(), self.names.len());
            return reader.malformed(&address, &detail);
        }
        match self.variables(cells) {
            Ok(variables) => reader.row(&address, variables),
            Err(column) => reader.malformed(&address, &format!("the cell of column '{column}' is not UTF-8")),
        }
    }

    /// Everything but the address, or the name of a column whose cell is not UTF-8.
    fn variables(&self, cells: &csv::ByteRecord) -> Result<BTreeMap<String, Value>, &str> {
        let mut variables = BTreeMap::new();
        for (place, (name, cell)) in self.names.iter().zip(cells).enumerate() {
            let text = std::str::from_utf8(cell).map_err(|_| name.as_str())?;
            if place != self.address && !name.is_empty() {
                variables.insert(name.clone(), Value::String(text.to_owned()));
            }
        }
        Ok(variables)
    }
}

/// The records of a text without a broken quote.
fn records_of(text: &[u8]) -> impl Iterator<Item = csv::ByteRecord> {
    csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(text)
        .into_byte_records()
        // Reading from memory does not fail, and `flexible` accepts any number of cells.
        .filter_map(Result::ok)
}

/// A part of the text.
#[derive(Debug, PartialEq)]
enum Piece<'a> {
    /// Whole records, each as RFC 4180 has them.
    Records(&'a [u8]),
    /// One line that starts a record whose quotes are wrong.
    Malformed(&'a [u8]),
}

/// Where a scan is within a record.
#[derive(Clone, Copy)]
enum Place {
    CellStart,
    Plain,
    Quoted,
    /// Behind a quote within a quoted cell: its end, or the first half of an escaped quote.
    QuoteInQuoted,
}

/// Cuts the text where a record breaks the rules for quotes.
fn pieces(text: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    let mut malformed = None;
    std::iter::from_fn(move || {
        if let Some(line) = malformed.take() {
            return Some(Piece::Malformed(line));
        }
        if rest.is_empty() {
            return None;
        }
        let (good, bad) = rest.split_at(broken_record(rest));
        let line_end = bad.iter().position(|&byte| is_line_end(byte)).unwrap_or(bad.len());
        let (line, behind) = bad.split_at(line_end);
        rest = behind;
        match (good.is_empty(), line.is_empty()) {
            (true, _) => Some(Piece::Malformed(line)),
            (false, true) => Some(Piece::Records(good)),
            (false, false) => {
                malformed = Some(line);
                Some(Piece::Records(good))
            }
        }
    })
}

/// Where the first record starts that breaks the rules, or the end of the text.
fn broken_record(text: &[u8]) -> usize {
    let mut record_start = 0;
    let mut place = Place::CellStart;
    for (at, &byte) in text.iter().enumerate() {
        place = match (place, byte) {
            (Place::Quoted, b'"') => Place::QuoteInQuoted,
            (Place::Quoted, _) | (Place::QuoteInQuoted, b'"') => Place::Quoted,
            (Place::CellStart, b'"') => Place::Quoted,
            (_, b',') => Place::CellStart,
            (_, byte) if is_line_end(byte) => {
                record_start = at + 1;
                Place::CellStart
            }
            (Place::QuoteInQuoted, _) => return record_start,
            (Place::CellStart | Place::Plain, _) => Place::Plain,
        };
    }
    match place {
        Place::Quoted => record_start,
        _ => text.len(),
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn addresses(list: &RecipientList) -> Vec<&str> {
        list.rows.iter().map(|row| row.recipient.address.as_str()).collect()
    }

    #[test]
    fn reads_a_plain_list() {
        let list = read(b"Email,name,city\r\nada@example.com,Ada,London\r\nbob@example.com,Bob,\r\n").unwrap();
        assert_eq!(addresses(&list), ["ada@example.com", "bob@example.com"]);
        assert_eq!(
            json!(list.rows[1].recipient.variables),
            json!({ "name": "Bob", "city": "" })
        );
        assert_eq!((list.total, list.ignored.len()), (2, 0));
    }

    #[test]
    fn takes_quoted_line_breaks_commas_and_quotes_as_they_are() {
        let list = read(b"address,name\na@example.com,\"Ada,\r\n\"\"the\"\" first\"\n").unwrap();
        assert_eq!(list.rows[0].recipient.variables["name"], "Ada,\r\n\"the\" first");
    }

    #[test]
    fn finds_the_address_column() {
        for (header, ok) in [
            ("address", true),
            ("EMAIL", true),
            (" Email ", true),
            ("\"email\"", true),
            ("name,e-mail", false),
            ("email;name", false),
            ("ada@example.com", false),
        ] {
            assert_eq!(read(format!("{header}\n").as_bytes()).is_ok(), ok, "{header}");
        }
        let both = read(b"email,address\nx@example.com,ada@example.com\n").unwrap();
        assert_eq!(addresses(&both), ["ada@example.com"]);
        assert_eq!(both.rows[0].recipient.variables["email"], "x@example.com");
    }

    #[test]
    fn refuses_a_list_without_a_usable_header() {
        for (text, problem) in [
            ("", ListProblem::Empty),
            ("\n\r\n", ListProblem::Empty),
            (
                "\"email\nada@example.com\n",
                ListProblem::MalformedHeader("a quote is not closed".into()),
            ),
            (
                "name,city\n",
                ListProblem::NoAddressColumn(vec!["name".into(), "city".into()]),
            ),
            ("email,name,name\n", ListProblem::DuplicateColumn("name".into())),
        ] {
            assert_eq!(read(text.as_bytes()), Err(problem), "{text:?}");
        }
        assert!(matches!(
            read(b"email,na\xffme\n"),
            Err(ListProblem::MalformedHeader(_))
        ));
    }

    #[test]
    fn a_quote_that_is_not_closed_costs_one_row_only() {
        let text = "email,name\n\
            a@example.com,\"Ada\n\
            b@example.com,\"Bob\"\n\
            c@example.com,Cleo\n\
            d@example.com,\"Dan\"x\n\
            e@example.com,\"Eve";
        let list = read(text.as_bytes()).unwrap();
        assert_eq!(addresses(&list), ["b@example.com", "c@example.com"]);
        assert_eq!(list.total, 5);
        assert_eq!(list.ignored["Malformed row"], 3);
        assert_eq!(list.ignored_rows[0].index, 0);
        assert!(list.ignored_rows[0].reason.contains("row 0: a quote is not closed"));
        assert_eq!(list.ignored_rows[1].index, 3);
        assert_eq!(list.ignored_rows[2].index, 4);
    }

    #[test]
    fn rows_of_another_length_are_malformed() {
        let list = read(b"email,name\na@example.com\nb@example.com,Bob,extra\nc@example.com,Cleo\n").unwrap();
        assert_eq!(addresses(&list), ["c@example.com"]);
        assert_eq!(list.rows[0].index, 2);
        assert_eq!(list.ignored["Malformed row"], 2);
        assert_eq!(list.ignored_rows[1].address, "b@example.com");
        assert!(
            list.ignored_rows[1]
                .reason
                .ends_with("row 1: has 3 cells, but there are 2 columns")
        );
    }

    #[test]
    fn a_cell_that_is_not_utf8_makes_its_row_malformed() {
        let list = read(b"email,name\na@example.com,Andr\xe9\nb@example.com,Bob\n").unwrap();
        assert_eq!(addresses(&list), ["b@example.com"]);
        assert!(list.ignored_rows[0].reason.contains("column 'name' is not UTF-8"));
    }

    proptest! {
        /// Whatever cells hold, a list that a CSV writer made is read as it was.
        #[test]
        fn reads_what_a_writer_wrote(names in proptest::collection::vec("(?s).{0,12}", 0..20)) {
            let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
            writer.write_record(["address", "name"]).unwrap();
            for (index, name) in names.iter().enumerate() {
                writer.write_record([&format!("r{index}@example.com"), name]).unwrap();
            }
            let list = read(&writer.into_inner().unwrap()).unwrap();
            let read: Vec<_> = list.rows.iter().map(|row| row.recipient.variables["name"].as_str().unwrap()).collect();
            prop_assert_eq!(read, names);
        }

        /// Every line that has no quote keeps its row, whatever stands around it.
        #[test]
        fn bad_quotes_never_swallow_good_lines(
            lines in proptest::collection::vec(
                prop_oneof![Just(None), "[a\",\n]{0,8}".prop_map(Some)],
                0..12,
            ),
        ) {
            let mut text = "email,name\n".to_owned();
            let mut good = Vec::new();
            let mut open = false;
            for (index, line) in lines.iter().enumerate() {
                match line {
                    None => {
                        text.push_str(&format!("r{index}@example.com,Bob\n"));
                        good.push((format!("r{index}@example.com"), open));
                    }
                    // Closed legally further down, a quote makes the lines between part of its cell, and rightly so.
                    Some(bad) => {
                        open |= bad.contains('"');
                        text.push_str(bad);
                        text.push('\n');
                    }
                }
            }
            let list = read(text.as_bytes()).unwrap();
            for (address, uncertain) in good {
                prop_assert!(uncertain || addresses(&list).contains(&address.as_str()), "{}", address);
            }
        }

        #[test]
        fn any_bytes_add_up(bytes in proptest::collection::vec(
            prop_oneof![Just(b'"'), Just(b','), Just(b'\n'), Just(b'\r'), Just(b'@'), any::<u8>()], 0..200,
        )) {
            let mut text = b"email,name\n".to_vec();
            text.extend(bytes);
            let list = read(&text).unwrap();
            prop_assert_eq!(list.total, list.rows.len() as u64 + list.ignored.values().sum::<u64>());
        }
    }
}
