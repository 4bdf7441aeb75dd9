use std::collections::BTreeMap;
use std::net::IpAddr;

use relaypool_api::reply::Phase;
use serde::Serialize;

use super::entries::{Account, Entries, ViolationKind};

/// All counts at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Accepted messages of all providers.
    pub messages_accepted: u64,
    /// Accepted recipients of all providers.
    pub recipients_accepted: u64,
    /// Accepted (Message-ID, recipient) pairs beyond the first of each.
    pub duplicates: u64,
    /// The providers, in the order of their world.
    pub providers: Vec<ProviderSummary>,
}

/// The counts of one provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProviderSummary {
    /// Its name.
    pub name: String,
    /// Accepted messages: transactions, however many recipients each had.
    pub messages_accepted: u64,
    /// Accepted recipients.
    pub recipients_accepted: u64,
    /// Octets of accepted messages as sent.
    pub octets: u64,
    /// Messages it meant to accept whose client was gone before the reply could be written; they are not counted as
    /// accepted.
    pub acceptances_unanswered: u64,
    /// Refusals by phase and code. Refused connections stand under `Greeting`.
    pub refusals: Vec<RefusalCount>,
    /// Connections that were greeted.
    pub connections: u64,
    /// Connections that were refused instead of greeted, with a reply or without.
    pub connections_refused: u64,
    /// TLS handshakes completed.
    pub tls: u64,
    /// Greeted connections that are open now.
    pub open_connections: u64,
    /// The most that were open at one time.
    pub highest_open_connections: u64,
    /// Transactions whose MAIL FROM was accepted and whose end is not written yet.
    pub transactions_open: u64,
    /// Broken rules of the protocol.
    pub violations: BTreeMap<ViolationKind, u64>,
    /// The same by source IP.
    pub sources: BTreeMap<IpAddr, SourceSummary>,
}

/// How often something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusalCount {
    /// Where.
    pub phase: Phase,
    /// The reply code.
    pub code: u16,
    /// How often.
    pub count: u64,
}

/// The counts of one source IP at one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceSummary {
    /// Accepted messages.
    pub messages_accepted: u64,
    /// Refusals of any kind.
    pub refusals: u64,
    /// Connections open now.
    pub open_connections: u64,
    /// The most that were open at one time.
    pub highest_open_connections: u64,
}

impl Entries {
    /// All counts.
    pub fn summary(&self) -> Summary {
        Summary {
            messages_accepted: self.messages_accepted(),
            recipients_accepted: self.recipients_accepted(),
            duplicates: self.duplicates().len() as u64,
            providers: self.providers.iter().map(Account::summary).collect(),
        }
    }
}

impl Account {
    fn summary(&self) -> ProviderSummary {
        let refusals = self
            .refusals
            .iter()
            .map(|(&(phase, code), &count)| RefusalCount { phase, code, count });
        let sources = self.sources.iter().map(|(source, counts)| {
            let summary = SourceSummary {
                messages_accepted: counts.messages,
                refusals: counts.refusals,
                open_connections: counts.open,
                highest_open_connections: counts.highest_open,
            };
            (*source, summary)
        });
        ProviderSummary {
            name: self.name.to_string(),
            messages_accepted: self.messages,
            recipients_accepted: self.recipients,
            octets: self.octets,
            acceptances_unanswered: self.unanswered,
            refusals: refusals.collect(),
            connections: self.connections,
            connections_refused: self.connections_refused,
            tls: self.tls,
            open_connections: self.open,
            highest_open_connections: self.highest_open,
            transactions_open: self.transactions_open,
            violations: self.violations.clone(),
            sources: sources.collect(),
        }
    }
}
