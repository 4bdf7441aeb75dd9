//! One mail transaction: from MAIL to the answer to the final dot.

use std::fmt::Write;

use relaypool_api::EmailAddress;
use relaypool_api::reply::{Phase, Reply};
use tokio::io::{AsyncRead, AsyncWrite};

use super::message::DataBlock;
use super::wire::{Step, Wire, is_closing};
use super::{Capabilities, SendError, SessionError, Timeouts};

/// The most commands in one write: what a host has to buffer stays small however many recipients there are.
pub(super) const PIPELINE_DEPTH: usize = 100;

/// Who a message is from and who it is for, as the hosts are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Where bounces go; `None` is the null path `<>` of messages that must not bounce.
    pub return_path: Option<EmailAddress>,
    /// Who it is for, all of them at this host.
    pub recipients: Vec<EmailAddress>,
    /// The message has octets over 127.
    pub is_8bit: bool,
    /// The header of the message has characters outside ASCII (RFC 6532). Addresses that do are noticed by themselves.
    pub has_utf8_header: bool,
}

impl Envelope {
    /// An envelope for a 7-bit message.
    pub fn new(return_path: Option<EmailAddress>, recipients: Vec<EmailAddress>) -> Self {
        Self {
            return_path,
            recipients,
            is_8bit: false,
            has_utf8_header: false,
        }
    }

    /// Whether the message can only go to a host that offers SMTPUTF8 (RFC 6531).
    pub fn needs_smtputf8(&self) -> bool {
        self.has_utf8_header
            || self
                .return_path
                .iter()
                .chain(&self.recipients)
                .any(EmailAddress::needs_smtputf8)
    }
}

/// What became of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientOutcome {
    /// The host took it over: the message in [`Phase::EndOfData`], or, of a probe, the address in [`Phase::RcptTo`].
    Accepted {
        /// What was accepted.
        phase: Phase,
        /// In these words.
        reply: Reply,
    },
    /// The host said no, for now (4yz) or for good (5yz).
    Refused {
        /// What it refused. A refusal of MAIL, DATA or the message, and a 421, is one of every recipient that was left.
        phase: Phase,
        /// In these words.
        reply: Reply,
    },
    /// The session broke first: see [`Transaction::interruption`].
    Undecided,
}

/// What became of a transaction.
#[derive(Debug, Default)]
pub struct Transaction {
    /// One outcome for each recipient of the envelope, in its order.
    pub recipients: Vec<RecipientOutcome>,
    /// Why the session broke, if it did after some recipients had been decided.
    pub interruption: Option<SessionError>,
}

impl Transaction {
    pub(super) fn new(
        recipients: Vec<RecipientOutcome>,
        interruption: Option<SessionError>,
    ) -> Result<Self, SendError> {
        let none_is_decided = recipients.iter().all(|outcome| *outcome == RecipientOutcome::Undecided);
        match interruption {
            Some(error) if none_is_decided => Err(error.into()),
            interruption => Ok(Self {
                recipients,
                interruption,
            }),
        }
    }
}

/// A command and what its reply decides.
#[derive(Debug)]
pub(super) struct Command {
    verb: Verb,
    line: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Mail,
    /// With the place of the recipient in the envelope.
    Rcpt(usize),
    Data,
}

/// The commands of a transaction, with the parameters the host offers. A probe has no `data`.
pub(super) fn commands(envelope: &Envelope, offered: &Capabilities, data: Option<&DataBlock<'_>>) -> Vec<Command> {
    let mut mail = match &envelope.return_path {
        Some(address) => format!("MAIL FROM:<{address}>"),
        None => "MAIL FROM:<>".to_owned(),
    };
    if let Some(data) = data.filter(|_| offered.size) {
        write!(mail, " SIZE={}", data.size()).expect("a string takes all that is written");
    }
    if envelope.is_8bit && offered.eight_bit_mime {
        mail.push_str(" BODY=8BITMIME");
    }
    if envelope.needs_smtputf8() {
        mail.push_str(" SMTPUTF8");
    }
    mail.push_str("\r\n");

    let mail = Command {
        verb: Verb::Mail,
        line: mail,
    };
    let rcpts = envelope.recipients.iter().enumerate().map(|(index, address)| Command {
        verb: Verb::Rcpt(index),
        line: format!("RCPT TO:<{address}>\r\n"),
    });
    let data = data.map(|_| Command {
        verb: Verb::Data,
        line: "DATA\r\n".to_owned(),
    });
    std::iter::once(mail).chain(rcpts).chain(data).collect()
}

/// How a transaction ended at the host.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It is over there too.
    Complete,
    /// The host still has some of it, and needs an RSET.
    Open,
    /// The host closes the connection: it said 421, or stopped reading.
    HostCloses,
}

