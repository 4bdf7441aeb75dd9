//! A session with a receiving host.

use relaypool_api::Domain;
use relaypool_api::reply::Phase;
use tokio::io::{AsyncRead, AsyncWrite};

use super::message::DataBlock;
use super::opening::{self, refusal};
use super::transaction::{self, Conversation, Ending};
use super::wire::{Step, Wire, is_closing};
use super::{
    Capabilities, ClientConfig, Envelope, ProtocolError, SendError, SessionError, Timeouts, Transaction, Unsendable,
};

/// A session with a receiving host, ready for mail. One transaction at a time.
///
/// A future of this type that is dropped before it is done ends the session, because nobody knows which replies are still
/// to come: [`is_reusable`](Self::is_reusable) is then false. [`idle`](Self::idle) is the exception.
///
/// A TCP stream should have `TCP_NODELAY` set: every write here is complete in itself.
#[derive(Debug)]
pub struct Session<S> {
    wire: Wire<S>,
    capabilities: Capabilities,
    timeouts: Timeouts,
    transactions: u64,
    is_reusable: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// Waits for the greeting, says EHLO (or HELO) and puts the connection under TLS as `config` asks. `host` is the name of
    /// the MX host, for the server name indication and, where it is verified, the certificate.
    ///
    /// # Errors
    ///
    /// All but [`SessionError::Ended`]. A handshake that fails is one for which [`SessionError::is_tls_failure`] holds: in
    /// opportunistic mode the caller may connect again with TLS disabled. The stream is closed.
    pub async fn open(stream: S, config: &ClientConfig, host: &Domain) -> Result<Self, SessionError> {
        let (wire, capabilities) = opening::open(stream, config, host).await?;
        Ok(Self {
            wire,
            capabilities,
            timeouts: config.timeouts,
            transactions: 0,
            is_reusable: true,
        })
    }

    /// Sends one message: MAIL, RCPT for each recipient, DATA, the message. In one write up to DATA where the host offers
    /// PIPELINING (RFC 2920).
    ///
    /// `message` has CRLF line ends; dots are stuffed and a missing last CRLF is added here. Without recipients nothing is
    /// said.
    ///
    /// # Errors
    ///
    /// [`SendError::Unsendable`] when the message cannot go to this host as it is: the session is as before.
    /// [`SendError::Session`] when the session broke before any recipient was decided. One that breaks later is in
    /// [`Transaction::interruption`], so that the replies until then are kept. A 421 is a reply like others: the recipients
    /// that were not refused before are refused by it.
    pub async fn send(&mut self, envelope: &Envelope, message: &[u8]) -> Result<Transaction, SendError> {
        let data = DataBlock::new(message)?;
        self.check(envelope, Some(data.size()))?;
        self.transact(envelope, Some(data)).await
    }

    /// Asks whether the host would take mail for the recipients: MAIL and RCPT, and RSET instead of a message.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub async fn probe(&mut self, envelope: &Envelope) -> Result<Transaction, SendError> {
        self.check(envelope, None)?;
        self.transact(envelope, None).await
    }

    /// Aborts what the host may still hold of a transaction. [`send`](Self::send) and [`probe`](Self::probe) do so by
    /// themselves.
    ///
    /// # Errors
    ///
    /// When the host does not agree, in [`Phase::MailFrom`], as it is the next transaction that cannot begin.
    pub async fn rset(&mut self) -> Result<(), SessionError> {
        self.begin()?;
        let step = Step::new(Phase::MailFrom, self.timeouts.rset);
        self.wire.write(&b"RSET\r\n"[..], step).await;
        let reply = self.wire.reply(step).await?;
        if !reply.code.is_positive() {
            return Err(refusal(step, reply));
        }
        self.is_reusable = true;
        Ok(())
    }

    /// Waits between transactions, for at most [`Timeouts::idle`], for the host to end the session. `Ok` means that the time
    /// is over and the session still good. May be dropped at any moment without harm to the session.
    ///
    /// # Errors
    ///
    /// What the host did: a 421 ([`SessionError::Refused`]), hanging up ([`SessionError::Io`]), or anything else out of turn.
    pub async fn idle(&mut self) -> Result<(), SessionError> {
        if !self.is_reusable {
            return Err(SessionError::Ended);
        }
        let step = Step::new(Phase::MailFrom, self.timeouts.idle);
        let error = match self.wire.reply(step).await {
            Err(SessionError::Timeout { .. }) => return Ok(()),
            Err(error) => error,
            Ok(reply) if is_closing(&reply) => refusal(step, reply),
            Ok(_) => SessionError::Protocol {
                phase: step.phase,
                source: ProtocolError::Unsolicited,
            },
        };
        self.is_reusable = false;
        Err(error)
    }

    /// Ends the session: QUIT where the host still listens, and the stream is closed. Takes at most [`Timeouts::quit`],
    /// whatever the host does.
    pub async fn quit(self) {
        if self.is_reusable {
            self.wire.quit(self.timeouts.quit).await;
        }
    }

    /// Whether another transaction can begin.
    pub fn is_reusable(&self) -> bool {
        self.is_reusable
    }

    /// How many transactions were begun, probes included.
    pub fn transactions(&self) -> u64 {
        self.transactions
    }

    /// What the host offers, as it said last: under TLS, if TLS is in use.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Whether the session is under TLS.
    pub fn is_encrypted(&self) -> bool {
        self.wire.is_encrypted()
    }

    /// Whether this host can have this message, as far as it has said.
    fn check(&self, envelope: &Envelope, size: Option<u64>) -> Result<(), Unsendable> {
        if envelope.needs_smtputf8() && !self.capabilities.smtputf8 {
            return Err(Unsendable::NeedsSmtpUtf8);
        }
        if let (Some(size), Some(limit)) = (size, self.capabilities.size_limit)
            && size > limit
        {
            return Err(Unsendable::TooLarge { size, limit });
        }
        if envelope.is_8bit && !self.capabilities.eight_bit_mime {
            return Err(Unsendable::Needs8BitMime);
        }
        Ok(())
    }

    async fn transact(&mut self, envelope: &Envelope, data: Option<DataBlock<'_>>) -> Result<Transaction, SendError> {
        self.begin()?;
        if envelope.recipients.is_empty() {
            self.is_reusable = true;
            return Ok(Transaction::default());
        }
        self.transactions += 1;
        let commands = transaction::commands(envelope, &self.capabilities, data.as_ref());
        let mut conversation = Conversation::new(&mut self.wire, &self.timeouts, envelope.recipients.len());
        let depth = if self.capabilities.pipelining {
            transaction::PIPELINE_DEPTH
        } else {
            1
        };
        let ending = conversation.run(&commands, depth, data.as_ref()).await;
        let outcomes = conversation.into_outcomes();
        let interruption = match ending {
            Ok(Ending::Complete) => {
                self.is_reusable = true;
                None
            }
            Ok(Ending::Open) => {
                self.is_reusable = true;
                self.rset().await.err()
            }
            Ok(Ending::HostCloses) => None,
            Err(error) => Some(error),
        };
        Transaction::new(outcomes, interruption)
    }

    /// Marks the session as ended until the operation that begins has come to a proper end.
    fn begin(&mut self) -> Result<(), SessionError> {
        if std::mem::replace(&mut self.is_reusable, false) {
            Ok(())
        } else {
            Err(SessionError::Ended)
        }
    }
}
