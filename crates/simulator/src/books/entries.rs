use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use relaypool_api::reply::Phase;
use serde::Serialize;

use super::Party;

/// One accepted message for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The provider's name.
    pub provider: Arc<str>,
    /// The MX host that took it.
    pub mx_host: Arc<str>,
    /// The address of RCPT TO, as sent.
    pub recipient: String,
    /// The address of MAIL FROM, as sent; empty for the null reverse-path.
    pub return_path: Arc<str>,
    /// The Message-ID without its angle brackets, where the message has one.
    pub message_id: Option<Arc<str>>,
    /// Where the connection came from.
    pub source: IpAddr,
    /// The number of the connection, unique in the run.
    pub connection: u64,
    /// True when it came over TLS.
    pub tls: bool,
    /// Virtual time since the start at which the reply was written.
    pub time: Duration,
    /// Octets of the message as sent, dot stuffing included.
    pub octets: u64,
    /// Header section or whole message, unstuffed, as asked for; recipients of one transaction share it.
    pub content: Option<Arc<[u8]>>,
}

/// A way in which a client broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ViolationKind {
    /// A line feed without a carriage return before it (RFC 5321 section 2.3.8).
    BareLineFeed,
    /// A carriage return without a line feed behind it.
    BareCarriageReturn,
    /// A message line of more than 1 000 octets with its line end (RFC 5321 section 4.5.3.1.6), or a command line of more
    /// than 4 096.
    LongLine,
    /// Octets above 127 in a message without BODY=8BITMIME (RFC 6152).
    UndeclaredEightBit,
    /// An address outside ASCII in a transaction without SMTPUTF8 (RFC 6531).
    UndeclaredUtf8,
    /// Bytes behind DATA before the go-ahead (RFC 2920 section 3.1).
    PipelinedPastData,
    /// Bytes behind STARTTLS in the clear (RFC 3207 section 4).
    PipelinedPastStartTls,
    /// A command where it has no place.
    BadSequence,
    /// A command that cannot be read, or that was not offered.
    BadCommand,
}

/// A broken rule, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// What was broken.
    pub kind: ViolationKind,
    /// The client.
    pub source: IpAddr,
    /// The number of the connection.
    pub connection: u64,
}

/// The books, opened for reading.
#[derive(Debug)]
pub struct Entries {
    accepted: Vec<Accepted>,
    violations: Vec<Violation>,
    connections: u64,
    pub(super) providers: Vec<Account>,
}

/// What is counted for one provider.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: Arc<str>,
    pub(super) messages: u64,
    pub(super) recipients: u64,
    pub(super) octets: u64,
    pub(super) unanswered: u64,
    pub(super) refusals: BTreeMap<(Phase, u16), u64>,
    pub(super) connections: u64,
    pub(super) connections_refused: u64,
    pub(super) tls: u64,
    pub(super) open: u64,
    pub(super) highest_open: u64,
    pub(super) transactions_open: u64,
    pub(super) violations: BTreeMap<ViolationKind, u64>,
    pub(super) sources: BTreeMap<IpAddr, Source>,
}

/// What is counted for one source IP at one provider.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) messages: u64,
    pub(super) refusals: u64,
    pub(super) open: u64,
    pub(super) highest_open: u64,
}

/// Violations kept one by one; beyond, they are only counted.
const VIOLATIONS_KEPT: usize = 1_000;

impl Entries {
    pub(super) fn new(providers: impl Iterator<Item = Arc<str>>) -> Self {
        Self {
            accepted: Vec::new(),
            violations: Vec::new(),
            connections: 0,
            providers: providers.map(Account::new).collect(),
        }
    }

    /// Every accepted recipient, in order of time; empty when only counts are kept.
    pub fn accepted(&self) -> &[Accepted] {
        &self.accepted
    }

    /// What was accepted for `recipient`, letters compared as they are.
    pub fn accepted_for<'a>(&'a self, recipient: &'a str) -> impl Iterator<Item = &'a Accepted> {
        self.accepted.iter().filter(move |entry| entry.recipient == recipient)
    }

