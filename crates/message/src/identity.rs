use aws_lc_rs::digest;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// What makes a message the same message at every attempt, fixed once at intake: its Message-ID and its date.
///
/// MIME boundaries are derived from the Message-ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    message_id: String,
    date: Timestamp,
    date_header: String,
}

/// Why a message cannot have this identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not `left@right` of RFC 5322 `dot-atom-text` in at most 250 characters.
    #[error("'{0}' is not a Message-ID: it must be two dot-atoms with an @ between them, without angle brackets")]
    MessageId(String),
    /// Before 1970 or after 9998: no date of a mail.
    #[error("{0} is not a date that a mail can have")]
    Date(Timestamp),
}

/// Keeps the header line well below the 998 octets of RFC 5322 section 2.1.1.
const LONGEST_MESSAGE_ID: usize = 250;

impl Identity {
    /// An identity of a Message-ID without its angle brackets (RFC 5322 section 3.6.4) and the moment that the Date
    /// header tells, in seconds of UTC.
    pub fn new(message_id: impl Into<String>, date: Timestamp) -> Result<Self, IdentityError> {
        let message_id = message_id.into();
        if !is_message_id(&message_id) {
            return Err(IdentityError::MessageId(message_id.escape_debug().to_string()));
        }
        let zoned = date.to_zoned(TimeZone::UTC);
        if !(1970..=9998).contains(&zoned.year()) {
            return Err(IdentityError::Date(date));
        }
        let date_header = jiff::fmt::rfc2822::to_string(&zoned).map_err(|_| IdentityError::Date(date))?;
        Ok(Self {
            message_id,
            date,
            date_header,
        })
    }

    /// The Message-ID without its angle brackets.
    pub fn message_id(&self) -> &str {
        &self.message_id
    }

    /// The moment of the Date header.
    pub fn date(&self) -> Timestamp {
        self.date
    }

    /// The value of the Date header (RFC 5322 section 3.3), in UTC.
    pub(crate) fn date_header(&self) -> &str {
        &self.date_header
    }

    /// What all boundaries of the message begin with.
    ///
    /// No encoded part can contain it: `=` in quoted-printable is followed by a hexadecimal digit or a line break, and
    /// base64 has no `_`.
    pub(crate) fn boundary(&self) -> String {
        let digest = digest::digest(&digest::SHA256, self.message_id.as_bytes());
        let mut boundary = String::with_capacity(32);
        boundary.push_str("=_");
        for byte in &digest.as_ref()[..12] {
            boundary.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            boundary.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        }
        boundary
    }
}

fn is_message_id(text: &str) -> bool {
    text.len() <= LONGEST_MESSAGE_ID
        && text
            .split_once('@')
            .is_some_and(|(left, right)| is_dot_atom(left) && is_dot_atom(right))
}

/// RFC 5322 `dot-atom-text`.
fn is_dot_atom(text: &str) -> bool {
    text.split('.').all(|atom| {
        !atom.is_empty()
            && atom
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_date_in_utc() {
        let identity = Identity::new("a@example.com", "2026-11-20T17:04:05.9+01:00".parse().unwrap()).unwrap();
        assert_eq!(identity.date_header(), "Fri, 20 Nov 2026 16:04:05 +0000");
    }

    #[test]
    fn boundaries_belong_to_the_message_id() {
        let identity = |id: &str| Identity::new(id, Timestamp::UNIX_EPOCH).unwrap().boundary();
        assert_eq!(identity("a@example.com"), identity("a@example.com"));
        assert_ne!(identity("a@example.com"), identity("b@example.com"));
        assert_eq!(identity("a@example.com").len(), 26);
    }

    #[test]
    fn refuses_what_cannot_stand_in_a_header() {
        for bad in [
            "",
            "a",
            "@",
            "a@",
            "@example.com",
            "<a@example.com>",
            "a@b@c",
            "a b@example.com",
            "a@example.com\r\nBcc: eve@example.com",
            "a..b@example.com",
            "ä@example.com",
            &format!("{}@example.com", "a".repeat(250)),
        ] {
            assert_eq!(
                Identity::new(bad, Timestamp::UNIX_EPOCH),
                Err(IdentityError::MessageId(bad.escape_debug().to_string())),
                "{bad:?}"
            );
        }
        for bad in [Timestamp::MIN, Timestamp::MAX, Timestamp::from_second(-1).unwrap()] {
            assert_eq!(Identity::new("a@b", bad), Err(IdentityError::Date(bad)));
        }
    }
}
