//! What can go wrong without a reply.

use relaypool_api::reply::Phase;

use crate::category::{Action, Category};
use crate::verdict::Verdict;

/// What went wrong without a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The recipient's domain does not exist (NXDOMAIN).
    DomainNotFound,
    /// The domain says that it takes no mail (null MX, RFC 7505).
    NullMx,
    /// The domain exists and has neither an MX record nor an address.
    NoMailHost,
    /// The domain has MX records, and none of the hosts they name has an address.
    MxHostNotFound,
    /// The DNS servers of the domain, or our own, did not answer, or answered that they failed.
    DnsServerFailure,
    /// The best host for the domain is this pool itself (RFC 5321 section 5.1).
    MailLoop,
    /// Every address of the domain's hosts is private, loopback or otherwise not to be connected to.
    PrivateDestination,
    /// The connection could not leave: the source address cannot be bound, or the proxy is away.
    EgressFailed,
    /// No host lets a connection in.
    ConnectRefused,
    /// No host answered a connection attempt in time.
    ConnectTimeout,
    /// There is no network route to any host.
    Unreachable,
    /// TLS is required, and the host does not offer it.
    TlsNotOffered,
    /// TLS is required, and its handshake failed, or its certificate was not accepted.
    TlsFailed,
    /// The host did not answer in time.
    Timeout(Phase),
    /// The connection was lost. In [`Phase::EndOfData`] nobody can tell whether the host took the message.
    ConnectionLost(Phase),
    /// What the host said is not SMTP.
    BadReply(Phase),
    /// The message is larger than the host announced to take (RFC 1870).
    MessageTooLarge,
    /// The message needs an extension that the host does not offer, such as SMTPUTF8 (RFC 6531).
    ExtensionMissing,
}

/// Judges a failure without a reply.
///
/// What only the owner of a domain can change (it does not exist, it takes no mail) fails at once: waiting would help
/// nobody. What is in trouble at this moment is tried again.
pub fn classify_failure(failure: Failure) -> Verdict {
    use Action::{Fail, Retry};
    use Failure as F;
    let (category, action) = match failure {
        F::DomainNotFound | F::NullMx | F::NoMailHost => (Category::InvalidDomain, Fail),
        F::MxHostNotFound | F::DnsServerFailure => (Category::InvalidDomain, Retry),
        F::MailLoop | F::PrivateDestination => (Category::RoutingError, Fail),
        F::ConnectTimeout | F::Timeout(_) => (Category::Timeout, Retry),
        F::EgressFailed | F::ConnectRefused | F::Unreachable | F::ConnectionLost(_) => (Category::Transient, Retry),
        F::TlsNotOffered | F::TlsFailed => (Category::TlsRequired, Retry),
        F::BadReply(_) => (Category::ProtocolError, Retry),
        F::MessageTooLarge => (Category::MessageTooLarge, Fail),
        F::ExtensionMissing => (Category::ProtocolError, Fail),
    };
    let phase = phase(failure);
    Verdict {
        phase,
        path: phase.is_some() && action == Retry,
        ..Verdict::of(category, action)
    }
}

/// The phase of a failure that happened on the way to, or in, a session.
fn phase(failure: Failure) -> Option<Phase> {
    match failure {
        Failure::EgressFailed | Failure::ConnectRefused | Failure::ConnectTimeout | Failure::Unreachable => {
            Some(Phase::Connect)
        }
        Failure::TlsNotOffered | Failure::TlsFailed => Some(Phase::StartTls),
        Failure::Timeout(phase) | Failure::ConnectionLost(phase) | Failure::BadReply(phase) => Some(phase),
        Failure::MessageTooLarge | Failure::ExtensionMissing => Some(Phase::MailFrom),
        Failure::DomainNotFound
        | Failure::NullMx
        | Failure::NoMailHost
        | Failure::MxHostNotFound
        | Failure::DnsServerFailure
        | Failure::MailLoop
        | Failure::PrivateDestination => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_their_category_and_action() {
        use Action::{Fail, Retry};
        use Category as C;
        for (failure, category, action, path) in [
            (Failure::DomainNotFound, C::InvalidDomain, Fail, false),
            (Failure::NullMx, C::InvalidDomain, Fail, false),
            (Failure::NoMailHost, C::InvalidDomain, Fail, false),
            (Failure::MxHostNotFound, C::InvalidDomain, Retry, false),
            (Failure::DnsServerFailure, C::InvalidDomain, Retry, false),
            (Failure::MailLoop, C::RoutingError, Fail, false),
            (Failure::PrivateDestination, C::RoutingError, Fail, false),
            (Failure::EgressFailed, C::Transient, Retry, true),
            (Failure::ConnectRefused, C::Transient, Retry, true),
            (Failure::ConnectTimeout, C::Timeout, Retry, true),
            (Failure::Unreachable, C::Transient, Retry, true),
            (Failure::TlsNotOffered, C::TlsRequired, Retry, true),
            (Failure::TlsFailed, C::TlsRequired, Retry, true),
            (Failure::Timeout(Phase::EndOfData), C::Timeout, Retry, true),
            (Failure::ConnectionLost(Phase::RcptTo), C::Transient, Retry, true),
            (Failure::BadReply(Phase::Greeting), C::ProtocolError, Retry, true),
            (Failure::MessageTooLarge, C::MessageTooLarge, Fail, false),
            (Failure::ExtensionMissing, C::ProtocolError, Fail, false),
        ] {
            let verdict = classify_failure(failure);
            assert_eq!(
                (verdict.category, verdict.action, verdict.is_path_feedback()),
                (category, action, path),
                "{failure:?}"
            );
        }
    }
}
