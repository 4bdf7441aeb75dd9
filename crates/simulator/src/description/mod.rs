//! What a world of receiving providers looks like, as it is written in YAML or JSON.

mod answer;
mod behaviour;
mod check;
mod mailbox;
mod percent;
mod zone;

pub use answer::{Answer, AnswerError};
pub use behaviour::{
    Behaviour, BlockAfterRefusals, BrokenBackends, ConnectionLimit, DailyQuota, Disconnects, Greylisting, LimitChange,
    MessagesPerConnection, RateChange, RateLimit, Refusals, Scope, ServiceTime, Slowdown,
};
pub use check::WorldError;
pub use mailbox::MailboxRule;
pub use percent::{Percent, PercentError};
pub use zone::Zone;

use relaypool_api::{Domain, Duration};
use serde::{Deserialize, Serialize};

/// Providers and the DNS around them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct World {
    /// The receiving providers.
    #[serde(default)]
    pub providers: Vec<Provider>,
    /// DNS facts beyond (or instead of) the MX records of the providers' own domains.
    #[serde(default)]
    pub zones: Vec<Zone>,
}

/// One receiving provider: all of its MX hosts share its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Provider {
    /// The name it has in the books.
    pub name: String,
    /// Domains it takes mail for; others are refused with `notHosted`. Empty: mail for any domain is taken.
    #[serde(default)]
    pub domains: Vec<Domain>,
    /// Its MX hosts, each with a loopback address of its own.
    pub mx_hosts: Vec<MxHost>,
    /// What it does to connections and messages. They are asked in this order; the first refusal is given, delays add up.
    #[serde(default)]
    pub behaviours: Vec<Behaviour>,
    /// Mailboxes that do not answer with an acceptance. The first rule that fits answers.
    #[serde(default)]
    pub mailboxes: Vec<MailboxRule>,
    /// True when STARTTLS (RFC 3207) is offered.
    #[serde(default = "yes")]
    pub start_tls: bool,
    /// How long replies take.
    #[serde(default)]
    pub latency: Latency,
    /// The largest message taken, in octets (RFC 1870).
    #[serde(default = "fifty_mebibytes")]
    pub max_message_size: u64,
    /// The reply to the final dot of an accepted message.
    #[serde(default = "accepted")]
    pub accepted: Answer,
    /// The reply to a recipient in a domain that is not hosted here.
    #[serde(default = "not_hosted")]
    pub not_hosted: Answer,
}

/// An MX host of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MxHost {
    /// Its host name.
    pub name: Domain,
    /// The preference of its MX record: lower is tried first.
    #[serde(default = "ten")]
    pub priority: u16,
}

/// How long the replies to a connection, EHLO, STARTTLS, MAIL, RCPT, DATA and the final dot take before any behaviour adds
/// to it. Others (RSET, NOOP, QUIT) come at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Latency {
    /// Before a positive one.
    #[serde(default)]
    pub reply: Duration,
    /// Before a refusal.
    #[serde(default)]
    pub refusal: Duration,
}

impl Provider {
    /// A provider without limits that takes mail for `domain` at the single host `mx1.<domain>`.
    pub fn new(name: &str, domain: &Domain) -> Self {
        let host = format!("mx1.{domain}").parse().unwrap_or_else(|_| domain.clone());
        Self {
            name: name.to_owned(),
            domains: vec![domain.clone()],
            mx_hosts: vec![MxHost {
                name: host,
                priority: ten(),
            }],
            behaviours: Vec::new(),
            mailboxes: Vec::new(),
            start_tls: true,
            latency: Latency::default(),
            max_message_size: fifty_mebibytes(),
            accepted: accepted(),
            not_hosted: not_hosted(),
        }
    }

    /// The same provider with one more behaviour, asked last.
    #[must_use]
    pub fn with(mut self, behaviour: impl Into<Behaviour>) -> Self {
        self.behaviours.push(behaviour.into());
        self
    }

    /// The same provider with one more rule about its mailboxes, asked last.
    #[must_use]
    pub fn with_mailboxes(mut self, rule: MailboxRule) -> Self {
        self.mailboxes.push(rule);
        self
    }

