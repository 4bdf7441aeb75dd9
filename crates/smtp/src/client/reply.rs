//! Reading replies (RFC 5321 section 4.2) out of the bytes a host sends.
//!
//! Lines are read here rather than by smtp-proto's `ResponseReceiver`, because that keeps enhanced codes in octets (5.7.515
//! becomes 5.7.255), takes them from the last line, and sets no limit to the number of empty lines.

use bytes::{Bytes, BytesMut};
use relaypool_api::reply::{EnhancedCode, Reply, ReplyCode};

use super::ProtocolError;

/// The most octets of one reply, all lines and line ends together.
const MAX_REPLY: usize = 8 * 1024;
/// The most lines of one reply.
const MAX_LINES: usize = 128;
/// The most octets of the text that is kept of a reply.
const MAX_TEXT: usize = 1024;
/// The most characters of a line that is no reply, shown in the error.
const MAX_EXCERPT: usize = 80;

/// What was received and not yet taken as a reply.
#[derive(Debug, Default)]
pub(super) struct ReplyBuffer {
    bytes: BytesMut,
    /// The complete lines of the reply at the front, whose last line has not come yet.
    begun: Begun,
}

#[derive(Debug, Default, Clone, Copy)]
struct Begun {
    length: usize,
    lines: usize,
    first_code: Option<ReplyCode>,
}

impl ReplyBuffer {
    /// Where to read more into. [`next`](Self::next) limits the growth as long as it is called between reads.
    pub(super) fn space(&mut self) -> &mut BytesMut {
        self.bytes.reserve(1024);
        &mut self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn starts_with(&self, bytes: &[u8]) -> bool {
        self.bytes.starts_with(bytes)
    }

    /// Forgets everything that was received.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.begun = Begun::default();
    }

    /// Takes the reply at the front; `None` when its end has not been received yet.
    pub(super) fn next(&mut self) -> Result<Option<RawReply>, ProtocolError> {
        loop {
            let rest = &self.bytes[self.begun.length..];
            let Some(line_length) = rest.iter().position(|byte| *byte == b'\n').map(|index| index + 1) else {
                return if self.bytes.len() > MAX_REPLY {
                    Err(ProtocolError::TooLong)
                } else {
                    Ok(None)
                };
            };
            let line = Line::parse(&rest[..line_length])?;
            let first = *self.begun.first_code.get_or_insert(line.code);
            if first.get() / 100 != line.code.get() / 100 {
                return Err(ProtocolError::MixedCodes {
                    first: first.get(),
                    last: line.code.get(),
                });
            }
            let (code, is_last) = (line.code, line.is_last);
            self.begun.length += line_length;
            self.begun.lines += 1;
            if self.begun.length > MAX_REPLY || self.begun.lines > MAX_LINES {
                return Err(ProtocolError::TooLong);
            }
            if is_last {
                let length = std::mem::take(&mut self.begun).length;
                let lines = self.bytes.split_to(length).freeze();
                return Ok(Some(RawReply { code, lines }));
            }
        }
    }
}

/// One reply as it came.
#[derive(Debug)]
pub(super) struct RawReply {
    /// The code of the last line, which is the one that counts where lines differ.
    pub(super) code: ReplyCode,
    lines: Bytes,
}

impl RawReply {
    /// The text of each line, without code and line end.
    pub(super) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.lines
            .split_inclusive(|byte| *byte == b'\n')
            .filter_map(|line| Line::parse(line).ok())
            .map(|line| line.text)
    }

    /// The reply in the form the rest of the system knows.
    pub(super) fn to_reply(&self) -> Reply {
        let first = self.texts().next().map(String::from_utf8_lossy).unwrap_or_default();
        let enhanced = enhanced_code(&first, self.code);
        let mut text = String::new();
        for line in self.texts() {
            let line = String::from_utf8_lossy(line);
            append(&mut text, without_code(&line, enhanced));
            if text.len() >= MAX_TEXT {
                break;
            }
        }
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.truncate(text.trim_end().len());
        Reply {
            code: self.code,
            enhanced,
            text,
        }
    }
}

/// The enhanced code a text begins with, if its class fits the reply code (RFC 2034 section 4).
fn enhanced_code(text: &str, code: ReplyCode) -> Option<EnhancedCode> {
    first_word(text)
        .parse()
        .ok()
        .filter(|enhanced: &EnhancedCode| u16::from(enhanced.class) == code.get() / 100)
}

