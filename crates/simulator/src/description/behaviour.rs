use relaypool_api::reply::Phase;
use relaypool_api::{Duration, Rate};
use serde::{Deserialize, Serialize};

use super::{Answer, Percent};

/// One thing a provider does to those who send to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Behaviour {
    /// Only so many connections at a time.
    ConnectionLimit(ConnectionLimit),
    /// Only so many messages per unit of time.
    RateLimit(RateLimit),
    /// Who is refused too often is locked out for a while.
    BlockAfterRefusals(BlockAfterRefusals),
    /// Only so many messages a day.
    DailyQuota(DailyQuota),
    /// The first attempt is deferred.
    Greylisting(Greylisting),
    /// Some hosts behind the load balancer refuse always.
    BrokenBackends(BrokenBackends),
    /// The reply to the final dot takes its time.
    ServiceTime(ServiceTime),
    /// Many connections make every reply slow.
    Slowdown(Slowdown),
    /// The connection is dropped without a reply.
    Disconnects(Disconnects),
    /// Only so many messages in one connection.
    MessagesPerConnection(MessagesPerConnection),
    /// A share of the commands of one phase is refused.
    Refusals(Refusals),
}

/// Whose connections or messages are counted together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// Those of one source IP.
    #[default]
    SourceIp,
    /// Those of everyone together.
    Provider,
}

macro_rules! behaviours {
    ($($kind:ident),+) => {
        $(impl From<$kind> for Behaviour {
            fn from(behaviour: $kind) -> Self {
                Self::$kind(behaviour)
            }
        })+
    };
}

behaviours!(
    ConnectionLimit,
    RateLimit,
    BlockAfterRefusals,
    DailyQuota,
    Greylisting,
    BrokenBackends,
    ServiceTime,
    Slowdown,
    Disconnects,
    MessagesPerConnection,
    Refusals
);

/// At most `limit` connections at a time; further ones are refused instead of greeted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectionLimit {
    /// The limit from the start on.
    pub limit: u32,
    /// Whose connections are counted.
    #[serde(default)]
    pub scope: Scope,
    /// Other limits at later times. Connections already open stay.
    #[serde(default)]
    pub changes: Vec<LimitChange>,
    /// The reply to a connection too many.
    #[serde(default = "too_many_connections")]
    pub reply: Answer,
}

/// From `at` on, another connection limit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitChange {
    /// Time since the start.
    pub at: Duration,
    /// The limit from then on.
    pub limit: u32,
}

/// A token bucket: `burst` messages at once, `rate` in the long run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// Messages per unit of time.
    pub rate: Rate,
    /// The size of the bucket, at least 1. It is full at the start.
    pub burst: u64,
    /// Whose messages are counted.
    #[serde(default)]
    pub scope: Scope,
    /// Where a token is taken, or the refusal given: `MailFrom` unless said otherwise. `Greeting` makes it a limit of
    /// connections per time, `RcptTo` one of recipients.
    #[serde(default = "mail_from")]
    pub phase: Phase,
    /// Other rates at later times.
    #[serde(default)]
    pub changes: Vec<RateChange>,
    /// The reply when the bucket is empty.
    #[serde(default = "too_fast")]
    pub reply: Answer,
}

/// From `at` on, another rate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateChange {
    /// Time since the start.
    pub at: Duration,
    /// The rate from then on.
    pub rate: Rate,
    /// The size of the bucket from then on, at least 1.
    pub burst: u64,
}

/// A source IP that collected `refusals` refusals within a window is refused at connect, and at MAIL FROM in connections
/// it has already, for `period`.
///
/// The refusals of all other behaviours count, those of mailboxes do not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BlockAfterRefusals {
    /// So many refusals, at least 1, …
    pub refusals: u32,
    /// … within this time …
    pub within: Duration,
    /// … lock the source out for this long.
    pub period: Duration,
    /// The reply while locked out.
    #[serde(default = "blocked")]
    pub reply: Answer,
}

/// At most `messages` between two midnights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DailyQuota {
    /// Messages a day.
    pub messages: u64,
    /// The provider's time zone, in minutes east of UTC, at most a day either way.
    #[serde(default)]
    pub utc_offset_minutes: i32,
    /// What time of day it is, in UTC, at the start.
    #[serde(default)]
    pub time_of_day_at_start: Duration,
    /// Whose messages are counted.
    #[serde(default)]
    pub scope: Scope,
    /// Where a message is counted, or refused: `MailFrom` unless said otherwise.
    #[serde(default = "mail_from")]
    pub phase: Phase,
    /// The reply once the quota is used up.
    #[serde(default = "quota_used_up")]
    pub reply: Answer,
}

/// The first attempt of (source IP, return path, recipient) is deferred; attempts after `delay` are let through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Greylisting {
    /// How long after the first attempt a recipient is let through.
    pub delay: Duration,
    /// The reply until then. It says what it is; a provider that hides it is given a neutral text.
    #[serde(default = "greylisted")]
    pub reply: Answer,
}

/// Each connection goes to one of `backends` by chance, and `broken` of them refuse it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BrokenBackends {
    /// How many backends there are, at least 1.
    pub backends: u32,
    /// How many of them refuse.
    #[serde(default = "one")]
    pub broken: u32,
    /// The reply of a broken backend to a connection.
    #[serde(default = "try_later")]
    pub reply: Answer,
}