    /// Accepted (Message-ID, recipient) pairs beyond the first of each. Messages without a Message-ID cannot be told
    /// apart and are left out.
    pub fn duplicates(&self) -> Vec<&Accepted> {
        let mut seen = HashSet::new();
        self.accepted
            .iter()
            .filter(|entry| match &entry.message_id {
                Some(id) => !seen.insert((id, &entry.recipient)),
                None => false,
            })
            .collect()
    }

    /// Accepted messages: transactions, however many recipients each had.
    pub fn messages_accepted(&self) -> u64 {
        self.providers.iter().map(|account| account.messages).sum()
    }

    /// Accepted recipients.
    pub fn recipients_accepted(&self) -> u64 {
        self.providers.iter().map(|account| account.recipients).sum()
    }

    /// Refusals of all providers and phases with this reply code.
    pub fn refusals(&self, code: u16) -> u64 {
        self.refusals_where(|_, refused_with| refused_with == code)
    }

    /// Refusals at one phase, whatever their code.
    pub fn refusals_at(&self, phase: Phase) -> u64 {
        self.refusals_where(|refused_at, _| refused_at == phase)
    }

    fn refusals_where(&self, counts: impl Fn(Phase, u16) -> bool) -> u64 {
        self.providers
            .iter()
            .flat_map(|account| &account.refusals)
            .filter(|((phase, code), _)| counts(*phase, *code))
            .map(|(_, count)| count)
            .sum()
    }

    /// Connections that are greeted and not closed yet.
    pub fn open_connections(&self) -> u64 {
        self.providers.iter().map(|account| account.open).sum()
    }

    /// Connections that `source` has open at the provider of that name.
    pub fn open_from(&self, provider: &str, source: IpAddr) -> u64 {
        self.source(provider, source).map_or(0, |counts| counts.open)
    }

    /// The most connections `source` ever had open at the provider of that name at one time.
    pub fn highest_open(&self, provider: &str, source: IpAddr) -> u64 {
        self.source(provider, source).map_or(0, |counts| counts.highest_open)
    }

    fn source(&self, provider: &str, source: IpAddr) -> Option<&Source> {
        let account = self.providers.iter().find(|account| &*account.name == provider)?;
        account.sources.get(&source)
    }

    /// Transactions whose MAIL FROM was accepted and whose end is not written yet.
    pub fn transactions_open(&self) -> u64 {
        self.providers.iter().map(|account| account.transactions_open).sum()
    }

    /// Broken rules, the first 1 000 of them.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    pub(super) fn connection_opened(&mut self, provider: usize, source: IpAddr) -> Party {
        let connection = self.connections;
        self.connections += 1;
        let account = &mut self.providers[provider];
        account.connections += 1;
        account.open += 1;
        account.highest_open = account.highest_open.max(account.open);
        let counts = account.sources.entry(source).or_default();
        counts.open += 1;
        counts.highest_open = counts.highest_open.max(counts.open);
        Party {
            provider,
            source,
            connection,
        }
    }

    pub(super) fn connection_refused(&mut self, provider: usize, source: IpAddr, code: Option<u16>) {
        let account = &mut self.providers[provider];
        account.connections_refused += 1;
        if let Some(code) = code {
            *account.refusals.entry((Phase::Greeting, code)).or_default() += 1;
            account.sources.entry(source).or_default().refusals += 1;
        }
    }

    pub(super) fn connection_closed(&mut self, party: Party) {
        let account = &mut self.providers[party.provider];
        account.open = account.open.saturating_sub(1);
        let counts = account.sources.entry(party.source).or_default();
        counts.open = counts.open.saturating_sub(1);
    }

    pub(super) fn tls_established(&mut self, party: Party) {
        self.providers[party.provider].tls += 1;
    }

    pub(super) fn transaction_begun(&mut self, party: Party) {
        self.providers[party.provider].transactions_open += 1;
    }

    pub(super) fn transaction_ended(&mut self, party: Party) {
        let account = &mut self.providers[party.provider];
        account.transactions_open = account.transactions_open.saturating_sub(1);
    }

    pub(super) fn refused(&mut self, party: Party, phase: Phase, code: u16) {
        let account = &mut self.providers[party.provider];
        *account.refusals.entry((phase, code)).or_default() += 1;
        account.sources.entry(party.source).or_default().refusals += 1;
    }

    pub(super) fn accepted_message(&mut self, party: Party, recipients: usize, octets: u64, each: Vec<Accepted>) {
        let account = &mut self.providers[party.provider];
        account.messages += 1;
        account.recipients += recipients as u64;
        account.octets += octets;
        account.sources.entry(party.source).or_default().messages += 1;
        self.accepted.extend(each);
    }

    pub(super) fn acceptance_unanswered(&mut self, party: Party) {
        self.providers[party.provider].unanswered += 1;
    }

    pub(super) fn violation(&mut self, party: Party, kind: ViolationKind) {
        *self.providers[party.provider].violations.entry(kind).or_default() += 1;
        if self.violations.len() < VIOLATIONS_KEPT {
            self.violations.push(Violation {
                kind,
                source: party.source,
                connection: party.connection,
            });
        }
    }
}

