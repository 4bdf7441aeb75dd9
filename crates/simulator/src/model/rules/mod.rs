//! One file per behaviour: what it remembers, and how it judges a command.

mod block;
mod broken_backends;
mod connection_limit;
mod daily_quota;
mod greylisting;
mod messages_per_connection;
mod random;
mod rate_limit;
mod timing;

use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::decision::Effect;
use crate::description::{Answer, Behaviour, Percent, Scope};

/// A command, or the connection itself, that is to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'a> {
    Greeting,
    Ehlo,
    StartTls,
    MailFrom,
    RcptTo { recipient: &'a str },
    Data,
    EndOfData,
}

/// What a behaviour may know when it judges.
pub(super) struct Scene<'a> {
    pub(super) now: Duration,
    pub(super) source: IpAddr,
    /// Open connections of this source, the one in question included.
    pub(super) open_from_source: u32,
    /// Open connections of everyone, the one in question included.
    pub(super) open_in_all: u32,
    /// Messages of this connection whose final dot was answered.
    pub(super) messages_ended: u32,
    pub(super) return_path: &'a str,
    pub(super) random: &'a mut StdRng,
    pub(super) effect: &'a mut Effect,
}

/// How a behaviour says no.
#[derive(Debug)]
pub(super) enum Refusal {
    Reply(Arc<Answer>),
    HangUp,
}

/// A behaviour at work.
pub(super) trait Rule: Debug + Send {
    /// Lets the step pass, perhaps with an effect on its reply, or refuses it.
    fn judge(&mut self, step: Step<'_>, scene: &mut Scene<'_>) -> Result<(), Refusal>;

    /// Some behaviour, perhaps this one, has refused something of `source`.
    fn witness_refusal(&mut self, _now: Duration, _source: IpAddr) {}

    /// How often this behaviour has locked a source out.
    fn lockouts(&self) -> u64 {
        0
    }
}

/// The state machine of `behaviour`.
pub(super) fn rule(behaviour: &Behaviour) -> Box<dyn Rule> {
    match behaviour.clone() {
        Behaviour::ConnectionLimit(limit) => Box::new(connection_limit::Limit::new(limit)),
        Behaviour::RateLimit(limit) => Box::new(rate_limit::Buckets::new(limit)),
        Behaviour::BlockAfterRefusals(block) => Box::new(block::Blocks::new(block)),
        Behaviour::DailyQuota(quota) => Box::new(daily_quota::Quota::new(quota)),
        Behaviour::Greylisting(greylisting) => Box::new(greylisting::Greylist::new(greylisting)),
        Behaviour::BrokenBackends(pool) => Box::new(broken_backends::Pool::new(pool)),
        Behaviour::ServiceTime(service) => Box::new(service),
        Behaviour::Slowdown(slowdown) => Box::new(slowdown),
        Behaviour::Disconnects(disconnects) => Box::new(disconnects),
        Behaviour::MessagesPerConnection(limit) => Box::new(messages_per_connection::Limit::new(limit)),
        Behaviour::Refusals(refusals) => Box::new(random::Refuser::new(refusals)),
    }
}

impl Scene<'_> {
    fn open(&self, scope: Scope) -> u32 {
        match scope {
            Scope::SourceIp => self.open_from_source,
            Scope::Provider => self.open_in_all,
        }
    }

    /// Whom something is counted for.
    fn account(&self, scope: Scope) -> Option<IpAddr> {
        match scope {
            Scope::SourceIp => Some(self.source),
            Scope::Provider => None,
        }
    }

    /// True by chance, in `percent` of the cases.
    fn by_chance(&mut self, percent: Percent) -> bool {
        // Between 0 and 1, 1 excluded: never true at 0 %, always at 100 %.
        self.random.random::<f64>() < percent.fraction()
    }
}
