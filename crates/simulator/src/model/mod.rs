//! A provider as a state machine in virtual time: no I/O, no clock, and the seed decides all chance.
//!
//! The caller says what a sending host does and when; the model says what the provider answers, after how long, and
//! whether it then closes the connection. Times are counted from the start of the run.

mod attempt;
mod decision;
mod rules;
#[cfg(test)]
mod tests;

pub use attempt::Attempt;
pub use decision::Decision;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use relaypool_api::Domain;
use relaypool_api::reply::Phase;

use crate::description::{Answer, Latency, Provider};
use crate::stable_hash::stable_hash;
use decision::Effect;
use rules::{Refusal, Rule, Scene, Step};

/// One provider: its limits, what it remembers of those who send to it, and the connections it has open.
#[derive(Debug)]
pub struct ProviderModel {
    provider: Arc<Provider>,
    domains: HashSet<Domain>,
    rules: Vec<Box<dyn Rule>>,
    replies: Replies,
    connections: HashMap<ConnectionId, Connection>,
    open_by_source: HashMap<IpAddr, u32>,
    next_connection: u64,
    random: StdRng,
}

/// One connection attempt at one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

#[derive(Debug, Clone)]
struct Connection {
    source: IpAddr,
    return_path: String,
    messages_ended: u32,
}

/// What is said when nothing is refused.
#[derive(Debug)]
struct Replies {
    greeting: Arc<Answer>,
    hello: Arc<Answer>,
    start_tls: Arc<Answer>,
    sender: Arc<Answer>,
    recipient: Arc<Answer>,
    go_ahead: Arc<Answer>,
    accepted: Arc<Answer>,
    not_hosted: Arc<Answer>,
}

impl ProviderModel {
    /// The provider at the start of a run. The same description, seed and calls always give the same decisions.
    pub fn new(provider: &Provider, seed: u64) -> Self {
        let provider = Arc::new(provider.clone());
        Self {
            domains: provider.domains.iter().cloned().collect(),
            rules: provider.behaviours.iter().map(rules::rule).collect(),
            replies: Replies {
                greeting: Arc::new(Answer::known("220 ready")),
                hello: Arc::new(Answer::known("250 hello")),
                start_tls: Arc::new(Answer::known("220 2.0.0 ready to start TLS")),
                sender: Arc::new(Answer::known("250 2.1.0 sender ok")),
                recipient: Arc::new(Answer::known("250 2.1.5 recipient ok")),
                go_ahead: Arc::new(Answer::known("354 end the message with a dot on a line by itself")),
                accepted: Arc::new(provider.accepted.clone()),
                not_hosted: Arc::new(provider.not_hosted.clone()),
            },
            connections: HashMap::new(),
            open_by_source: HashMap::new(),
            next_connection: 0,
            // Providers of one world share the seed; their chance must not move in step.
            random: StdRng::seed_from_u64(stable_hash(&[&seed.to_le_bytes(), provider.name.as_bytes()])),
            provider,
        }
    }

    /// A connection from `source`. It is open unless the decision closes it; whoever is done with an open one says so
    /// by [`disconnect`](Self::disconnect).
    pub fn connect(&mut self, now: Duration, source: IpAddr) -> (ConnectionId, Decision) {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let connection = Connection {
            source,
            return_path: String::new(),
            messages_ended: 0,
        };
        *self.open_by_source.entry(source).or_default() += 1;
        self.connections.insert(id, connection);
        let mut decision = self.decide(now, id, Step::Greeting);
        // There is nothing to say to a host that was refused a greeting.
        decision.close |= !decision.is_acceptance();
        if decision.close {
            self.disconnect(id);
        }
        (id, decision)
    }

    /// EHLO or HELO.
    pub fn hello(&mut self, now: Duration, connection: ConnectionId) -> Decision {
        self.decide(now, connection, Step::Ehlo)
    }

    /// STARTTLS.
    pub fn start_tls(&mut self, now: Duration, connection: ConnectionId) -> Decision {
        self.decide(now, connection, Step::StartTls)
    }

    /// MAIL FROM: begins a transaction. `return_path` is empty for the null reverse-path.
    pub fn mail(&mut self, now: Duration, connection: ConnectionId, return_path: &str) -> Decision {
        if let Some(connection) = self.connections.get_mut(&connection) {
            return_path.clone_into(&mut connection.return_path);
        }
        self.decide(now, connection, Step::MailFrom)
    }

    /// RCPT TO.
    pub fn rcpt(&mut self, now: Duration, connection: ConnectionId, recipient: &str) -> Decision {
        self.decide(now, connection, Step::RcptTo { recipient })
    }

