use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use relaypool_api::reply::Phase;

use super::{ConnectionId, Decision, ProviderModel};
use crate::description::Answer;

/// One message in a connection of its own, from connect to the last reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The connection it used. It stays open until the caller disconnects it, `takes` later.
    pub connection: ConnectionId,
    /// Where it ended: `EndOfData` when the message was accepted.
    pub phase: Phase,
    /// The last reply; nothing when the provider hung up.
    pub reply: Option<Arc<Answer>>,
    /// How long it took.
    pub takes: Duration,
}

impl Attempt {
    /// True when the message was accepted.
    pub fn is_accepted(&self) -> bool {
        self.phase == Phase::EndOfData && self.reply.as_ref().is_some_and(|reply| reply.is_acceptance())
    }
}

impl ProviderModel {
    /// One message in a connection of its own, for simulations that do not look at the single commands.
    ///
    /// All commands are decided at `now`; their delays add up in [`Attempt::takes`].
    pub fn attempt(&mut self, now: Duration, source: IpAddr, return_path: &str, recipient: &str) -> Attempt {
        let (connection, greeting) = self.connect(now, source);
        let mut attempt = Attempt {
            connection,
            phase: Phase::Greeting,
            takes: greeting.delay,
            reply: greeting.reply.clone(),
        };
        type Command<'a> = &'a dyn Fn(&mut ProviderModel) -> Decision;
        let commands: [(Phase, Command<'_>); 5] = [
            (Phase::Ehlo, &|model| model.hello(now, connection)),
            (Phase::MailFrom, &|model| model.mail(now, connection, return_path)),
            (Phase::RcptTo, &|model| model.rcpt(now, connection, recipient)),
            (Phase::Data, &|model| model.data(now, connection)),
            (Phase::EndOfData, &|model| model.end_of_data(now, connection)),
        ];
        let mut last = greeting;
        for (phase, command) in commands {
            if !last.is_acceptance() {
                break;
            }
            last = command(self);
            attempt.phase = phase;
            attempt.takes = attempt.takes.saturating_add(last.delay);
            attempt.reply.clone_from(&last.reply);
        }
        attempt
    }
}