/// The line without the enhanced code of the reply. Another one, which some hosts give in later lines, stays in the text.
fn without_code(line: &str, enhanced: Option<EnhancedCode>) -> &str {
    let word = first_word(line);
    match enhanced {
        Some(enhanced) if word.parse() == Ok(enhanced) => line.trim_start().strip_prefix(word).unwrap_or(line),
        _ => line,
    }
}

fn first_word(text: &str) -> &str {
    text.split_ascii_whitespace().next().unwrap_or_default()
}

/// Appends `line` behind one space, its tabs as spaces and without other control characters.
fn append(text: &mut String, line: &str) {
    let line = line.trim();
    if !text.is_empty() && !line.is_empty() {
        text.push(' ');
    }
    text.extend(line.chars().filter_map(|character| match character {
        '\t' => Some(' '),
        character if character.is_control() => None,
        character => Some(character),
    }));
}

/// One line of a reply.
struct Line<'a> {
    code: ReplyCode,
    is_last: bool,
    text: &'a [u8],
}

impl<'a> Line<'a> {
    /// Reads `Reply-code [ SP text ] CRLF` or `Reply-code "-" [ text ] CRLF`; a bare LF will do.
    fn parse(line: &'a [u8]) -> Result<Self, ProtocolError> {
        let content = trim_line_end(line);
        Self::parse_content(content).ok_or_else(|| ProtocolError::NotAReply(excerpt(content)))
    }

    fn parse_content(content: &'a [u8]) -> Option<Self> {
        let (digits, rest) = content.split_at_checked(3)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let number = digits
            .iter()
            .fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
        let (is_last, text) = match rest {
            [] => (true, rest),
            [b' ', text @ ..] => (true, text),
            [b'-', text @ ..] => (false, text),
            _ => return None,
        };
        Some(Self {
            code: ReplyCode::try_from(number).ok()?,
            is_last,
            text,
        })
    }
}

fn trim_line_end(line: &[u8]) -> &[u8] {
    let mut line = line;
    while let [rest @ .., b'\r' | b'\n'] = line {
        line = rest;
    }
    line
}

