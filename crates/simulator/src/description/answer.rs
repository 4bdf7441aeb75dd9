use std::fmt;
use std::str::FromStr;

use relaypool_api::reply::{EnhancedCode, Reply, ReplyCode};
use serde::{Deserialize, Serialize};

/// One SMTP reply as it is written in a description: `550 5.1.1 unknown user`.
///
/// Code, then the enhanced code if there is one, then the text. A line break in the text makes a multi-line reply
/// (RFC 5321 section 4.2.1); every line then carries both codes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Answer {
    code: ReplyCode,
    enhanced: Option<EnhancedCode>,
    lines: Vec<String>,
}

/// Why a text is no [`Answer`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It does not begin with a reply code.
    #[error("'{0}' is not an SMTP reply: begin with a code from 200 to 599, such as '421 4.7.0 try again later'")]
    NoCode(String),
    /// A line that could not be sent: control characters, or longer than 512 octets with its codes (RFC 5321 section
    /// 4.5.3.1.5).
    #[error("the line '{0}' of a reply must be at most 490 octets and have no control characters")]
    BadLine(String),
}

/// 512 octets less the code, the longest enhanced code, their separators and the line end.
const MAX_LINE_TEXT: usize = 490;

impl Answer {
    /// An answer of our own, known to be well formed.
    pub(crate) fn known(text: &'static str) -> Self {
        text.parse().expect("the crate's own replies are well formed")
    }

    /// The reply code.
    pub const fn code(&self) -> ReplyCode {
        self.code
    }

    /// True for 2yz and 3yz.
    pub const fn is_acceptance(&self) -> bool {
        self.code.is_positive() || self.code.is_intermediate()
    }

    /// The answer as a sending host reads it.
    pub fn reply(&self) -> Reply {
        Reply {
            code: self.code,
            enhanced: self.enhanced,
            text: self.lines.join(" "),
        }
    }

    /// Appends the answer as it goes over the wire, line ends included.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        for (position, line) in self.lines.iter().enumerate() {
            let separator = if position + 1 == self.lines.len() { ' ' } else { '-' };
            out.extend_from_slice(format!("{}{separator}", self.code).as_bytes());
            if let Some(enhanced) = self.enhanced {
                out.extend_from_slice(format!("{enhanced} ").as_bytes());
            }
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

impl FromStr for Answer {
    type Err = AnswerError;

    fn from_str(text: &str) -> Result<Self, AnswerError> {
        let no_code = || AnswerError::NoCode(text.escape_debug().to_string());
        let (code, rest) = match text.split_once(' ') {
            Some((code, rest)) => (code, rest),
            None => (text, ""),
        };
        if code.len() != 3 || !code.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(no_code());
        }
        let code = code.parse::<u16>().map_err(|_| no_code())?;
        let code = ReplyCode::try_from(code).map_err(|_| no_code())?;
        let (first, behind) = rest.split_once(' ').unwrap_or((rest, ""));
        let (enhanced, rest) = match first.parse::<EnhancedCode>() {
            Ok(enhanced) => (Some(enhanced), behind),
            Err(_) => (None, rest),
        };
        let lines: Vec<String> = rest.trim_end_matches('\n').split('\n').map(str::to_owned).collect();
        match lines
            .iter()
            .find(|line| line.len() > MAX_LINE_TEXT || line.chars().any(char::is_control))
        {
            Some(line) => Err(AnswerError::BadLine(line.escape_debug().to_string())),
            None => Ok(Self { code, enhanced, lines }),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(formatter, " {enhanced}")?;
        }
        let text = self.lines.join("\n");
        if text.is_empty() {
            Ok(())
        } else {
            write!(formatter, " {text}")
        }
    }
}

impl Serialize for Answer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Answer {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_replies() {
        for (text, wire) in [
            ("550 5.1.1 unknown user", "550 5.1.1 unknown user\r\n"),
            ("421 busy", "421 busy\r\n"),
            ("450", "450 \r\n"),
            ("550 5.7.1", "550 5.7.1 \r\n"),
            (
                "554 5.7.1 no\nsee our postmaster page",
                "554-5.7.1 no\r\n554 5.7.1 see our postmaster page\r\n",
            ),
            ("421 RP-001 too fast", "421 RP-001 too fast\r\n"),
        ] {
            let answer: Answer = text.parse().unwrap();
            assert_eq!(answer.to_string(), text);
            let mut out = Vec::new();
            answer.write_to(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), wire);
        }
        let reply = "554 5.7.1 no\nsee our page".parse::<Answer>().unwrap().reply();
        assert_eq!(reply.to_string(), "554 5.7.1 no see our page");
    }

    #[test]
    fn refuses_what_is_no_reply() {
        for bad in [
            "", "no", "199 low", "600 high", "0421 x", "+42 x", "421\t", "421 a\rb", "421 a\0",
        ] {
            assert!(bad.parse::<Answer>().is_err(), "{bad:?}");
        }
        assert!(format!("421 {}", "x".repeat(491)).parse::<Answer>().is_err());
    }
}
