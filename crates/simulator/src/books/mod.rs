//! What the providers accepted and refused, to be held against a sender's own account.
//!
//! **When a message counts as accepted.** The model has decided to accept it, and the positive reply to its final dot
//! has been written to the socket. It is entered right behind the write: a client may have read the reply a moment
//! before the books show it, so a test waits for what it expects with [`Books::wait_until`].
//!
//! Refusals are entered before their reply is written.

mod entries;
mod summary;

pub use entries::{Accepted, Entries, Violation, ViolationKind};
pub use summary::{ProviderSummary, RefusalCount, SourceSummary, Summary};

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relaypool_api::reply::Phase;
use tokio::sync::Notify;

/// How much is kept of accepted messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    /// Counts only: the books stay small however much is accepted. There is no [`Accepted`] entry, so no duplicate is
    /// found. For benchmarks.
    Counts,
    /// An entry for every accepted recipient, without content.
    #[default]
    Nothing,
    /// The same with the message's header section.
    Headers,
    /// The same with the whole message.
    Messages,
}

/// The books of a running simulator. Clones share them.
#[derive(Debug, Clone)]
pub struct Books(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    entries: Mutex<Entries>,
    changed: Notify,
}

/// Who is speaking to whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Party {
    /// The provider's position in its world.
    pub(crate) provider: usize,
    pub(crate) source: IpAddr,
    /// The number of the connection, unique in the run.
    pub(crate) connection: u64,
}

impl Books {
    pub(crate) fn new(providers: impl Iterator<Item = Arc<str>>) -> Self {
        Self(Arc::new(Shared {
            entries: Mutex::new(Entries::new(providers)),
            changed: Notify::new(),
        }))
    }

    /// Looks into the books as they are now. Servers wait meanwhile, so be brief.
    pub fn read<T>(&self, look: impl FnOnce(&Entries) -> T) -> T {
        look(&self.lock())
    }

    /// Waits until `condition` holds. It is asked again after every change, and never once it has held.
    pub async fn wait_until(&self, mut condition: impl FnMut(&Entries) -> bool) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            // Listening before looking: a change in between is not missed.
            changed.as_mut().enable();
            if condition(&self.lock()) {
                return;
            }
            changed.await;
        }
    }

    /// All entries for accepted recipients so far.
    pub fn accepted(&self) -> Vec<Accepted> {
        self.read(|entries| entries.accepted().to_vec())
    }

    /// Accepted (Message-ID, recipient) pairs beyond the first of each.
    pub fn duplicates(&self) -> Vec<Accepted> {
        self.read(|entries| entries.duplicates().into_iter().cloned().collect())
    }

    /// All counts so far.
    pub fn summary(&self) -> Summary {
        self.read(Entries::summary)
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Every entry is made in one piece, so a panicking reader leaves nothing half written.
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(&self, entry: impl FnOnce(&mut Entries) -> T) -> T {
        let result = entry(&mut self.lock());
        self.0.changed.notify_waiters();
        result
    }

    /// A connection was greeted. Gives its number.
    pub(crate) fn connection_opened(&self, provider: usize, source: IpAddr) -> Party {
        self.write(|entries| entries.connection_opened(provider, source))
    }

    pub(crate) fn connection_refused(&self, provider: usize, source: IpAddr, code: Option<u16>) {
        self.write(|entries| entries.connection_refused(provider, source, code));
    }

    pub(crate) fn connection_closed(&self, party: Party) {
        self.write(|entries| entries.connection_closed(party));
    }

    pub(crate) fn tls_established(&self, party: Party) {
        self.write(|entries| entries.tls_established(party));
    }

    pub(crate) fn transaction_begun(&self, party: Party) {
        self.write(|entries| entries.transaction_begun(party));
    }

    pub(crate) fn transaction_ended(&self, party: Party) {
        self.write(|entries| entries.transaction_ended(party));
    }

    pub(crate) fn refused(&self, party: Party, phase: Phase, code: u16) {
        self.write(|entries| entries.refused(party, phase, code));
    }

    /// The message is accepted and its transaction over. `each` has one entry for every recipient, or none when only
    /// counts are kept.
    pub(crate) fn accepted_message(&self, party: Party, recipients: usize, octets: u64, each: Vec<Accepted>) {
        self.write(|entries| {
            entries.accepted_message(party, recipients, octets, each);
            entries.transaction_ended(party);
        });
    }

    /// The decision was to accept, but the client was gone before it could read so.
    pub(crate) fn acceptance_unanswered(&self, party: Party) {
        self.write(|entries| entries.acceptance_unanswered(party));
    }

    pub(crate) fn violation(&self, party: Party, kind: ViolationKind) {
        self.write(|entries| entries.violation(party, kind));
    }
}
