//! Transfer encodings of bodies (RFC 2045 section 6): always 7-bit, so every host can take the message as it is.
//!
//! Quoted-printable is written here because lettre's takes 7 ns a byte, which is more than all the rest of composing.

use std::borrow::Cow;

use base64::engine::general_purpose::STANDARD;
use base64::{DecodeError, Engine as _};
use lettre::message::Body;
use lettre::message::header::ContentTransferEncoding;

/// Longest line of an encoded body, without its CRLF (RFC 2045 section 6.7 rule 5).
const LINE: usize = 76;

/// How a text is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransferEncoding {
    QuotedPrintable,
    Base64,
}

impl TransferEncoding {
    /// Quoted-printable for texts that stay readable in it, base64 for those mostly outside ASCII. It depends on nothing
    /// but the text, so every attempt has the same.
    pub(crate) fn for_text(text: &str) -> Self {
        // Characters outside ASCII take further bytes, and each byte of theirs three of quoted-printable.
        let further_bytes = text.len() - text.chars().count();
        if further_bytes > text.len() / 5 {
            Self::Base64
        } else {
            Self::QuotedPrintable
        }
    }

    /// The value of Content-Transfer-Encoding.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::QuotedPrintable => "quoted-printable",
            Self::Base64 => "base64",
        }
    }

    /// Writes a text whose lines end with line feeds; the encoded one's lines end with CRLF.
    pub(crate) fn write(self, out: &mut Vec<u8>, text: &str) {
        match self {
            Self::QuotedPrintable => write_quoted_printable(out, text),
            Self::Base64 => out.extend_from_slice(&base64(text.replace('\n', "\r\n").into_bytes())),
        }
    }
}

/// Makes every line end one line feed, and removes NUL, which no body may hold.
pub(crate) fn canonical_lines(text: &str) -> Cow<'_, str> {
    // Searching for one character at a time is many times faster than for any of two.
    if !text.contains('\r') && !text.contains('\0') {
        return Cow::Borrowed(text);
    }
    let lines = text.replace("\r\n", "\n").replace('\r', "\n");
    Cow::Owned(lines.replace('\0', ""))
}

/// Stands for itself in quoted-printable, wherever it is in its line.
const fn is_literal(byte: u8) -> bool {
    matches!(byte, b'!'..=b'<' | b'>'..=b'~' | b' ' | b'\t')
}

/// Which bytes must be escaped, by byte.
const ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = !is_literal(byte as u8);
        byte += 1;
    }
    table
};

fn write_quoted_printable(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + text.len() / 8);
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            out.extend_from_slice(b"\r\n");
        }
        write_line(out, line.as_bytes());
    }
}

/// Writes one line, as several with soft breaks if it is long.
fn write_line(out: &mut Vec<u8>, line: &[u8]) {
    // White space at the end would be lost (rule 3).
    let (line, last) = match line.split_last() {
        Some((&last @ (b' ' | b'\t'), line)) => (line, Some(last)),
        _ => (line, None),
    };
    // One column is kept free for the `=` of a soft break.
    let mut room = LINE - 1;
    let mut rest = line;
    while let Some(&byte) = rest.first() {
        if ESCAPED[usize::from(byte)] {
            write_escape(out, &mut room, byte);
            rest = &rest[1..];
            continue;
        }
        let (mut run, behind) = rest.split_at(literal_prefix(rest));
        while run.len() > room {
            let (head, tail) = run.split_at(room);
            out.extend_from_slice(head);
            out.extend_from_slice(b"=\r\n");
            room = LINE - 1;
            run = tail;
        }
        out.extend_from_slice(run);
        room -= run.len();
        rest = behind;
    }
    if let Some(last) = last {
        write_escape(out, &mut room, last);
    }
}

