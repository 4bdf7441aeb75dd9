//! The bounce categories, and what follows from each.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// One row a category: bounce code, class, error type and reason, what a 4xx and a 5xx of it do to the message.
const TABLE: &str = include_str!("../data/categories.tsv");

/// Declares the categories with their names, so that the list, the enum and the names cannot disagree.
macro_rules! categories {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal),+ $(,)?) => {
        /// What a refusal means.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(into = "&'static str", try_from = "String")]
        pub enum Category {
            $($(#[$doc])+ $variant),+
        }

        impl Category {
            /// Every category, in the order of the table.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// The name, such as `rate_limited`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }
    };
}

categories! {
    /// There is no such mailbox.
    InvalidRecipient = "invalid_recipient",
    /// The mailbox exists but is closed, disabled or abandoned.
    InactiveMailbox = "inactive_mailbox",
    /// The recipient's domain does not exist, takes no mail, or cannot be looked up.
    InvalidDomain = "invalid_domain",
    /// The mailbox is over its quota.
    MailboxFull = "mailbox_full",
    /// The message is larger than the host or the mailbox takes.
    MessageTooLarge = "message_too_large",
    /// The host did not answer in time.
    Timeout = "timeout",
    /// The host has trouble of its own.
    Transient = "transient",
    /// The host asks strangers to come again.
    Greylisted = "greylisted",
    /// Too much, too fast, or too many connections from this sending IP.
    RateLimited = "rate_limited",
    /// This mailbox, or this recipient domain, gets too much at the moment.
    RecipientRateLimited = "recipient_rate_limited",
    /// Put off because of reputation or complaints.
    ReputationDeferral = "reputation_deferral",
    /// Refused because of reputation or a block list.
    ReputationBlock = "reputation_block",
    /// The host refuses mail from here, without a reason that would point to reputation.
    MailBlock = "mail_block",
    /// The content looks like spam.
    SpamContent = "spam_content",
    /// A virus, or an attachment of a kind that is not taken.
    MalwareOrAttachment = "malware_or_attachment",
    /// The host does not relay for this recipient.
    RelayDenied = "relay_denied",
    /// SPF, DKIM or DMARC failed.
    AuthFailure = "auth_failure",
    /// The sending IP has no proper reverse DNS.
    RdnsRequired = "rdns_required",
    /// The host takes mail under TLS only.
    TlsRequired = "tls_required",
    /// The envelope sender is not accepted: its domain does not exist, or the address cannot be verified.
    InvalidSender = "invalid_sender",
    /// A rule of the receiving side forbids this message.
    PolicyRejected = "policy_rejected",
    /// Somebody broke the protocol or the message format.
    ProtocolError = "protocol_error",
    /// A loop, or a host behind the host that cannot be reached.
    RoutingError = "routing_error",
    /// Nothing recognised.
    Undetermined = "undetermined",
}

/// The text is no bounce category.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a bounce category such as rate_limited")]
pub struct UnknownCategory(String);

/// What happens to the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It is tried again later.
    Retry,
    /// It ends here.
    Fail,
    /// It is kept and the lane stops: the path is at fault, and the next message would fare no better.
    HoldPath,
}

/// Bounce class, as reports group it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The address is bad.
    Hard,
    /// It may work another time.
    Soft,
    /// The receiving side does not want this mail, or this sender.
    Block,
    /// An administrative matter.
    Admin,
    /// Not known.
    Undetermined,
}

/// How an error counts against the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// At once.
    Hard,
    /// Counted; quarantine comes with repetition.
    Soft,
    /// Hard where the message failed, soft where it is tried again.
    SoftOrHard,
    /// Not at all: nobody knows what it was.
    NotDefined,
}

/// The reason for an error as reports show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorReason {
    value: u16,
    text: &'static str,
}

impl ErrorReason {
    /// The number, such as 1 for an unknown user.
    pub const fn value(self) -> u16 {
        self.value
    }

    /// The words, such as `User unknown`.
    pub const fn text(self) -> &'static str {
        self.text
    }
}

impl Category {
    /// The bounce code, such as 10 for an invalid recipient.
    pub fn code(self) -> u16 {
        self.facts().code
    }

    /// The bounce class.
    pub fn class(self) -> Class {
        self.facts().class
    }

    /// How it counts against the address.
    pub fn error_type(self) -> ErrorType {
        self.facts().error_type
    }

    /// The error reason of reports.
    pub fn reason(self) -> ErrorReason {
        self.facts().reason
    }

    /// What a 4xx reply of this category does to the message.
    pub fn on_4xx(self) -> Action {
        self.facts().on_4xx
    }

    /// What a 5xx reply of this category does to the message. Not always a failure: a blocked path is no fault of a message.
    pub fn on_5xx(self) -> Action {
        self.facts().on_5xx
    }

    pub(crate) fn action(self, permanent: bool) -> Action {
        if permanent { self.on_5xx() } else { self.on_4xx() }
    }

