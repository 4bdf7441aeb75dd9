//! What each command does.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use relaypool_api::reply::Phase;
use smtp_proto::{MAIL_BODY_8BITMIME, MAIL_SMTPUTF8, MailFrom, RcptTo, Request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::incoming::Incoming;
use super::session::{Ending, Session, Transaction};
use super::wire::Wire;
use crate::books::{Accepted, Keep, ViolationKind};

/// Recipients of one transaction (RFC 5321 section 4.5.3.1.8 asks for 100 at least).
const MAX_RECIPIENTS: usize = 1_000;

const TOO_LARGE: &str = "552 5.3.4 message too large";

impl Session {
    /// Answers one command; gives how the dialogue ends, if it does.
    pub(super) async fn command<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<S>,
        request: Request<Cow<'_, str>>,
    ) -> io::Result<Option<Ending>> {
        match request {
            Request::Ehlo { .. } => return self.hello(wire, &self.extensions()).await,
            Request::Helo { .. } => return self.hello(wire, &format!("250 {}", self.host)).await,
            Request::StartTls => return self.start_tls(wire).await,
            Request::Mail { from } => return self.mail(wire, from).await,
            Request::Rcpt { to } => return self.rcpt(wire, to).await,
            Request::Data => return self.data(wire).await,
            Request::Quit => {
                wire.push_text("221 2.0.0 bye");
                return Ok(Some(Ending::Close));
            }
            Request::Bdat { .. } => {
                // Not offered, and the octets behind it would be read as commands.
                self.violation(ViolationKind::BadCommand);
                wire.push_text("503 5.5.1 CHUNKING is not offered");
                return Ok(Some(Ending::Close));
            }
            Request::Rset => {
                self.end_transaction();
                wire.push_text("250 2.0.0 forgotten");
            }
            Request::Noop { .. } => wire.push_text("250 2.0.0 ok"),
            Request::Vrfy { .. } => wire.push_text("252 2.5.0 send some mail to find out"),
            Request::Help { .. } => wire.push_text("214 2.0.0 see RFC 5321"),
            _ => {
                self.violation(ViolationKind::BadCommand);
                wire.push_text("502 5.5.1 command not implemented");
            }
        }
        Ok(None)
    }

    async fn hello<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<S>,
        welcome: &str,
    ) -> io::Result<Option<Ending>> {
        let decision = self.server.model().hello(self.server.clock.now(), self.connection);
        self.wait(wire, &decision).await?;
        if !decision.is_acceptance() {
            return Ok(self.say(wire, Phase::Ehlo, &decision));
        }
        self.end_transaction();
        self.introduced = true;
        wire.push_text(welcome);
        Ok(None)
    }

    fn extensions(&self) -> String {
        let start_tls = if self.offers_tls() { "250-STARTTLS\r\n" } else { "" };
        format!(
            "250-{}\r\n250-PIPELINING\r\n250-SIZE {}\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n{start_tls}250 ENHANCEDSTATUSCODES",
            self.host, self.server.max_message_size
        )
    }

    fn offers_tls(&self) -> bool {
        self.server.tls.is_some() && !self.tls
    }

    async fn start_tls<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>) -> io::Result<Option<Ending>> {
        if !self.offers_tls() {
            self.violation(ViolationKind::BadCommand);
            wire.push_text("502 5.5.1 STARTTLS is not offered");
            return Ok(None);
        }
        if self.transaction.is_some() {
            return Ok(self.out_of_place(wire, "503 5.5.1 not within a transaction"));
        }
        if !wire.unread().is_empty() {
            self.violation(ViolationKind::PipelinedPastStartTls);
        }
        let decision = self.server.model().start_tls(self.server.clock.now(), self.connection);
        self.wait(wire, &decision).await?;
        let ending = self.say(wire, Phase::StartTls, &decision);
        if ending.is_some() || !decision.is_acceptance() {
            return Ok(ending);
        }
        wire.flush().await?;
        Ok(Some(Ending::StartTls))
    }

    async fn mail<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<S>,
        from: MailFrom<Cow<'_, str>>,
    ) -> io::Result<Option<Ending>> {
        if !self.introduced {
            return Ok(self.out_of_place(wire, "503 5.5.1 say EHLO first"));
        }
        if self.transaction.is_some() {
            return Ok(self.out_of_place(wire, "503 5.5.1 a transaction is under way"));
        }
        let smtp_utf8 = from.flags & MAIL_SMTPUTF8 != 0;
        if !smtp_utf8 && !from.address.is_ascii() {
            return Ok(self.undeclared_utf8(wire, Phase::MailFrom));
        }
        if from.size as u64 > self.server.max_message_size {
            self.turn_down(wire, Phase::MailFrom, TOO_LARGE);
            return Ok(None);
        }
        let decision = self
            .server
            .model()
            .mail(self.server.clock.now(), self.connection, &from.address);
        if decision.is_acceptance() {
            self.server.books.transaction_begun(self.party);
            self.transaction = Some(Transaction {
                return_path: from.address.into(),
                recipients: Vec::new(),
                smtp_utf8,
                eight_bit: from.flags & MAIL_BODY_8BITMIME != 0,
            });
        }
        self.wait(wire, &decision).await?;
        Ok(self.say(wire, Phase::MailFrom, &decision))
    }

    async fn rcpt<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<S>,
        to: RcptTo<Cow<'_, str>>,
    ) -> io::Result<Option<Ending>> {
        let Some(transaction) = &self.transaction else {
            return Ok(self.out_of_place(wire, "503 5.5.1 say MAIL FROM first"));
        };
        if !transaction.smtp_utf8 && !to.address.is_ascii() {
            return Ok(self.undeclared_utf8(wire, Phase::RcptTo));
        }
        if transaction.recipients.len() >= MAX_RECIPIENTS {
            self.turn_down(wire, Phase::RcptTo, "452 4.5.3 too many recipients");
            return Ok(None);
        }
        let decision = self
            .server
            .model()
            .rcpt(self.server.clock.now(), self.connection, &to.address);
        self.wait(wire, &decision).await?;
        if decision.is_acceptance()
            && let Some(transaction) = &mut self.transaction
        {
            transaction.recipients.push(to.address.into_owned());
        }
        Ok(self.say(wire, Phase::RcptTo, &decision))
    }

    async fn data<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>) -> io::Result<Option<Ending>> {
        match &self.transaction {
            None => return Ok(self.out_of_place(wire, "503 5.5.1 say MAIL FROM first")),
            // What a client that pipelines gets to hear when every recipient was refused; its own fault in no way.
            Some(transaction) if transaction.recipients.is_empty() => {
                wire.push_text("554 5.5.1 no valid recipients");
                return Ok(None);
            }
            Some(_) => (),
        }
        let decision = self.server.model().data(self.server.clock.now(), self.connection);
        self.wait(wire, &decision).await?;
        let ending = self.say(wire, Phase::Data, &decision);
        if ending.is_some() || !decision.is_acceptance() {
            return Ok(ending);
        }
        if !wire.unread().is_empty() {
            self.violation(ViolationKind::PipelinedPastData);
        }
        match self.receive(wire).await? {
            Some(incoming) => self.answer_message(wire, incoming).await,
            None => Ok(Some(Ending::HangUp)),
        }
    }

    /// Reads to the final dot; nothing when the client is gone before.
    async fn receive<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>) -> io::Result<Option<Incoming>> {
        let mut incoming = Incoming::new(self.server.keep, self.server.max_message_size);
        loop {
            let (taken, complete) = incoming.ingest(wire.unread());
            wire.take(taken);
            if complete {
                return Ok(Some(incoming));
            }
            if !wire.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Decides about a message, writes the reply, and only then enters it as accepted.
    async fn answer_message<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<S>,
        incoming: Incoming,
    ) -> io::Result<Option<Ending>> {
        let eight_bit = self
            .transaction
            .as_ref()
            .is_some_and(|transaction| transaction.eight_bit || transaction.smtp_utf8);
        for kind in incoming.violations(eight_bit) {
            self.violation(kind);
        }
        if incoming.is_too_large() {
            self.turn_down(wire, Phase::EndOfData, TOO_LARGE);
            wire.flush().await?;
            self.end_transaction();
            return Ok(None);
        }
        let decision = self
            .server
            .model()
            .end_of_data(self.server.clock.now(), self.connection);
        self.wait(wire, &decision).await?;
        let ending = self.say(wire, Phase::EndOfData, &decision);
        let written = wire.flush().await;
        if decision.is_acceptance() {
            match written {
                Ok(()) => self.enter_accepted(incoming),
                Err(_) => self.server.books.acceptance_unanswered(self.party),
            }
        }
        self.end_transaction();
        written.map(|()| ending)
    }

    fn enter_accepted(&mut self, incoming: Incoming) {
        let Some(transaction) = self.transaction.take() else {
            return;
        };
        let count = transaction.recipients.len();
        let octets = incoming.octets();
        let each = match self.server.keep {
            Keep::Counts => Vec::new(),
            Keep::Nothing | Keep::Headers | Keep::Messages => self.entries(transaction, incoming),
        };
        self.server.books.accepted_message(self.party, count, octets, each);
    }

    fn entries(&self, transaction: Transaction, incoming: Incoming) -> Vec<Accepted> {
        let octets = incoming.octets();
        let message_id: Option<Arc<str>> = incoming.message_id().map(Into::into);
        let content: Option<Arc<[u8]>> = incoming.into_content().map(Into::into);
        let time = self.server.clock.now();
        transaction
            .recipients
            .into_iter()
            .map(|recipient| Accepted {
                provider: self.server.name.clone(),
                mx_host: self.host.clone(),
                recipient,
                return_path: transaction.return_path.clone(),
                message_id: message_id.clone(),
                source: self.party.source,
                connection: self.party.connection,
                tls: self.tls,
                time,
                octets,
                content: content.clone(),
            })
            .collect()
    }

    fn out_of_place<S: AsyncRead + AsyncWrite + Unpin>(&self, wire: &mut Wire<S>, reply: &str) -> Option<Ending> {
        self.violation(ViolationKind::BadSequence);
        wire.push_text(reply);
        None
    }

    fn undeclared_utf8<S: AsyncRead + AsyncWrite + Unpin>(&self, wire: &mut Wire<S>, phase: Phase) -> Option<Ending> {
        self.violation(ViolationKind::UndeclaredUtf8);
        self.turn_down(wire, phase, "553 5.6.7 an address outside ASCII needs SMTPUTF8");
        None
    }
}
