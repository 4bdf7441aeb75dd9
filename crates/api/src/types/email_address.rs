use std::fmt;
use std::str::FromStr;

use super::string_schema::{domain_pattern, quoted, string_type};
use super::{Domain, DomainError};
use crate::cel::CelRule;

/// A mailbox `local-part@domain` (RFC 5321 section 4.1.2, with the characters RFC 6531 adds).
///
/// The local part is kept as written, because only the receiving host may interpret it. Quoted local parts are refused:
/// providers do not issue them, and they are a classic way to smuggle syntax.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EmailAddress {
    local_part: String,
    domain: Domain,
}

const RULE: CelRule = CelRule::new(
    concat!(
        r#"self.matches("^[!#-'*+/-9=?A-Z^-~\\x{80}-\\x{10FFFF}-][!#-'*+./-9=?A-Z^-~\\x{80}-\\x{10FFFF}-]*@"#,
        domain_pattern!(),
        r#"$")"#
    ),
    "must be an address such as news@example.com, without a display name or angle brackets",
);

/// Why a text is not an [`EmailAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmailAddressError {
    /// No `@` at all.
    #[error("'{0}' {fix}", fix = RULE.message)]
    NoAt(String),
    /// Empty, over 64 octets, or with a character that needs quoting.
    #[error("'{0}' {fix}; the part before the @ is empty, too long or has a character that is not allowed there", fix = RULE.message)]
    BadLocalPart(String),
    /// The part behind the `@` is no domain.
    #[error("'{address}' {fix}; the part behind the @ is wrong", fix = RULE.message)]
    BadDomain {
        /// The text.
        address: String,
        /// What is wrong with the part behind the `@`.
        source: DomainError,
    },
}

impl EmailAddress {
    /// The part before the `@`, as written.
    pub fn local_part(&self) -> &str {
        &self.local_part
    }

    /// The part behind the `@`.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// True when the local part has characters outside ASCII, so that the receiving host must offer SMTPUTF8 (RFC 6531).
    pub fn needs_smtputf8(&self) -> bool {
        !self.local_part.is_ascii()
    }

    /// The form that two addresses of one person are compared in: all lower case.
    pub fn comparison_key(&self) -> String {
        format!("{}@{}", self.local_part.to_lowercase(), self.domain)
    }
}

impl FromStr for EmailAddress {
    type Err = EmailAddressError;

    fn from_str(text: &str) -> Result<Self, EmailAddressError> {
        let (local_part, domain) = text
            .rsplit_once('@')
            .ok_or_else(|| EmailAddressError::NoAt(quoted(text)))?;
        if !is_dot_string(local_part) {
            return Err(EmailAddressError::BadLocalPart(quoted(text)));
        }
        Ok(Self {
            local_part: local_part.to_owned(),
            domain: domain.parse().map_err(|source| EmailAddressError::BadDomain {
                address: quoted(text),
                source,
            })?,
        })
    }
}

/// RFC 5321 `Dot-string`, where RFC 6531 lets an atom hold any character outside ASCII. Consecutive or trailing dots are
/// accepted, because large providers have issued such addresses.
fn is_dot_string(local_part: &str) -> bool {
    (1..=64).contains(&local_part.len())
        && !local_part.starts_with('.')
        && local_part.chars().all(|character| match character {
            character if character.is_ascii_alphanumeric() => true,
            character if character.is_ascii() => "!#$%&'*+-/=?^_`{|}~.".contains(character),
            character => !character.is_control() && !character.is_whitespace(),
        })
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.local_part, self.domain)
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{self}\"")
    }
}

string_type!(
    EmailAddress,
    name: "EmailAddress",
    max_length: 320,
    rule: RULE,
    description: "A mail address, such as `news@example.com`.",
    examples: ["ada@example.com", "o'neil+tag@EXAMPLE.com", "用户@例子.example"]
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_local_part_and_lowers_the_domain() {
        let address: EmailAddress = "Ada.L@Example.COM".parse().unwrap();
        assert_eq!(address.to_string(), "Ada.L@example.com");
        assert_eq!(address.comparison_key(), "ada.l@example.com");
        assert!(!address.needs_smtputf8());
    }

    #[test]
    fn refuses_what_is_no_address() {
        let long = format!("{}@example.com", "a".repeat(65));
        for bad in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "a b@example.com",
            "ada@exa mple.com",
            "a@b@example.com",
            "<ada@example.com>",
            "ada@example.com\r\nRCPT TO:<eve@example.com>",
            "ada\r\n@example.com",
            "\"a b\"@example.com",
            ".ada@example.com",
            "ada@[127.0.0.1]",
            &long,
        ] {
            assert!(bad.parse::<EmailAddress>().is_err(), "{bad:?}");
        }
    }
}