    /// The DATA command.
    pub fn data(&mut self, now: Duration, connection: ConnectionId) -> Decision {
        self.decide(now, connection, Step::Data)
    }

    /// The final dot: the decision about the message.
    pub fn end_of_data(&mut self, now: Duration, connection: ConnectionId) -> Decision {
        let decision = self.decide(now, connection, Step::EndOfData);
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.messages_ended += 1;
        }
        decision
    }

    /// The connection is closed, by whomever. A second call, or one for a connection that was refused, changes nothing.
    pub fn disconnect(&mut self, connection: ConnectionId) {
        let Some(connection) = self.connections.remove(&connection) else {
            return;
        };
        if let Some(open) = self.open_by_source.get_mut(&connection.source) {
            *open -= 1;
            if *open == 0 {
                self.open_by_source.remove(&connection.source);
            }
        }
    }

    /// How many connections are open now.
    pub fn open_connections(&self) -> usize {
        self.connections.len()
    }

    /// How often sources were locked out for too many refusals, whether or not they have knocked since.
    pub fn lockouts(&self) -> u64 {
        self.rules.iter().map(|rule| rule.lockouts()).sum()
    }

    fn decide(&mut self, now: Duration, id: ConnectionId, step: Step<'_>) -> Decision {
        let Some(connection) = self.connections.get(&id) else {
            return Decision::hang_up(Duration::ZERO);
        };
        let latency = self.provider.latency;
        if let Some(reply) = self.recipient_problem(now, step) {
            return Decision::refuse(reply, latency.refusal.get());
        }
        let source = connection.source;
        let mut effect = Effect::default();
        let mut scene = Scene {
            now,
            source,
            open_from_source: self.open_by_source.get(&source).copied().unwrap_or_default(),
            open_in_all: u32::try_from(self.connections.len()).unwrap_or(u32::MAX),
            messages_ended: connection.messages_ended,
            return_path: &connection.return_path,
            random: &mut self.random,
            effect: &mut effect,
        };
        let refusal = self
            .rules
            .iter_mut()
            .find_map(|rule| rule.judge(step, &mut scene).err());
        match refusal {
            None => effect.accept(self.replies.acceptance(step), latency),
            Some(Refusal::HangUp) => Decision::hang_up(effect.delay(latency.refusal.get())),
            Some(Refusal::Reply(reply)) => {
                for rule in &mut self.rules {
                    rule.witness_refusal(now, source);
                }
                Decision::refuse(reply, effect.delay(latency.refusal.get()))
            }
        }
    }

    /// What speaks against a recipient before any behaviour is asked: the domain, then the mailbox.
    fn recipient_problem(&self, now: Duration, step: Step<'_>) -> Option<Arc<Answer>> {
        let Step::RcptTo { recipient } = step else {
            return None;
        };
        if !self.hosts(recipient) {
            return Some(self.replies.not_hosted.clone());
        }
        self.provider
            .mailbox_answer(recipient, now)
            .map(|answer| Arc::new(answer.clone()))
    }

    fn hosts(&self, recipient: &str) -> bool {
        self.domains.is_empty()
            || recipient
                .rsplit_once('@')
                .and_then(|(_, domain)| domain.parse::<Domain>().ok())
                .is_some_and(|domain| self.domains.contains(&domain))
    }
}

impl Replies {
    fn acceptance(&self, step: Step<'_>) -> Arc<Answer> {
        match step {
            Step::Greeting => &self.greeting,
            Step::Ehlo => &self.hello,
            Step::StartTls => &self.start_tls,
            Step::MailFrom => &self.sender,
            Step::RcptTo { .. } => &self.recipient,
            Step::Data => &self.go_ahead,
            Step::EndOfData => &self.accepted,
        }
        .clone()
    }
}

impl Effect {
    fn accept(&self, reply: Arc<Answer>, latency: Latency) -> Decision {
        Decision {
            reply: Some(reply),
            delay: self.delay(latency.reply.get()),
            close: self.close,
        }
    }
}

impl Step<'_> {
    fn phase(self) -> Phase {
        match self {
            Self::Greeting => Phase::Greeting,
            Self::Ehlo => Phase::Ehlo,
            Self::StartTls => Phase::StartTls,
            Self::MailFrom => Phase::MailFrom,
            Self::RcptTo { .. } => Phase::RcptTo,
            Self::Data => Phase::Data,
            Self::EndOfData => Phase::EndOfData,
        }
    }
}
