//! A message as it goes over the wire after DATA.

use std::borrow::Cow;

use bytes::Buf;

use super::Unsendable;

/// A message with its dots stuffed and its end marked (RFC 5321 section 4.5.2).
#[derive(Debug)]
pub(super) struct DataBlock<'a> {
    /// Borrowed unless a line starts with a dot.
    content: Cow<'a, [u8]>,
    /// What ends the data: the final dot, behind the CRLF the message lacks.
    end: &'static [u8],
    size: u64,
}

impl<'a> DataBlock<'a> {
    /// Checks the line ends of a message and prepares it.
    pub(super) fn new(message: &'a [u8]) -> Result<Self, Unsendable> {
        let dots = leading_dots(message)?;
        let is_terminated = message.is_empty() || message.ends_with(b"\r\n");
        let (end, added) = if is_terminated {
            (&b".\r\n"[..], 0)
        } else {
            (&b"\r\n.\r\n"[..], 2)
        };
        Ok(Self {
            content: stuff(message, &dots),
            end,
            size: message.len() as u64 + added,
        })
    }

    /// The size of the message as RFC 1870 counts it: with all its CRLFs, without the dots that are added on the way.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Everything that goes over the wire.
    pub(super) fn bytes(&self) -> impl Buf {
        self.content.chain(self.end)
    }
}

/// Where the lines begin that start with a dot; an error where a CR or LF stands alone.
fn leading_dots(message: &[u8]) -> Result<Vec<usize>, Unsendable> {
    let mut dots = Vec::new();
    let mut start = 0;
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        let content = line.strip_suffix(b"\r\n").unwrap_or(line);
        if content.contains(&b'\r') || content.ends_with(b"\n") {
            return Err(bare_line_end(content, start));
        }
        if content.starts_with(b".") {
            dots.push(start);
        }
        start += line.len();
    }
    Ok(dots)
}

fn bare_line_end(content: &[u8], start: usize) -> Unsendable {
    let within = content.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    Unsendable::BareLineEnd {
        offset: start + within.unwrap_or_default(),
    }
}

fn stuff<'a>(message: &'a [u8], dots: &[usize]) -> Cow<'a, [u8]> {
    if dots.is_empty() {
        return Cow::Borrowed(message);
    }
    let mut stuffed = Vec::with_capacity(message.len() + dots.len());
    let mut copied = 0;
    for &dot in dots {
        stuffed.extend_from_slice(&message[copied..dot]);
        stuffed.push(b'.');
        copied = dot;
    }
    stuffed.extend_from_slice(&message[copied..]);
    Cow::Owned(stuffed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smtp_proto::request::receiver::DataReceiver;

    use super::*;

    fn wire(message: &[u8]) -> Vec<u8> {
        let block = DataBlock::new(message).unwrap();
        let mut bytes = block.bytes();
        bytes.copy_to_bytes(bytes.remaining()).to_vec()
    }

    #[test]
    fn dots_ends_and_sizes() {
        for (message, expected, size) in [
            ("", ".\r\n", 0),
            ("a\r\n", "a\r\n.\r\n", 3),
            ("a", "a\r\n.\r\n", 3),
            (".\r\n", "..\r\n.\r\n", 3),
            (".", "..\r\n.\r\n", 3),
            ("a.\r\n..b\r\n\r\n.", "a.\r\n...b\r\n\r\n..\r\n.\r\n", 14),
            ("\r\n", "\r\n.\r\n", 2),
        ] {
            assert_eq!(
                wire(message.as_bytes()).escape_ascii().to_string(),
                expected.as_bytes().escape_ascii().to_string()
            );
            assert_eq!(DataBlock::new(message.as_bytes()).unwrap().size(), size, "{message:?}");
        }
    }

    #[test]
    fn a_message_without_leading_dots_is_not_copied() {
        let block = DataBlock::new(b"Subject: a\r\n\r\nb.\r\n").unwrap();
        assert!(matches!(block.content, Cow::Borrowed(_)));
    }

    #[test]
    fn bare_line_ends_are_found() {
        for (message, offset) in [
            ("a\nb\r\n", 1),
            ("a\rb\r\n", 1),
            ("\n", 0),
            ("\r", 0),
            ("a\r\nb\r", 4),
            ("a\r\nb\n", 4),
            ("a\r\n\n.\r\n", 3),
            ("a\n.\r\nMAIL FROM:<eve@example.com>\r\n", 1),
            ("a\r.\r\n", 1),
            ("a\r\r\n", 1),
        ] {
            assert_eq!(
                DataBlock::new(message.as_bytes()).unwrap_err(),
                Unsendable::BareLineEnd { offset },
                "{message:?}"
            );
        }
    }

    proptest! {
        /// An independent reader of the data gets the message back, and nothing is left over.
        #[test]
        fn every_message_survives(lines in proptest::collection::vec("[.a é]{0,4}", 1..40)) {
            let message = lines.join("\r\n") + "\r\n";
            // The reader knows the start of a line only by the CRLF before it: here that of the DATA command.
            let sent = [b"\r\n", &wire(message.as_bytes())[..]].concat();
            let mut received = Vec::new();
            let mut bytes = sent.iter();
            prop_assert!(DataReceiver::new().ingest(&mut bytes, &mut received));
            prop_assert_eq!(bytes.len(), 0);
            prop_assert_eq!(String::from_utf8(received).unwrap(), format!("\r\n{message}"));
        }

        /// The end of data occurs in the bytes once, at their end, whatever the message: nothing can be smuggled.
        #[test]
        fn no_message_ends_early(message in "[.\r\na]{0,40}") {
            if let Ok(block) = DataBlock::new(message.as_bytes()) {
                let mut bytes = block.bytes();
                let sent = [b"\r\n", &bytes.copy_to_bytes(bytes.remaining())[..]].concat();
                let ends = sent.windows(5).filter(|window| *window == b"\r\n.\r\n").count();
                prop_assert_eq!(ends, 1);
                prop_assert!(sent.ends_with(b"\r\n.\r\n"));
            }
        }
    }
}
