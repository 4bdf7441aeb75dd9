//! A message on its way in: dot-unstuffed, its line ends checked, as much of it kept as is asked for.

use mail_parser::{HeaderName, MessageParser};
use smtp_proto::request::receiver::{DataReceiver, DummyDataReceiver};

use crate::books::{Keep, ViolationKind};

/// What has arrived of a message since the go-ahead.
pub(super) struct Incoming {
    receiver: Receiver,
    keep: Keep,
    kept: Vec<u8>,
    /// All octets, the final dot's line included.
    octets: u64,
    max_octets: u64,
    lines: LineCheck,
}

enum Receiver {
    Keeping(DataReceiver),
    Counting(DummyDataReceiver),
}

/// A header section longer than this is kept no further.
const MAX_HEADERS: usize = 1_024 * 1_024;

/// The final line: a dot and its line end.
const DOT_LINE: u64 = 3;

impl Incoming {
    pub(super) fn new(keep: Keep, max_octets: u64) -> Self {
        let mut receiver = DataReceiver::new();
        // The line end of the DATA command stands before the message's first line: a dot there is a dot at the beginning
        // of a line. The receiver learns it by being fed one.
        receiver.ingest(&mut b"\r\n".iter(), &mut Vec::new());
        let receiver = if keep == Keep::Counts {
            Receiver::Counting(DummyDataReceiver::new_data(&receiver))
        } else {
            Receiver::Keeping(receiver)
        };
        Self {
            receiver,
            keep,
            kept: Vec::new(),
            octets: 0,
            max_octets,
            lines: LineCheck::new(),
        }
    }

    /// Takes from `bytes` what belongs to the message. Gives the number of octets taken, and whether it is complete.
    pub(super) fn ingest(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut rest = bytes.iter();
        let known = self.kept.len();
        let complete = match &mut self.receiver {
            Receiver::Keeping(receiver) => receiver.ingest(&mut rest, &mut self.kept),
            Receiver::Counting(receiver) => receiver.ingest(&mut rest),
        };
        let taken = bytes.len() - rest.as_slice().len();
        self.octets += taken as u64;
        self.lines.check(&bytes[..taken]);
        self.drop_what_is_not_kept(known);
        (taken, complete)
    }

    /// Turns to counting once there is nothing more to keep.
    fn drop_what_is_not_kept(&mut self, known: usize) {
        let Receiver::Keeping(receiver) = &self.receiver else {
            return;
        };
        let keep = if self.is_too_large() {
            Some(0)
        } else if self.keep == Keep::Messages {
            None
        } else {
            // The empty line may have begun in what was known before.
            let from = known.saturating_sub(3);
            self.kept[from..]
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
                .map(|position| from + position + 2)
                .or_else(|| (self.kept.len() > MAX_HEADERS).then_some(MAX_HEADERS))
        };
        if let Some(keep) = keep {
            let counting = DummyDataReceiver::new_data(receiver);
            self.receiver = Receiver::Counting(counting);
            self.kept.truncate(keep);
        }
    }

    /// Octets of the message as sent, without the final line.
    pub(super) fn octets(&self) -> u64 {
        self.octets.saturating_sub(DOT_LINE)
    }

    /// True when the message is larger than is taken here.
    pub(super) fn is_too_large(&self) -> bool {
        self.octets() > self.max_octets
    }

    /// The rules the message has broken. `eight_bit`: it was announced to be one with octets above 127.
    pub(super) fn violations(&self, eight_bit: bool) -> Vec<ViolationKind> {
        let found = [
            (self.lines.bare_line_feed, ViolationKind::BareLineFeed),
            (self.lines.bare_carriage_return, ViolationKind::BareCarriageReturn),
            (self.lines.longest > MAX_TEXT_LINE, ViolationKind::LongLine),
            (
                self.lines.all_bits > 0x7f && !eight_bit,
                ViolationKind::UndeclaredEightBit,
            ),
        ];
        found
            .into_iter()
            .filter(|(is_broken, _)| *is_broken)
            .map(|(_, kind)| kind)
            .collect()
    }

    /// The Message-ID without its angle brackets.
    pub(super) fn message_id(&self) -> Option<String> {
        MessageParser::new()
            .header_id(HeaderName::MessageId)
            .default_header_ignore()
            .parse_headers(&self.kept)?
            .message_id()
            .map(str::to_owned)
    }

    /// What is kept of the message, if anything is to be.
    pub(super) fn into_content(self) -> Option<Vec<u8>> {
        (self.keep >= Keep::Headers).then_some(self.kept)
    }
}

/// The longest line of a message with its line end (RFC 5321 section 4.5.3.1.6).
const MAX_TEXT_LINE: usize = 1_000;

/// Looks at every octet as it came over the wire.
struct LineCheck {
    last: u8,
    line: usize,
    longest: usize,
    bare_line_feed: bool,
    bare_carriage_return: bool,
    /// All octets, or-ed.
    all_bits: u8,
}

impl LineCheck {
    fn new() -> Self {
        Self {
            last: b'\n',
            line: 0,
            longest: 0,
            bare_line_feed: false,
            bare_carriage_return: false,
            all_bits: 0,
        }
    }