/// The beginning of what a stranger sent, fit to be printed.
fn excerpt(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(MAX_EXCERPT)];
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<RawReply>, ProtocolError> {
        let mut buffer = ReplyBuffer::default();
        buffer.space().extend_from_slice(bytes);
        buffer.next()
    }

    fn reply(bytes: &[u8]) -> Reply {
        read(bytes).unwrap().unwrap().to_reply()
    }

    #[test]
    fn replies_as_hosts_write_them() {
        for (bytes, expected) in [
            (&b"250 2.1.0 Ok\r\n"[..], "250 2.1.0 Ok"),
            (b"250 Ok\n", "250 Ok"),
            (b"250\r\n", "250"),
            (b"250 \r\n", "250"),
            (b"250 ok\r\r\n", "250 ok"),
            (b"550 5.7.515 Access denied\r\n", "550 5.7.515 Access denied"),
            (
                b"550-5.7.26 This mail\r\n550-5.7.26 is not\r\n550 5.7.26 signed\r\n",
                "550 5.7.26 This mail is not signed",
            ),
            (b"550-5.7.1 one\r\n550 5.1.1 two\r\n", "550 5.7.1 one 5.1.1 two"),
            (b"550-no code\r\n550 5.1.1 later\r\n", "550 no code 5.1.1 later"),
            (b"550-\r\n550-  \r\n550 text\r\n", "550 text"),
            (b"451 4.7.1\r\n", "451 4.7.1"),
            (
                b"550 5.1.1: not followed by a space\r\n",
                "550 5.1.1: not followed by a space",
            ),
            (b"550 a\tb\x07\x1b[31mc\0\r\n", "550 a b[31mc"),
            (b"550 caf\xe9 ferm\xc3\xa9\r\n", "550 caf\u{fffd} fermé"),
        ] {
            assert_eq!(reply(bytes).to_string(), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn an_enhanced_code_of_another_class_is_text() {
        let read = reply(b"451 5.7.1 confused\r\n");
        assert_eq!(read.enhanced, None);
        assert_eq!(read.text, "5.7.1 confused");
        assert_eq!(reply(b"451 4.7.1 clear\r\n").enhanced, "4.7.1".parse().ok());
    }

    #[test]
    fn the_last_of_two_codes_of_one_class_counts() {
        assert_eq!(reply(b"250-a\r\n251 b\r\n").to_string(), "251 a b");
        assert_eq!(
            read(b"250-a\r\n550 b\r\n").unwrap_err(),
            ProtocolError::MixedCodes { first: 250, last: 550 }
        );
    }

    #[test]
    fn what_is_no_reply_line_is_an_error() {
        for bad in [
            &b"\r\n"[..],
            b"25\r\n",
            b"250ok\r\n",
            b"250\tok\r\n",
            b"199 too low\r\n",
            b"600 too high\r\n",
            b"999 too high\r\n",
            b"+OK pop3\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
            b"250-begun\r\nand then nonsense\r\n",
            b"\x16\x03\x01\n",
        ] {
            assert!(
                matches!(read(bad), Err(ProtocolError::NotAReply(_))),
                "{}",
                bad.escape_ascii()
            );
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = reply(format!("550 a{}\r\n", "é".repeat(2000)).as_bytes()).text;
        assert_eq!(text.len(), MAX_TEXT - 1);
        let lines = reply(format!("{}550 end\r\n", "550-some words\r\n".repeat(100)).as_bytes()).text;
        assert!(
            lines.len() <= MAX_TEXT && lines.len() > MAX_TEXT - 12,
            "{}",
            lines.len()
        );
    }

    #[test]
    fn replies_have_limits() {
        let longest = |text: usize| format!("250 {}\r\n", "x".repeat(text)).into_bytes();
        assert!(read(&longest(MAX_REPLY - 6)).unwrap().is_some());
        assert_eq!(read(&longest(MAX_REPLY - 5)).unwrap_err(), ProtocolError::TooLong);
        assert_eq!(
            read(&b"250 ".repeat(MAX_REPLY / 4 + 1)).unwrap_err(),
            ProtocolError::TooLong
        );
        assert_eq!(
            read(&b"250-\r\n".repeat(MAX_LINES + 1)).unwrap_err(),
            ProtocolError::TooLong
        );
        assert!(read(&b"250-\r\n".repeat(MAX_LINES)).unwrap().is_none());
    }

    #[test]
    fn several_replies_in_one_segment_come_one_by_one() {
        let mut buffer = ReplyBuffer::default();
        buffer
            .space()
            .extend_from_slice(b"250 one\r\n550-two\r\n550 more\r\n354 thr");
        assert_eq!(buffer.next().unwrap().unwrap().to_reply().to_string(), "250 one");
        assert_eq!(buffer.next().unwrap().unwrap().to_reply().to_string(), "550 two more");
        assert!(buffer.next().unwrap().is_none());
        buffer.space().extend_from_slice(b"ee\r\n");
        assert_eq!(buffer.next().unwrap().unwrap().to_reply().to_string(), "354 three");
        assert!(buffer.is_empty());
    }

    proptest! {
        /// However the bytes are cut into segments, the same replies come out, or the same error.
        #[test]
        fn segments_do_not_matter(
            bytes in proptest::collection::vec(prop_oneof![Just(b'2'), Just(b'5'), Just(b'-'), Just(b' '), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..200),
            cut in 1_usize..20,
        ) {
            let drain = |buffer: &mut ReplyBuffer, replies: &mut Vec<Result<Reply, ProtocolError>>| {
                while replies.last().is_none_or(Result::is_ok) {
                    match buffer.next() {
                        Ok(None) => break,
                        Ok(Some(raw)) => replies.push(Ok(raw.to_reply())),
                        Err(error) => replies.push(Err(error)),
                    }
                }
            };
            let (mut whole, mut pieces) = (ReplyBuffer::default(), ReplyBuffer::default());
            let (mut of_whole, mut of_pieces) = (Vec::new(), Vec::new());
            whole.space().extend_from_slice(&bytes);
            drain(&mut whole, &mut of_whole);
            for segment in bytes.chunks(cut) {
                pieces.space().extend_from_slice(segment);
                drain(&mut pieces, &mut of_pieces);
            }
            prop_assert_eq!(of_whole, of_pieces);
        }
    }
}