impl Account {
    fn new(name: Arc<str>) -> Self {
        Self {
            name,
            messages: 0,
            recipients: 0,
            octets: 0,
            unanswered: 0,
            refusals: BTreeMap::new(),
            connections: 0,
            connections_refused: 0,
            tls: 0,
            open: 0,
            highest_open: 0,
            transactions_open: 0,
            violations: BTreeMap::new(),
            sources: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn entries() -> Entries {
        Entries::new([Arc::from("one")].into_iter())
    }

    fn accepted(message_id: Option<&str>, recipient: &str) -> Accepted {
        Accepted {
            provider: "one".into(),
            mx_host: "mx1.one.example".into(),
            recipient: recipient.into(),
            return_path: "".into(),
            message_id: message_id.map(Arc::from),
            source: SOURCE,
            connection: 0,
            tls: false,
            time: Duration::ZERO,
            octets: 0,
            content: None,
        }
    }

    #[test]
    fn duplicates_are_pairs_beyond_the_first() {
        let mut entries = entries();
        let party = entries.connection_opened(0, SOURCE);
        for (id, recipient) in [
            (Some("1"), "ada"),
            (Some("1"), "bob"),
            (Some("2"), "ada"),
            (Some("1"), "ada"),
            (Some("1"), "ada"),
            (None, "ada"),
            (None, "ada"),
        ] {
            entries.accepted_message(party, 1, 0, vec![accepted(id, recipient)]);
        }
        let pairs: Vec<_> = entries
            .duplicates()
            .iter()
            .map(|entry| (entry.message_id.as_deref(), entry.recipient.as_str()))
            .collect();
        assert_eq!(pairs, [(Some("1"), "ada"), (Some("1"), "ada")]);
        assert_eq!(entries.accepted_for("ada").count(), 6);
    }

    #[test]
    fn the_highest_number_of_connections_stays() {
        let mut entries = entries();
        let first = entries.connection_opened(0, SOURCE);
        let second = entries.connection_opened(0, SOURCE);
        entries.connection_closed(first);
        entries.connection_closed(second);
        entries.connection_opened(0, SOURCE);
        assert_eq!(
            (entries.open_connections(), entries.highest_open("one", SOURCE)),
            (1, 2)
        );
        assert_eq!(entries.highest_open("two", SOURCE), 0);
    }

    #[test]
    fn refusals_are_counted_by_phase_and_code() {
        let mut entries = entries();
        let party = entries.connection_opened(0, SOURCE);
        entries.connection_refused(0, SOURCE, Some(421));
        entries.refused(party, Phase::RcptTo, 421);
        entries.refused(party, Phase::RcptTo, 550);
        assert_eq!(entries.refusals(421), 2);
        assert_eq!(entries.refusals_at(Phase::RcptTo), 2);
        assert_eq!(entries.refusals_at(Phase::Data), 0);
    }

    #[test]
    fn violations_are_bounded() {
        let mut entries = entries();
        let party = entries.connection_opened(0, SOURCE);
        for _ in 0..VIOLATIONS_KEPT + 5 {
            entries.violation(party, ViolationKind::BareLineFeed);
        }
        assert_eq!(entries.violations().len(), VIOLATIONS_KEPT);
        assert_eq!(entries.providers[0].violations[&ViolationKind::BareLineFeed], 1_005);
    }
}