    /// What the mailbox `address` answers at `since_start` instead of an acceptance, if anything. It depends on nothing
    /// but the address and the time, so a test can foretell it.
    pub fn mailbox_answer(&self, address: &str, since_start: std::time::Duration) -> Option<&Answer> {
        self.mailboxes
            .iter()
            .enumerate()
            .find(|(position, rule)| rule.applies(*position, address, since_start))
            .map(|(_, rule)| &rule.reply)
    }
}

const fn yes() -> bool {
    true
}

const fn ten() -> u16 {
    10
}

const fn fifty_mebibytes() -> u64 {
    50 * 1024 * 1024
}

fn accepted() -> Answer {
    Answer::known("250 2.0.0 message accepted")
}

fn not_hosted() -> Answer {
    Answer::known("550 5.7.1 relaying denied: this domain is not hosted here")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: &str = r#"
providers:
  - name: careful
    domains: [careful.example, bücher.example]
    mxHosts:
      - { name: mx1.careful.example, priority: 5 }
      - { name: mx2.careful.example }
    startTls: false
    latency: { reply: 5ms, refusal: 50ms }
    maxMessageSize: 100000
    behaviours:
      - kind: connectionLimit
        limit: 20
        changes: [{ at: 600s, limit: 5 }, { at: 30m, limit: 40 }]
        reply: 421 4.3.2 try again later
      - { kind: rateLimit, rate: 10/s, burst: 20, phase: MailFrom }
      - { kind: blockAfterRefusals, refusals: 30, within: 60s, period: 600s }
      - { kind: dailyQuota, messages: 5000, utcOffsetMinutes: -480, timeOfDayAtStart: 9h30m }
      - { kind: greylisting, delay: 300s }
      - { kind: brokenBackends, backends: 4 }
      - { kind: serviceTime, time: 1s, jitter: 10 }
      - { kind: slowdown, beyondConnections: 8, factor: 10 }
      - { kind: disconnects, phase: EndOfData, percent: 1.5 }
      - { kind: messagesPerConnection, limit: 20, silently: true }
      - { kind: refusals, phase: EndOfData, percent: 2, until: 1h, reply: 554 5.7.1 looks like spam }
    mailboxes:
      - { percent: 3, reply: 550 5.1.1 unknown user }
      - { localPart: full-*, reply: 452 4.2.2 mailbox full }
zones:
  - { name: null.example, kind: nullMx }
  - { name: implicit.example, kind: implicitMx, host: mx1.careful.example }
  - { name: broken.example, kind: servFail }
  - { name: dead.example, kind: unreachable }
  - { name: gone.example, kind: missing }
  - name: fallback.example
    kind: mx
    hosts: [{ name: dead.example, priority: 5 }, { name: mx1.careful.example, priority: 10 }]
"#;

    #[test]
    fn a_world_in_yaml_survives_a_round_trip_through_json() {
        let world: World = serde_yaml::from_str(WORLD).unwrap();
        let json = serde_json::to_string(&world).unwrap();
        assert_eq!(serde_json::from_str::<World>(&json).unwrap(), world);
        let provider = &world.providers[0];
        assert_eq!(provider.behaviours.len(), 11);
        assert_eq!(provider.domains[1].as_str(), "xn--bcher-kva.example");
        assert_eq!(provider.mx_hosts[1].priority, 10);
        world.check().unwrap();
    }

    #[test]
    fn unknown_fields_and_bad_values_are_refused() {
        for (from, to) in [
            ("startTls: false", "startTsl: false"),
            ("limit: 20\n", "limit: 20\n        limti: 5\n"),
            ("kind: serviceTime", "kind: servicetime"),
            ("rate: 10/s", "rate: 0/s"),
            ("percent: 3,", "percent: 101,"),
            ("550 5.1.1 unknown user", "5.1.1 unknown user"),
            ("kind: nullMx", "kind: nullmx"),
            ("delay: 300s", "delay: 300"),
        ] {
            let broken = WORLD.replacen(from, to, 1);
            assert_ne!(broken, WORLD, "{from}");
            assert!(serde_yaml::from_str::<World>(&broken).is_err(), "{to}");
        }
    }

    #[test]
    fn a_provider_needs_little() {
        let world: World =
            serde_yaml::from_str("providers: [{ name: sink, mxHosts: [{ name: mx.sink.example }] }]").unwrap();
        assert!(world.providers[0].start_tls);
        assert_eq!(world.providers[0].accepted.to_string(), "250 2.0.0 message accepted");
    }
}
