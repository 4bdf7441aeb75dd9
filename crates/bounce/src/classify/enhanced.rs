//! Enhanced status codes (RFC 3463 and the IANA registry of SMTP enhanced status codes).
//!
//! Some details have one meaning, whoever says them: they are *narrow*. Others are said of anything (x.0.0, x.7.1) or are
//! used by large providers for something else than the registry has (x.1.0, x.4.1): they are *wide*, give way to words,
//! and are read together with the phase. Details that are not registered are read as the general detail of their subject.

use relaypool_api::reply::{EnhancedCode, Reply, ReplyCode};

use super::Stage;
use crate::category::Category;

/// How many words into the text an enhanced code may stand without a `#` before it.
const NEAR_START: usize = 4;

/// The enhanced code of a reply: where it belongs, or in the text of hosts that write it there: `no such user (#5.1.1)`.
pub(super) fn of(reply: &Reply) -> Option<EnhancedCode> {
    reply
        .enhanced
        .or_else(|| {
            reply.text.split_whitespace().enumerate().find_map(|(at, token)| {
                let token = token.trim_matches(['(', ')', '[', ']', ',', ';']);
                let (code, marked) = match token.strip_prefix('#') {
                    Some(code) => (code, true),
                    None => (token, false),
                };
                if marked || at < NEAR_START {
                    code.parse().ok()
                } else {
                    None
                }
            })
        })
        // A code that contradicts the reply proper is worth nothing.
        .filter(|enhanced| u16::from(enhanced.class) == reply.code.get() / 100)
}

/// What a code means that has one meaning.
pub(super) fn narrow(enhanced: EnhancedCode, permanent: bool) -> Option<Category> {
    use Category as C;
    Some(match (enhanced.subject, enhanced.detail) {
        // Addressing
        (1, 1 | 4 | 6) => C::InvalidRecipient, // bad mailbox, ambiguous, moved
        (1, 2 | 10) => C::InvalidDomain,       // bad system, null MX
        (1, 7 | 8) => C::InvalidSender,        // sender's address, sender's system
        // Mailbox
        (2, 1) if !permanent => C::RecipientRateLimited,
        (2, 2) => C::MailboxFull,
        (2, 3) => C::MessageTooLarge,
        // Mail system
        (3, 1 | 2) => C::Transient, // full, not accepting messages
        (3, 4) => C::MessageTooLarge,
        // Network and routing
        (4, 2 | 7) => C::Timeout,       // connection lost, time expired
        (4, 3 | 5) => C::Transient,     // directory server, congestion
        (4, 6 | 14) => C::RoutingError, // loop, too many hops (not registered, in wide use)
        // Protocol
        (5, 3) => C::Transient, // too many recipients: the rest can come in the next transaction
        (5, 1 | 2 | 4 | 5 | 6) => C::ProtocolError,
        // Content
        (6, 2..=5 | 7..=10) => C::ProtocolError, // conversion, addresses outside ASCII
        // Security and policy
        (7, 10 | 11 | 30) => C::TlsRequired,
        (7, 13) => C::InactiveMailbox,
        (7, 16) => C::MessageTooLarge,
        (7, 17 | 18) => C::InvalidRecipient, // the mailbox or the domain has another owner now (RFC 7293)
        (7, 19) => C::Transient,             // … or that cannot be found out
        (7, 20..=24 | 26 | 29) => C::AuthFailure, // DKIM, SPF, several, ARC (RFC 7372, RFC 8617)
        (7, 25) => C::RdnsRequired,
        (7, 27) => C::InvalidSender, // the sender's domain takes no mail
        (7, 28) => C::RateLimited,   // mail flood
        _ => return None,
    })
}

/// What a code means that is said of many things.
pub(super) fn wide(enhanced: EnhancedCode, code: ReplyCode, stage: Stage) -> Option<Category> {
    use Category as C;
    let permanent = code.is_permanent();
    Some(match (enhanced.subject, enhanced.detail) {
        (1, 3) => C::InvalidRecipient, // bad syntax of the address
        (1, 9) => C::RoutingError,     // relayed to a host that does not confirm
        (1, _) => match stage {
            Stage::Sender => C::InvalidSender,
            Stage::Recipient => C::InvalidRecipient,
            Stage::Opening | Stage::Content | Stage::Unknown => return None,
        },
        (2, 1) => C::InactiveMailbox,
        (2, 4) => C::RoutingError, // expansion of a list
        (2, _) if !permanent => C::Transient,
        (3, 3) => C::ProtocolError, // the host lacks a feature
        (3, 5) => C::RoutingError,  // badly configured
        (3, _) if !permanent => C::Transient,
        (4, 1) if !permanent => C::Timeout, // no answer from the next host
        (4, 1 | 4) => C::InvalidDomain,     // no route
        (4, _) if permanent => C::RoutingError,
        (4, _) => C::Transient,
        (5, _) => C::ProtocolError,
        (6, 1 | 6) => C::PolicyRejected, // kind of content
        (6, _) => C::ProtocolError,
        (7, 7) => C::AuthFailure, // integrity of the message
        (7, 2..=9 | 12 | 14 | 15) => C::PolicyRejected,
        (7, _) => security(code, stage),
        _ => return None,
    })
}

/// x.7.0, x.7.1 and the like: "not authorised", for whatever reason. Before a recipient is named it is the path that is
/// refused. A temporary one at RCPT is what greylisting hosts say.
fn security(code: ReplyCode, stage: Stage) -> Category {
    match (code.is_permanent(), stage) {
        (false, _) if code.get() == 421 => Category::RateLimited,
        (false, Stage::Opening | Stage::Sender) => Category::RateLimited,
        (false, Stage::Recipient | Stage::Unknown) => Category::Greylisted,
        (false, Stage::Content) => Category::PolicyRejected,
        (true, Stage::Opening) => Category::ReputationBlock,
        (true, Stage::Sender) => Category::MailBlock,
        (true, Stage::Recipient | Stage::Unknown) => Category::PolicyRejected,
        (true, Stage::Content) => Category::SpamContent,
    }
}
