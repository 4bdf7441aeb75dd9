//! Commands out, replies in, each within its time.

use std::io;
use std::time::Duration;

use bytes::Buf;
use relaypool_api::Domain;
use relaypool_api::reply::{Phase, Reply};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::reply::{RawReply, ReplyBuffer};
use super::stream::Stream;
use super::{ProtocolError, SessionError, TlsClient, TlsMode};

/// The reply code of a host that is about to close the connection (RFC 5321 section 3.8).
const CLOSING: u16 = 421;
/// The most bytes of replies that are taken in while commands or the message still go out.
const MAX_UNREAD: usize = 64 * 1024;
/// The most bytes written under one time limit.
const BLOCK: usize = 64 * 1024;

/// How long the last words of a lost connection are waited for: they are on this machine already.
const PARTING: Duration = Duration::from_secs(1);

/// True for the reply that ends the session in whatever phase it comes.
pub(super) fn is_closing(reply: &Reply) -> bool {
    reply.code.get() == CLOSING
}

/// One step of the dialogue: what is waited for, and how long at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) phase: Phase,
    pub(super) limit: Duration,
}

impl Step {
    pub(super) const fn new(phase: Phase, limit: Duration) -> Self {
        Self { phase, limit }
    }

    fn timed_out(self) -> SessionError {
        SessionError::Timeout {
            phase: self.phase,
            after: self.limit,
        }
    }

    fn protocol(self, source: ProtocolError) -> SessionError {
        SessionError::Protocol {
            phase: self.phase,
            source,
        }
    }
}

/// Both directions of a connection.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: Stream<S>,
    received: ReplyBuffer,
    /// Why a write failed, until a caller asks for the reply to it.
    failure: Option<SessionError>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream: Stream::Plain(stream),
            received: ReplyBuffer::default(),
            failure: None,
        }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Sends all of `bytes`. A failure is not told here but by [`reply`](Self::reply): before a host hangs up it often says
    /// why.
    pub(super) async fn write(&mut self, mut bytes: impl Buf, step: Step) {
        if !self.is_in_step(step) {
            return;
        }
        while bytes.has_remaining() && self.failure.is_none() {
            let block = (&mut bytes).take(BLOCK);
            self.failure = match timeout(step.limit, self.write_block(block)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(SessionError::from_stream(step.phase, error)),
                Err(_) => Some(step.timed_out()),
            };
        }
    }

    /// Checks that no reply is left over before the next command goes out: it would be taken for the answer to it. A 421
    /// may come at any time, and is left for [`reply`](Self::reply).
    fn is_in_step(&mut self, step: Step) -> bool {
        if self.received.is_empty() {
            return true;
        }
        if !self.received.starts_with(b"421") {
            self.received.clear();
            self.failure = Some(step.protocol(ProtocolError::Unsolicited));
        }
        false
    }

    /// Writes and flushes. Reads at the same time, so that two sides that both wait for the other to read get on.
    async fn write_block(&mut self, mut block: impl Buf) -> io::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
        loop {
            let has_room = self.received.len() < MAX_UNREAD;
            let was_written = !block.has_remaining();
            let write = async {
                if was_written {
                    writer.flush().await.map(|()| None)
                } else {
                    writer.write_buf(&mut block).await.map(Some)
                }
            };
            tokio::select! {
                biased;
                written = write => match written? {
                    None => return Ok(()),
                    Some(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Some(_) => {}
                },
                read = reader.read_buf(self.received.space()), if has_room => {
                    if read? == 0 {
                        return Err(closed_by_host());
                    }
                }
            }
        }
    }

    /// Waits for one reply, in the form the rest of the system knows.
    pub(super) async fn reply(&mut self, step: Step) -> Result<Reply, SessionError> {
        self.raw_reply(step).await.map(|raw| raw.to_reply())
    }

    /// Waits for one reply. After a write that failed: the replies the host had given before, then the failure.
    pub(super) async fn raw_reply(&mut self, step: Step) -> Result<RawReply, SessionError> {
        let limit = match &self.failure {
            None => step.limit,
            // Nothing was asked, so nothing can be the answer.
            Some(SessionError::Protocol { .. }) => return Err(self.take_failure().unwrap_or(step.timed_out())),
            // The time is over; what came meanwhile has been read.
            Some(SessionError::Timeout { .. }) => Duration::ZERO,
            Some(_) => step.limit.min(PARTING),
        };
        match timeout(limit, self.next_reply(step)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(self.failure.take().unwrap_or(error)),
            Err(_) => Err(self.failure.take().unwrap_or(step.timed_out())),
        }
    }

    async fn next_reply(&mut self, step: Step) -> Result<RawReply, SessionError> {
        loop {
            if let Some(reply) = self.received.next().map_err(|error| step.protocol(error))? {
                return Ok(reply);
            }
            let read = self.stream.read_buf(self.received.space()).await;
            match read {
                Ok(0) => return Err(SessionError::from_stream(step.phase, closed_by_host())),
                Ok(_) => {}
                Err(error) => return Err(SessionError::from_stream(step.phase, error)),
            }
        }
    }

    /// The failure of the last write, for a caller that got a reply all the same.
    pub(super) fn take_failure(&mut self) -> Option<SessionError> {
        self.failure.take()
    }

    /// Puts the connection under TLS. Whatever the host sent ahead is dropped: what was received in clear text, perhaps
    /// injected on the way, must not be read as if it came under TLS.
    pub(super) async fn start_tls(
        self,
        client: &TlsClient,
        host: &Domain,
        mode: TlsMode,
        limit: Duration,
    ) -> Result<Self, SessionError> {
        let step = Step::new(Phase::StartTls, limit);
        let Stream::Plain(plain) = self.stream else {
            return Ok(self);
        };
        match timeout(limit, client.handshake(plain, host, mode)).await {
            Ok(Ok(stream)) => Ok(Self {
                stream: Stream::Tls(Box::new(stream)),
                received: ReplyBuffer::default(),
                failure: None,
            }),
            Ok(Err(source)) => Err(SessionError::Tls {
                phase: step.phase,
                source,
            }),
            Err(_) => Err(step.timed_out()),
        }
    }

    /// Says QUIT, waits for the answer and closes the stream, all within `limit`, whatever the host does.
    pub(super) async fn quit(mut self, limit: Duration) {
        let step = Step::new(Phase::MailFrom, limit);
        let goodbye = async {
            self.write(&b"QUIT\r\n"[..], step).await;
            // Nothing depends on the answer: the host may as well just hang up.
            let _answer = self.reply(step).await;
            let _closed = self.stream.shutdown().await;
        };
        let _in_time = timeout(limit, goodbye).await;
    }
}

fn closed_by_host() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the host")
}
