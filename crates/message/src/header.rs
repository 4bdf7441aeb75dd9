//! Header fields (RFC 5322 section 2.2): encoded words (RFC 2047) and folding.
//!
//! Written here rather than taken from lettre, whose encoder loses spaces between encoded words, lets a text that looks
//! like an encoded word pass as one, and leaves words of any length unfolded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use relaypool_api::EmailAddress;

use crate::error::ComposeError;

/// The length of a line to aim at, without its CRLF (RFC 5322 section 2.1.1).
const LINE: usize = 78;

/// Longest piece that is not folded: with a header's name before it, its line stays below 998 octets.
pub(crate) const LONGEST_PIECE: usize = 900;

/// Bytes of text in a full encoded word, which has at most 75 characters.
const ENCODED_WORD_TEXT: usize = 45;

/// What an encoded word has besides its text.
const ENCODED_WORD_FRAME: usize = "=?utf-8?B?".len() + "?=".len();

/// Headers that the message is built with; templates cannot set them.
const RESERVED: [&str; 19] = [
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "bcc",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "content-disposition",
    "content-id",
    "dkim-signature",
    "return-path",
    "received",
    "list-unsubscribe",
    "list-unsubscribe-post",
];

pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
}

/// RFC 5322 `field-name`, short enough to leave room for a value.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=76).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
}

/// A rendered value without the white space around it. One with a control character is refused, for a recipient's data
/// must never add a header.
pub(crate) fn one_line<'a>(header: &str, value: &'a str) -> Result<&'a str, ComposeError> {
    if value.contains(char::is_control) {
        return Err(ComposeError::HeaderInjection {
            header: header.to_owned(),
        });
    }
    Ok(value.trim())
}