/// How many bytes at the start stand for themselves.
fn literal_prefix(bytes: &[u8]) -> usize {
    // Blocks of printable characters are passed over at once; the compiler makes vector instructions of this.
    let is_plain = |block: &&[u8; 16]| {
        let special = |byte: u8| (byte.wrapping_sub(b' ') > b'~' - b' ') | (byte == b'=');
        !block.iter().fold(false, |any, &byte| any | special(byte))
    };
    let plain = 16 * bytes.as_chunks::<16>().0.iter().take_while(is_plain).count();
    let rest = bytes[plain..].iter().position(|&byte| ESCAPED[usize::from(byte)]);
    rest.map_or(bytes.len(), |length| plain + length)
}

fn write_escape(out: &mut Vec<u8>, room: &mut usize, byte: u8) {
    const HEXADECIMAL: &[u8; 16] = b"0123456789ABCDEF";
    if *room < 3 {
        out.extend_from_slice(b"=\r\n");
        *room = LINE - 1;
    }
    let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
    out.extend_from_slice(&[b'=', HEXADECIMAL[high], HEXADECIMAL[low]]);
    *room -= 3;
}

/// The bytes that a text in base64 stands for; white space in it does not matter.
pub(crate) fn from_base64(text: &str) -> Result<Vec<u8>, DecodeError> {
    let dense: String = text.split_ascii_whitespace().collect();
    STANDARD.decode(dense)
}

/// Bytes in base64, in lines of 76 characters, without a line break at the end.
pub(crate) fn base64(bytes: Vec<u8>) -> Vec<u8> {
    Body::new_with_encoding(bytes, ContentTransferEncoding::Base64)
        .expect("base64 can hold any bytes")
        .into_vec()
}

#[cfg(test)]
mod tests {
    use mail_parser::decoders::quoted_printable::quoted_printable_decode;
    use proptest::prelude::*;

    use super::*;

    fn quoted_printable(text: &str) -> String {
        let mut out = Vec::new();
        write_quoted_printable(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn quoted_printable_by_example() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("a=b", "a=3Db"),
            ("Zoë", "Zo=C3=AB"),
            ("end \nnext\t", "end=20\r\nnext=09"),
            (" \n", "=20\r\n"),
            ("a  \n", "a =20\r\n"),
            ("\x0b\x7f", "=0B=7F"),
        ] {
            assert_eq!(quoted_printable(text), expected);
        }
        let long = "x".repeat(160);
        let expected = format!("{}=\r\n{}=\r\n{}", &long[..75], &long[..75], &long[..10]);
        assert_eq!(quoted_printable(&long), expected);
    }

    #[test]
    fn line_ends_become_line_feeds() {
        for (text, expected) in [
            ("a", "a"),
            ("a\nb", "a\nb"),
            ("a\rb", "a\nb"),
            ("a\r\nb", "a\nb"),
            ("a\r\r\nb\n\rc", "a\n\nb\n\nc"),
            ("a\0b\r\0\n", "ab\n\n"),
            ("\u{2028}\u{85}", "\u{2028}\u{85}"),
        ] {
            assert_eq!(canonical_lines(text), expected, "{text:?}");
        }
    }

    #[test]
    fn text_outside_ascii_is_base64() {
        let choice = TransferEncoding::for_text;
        assert_eq!(
            choice("Grüße aus Köln, liebe Leserinnen"),
            TransferEncoding::QuotedPrintable
        );
        assert_eq!(choice("Добрый день"), TransferEncoding::Base64);
        assert_eq!(choice(""), TransferEncoding::QuotedPrintable);
        let mut out = Vec::new();
        TransferEncoding::Base64.write(&mut out, "д\n");
        assert_eq!(out, b"0LQNCg==");
    }

    proptest! {
        #[test]
        fn quoted_printable_comes_back(text in "([a-zé= \t\u{1}-\u{ff}]{0,120}\n{0,2}){0,8}") {
            let text = canonical_lines(&text);
            let encoded = quoted_printable(&text);
            for line in encoded.split("\r\n") {
                prop_assert!(line.len() <= 76 && line.is_ascii());
                prop_assert!(!line.ends_with([' ', '\t']) && !line.contains(['\r', '\n']));
            }
            let decoded = quoted_printable_decode(encoded.as_bytes()).unwrap();
            prop_assert_eq!(String::from_utf8(decoded).unwrap(), text.replace('\n', "\r\n"));
        }
    }
}
