//! What a receiving host answers: reply codes, enhanced status codes, and the phase of the session they came in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A three-digit SMTP reply code, 200 to 599 (RFC 5321 section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct ReplyCode(u16);

/// The number is no SMTP reply code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not an SMTP reply code: it must be from 200 to 599")]
pub struct ReplyCodeError(u16);

impl ReplyCode {
    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// 2yz: done.
    pub const fn is_positive(self) -> bool {
        self.0 / 100 == 2
    }

    /// 3yz: send more.
    pub const fn is_intermediate(self) -> bool {
        self.0 / 100 == 3
    }

    /// 4yz: not now.
    pub const fn is_transient(self) -> bool {
        self.0 / 100 == 4
    }

    /// 5yz: never.
    pub const fn is_permanent(self) -> bool {
        self.0 / 100 == 5
    }
}

impl TryFrom<u16> for ReplyCode {
    type Error = ReplyCodeError;

    fn try_from(code: u16) -> Result<Self, ReplyCodeError> {
        if (200..=599).contains(&code) {
            Ok(Self(code))
        } else {
            Err(ReplyCodeError(code))
        }
    }
}

impl From<ReplyCode> for u16 {
    fn from(code: ReplyCode) -> Self {
        code.0
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// An enhanced status code `class.subject.detail` (RFC 3463).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnhancedCode {
    /// 2, 4 or 5.
    pub class: u8,
    /// 0 to 999: what the code is about (1 addressing, 2 mailbox, 3 system, 4 network, 5 protocol, 6 content, 7 policy).
    pub subject: u16,
    /// 0 to 999.
    pub detail: u16,
}

/// The text is no enhanced status code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an enhanced status code such as 5.1.1")]
pub struct EnhancedCodeError(String);

impl FromStr for EnhancedCode {
    type Err = EnhancedCodeError;

    fn from_str(text: &str) -> Result<Self, EnhancedCodeError> {
        let number = |part: &str| {
            (1..=3)
                .contains(&part.len())
                .then(|| {
                    part.bytes()
                        .all(|byte| byte.is_ascii_digit())
                        .then(|| part.parse::<u16>().ok())
                })
                .flatten()
                .flatten()
        };
        let mut parts = text.split('.');
        match (
            parts.next(),
            parts.next().and_then(number),
            parts.next().and_then(number),
            parts.next(),
        ) {
            (Some(class @ ("2" | "4" | "5")), Some(subject), Some(detail), None) => Ok(Self {
                class: class.as_bytes()[0] - b'0',
                subject,
                detail,
            }),
            _ => Err(EnhancedCodeError(text.escape_debug().to_string())),
        }
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl Serialize for EnhancedCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EnhancedCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// One reply of a receiving host, all of its lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The three-digit code.
    pub code: ReplyCode,
    /// The enhanced code, where the host gave one.
    pub enhanced: Option<EnhancedCode>,
    /// The text of all lines, without codes, joined by one space; control characters are gone. As said by a stranger:
    /// never to be put into a header, a command or a log format unescaped.
    pub text: String,
}

impl fmt::Display for Reply {
    /// As on the wire: `550 5.1.1 no such user`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(formatter, " {enhanced}")?;
        }
        if self.text.is_empty() {
            Ok(())
        } else {
            write!(formatter, " {}", self.text)
        }
    }
}

/// Where in a session something was answered or went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// Opening the TCP connection.
    Connect,
    /// Waiting for the 220 greeting.
    Greeting,
    /// EHLO or HELO.
    Ehlo,
    /// STARTTLS and the TLS handshake.
    StartTls,
    /// MAIL FROM.
    MailFrom,
    /// RCPT TO.
    RcptTo,
    /// The DATA command.
    Data,
    /// The message itself and the answer to its final dot.
    EndOfData,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_codes_are_bounded() {
        assert!(ReplyCode::try_from(199).is_err());
        assert!(ReplyCode::try_from(600).is_err());
        assert!(ReplyCode::try_from(421).unwrap().is_transient());
    }

    #[test]
    fn enhanced_codes_read_and_write() {
        for code in ["2.0.0", "4.7.28", "5.7.515"] {
            assert_eq!(code.parse::<EnhancedCode>().unwrap().to_string(), code);
        }
        for bad in ["", "1.1.1", "5.1", "5.1.1.1", "5..1", "5.1.1000", "5.+1.1", "5.1.x"] {
            assert!(bad.parse::<EnhancedCode>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_reply_reads_as_on_the_wire() {
        let reply = Reply {
            code: ReplyCode::try_from(550).unwrap(),
            enhanced: "5.1.1".parse().ok(),
            text: "no such user".into(),
        };
        assert_eq!(reply.to_string(), "550 5.1.1 no such user");
    }
}