    fn facts(self) -> &'static Facts {
        static FACTS: LazyLock<Vec<Facts>> = LazyLock::new(|| {
            Category::ALL
                .into_iter()
                .map(|category| {
                    Facts::of(category).expect("the table has a good row for every category; a test shows it")
                })
                .collect()
        });
        &FACTS[self as usize]
    }
}

/// What the table says of one category.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    code: u16,
    class: Class,
    error_type: ErrorType,
    reason: ErrorReason,
    on_4xx: Action,
    on_5xx: Action,
}

impl Facts {
    fn of(category: Category) -> Option<Self> {
        let row = TABLE
            .lines()
            .find(|row| row.split('\t').next() == Some(category.as_str()))?;
        let columns: Vec<&'static str> = row.split('\t').collect();
        let [
            _,
            code,
            class,
            error_type,
            reason_value,
            reason,
            _advice,
            on_4xx,
            on_5xx,
        ] = columns[..]
        else {
            return None;
        };
        Some(Self {
            code: code.parse().ok()?,
            class: match class {
                "Hard" => Class::Hard,
                "Soft" => Class::Soft,
                "Block" => Class::Block,
                "Admin" => Class::Admin,
                "Undetermined" => Class::Undetermined,
                _ => return None,
            },
            error_type: match error_type {
                "Hard" => ErrorType::Hard,
                "Soft" => ErrorType::Soft,
                "Soft / Hard" => ErrorType::SoftOrHard,
                "Not defined" => ErrorType::NotDefined,
                _ => return None,
            },
            reason: ErrorReason {
                value: reason_value.parse().ok()?,
                text: reason,
            },
            on_4xx: action(on_4xx)?,
            on_5xx: action(on_5xx)?,
        })
    }
}

fn action(text: &str) -> Option<Action> {
    match text {
        "retry" => Some(Action::Retry),
        "fail" => Some(Action::Fail),
        "hold-path" => Some(Action::HoldPath),
        _ => None,
    }
}

impl fmt::Display for Category {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Display for Class {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Hard => "Hard",
            Self::Soft => "Soft",
            Self::Block => "Block",
            Self::Admin => "Admin",
            Self::Undetermined => "Undetermined",
        })
    }
}

impl FromStr for Category {
    type Err = UnknownCategory;

    fn from_str(text: &str) -> Result<Self, UnknownCategory> {
        Self::ALL
            .into_iter()
            .find(|category| category.as_str() == text)
            .ok_or_else(|| UnknownCategory(text.escape_debug().to_string()))
    }
}

impl TryFrom<String> for Category {
    type Error = UnknownCategory;

    fn try_from(text: String) -> Result<Self, UnknownCategory> {
        text.parse()
    }
}

impl From<Category> for &'static str {
    fn from(category: Category) -> Self {
        category.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_and_the_enum_have_the_same_categories() {
        let rows: Vec<&str> = TABLE
            .lines()
            .skip(1)
            .map(|row| row.split('\t').next().unwrap())
            .collect();
        let names: Vec<&str> = Category::ALL.into_iter().map(Category::as_str).collect();
        assert_eq!(rows, names);
    }

    /// What users may write in a reply rule is what a reply can be classified as.
    #[test]
    fn the_rules_of_policies_know_the_same_categories() {
        let names = Category::ALL.map(Category::as_str);
        assert_eq!(relaypool_api::validation::BOUNCE_CATEGORIES, names);
    }

    #[test]
    fn every_row_is_good() {
        for category in Category::ALL {
            assert!(Facts::of(category).is_some(), "{category}");
        }
    }

    #[test]
    fn facts_come_from_the_row_of_the_category() {
        let recipient = Category::InvalidRecipient;
        assert_eq!((recipient.code(), recipient.class()), (10, Class::Hard));
        assert_eq!(recipient.error_type(), ErrorType::Hard);
        assert_eq!(
            (recipient.reason().value(), recipient.reason().text()),
            (1, "User unknown")
        );
        assert_eq!((recipient.on_4xx(), recipient.on_5xx()), (Action::Retry, Action::Fail));

        let last = Category::Undetermined;
        assert_eq!((last.code(), last.class()), (1, Class::Undetermined));
        assert_eq!(last.error_type(), ErrorType::NotDefined);

        assert_eq!(Category::ReputationBlock.on_5xx(), Action::HoldPath);
        assert_eq!(Category::MailboxFull.on_5xx(), Action::Retry);
        assert_eq!(Category::AuthFailure.on_4xx(), Action::Fail);
    }

    #[test]
    fn names_read_and_write() {
        for category in Category::ALL {
            assert_eq!(category.as_str().parse(), Ok(category));
            let json = serde_json::to_string(&category).unwrap();
            assert_eq!(json, format!("\"{category}\""));
            assert_eq!(serde_json::from_str::<Category>(&json).unwrap(), category);
        }
        assert!("Rate_Limited".parse::<Category>().is_err());
        assert!(serde_json::from_str::<Category>("\"nothing\"").is_err());
    }
}