/// How long the provider works on a message before it answers the final dot.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceTime {
    /// The mean.
    pub time: Duration,
    /// Each time is up to so much shorter or longer, evenly spread.
    #[serde(default = "nothing")]
    pub jitter: Percent,
}

/// Tarpitting, or plain overload: while more than `beyondConnections` are open, every reply takes `factor` times as long
/// plus `extra`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Slowdown {
    /// So many connections are served at full speed.
    pub beyond_connections: u32,
    /// The factor, at least 1. It stretches latency and the delays of all behaviours, wherever they stand in the list; a
    /// refusal by a behaviour that stands before it is not slowed.
    #[serde(default = "factor_one")]
    pub factor: f64,
    /// Added to every reply.
    #[serde(default)]
    pub extra: Duration,
    /// Whose connections are counted.
    #[serde(default)]
    pub scope: Scope,
}

/// At one phase, by chance, the connection is closed without a reply.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Disconnects {
    /// Where. At `EndOfData` the message is not accepted.
    pub phase: Phase,
    /// How often.
    pub percent: Percent,
}

/// At most `limit` messages in one connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MessagesPerConnection {
    /// The number of messages whose final dot was answered, at least 1.
    pub limit: u32,
    /// False: the next MAIL FROM gets `reply`. True: the connection is closed without a word behind the last message's
    /// reply.
    #[serde(default)]
    pub silently: bool,
    /// The reply to the message too many.
    #[serde(default = "too_many_messages")]
    pub reply: Answer,
}

/// At one phase a share of the commands is refused, by chance, in a span of time: an outage, a content filter, a
/// reputation problem.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Refusals {
    /// Where.
    pub phase: Phase,
    /// How often.
    #[serde(default = "always")]
    pub percent: Percent,
    /// From this time since the start on.
    #[serde(default)]
    pub from: Duration,
    /// Until this time since the start; without it, to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Duration>,
    /// The reply.
    #[serde(default = "try_later")]
    pub reply: Answer,
}

impl ConnectionLimit {
    /// At most `limit` connections per source IP, for all time.
    pub fn new(limit: u32) -> Self {
        Self {
            limit,
            scope: Scope::default(),
            changes: Vec::new(),
            reply: too_many_connections(),
        }
    }
}

impl RateLimit {
    /// At most `rate` messages per source IP, `burst` at once.
    pub fn new(rate: Rate, burst: u64) -> Self {
        Self {
            rate,
            burst,
            scope: Scope::default(),
            phase: mail_from(),
            changes: Vec::new(),
            reply: too_fast(),
        }
    }
}

impl BlockAfterRefusals {
    /// `refusals` refusals within `within` lock out for `period`.
    pub fn new(refusals: u32, within: Duration, period: Duration) -> Self {
        Self {
            refusals,
            within,
            period,
            reply: blocked(),
        }
    }
}

impl DailyQuota {
    /// At most `messages` per source IP between two midnights in UTC; the start is at midnight.
    pub fn new(messages: u64) -> Self {
        Self {
            messages,
            utc_offset_minutes: 0,
            time_of_day_at_start: Duration::default(),
            scope: Scope::default(),
            phase: mail_from(),
            reply: quota_used_up(),
        }
    }
}

impl Greylisting {
    /// Let through after `delay`, and saying so.
    pub fn new(delay: Duration) -> Self {
        Self {
            delay,
            reply: greylisted(),
        }
    }
}

impl BrokenBackends {
    /// One of `backends` refuses.
    pub fn one_of(backends: u32) -> Self {
        Self {
            backends,
            broken: one(),
            reply: try_later(),
        }
    }
}

impl MessagesPerConnection {
    /// At most `limit` messages, then a refusal.
    pub fn new(limit: u32) -> Self {
        Self {
            limit,
            silently: false,
            reply: too_many_messages(),
        }
    }
}

impl Refusals {
    /// Everything at `phase` is refused with `reply`, for all time.
    pub fn all(phase: Phase, reply: Answer) -> Self {
        Self {
            phase,
            percent: always(),
            from: Duration::default(),
            until: None,
            reply,
        }
    }
}

const fn mail_from() -> Phase {
    Phase::MailFrom
}

const fn one() -> u32 {
    1
}

const fn factor_one() -> f64 {
    1.0
}

const fn nothing() -> Percent {
    Percent::NONE
}

const fn always() -> Percent {
    Percent::ALL
}

fn too_many_connections() -> Answer {
    Answer::known("421 4.7.0 too many concurrent connections from your address")
}

fn too_fast() -> Answer {
    Answer::known("451 4.7.1 message rate limit exceeded, slow down")
}

fn blocked() -> Answer {
    Answer::known("421 4.7.0 your address is blocked for a while after too many refused attempts")
}

fn quota_used_up() -> Answer {
    Answer::known("421 4.7.28 daily message quota of your address is used up, try again tomorrow")
}

fn greylisted() -> Answer {
    Answer::known("451 4.7.1 greylisted, please try again later")
}

fn try_later() -> Answer {
    Answer::known("421 4.3.2 try again later")
}

fn too_many_messages() -> Answer {
    Answer::known("421 4.7.0 too many messages in this connection, open another one")
}