/// Writes a header of free text. `value` is one line without white space around it.
pub(crate) fn write_text(out: &mut Vec<u8>, name: &str, value: &str) {
    let column = write_name(out, name);
    if is_plain(value) {
        write_folded(out, column, pieces(value));
    } else {
        write_encoded_words(out, column, value);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a header whose value is short, in ASCII and known to be fine, as it is.
pub(crate) fn write_exact(out: &mut Vec<u8>, name: &str, value: &[&str]) {
    write_name(out, name);
    value.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    out.extend_from_slice(b"\r\n");
}

/// Writes a header of items that are separated by commas and never broken.
pub(crate) fn write_list(out: &mut Vec<u8>, name: &str, items: &[String]) {
    let column = write_name(out, name);
    let last = items.len().saturating_sub(1);
    let pieces: Vec<String> = items
        .iter()
        .enumerate()
        .map(|(index, item)| if index < last { format!("{item},") } else { item.clone() })
        .collect();
    write_folded(out, column, pieces.iter().map(String::as_str));
    out.extend_from_slice(b"\r\n");
}

/// Writes a header with one mailbox (RFC 5322 section 3.4). `display_name` is one line; an empty one is left out.
pub(crate) fn write_mailbox(out: &mut Vec<u8>, name: &str, display_name: &str, address: &EmailAddress) {
    let mut column = write_name(out, name);
    let address = address.to_string();
    if display_name.is_empty() {
        out.extend_from_slice(address.as_bytes());
    } else {
        let start = out.len();
        if is_plain(display_name) && display_name.len() <= LINE - column - 2 {
            write_quoted(out, display_name);
            column += out.len() - start;
        } else {
            column = write_encoded_words(out, column, display_name);
        }
        let fits = column + " <>".len() + address.len() <= LINE;
        out.extend_from_slice(if fits { b" <" } else { b"\r\n <" });
        out.extend_from_slice(address.as_bytes());
        out.push(b'>');
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes `name: ` and tells the column behind it.
fn write_name(out: &mut Vec<u8>, name: &str) -> usize {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    name.len() + 2
}

/// True for a text that can stand in a header as it is: printable ASCII that no reader takes for an encoded word, and
/// that can be folded.
fn is_plain(value: &str) -> bool {
    value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
        && !value.contains("=?")
        && pieces(value).all(|piece| piece.len() <= LONGEST_PIECE)
}

/// Cuts a value at its single spaces, where it can be folded. Folding at one of several spaces would leave a line with
/// white space at its end, or of white space alone, which some relays remove.
fn pieces(value: &str) -> impl Iterator<Item = &str> {
    let bytes = value.as_bytes();
    let mut start = 0;
    let mut ends = (1..bytes.len().saturating_sub(1))
        .filter(move |&at| bytes[at] == b' ' && bytes[at - 1] != b' ' && bytes[at + 1] != b' ')
        .chain([bytes.len()]);
    std::iter::from_fn(move || {
        let end = ends.next()?;
        let piece = &value[start..end];
        start = end + 1;
        Some(piece)
    })
}

/// Writes pieces with a space or a fold between them.
fn write_folded<'a>(out: &mut Vec<u8>, mut column: usize, pieces: impl Iterator<Item = &'a str>) {
    for (index, piece) in pieces.enumerate() {
        if index > 0 && column + 1 + piece.len() > LINE {
            out.extend_from_slice(b"\r\n");
            column = 0;
        }
        if index > 0 {
            out.push(b' ');
            column += 1;
        }
        out.extend_from_slice(piece.as_bytes());
        column += piece.len();
    }
}

/// Writes a text as encoded words, one on each line, and tells the column behind the last.
fn write_encoded_words(out: &mut Vec<u8>, mut column: usize, mut text: &str) -> usize {
    let mut encoded = String::new();
    let mut first = true;
    while !text.is_empty() {
        if !first {
            out.extend_from_slice(b"\r\n ");
            column = 1;
        }
        first = false;
        let room = LINE.saturating_sub(column + ENCODED_WORD_FRAME) / 4 * 3;
        let (word, rest) = text.split_at(text.floor_char_boundary(room.clamp(9, ENCODED_WORD_TEXT)));
        encoded.clear();
        STANDARD.encode_string(word, &mut encoded);
        out.extend_from_slice(b"=?utf-8?B?");
        out.extend_from_slice(encoded.as_bytes());
        out.extend_from_slice(b"?=");
        column += ENCODED_WORD_FRAME + encoded.len();
        text = rest;
    }
    column
}

/// Writes a quoted string (RFC 5322 section 3.2.4), or the bare words when no quotes are needed.
fn write_quoted(out: &mut Vec<u8>, text: &str) {
    let bare = pieces(text).all(|word| {
        word.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_'".contains(&byte))
    });
    if bare {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' || byte == b'\\' {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use mail_parser::MessageParser;
    use proptest::prelude::*;

    use super::*;

    fn text(name: &str, value: &str) -> String {
        let mut out = Vec::new();
        write_text(&mut out, name, value);
        String::from_utf8(out).unwrap()
    }

    fn mailbox(display_name: &str, address: &str) -> String {
        let mut out = Vec::new();
        write_mailbox(&mut out, "From", display_name, &address.parse().unwrap());
        String::from_utf8(out).unwrap()
    }

    fn check_lines(header: &str) {
        let rest = header.replace("\r\n", "");
        assert!(!rest.contains(['\r', '\n']), "{header:?}");
        let lines: Vec<&str> = header.strip_suffix("\r\n").unwrap().split("\r\n").collect();
        for (index, line) in lines.iter().enumerate() {
            assert!(line.len() <= 998, "{header:?}");
            assert!(line.trim() != "", "{header:?}");
            assert!(index == 0 || line.starts_with(' '), "{header:?}");
        }
    }

    #[test]
    fn short_ascii_stays_as_it_is() {
        assert_eq!(
            text("Subject", "Hello, world: 50 % off"),
            "Subject: Hello, world: 50 % off\r\n"
        );
        assert_eq!(text("Subject", ""), "Subject: \r\n");
        assert_eq!(text("Subject", "a  b"), "Subject: a  b\r\n");
    }

    #[test]
    fn long_ascii_is_folded_at_single_spaces() {
        let value = "word ".repeat(40);
        let header = text("Subject", value.trim());
        assert!(header.split("\r\n").all(|line| line.len() <= 78), "{header}");
        assert_eq!(header.replace("\r\n", ""), format!("Subject: {}", value.trim()));
        // A word alone is longer than the line.
        let header = text("Subject", &format!("a {} b", "x".repeat(200)));
        assert_eq!(header, format!("Subject: a\r\n {}\r\n b\r\n", "x".repeat(200)));
    }

    #[test]
    fn what_cannot_be_folded_is_encoded() {
        for value in ["x".repeat(5_000), format!("a{}b", " ".repeat(5_000))] {
            let header = text("Subject", &value);
            assert!(header.split("\r\n").all(|line| line.len() <= 78), "{header}");
        }
    }

    #[test]
    fn what_looks_encoded_is_encoded() {
        assert_eq!(
            text("Subject", "=?utf-8?q?=0D=0ABcc:eve@example.com?="),
            "Subject: =?utf-8?B?PT91dGYtOD9xPz0wRD0wQUJjYzpldmVAZXhhbXBsZS5jb20/PQ==?=\r\n"
        );
    }

    #[test]
    fn display_names_are_bare_quoted_or_encoded() {
        for (name, expected) in [
            ("", "From: a@example.com\r\n"),
            ("Ada", "From: Ada <a@example.com>\r\n"),
            ("Ada Lovelace", "From: Ada Lovelace <a@example.com>\r\n"),
            ("Lovelace, Ada", "From: \"Lovelace, Ada\" <a@example.com>\r\n"),
            ("\"A\" \\", "From: \"\\\"A\\\" \\\\\" <a@example.com>\r\n"),
            ("eve@example.com", "From: \"eve@example.com\" <a@example.com>\r\n"),
            ("a  b", "From: \"a  b\" <a@example.com>\r\n"),
            ("Zoë", "From: =?utf-8?B?Wm/Dqw==?= <a@example.com>\r\n"),
            ("=?x?=", "From: =?utf-8?B?PT94Pz0=?= <a@example.com>\r\n"),
        ] {
            assert_eq!(mailbox(name, "a@example.com"), expected);
        }
        let long = mailbox(&"x".repeat(300), &format!("{}@example.com", "a".repeat(64)));
        check_lines(&long);
    }

    #[test]
    fn refuses_control_characters() {
        for bad in [
            "a\r\nBcc: b",
            "a\rb",
            "a\nb",
            "a\0b",
            "a\tb",
            "a\u{85}b",
            "a\u{7f}b",
            "a\r\n",
            "\u{1b}[0m",
        ] {
            let expected = ComposeError::HeaderInjection {
                header: "Subject".to_owned(),
            };
            assert_eq!(one_line("Subject", bad), Err(expected), "{bad:?}");
        }
        assert_eq!(one_line("Subject", " a\u{2028}b "), Ok("a\u{2028}b"));
    }

    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~]{0,200}",
            "\\PC{0,200}",
            "(a{0,30} {0,3}[é=?\"]{0,3}){0,40}",
            "[a-z]{800,1100}( [a-z]{1,950}){0,2}"
        ]
        .prop_map(|text| text.replace(char::is_control, "").trim().to_owned())
    }

    proptest! {
        #[test]
        fn text_comes_back(value in line()) {
            let header = text("Subject", &value);
            check_lines(&format!("{}.\r\n", header.trim_end()));
            let message = format!("{header}\r\n");
            let parsed = MessageParser::new().parse(message.as_bytes()).unwrap();
            prop_assert_eq!(parsed.subject().unwrap_or_default(), value);
            prop_assert_eq!(parsed.headers().len(), 1);
        }

        #[test]
        fn display_names_come_back(name in line()) {
            let header = mailbox(&name, "a@example.com");
            check_lines(&header);
            let message = format!("{header}\r\n");
            let parsed = MessageParser::new().parse(message.as_bytes()).unwrap();
            let from = parsed.from().unwrap().first().unwrap();
            prop_assert_eq!(from.name().unwrap_or_default(), name);
            prop_assert_eq!(from.address().unwrap(), "a@example.com");
            prop_assert_eq!(parsed.headers().len(), 1);
        }
    }
}
