//! What ends a session, and what keeps a message from being sent in it.

use std::io;
use std::time::Duration;

use relaypool_api::reply::{Phase, Reply};

/// Why a session could not be opened or go on. The session is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The host refused the session itself: its greeting, EHLO or STARTTLS reply, or a 421 outside a transaction.
    #[error("the host refused at {}: {reply}", name(*.phase))]
    Refused {
        /// What it refused.
        phase: Phase,
        /// In these words.
        reply: Reply,
    },
    /// TLS is required and the host does not offer STARTTLS.
    #[error("TLS is required and the host does not offer it")]
    TlsNotOffered,
    /// The TLS handshake failed, or the TLS layer did later.
    #[error("TLS failed at {}: {source}", name(*.phase))]
    Tls {
        /// [`Phase::StartTls`] for the handshake.
        phase: Phase,
        /// What went wrong.
        source: io::Error,
    },
    /// The host took too long.
    #[error("no answer at {} within {after:?}", name(*.phase))]
    Timeout {
        /// What it did not answer.
        phase: Phase,
        /// How long it was given.
        after: Duration,
    },
    /// The connection was lost. In [`Phase::EndOfData`] nobody can tell whether the host took the message.
    #[error("connection lost at {}: {source}", name(*.phase))]
    Io {
        /// While waiting for this.
        phase: Phase,
        /// What the system said.
        source: io::Error,
    },
    /// What the host said is not SMTP, or not at its place.
    #[error("not SMTP at {}: {source}", name(*.phase))]
    Protocol {
        /// Where an answer to this was expected.
        phase: Phase,
        /// What came instead.
        source: ProtocolError,
    },
    /// The session had ended before: by a 421, by an error, or by an operation that was not awaited to its end.
    #[error("the session has ended")]
    Ended,
}

impl SessionError {
    /// An error of the stream, attributed to TLS where the TLS layer made it.
    pub(super) fn from_stream(phase: Phase, source: io::Error) -> Self {
        if source.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
            Self::Tls { phase, source }
        } else {
            Self::Io { phase, source }
        }
    }

    pub(super) fn unexpected(phase: Phase, reply: Reply) -> Self {
        Self::Protocol {
            phase,
            source: ProtocolError::Unexpected { reply },
        }
    }

    /// Where the session was. RSET and the time between transactions count as [`Phase::MailFrom`].
    pub fn phase(&self) -> Phase {
        match self {
            Self::Refused { phase, .. }
            | Self::Tls { phase, .. }
            | Self::Timeout { phase, .. }
            | Self::Io { phase, .. }
            | Self::Protocol { phase, .. } => *phase,
            Self::TlsNotOffered => Phase::StartTls,
            Self::Ended => Phase::MailFrom,
        }
    }

    /// The reply that made the error, where one did.
    pub fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Refused { reply, .. }
            | Self::Protocol {
                source: ProtocolError::Unexpected { reply },
                ..
            } => Some(reply),
            _ => None,
        }
    }

    /// True when it was TLS, or the attempt at it, that failed: a new connection without TLS may succeed, where the policy
    /// is [`TlsMode::Opportunistic`](super::TlsMode::Opportunistic).
    pub fn is_tls_failure(&self) -> bool {
        match self {
            Self::Tls { .. } => true,
            Self::Refused { .. } | Self::TlsNotOffered => false,
            _ => self.phase() == Phase::StartTls,
        }
    }
}

/// How a host broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A line without a reply code from 200 to 599 and a separator.
    #[error("'{0}' is no reply line")]
    NotAReply(String),
    /// Lines of one reply disagree whether it is a yes or a no.
    #[error("one reply has lines of code {first} and of code {last}")]
    MixedCodes {
        /// The code of the first line.
        first: u16,
        /// A later code of another class.
        last: u16,
    },
    /// Over 8 KB, or over 128 lines.
    #[error("the reply is too long")]
    TooLong,
    /// A proper reply, but none that this command can have.
    #[error("'{reply}' is no answer to the command")]
    Unexpected {
        /// The reply.
        reply: Reply,
    },
    /// A reply before there was a command to answer.
    #[error("the host answered before it was asked")]
    Unsolicited,
}

/// Why a message was not sent to anybody.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// This message cannot go to this host as it is. Nothing was sent and the session is as good as before.
    #[error(transparent)]
    Unsendable(#[from] Unsendable),
    /// The session broke before any recipient was decided.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Why a message cannot go to a host as it is, seen before anything is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// A CR or LF that is not part of a CRLF. Hosts disagree on whether it ends a line, which lets text in the message pass
    /// for commands (SMTP smuggling). No host may have such a message.
    #[error("the message has a bare CR or LF at byte {offset}")]
    BareLineEnd {
        /// Where, in octets from the start of the message.
        offset: usize,
    },
    /// Larger than the host announced to accept (RFC 1870). Permanent for this host.
    #[error("the message has {size} bytes and the host accepts at most {limit}")]
    TooLarge {
        /// The size of the message, in octets.
        size: u64,
        /// What the host announced, in octets.
        limit: u64,
    },
    /// An address or the header needs SMTPUTF8 (RFC 6531) and the host does not offer it. Permanent for this host.
    #[error("the message needs SMTPUTF8 and the host does not offer it")]
    NeedsSmtpUtf8,
    /// The message has octets over 127 and the host does not offer 8BITMIME (RFC 6152). The same content encoded in 7 bits
    /// can be sent.
    #[error("the message needs 8BITMIME and the host does not offer it")]
    Needs8BitMime,
}

/// The phase as the text of an error names it.
fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Connect => "connect",
        Phase::Greeting => "the greeting",
        Phase::Ehlo => "EHLO",
        Phase::StartTls => "STARTTLS",
        Phase::MailFrom => "MAIL",
        Phase::RcptTo => "RCPT",
        Phase::Data => "DATA",
        Phase::EndOfData => "the end of data",
    }
}
