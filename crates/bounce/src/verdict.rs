//! What a refusal means and what follows.

use std::time::Duration;

use relaypool_api::reply::Phase;

use crate::category::{Action, Category, Class, ErrorReason};

/// What a refusal means, and what follows for the message, the path and the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What it means.
    pub category: Category,
    /// What happens to the message.
    pub action: Action,
    /// Where in the session it came; none for what happened before there was one, and for replies quoted in a bounce.
    pub phase: Option<Phase>,
    /// What the host asked for beside saying no.
    pub hint: Hint,
    /// What the category was read from. The further down in [`Basis`], the weaker.
    pub basis: Basis,
    pub(crate) permanent: bool,
    pub(crate) path: bool,
}

/// Whether refusals of a category are news about the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathBearing {
    /// Wherever they come.
    Always,
    /// Where they come before a recipient was named, or end the session.
    Depends,
    /// They are about the recipient, the sender or the message.
    Never,
}

impl PathBearing {
    pub(crate) fn of(category: Category) -> Self {
        use Category as C;
        match category {
            C::RateLimited | C::ReputationDeferral | C::ReputationBlock | C::MailBlock | C::RdnsRequired => {
                Self::Always
            }
            C::Timeout
            | C::Transient
            | C::TlsRequired
            | C::PolicyRejected
            | C::ProtocolError
            | C::RoutingError
            | C::Undetermined => Self::Depends,
            C::InvalidRecipient
            | C::InactiveMailbox
            | C::InvalidDomain
            | C::MailboxFull
            | C::MessageTooLarge
            | C::Greylisted
            | C::RecipientRateLimited
            | C::SpamContent
            | C::MalwareOrAttachment
            | C::RelayDenied
            | C::AuthFailure
            | C::InvalidSender => Self::Never,
        }
    }
}

/// What a host asked for beside saying no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hint {
    /// Not to come again before this time is over. More than zero and at most a week.
    pub retry_after: Option<Duration>,
}

/// What a category was read from, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Basis {
    /// No reply at all: what went wrong is known for certain.
    Failure,
    /// A rule of the user.
    Rule,
    /// A phrase that means one thing wherever it stands.
    Phrase,
    /// An enhanced status code with a narrow meaning.
    EnhancedCode,
    /// A word that means something where nothing better is said.
    Word,
    /// An enhanced status code with a wide meaning, and the phase.
    WideEnhancedCode,
    /// The three-digit code and the phase alone: worth a look when it is frequent.
    Code,
}

impl Verdict {
    /// A verdict on what this side found out without asking a host. It says nothing about the path.
    pub fn of(category: Category, action: Action) -> Self {
        Self {
            category,
            action,
            phase: None,
            hint: Hint { retry_after: None },
            basis: Basis::Failure,
            permanent: action == Action::Fail,
            path: false,
        }
    }

    /// The same refusal with the meaning that a rule of the user gives it.
    #[must_use]
    pub fn reclassified(self, category: Category) -> Self {
        Self {
            category,
            action: category.action(self.permanent),
            basis: Basis::Rule,
            path: match PathBearing::of(category) {
                PathBearing::Always => true,
                PathBearing::Depends => self.path,
                PathBearing::Never => false,
            },
            ..self
        }
    }

    /// The bounce code.
    pub fn code(&self) -> u16 {
        self.category.code()
    }

    /// The bounce class.
    pub fn class(&self) -> Class {
        self.category.class()
    }

    /// The error reason of reports.
    pub fn reason(&self) -> ErrorReason {
        self.category.reason()
    }

    /// True when it is news about the path (sending IP to site) and so feedback for its pacer; false when it is about the
    /// recipient, the sender or the message alone. A dead mailbox says nothing about how fast to send.
    pub fn is_path_feedback(&self) -> bool {
        self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_changes_the_meaning_and_what_follows() {
        let refusal = Verdict::of(Category::PolicyRejected, Action::Fail);
        let block = refusal.clone().reclassified(Category::ReputationBlock);
        assert_eq!((block.action, block.basis), (Action::HoldPath, Basis::Rule));
        assert!(block.is_path_feedback());

        let recipient = block.reclassified(Category::InvalidRecipient);
        assert_eq!(recipient.action, Action::Fail);
        assert!(!recipient.is_path_feedback());
    }
}