/// The dialogue of one transaction, and what it decided so far.
pub(super) struct Conversation<'a, S> {
    wire: &'a mut Wire<S>,
    timeouts: &'a Timeouts,
    outcomes: Vec<RecipientOutcome>,
    mail_was_accepted: bool,
    /// Recipients accepted by RCPT that now wait for the message. Their outcome is undecided until it is accepted.
    waiting: usize,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Conversation<'a, S> {
    pub(super) fn new(wire: &'a mut Wire<S>, timeouts: &'a Timeouts, recipients: usize) -> Self {
        Self {
            wire,
            timeouts,
            outcomes: vec![RecipientOutcome::Undecided; recipients],
            mail_was_accepted: false,
            waiting: 0,
        }
    }

    /// Goes through the commands, `depth` of them in one write, and sends the message when somebody is left to have it.
    /// Without `data`, RCPT decides.
    pub(super) async fn run(
        &mut self,
        commands: &[Command],
        depth: usize,
        data: Option<&DataBlock<'_>>,
    ) -> Result<Ending, SessionError> {
        let ending = self.converse(commands, depth, data).await?;
        // A host that answered and did not read to the end has nothing more to hear.
        Ok(if self.wire.take_failure().is_some() {
            Ending::HostCloses
        } else {
            ending
        })
    }

    async fn converse(
        &mut self,
        commands: &[Command],
        depth: usize,
        data: Option<&DataBlock<'_>>,
    ) -> Result<Ending, SessionError> {
        let mut data_reply = None;
        for group in commands.chunks(depth) {
            if !self.has_use_for(group) {
                break;
            }
            let lines: String = group.iter().map(|command| command.line.as_str()).collect();
            self.wire.write(lines.as_bytes(), self.step(group[0].verb)).await;
            for command in group {
                let step = self.step(command.verb);
                let reply = self.wire.reply(step).await?;
                if is_closing(&reply) {
                    self.decide_open(step.phase, &reply);
                    return Ok(Ending::HostCloses);
                }
                match command.verb {
                    Verb::Mail => self.hear_mail(step, reply)?,
                    Verb::Rcpt(index) => self.hear_rcpt(step, index, reply, data.is_none())?,
                    Verb::Data => data_reply = Some(reply),
                }
            }
        }
        match (data, data_reply) {
            (Some(data), Some(reply)) => self.hear_data(reply, data).await,
            _ if self.mail_was_accepted => Ok(Ending::Open),
            _ => Ok(Ending::Complete),
        }
    }

    pub(super) fn into_outcomes(self) -> Vec<RecipientOutcome> {
        self.outcomes
    }

    /// Whether the host can still do something with these commands, after what it said to the earlier ones.
    fn has_use_for(&self, group: &[Command]) -> bool {
        match group[0].verb {
            Verb::Mail => true,
            Verb::Rcpt(_) => self.mail_was_accepted,
            Verb::Data => self.waiting > 0,
        }
    }

    fn hear_mail(&mut self, step: Step, reply: Reply) -> Result<(), SessionError> {
        self.mail_was_accepted = is_yes(step, &reply)?;
        if !self.mail_was_accepted {
            self.decide_open(step.phase, &reply);
        }
        Ok(())
    }

    fn hear_rcpt(&mut self, step: Step, index: usize, reply: Reply, is_probe: bool) -> Result<(), SessionError> {
        let is_accepted = is_yes(step, &reply)?;
        if !self.mail_was_accepted {
            // The host refuses RCPT only because of that.
            return Ok(());
        }
        if is_accepted && !is_probe {
            self.waiting += 1;
        } else {
            self.outcomes[index] = outcome(step.phase, reply);
        }
        Ok(())
    }

    async fn hear_data(&mut self, reply: Reply, data: &DataBlock<'_>) -> Result<Ending, SessionError> {
        if reply.code.is_positive() {
            return Err(SessionError::unexpected(Phase::Data, reply));
        }
        if !reply.code.is_intermediate() {
            self.decide_open(Phase::Data, &reply);
            return Ok(if self.mail_was_accepted {
                Ending::Open
            } else {
                Ending::Complete
            });
        }
        if self.waiting > 0 {
            self.send_message(data).await
        } else {
            self.send_nothing().await
        }
    }

    async fn send_message(&mut self, data: &DataBlock<'_>) -> Result<Ending, SessionError> {
        let block = Step::new(Phase::EndOfData, self.timeouts.data_block);
        let end = Step::new(Phase::EndOfData, self.timeouts.end_of_data);
        self.wire.write(data.bytes(), block).await;
        let reply = self.wire.reply(end).await?;
        // A host cannot have accepted what it did not get: only its refusal explains why it stopped reading.
        if is_yes(end, &reply)?
            && let Some(failure) = self.wire.take_failure()
        {
            return Err(failure);
        }
        self.decide_open(end.phase, &reply);
        Ok(if is_closing(&reply) {
            Ending::HostCloses
        } else {
            Ending::Complete
        })
    }

    /// Ends a message nobody is left to have, which the host asked for before it knew (RFC 2920 section 3.1).
    async fn send_nothing(&mut self) -> Result<Ending, SessionError> {
        let end = Step::new(Phase::EndOfData, self.timeouts.end_of_data);
        self.wire.write(&b".\r\n"[..], end).await;
        let reply = self.wire.reply(end).await?;
        Ok(if is_closing(&reply) {
            Ending::HostCloses
        } else {
            Ending::Complete
        })
    }

    /// Decides every recipient that is undecided.
    fn decide_open(&mut self, phase: Phase, reply: &Reply) {
        for recipient in &mut self.outcomes {
            if *recipient == RecipientOutcome::Undecided {
                *recipient = outcome(phase, reply.clone());
            }
        }
    }

    fn step(&self, verb: Verb) -> Step {
        match verb {
            Verb::Mail => Step::new(Phase::MailFrom, self.timeouts.mail),
            Verb::Rcpt(_) => Step::new(Phase::RcptTo, self.timeouts.rcpt),
            Verb::Data => Step::new(Phase::Data, self.timeouts.data),
        }
    }
}

fn outcome(phase: Phase, reply: Reply) -> RecipientOutcome {
    if reply.code.is_positive() {
        RecipientOutcome::Accepted { phase, reply }
    } else {
        RecipientOutcome::Refused { phase, reply }
    }
}

/// Reads a reply as yes or no; 3yz is neither, and no answer to these commands.
fn is_yes(step: Step, reply: &Reply) -> Result<bool, SessionError> {
    if reply.code.is_intermediate() {
        Err(SessionError::unexpected(step.phase, reply.clone()))
    } else {
        Ok(reply.code.is_positive())
    }
}
