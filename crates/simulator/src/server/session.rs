//! One connection from greeting to close.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use relaypool_api::reply::Phase;
use smtp_proto::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ProviderServer;
use super::wire::{Line, Wire};
use crate::books::{Party, ViolationKind};
use crate::description::Answer;
use crate::model::{ConnectionId, Decision};

/// A connection that was greeted. However it ends, the model and the books hear of it when this is dropped.
pub(super) struct Session {
    pub(super) server: Arc<ProviderServer>,
    pub(super) host: Arc<str>,
    pub(super) connection: ConnectionId,
    pub(super) party: Party,
    pub(super) tls: bool,
    /// EHLO or HELO was accepted.
    pub(super) introduced: bool,
    pub(super) transaction: Option<Transaction>,
}

/// What MAIL FROM began.
pub(super) struct Transaction {
    pub(super) return_path: Arc<str>,
    pub(super) recipients: Vec<String>,
    pub(super) smtp_utf8: bool,
    pub(super) eight_bit: bool,
}

/// How a dialogue ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// What was said is sent, then the connection closed in good order.
    Close,
    /// The connection is dropped.
    HangUp,
    /// The go-ahead for TLS is given.
    StartTls,
}

/// Real time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(60);

/// Serves one connection to `host`.
pub(super) async fn serve(
    server: Arc<ProviderServer>,
    host: Arc<str>,
    stream: TcpStream,
    source: IpAddr,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut wire = Wire::new(stream);
    let (connection, decision) = server.model().connect(server.clock.now(), source);
    if !decision.is_acceptance() {
        server
            .books
            .connection_refused(server.position, source, decision.code());
        server.clock.sleep(decision.delay).await;
        return match decision.reply {
            Some(reply) => {
                wire.push(&reply);
                wire.close().await
            }
            None => Ok(()),
        };
    }
    let mut session = Session {
        party: server.books.connection_opened(server.position, source),
        server,
        host,
        connection,
        tls: false,
        introduced: false,
        transaction: None,
    };
    session.server.clock.sleep(decision.delay).await;
    wire.push_text(&format!("220 {} ESMTP ready", session.host));
    match session.dialogue(&mut wire).await? {
        Ending::StartTls => session.continue_over_tls(wire.into_stream()).await,
        ending => session.end(wire, ending).await,
    }
}

impl Session {
    async fn continue_over_tls(mut self, stream: TcpStream) -> io::Result<()> {
        let Some(acceptor) = self.server.tls.clone() else {
            return Ok(());
        };
        let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
        self.tls = true;
        // What was said in the clear is forgotten (RFC 3207 section 4.2).
        self.introduced = false;
        self.server.books.tls_established(self.party);
        let mut wire = Wire::new(stream);
        let ending = self.dialogue(&mut wire).await?;
        self.end(wire, ending).await
    }

    /// Ends the session before its last reply is sent: a client that reads it may connect again at once, and its old
    /// connection must not count against it.
    async fn end<S: AsyncRead + AsyncWrite + Unpin>(self, mut wire: Wire<S>, ending: Ending) -> io::Result<()> {
        drop(self);
        match ending {
            Ending::Close => wire.close().await,
            Ending::HangUp | Ending::StartTls => wire.flush().await,
        }
    }

    /// Reads and answers commands until the connection ends or turns to TLS.
    async fn dialogue<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>) -> io::Result<Ending> {
        loop {
            let line = match wire.line().await? {
                Line::Complete(line) => line,
                Line::TooLong => {
                    self.violation(ViolationKind::LongLine);
                    wire.push_text("500 5.5.2 line too long");
                    return Ok(Ending::Close);
                }
                Line::End => return Ok(Ending::Close),
            };
            self.check_line_end(&line);
            let ending = match Request::parse(&mut line.iter()) {
                Ok(request) => self.command(wire, request).await?,
                Err(error) => {
                    self.unreadable(wire, &error);
                    None
                }
            };
            if let Some(ending) = ending {
                return Ok(ending);
            }
        }
    }

    fn check_line_end(&self, line: &[u8]) {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let Some(text) = text.strip_suffix(b"\r") else {
            return self.violation(ViolationKind::BareLineFeed);
        };
        if text.contains(&b'\r') {
            self.violation(ViolationKind::BareCarriageReturn);
        }
    }

    fn unreadable<S: AsyncRead + AsyncWrite + Unpin>(&self, wire: &mut Wire<S>, error: &smtp_proto::Error) {
        use smtp_proto::Error::{InvalidParameter, UnknownCommand, UnsupportedParameter};
        self.violation(ViolationKind::BadCommand);
        wire.push_text(match error {
            UnknownCommand => "500 5.5.2 command not recognised",
            InvalidParameter { .. } | UnsupportedParameter { .. } => "555 5.5.4 parameter not recognised",
            _ => "501 5.5.4 syntax error",
        });
    }

    /// Lets the time of a decision pass; what was said before is sent meanwhile.
    pub(super) async fn wait<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        wire: &mut Wire<S>,
        decision: &Decision,
    ) -> io::Result<()> {
        if !decision.delay.is_zero() {
            wire.flush().await?;
            self.server.clock.sleep(decision.delay).await;
        }
        Ok(())
    }

    /// Queues the reply of a decision whose time has passed, and enters it if it is a refusal.
    pub(super) fn say<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        wire: &mut Wire<S>,
        phase: Phase,
        decision: &Decision,
    ) -> Option<Ending> {
        let Some(reply) = &decision.reply else {
            return Some(Ending::HangUp);
        };
        if !reply.is_acceptance() {
            self.server.books.refused(self.party, phase, reply.code().get());
        }
        wire.push(reply);
        decision.close.then_some(Ending::Close)
    }

    /// A refusal that is no matter of the provider's behaviour.
    pub(super) fn turn_down<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        wire: &mut Wire<S>,
        phase: Phase,
        reply: &'static str,
    ) {
        let reply = Answer::known(reply);
        self.server.books.refused(self.party, phase, reply.code().get());
        wire.push(&reply);
    }

    pub(super) fn violation(&self, kind: ViolationKind) {
        self.server.books.violation(self.party, kind);
    }

    pub(super) fn end_transaction(&mut self) {
        if self.transaction.take().is_some() {
            self.server.books.transaction_ended(self.party);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end_transaction();
        self.server.model().disconnect(self.connection);
        self.server.books.connection_closed(self.party);
    }
}