    fn check(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.line += 1;
            self.all_bits |= byte;
            if byte == b'\n' {
                self.bare_line_feed |= self.last != b'\r';
                self.longest = self.longest.max(self.line);
                self.line = 0;
            } else {
                self.bare_carriage_return |= self.last == b'\r';
            }
            self.last = byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BIG: u64 = 1_000_000;

    /// Feeds `wire` in pieces of `size`.
    fn receive(keep: Keep, wire: &[u8], size: usize) -> (Incoming, usize, bool) {
        let mut incoming = Incoming::new(keep, BIG);
        let mut taken = 0;
        for piece in wire.chunks(size) {
            let (took, complete) = incoming.ingest(piece);
            taken += took;
            if complete {
                return (incoming, taken, true);
            }
        }
        (incoming, taken, false)
    }

    #[test]
    fn messages_are_unstuffed_and_end_at_the_dot() {
        for (wire, message) in [
            (".\r\n", ""),
            ("..\r\n.\r\n", ".\r\n"),
            ("a\r\n.\r\n", "a\r\n"),
            ("..a\r\n..\r\nb.\r\n.\r\n", ".a\r\n.\r\nb.\r\n"),
            ("\r\n\r\n.\r\n", "\r\n\r\n"),
            ("a\n.\r\nb\r\n.\r\n", "a\n.\r\nb\r\n"),
        ] {
            for size in 1..=wire.len() {
                let (incoming, taken, complete) = receive(Keep::Messages, wire.as_bytes(), size);
                assert!(complete, "{wire:?} in pieces of {size}");
                assert_eq!(taken, wire.len());
                assert_eq!(incoming.octets(), wire.len() as u64 - 3);
                let content = incoming.into_content().unwrap();
                assert_eq!(
                    String::from_utf8(content).unwrap(),
                    message,
                    "{wire:?} in pieces of {size}"
                );
            }
        }
    }

    #[test]
    fn broken_rules_are_named() {
        use ViolationKind::*;
        let long = format!("{}\r\n.\r\n", "x".repeat(999));
        let longest = format!("{}\r\n.\r\n", "x".repeat(998));
        for (wire, expected) in [
            ("a\r\n.\r\n", vec![]),
            ("a\nb\r\n.\r\n", vec![BareLineFeed]),
            ("\nb\r\n.\r\n", vec![BareLineFeed]),
            ("a\rb\r\n.\r\n", vec![BareCarriageReturn]),
            ("a\r\r\n.\r\n", vec![BareCarriageReturn]),
            ("é\r\n.\r\n", vec![UndeclaredEightBit]),
            (&long, vec![LongLine]),
            (&longest, vec![]),
        ] {
            for size in [1, 2, 5, 2_000] {
                let (incoming, _, complete) = receive(Keep::Counts, wire.as_bytes(), size);
                assert!(complete);
                assert_eq!(incoming.violations(false), expected, "{wire:?}");
            }
        }
        let (incoming, ..) = receive(Keep::Counts, "é\r\n.\r\n".as_bytes(), 100);
        assert_eq!(incoming.violations(true), []);
    }

    #[test]
    fn only_what_is_asked_for_is_kept() {
        let wire = b"Subject: x\r\nMessage-ID:\r\n <1@example.org>\r\n\r\nbody\r\n.\r\n";
        for size in 1..=wire.len() {
            let kept = |keep| {
                let (incoming, _, complete) = receive(keep, wire, size);
                assert!(complete);
                (
                    incoming.message_id(),
                    incoming.into_content().map(|content| content.len()),
                )
            };
            let id = Some("1@example.org".to_owned());
            assert_eq!(kept(Keep::Counts), (None, None));
            assert_eq!(kept(Keep::Nothing), (id.clone(), None));
            assert_eq!(kept(Keep::Headers), (id.clone(), Some(wire.len() - 3 - 8)));
            assert_eq!(kept(Keep::Messages), (id, Some(wire.len() - 3)));
        }
    }

    #[test]
    fn a_message_too_large_is_not_kept() {
        let mut incoming = Incoming::new(Keep::Messages, 10);
        incoming.ingest(b"0123456\r\n");
        assert!(!incoming.is_too_large());
        incoming.ingest(&[b'x'; 100]);
        assert!(incoming.is_too_large());
        assert!(incoming.kept.is_empty());
        assert_eq!(incoming.ingest(b"\r\n.\r\nQUIT"), (5, true));
    }

    proptest! {
        /// Whatever comes in whatever pieces, the result does not depend on the pieces, and nothing behind the final dot is
        /// taken.
        #[test]
        fn pieces_do_not_matter(text in "[.a\r\n]{0,40}", size in 1_usize..8) {
            let wire = format!("{text}\r\n.\r\nQUIT\r\n");
            let (whole, taken, complete) = receive(Keep::Messages, wire.as_bytes(), wire.len());
            prop_assert!(complete);
            let (pieces, taken_in_pieces, complete) = receive(Keep::Messages, wire.as_bytes(), size);
            prop_assert!(complete);
            prop_assert_eq!(taken, taken_in_pieces);
            prop_assert_eq!(whole.violations(false), pieces.violations(false));
            prop_assert_eq!(whole.into_content(), pieces.into_content());
        }
    }
}
