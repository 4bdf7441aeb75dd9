//! The three-digit code and the phase, where nothing else is said (RFC 5321 section 4.2).

use relaypool_api::reply::ReplyCode;

use super::Stage;
use crate::category::Category;

/// What a 4xx or 5xx code means at a stage.
pub(super) fn meaning(code: ReplyCode, stage: Stage) -> Category {
    use Category as C;
    use Stage as S;
    match (code.get(), stage) {
        // "Service not available, closing": said to a newcomer, it is one too many; later, the host has trouble.
        (421, S::Opening | S::Sender) => C::RateLimited,
        (421 | 450..=452 | 454, _) => C::Transient,
        (455, _) => C::ProtocolError,

        // Before it knows anything but the IP, a host that refuses for good refuses the IP.
        (521 | 541 | 550..=554 | 571, S::Opening) => C::ReputationBlock,
        (521, _) => C::MailBlock,
        (500..=504 | 555, _) => C::ProtocolError,
        (523, _) => C::TlsRequired,
        (530, S::Opening | S::Sender) => C::TlsRequired,
        (530, _) => C::RelayDenied,
        (550, S::Sender) => C::PolicyRejected,
        (550 | 553, S::Recipient) => C::InvalidRecipient,
        (551, S::Recipient | S::Unknown) => C::InvalidRecipient,
        (552, S::Recipient | S::Unknown) => C::MailboxFull,
        (552, _) => C::MessageTooLarge,
        (553, S::Sender) => C::InvalidSender,
        (554, S::Sender) => C::MailBlock,
        (554, S::Recipient) => C::PolicyRejected,
        (550 | 554, S::Content) => C::SpamContent,
        (556, _) => C::InvalidDomain, // RFC 7504
        (541 | 571, _) => C::PolicyRejected,
        _ => C::Undetermined,
    }
}
