//! A slice in memory: a compact slot for each message, enough to schedule it and to report on it.

use std::collections::HashMap;

use relaypool_api::delivery_slice::SlicePhase;
use relaypool_spool::SliceNumber;

use super::meter::Meter;
use super::run::RunId;
use crate::ledger::{LastResult, MessageStatus, Millis, StateRecord, Tried};

/// No domain is known yet.
const NO_DOMAIN: u32 = u32::MAX;

/// Place of a recipient domain in the dispatcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DomainId(pub(crate) u32);

/// Where a message is. Queues may hold stale entries; this says which is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Not looked at yet.
    Unrouted,
    /// Waits for its time.
    Due,
    /// Waits for DNS.
    Routing,
    /// In the queue of a lane.
    Lane,
    /// With a session.
    Flying,
    /// With its run, until something changes.
    Parked,
    /// At its end.
    Done,
}

/// One message.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) status: MessageStatus,
    pub(crate) place: Place,
    pub(crate) attempts: u16,
    domain: u32,
    pub(crate) due: Millis,
    pub(crate) last: Option<Box<LastResult>>,
    /// None before the first attempt that reached a host, and at the end.
    pub(crate) tried: Option<Box<Tried>>,
}

impl Slot {
    pub(crate) fn fresh() -> Self {
        Self {
            status: MessageStatus::Waiting,
            place: Place::Unrouted,
            attempts: 0,
            domain: NO_DOMAIN,
            due: 0,
            last: None,
            tried: None,
        }
    }

    pub(crate) fn recovered(record: StateRecord) -> Self {
        let place = match record.status {
            MessageStatus::Waiting if record.due > 0 => Place::Due,
            MessageStatus::Waiting => Place::Unrouted,
            _ => Place::Done,
        };
        Self {
            status: record.status,
            place,
            attempts: record.attempts,
            domain: NO_DOMAIN,
            due: record.due,
            last: record.last,
            tried: record.tried,
        }
    }

    pub(crate) fn domain(&self) -> Option<DomainId> {
        (self.domain != NO_DOMAIN).then_some(DomainId(self.domain))
    }

    pub(crate) fn set_domain(&mut self, domain: DomainId) {
        self.domain = domain.0;
    }

    pub(crate) fn record(&self, at: Millis) -> StateRecord {
        StateRecord {
            status: self.status,
            attempts: self.attempts,
            due: self.due,
            at,
            last: self.last.clone(),
            tried: self.tried.clone(),
        }
    }

    /// When it was first refused, of the attempts from this IP.
    pub(crate) fn first_refused(&self, ip: &str) -> Option<Millis> {
        self.tried
            .as_ref()
            .filter(|tried| tried.ip == ip)
            .and_then(|tried| tried.first_refused)
    }
}

/// A slice this sender works on.
#[derive(Debug)]
pub(crate) struct Slice {
    pub(crate) number: SliceNumber,
    /// UID of the DeliverySlice.
    pub(crate) id: String,
    /// Name of the DeliverySlice.
    pub(crate) name: String,
    pub(crate) run: RunId,
    pub(crate) accepted_at: Millis,
    pub(crate) expires_at: Millis,
    pub(crate) finished_at: Option<Millis>,
    pub(crate) slots: Vec<Slot>,
    /// Messages that have not come to their end.
    pub(crate) unfinished: u32,
    /// Something happened that no report has said yet.
    pub(crate) dirty: bool,
    /// When it was last reported on, and in which phase.
    pub(crate) reported_at: Millis,
    pub(crate) reported_phase: Option<SlicePhase>,
    /// Acceptances by recipient domain.
    pub(crate) meters: HashMap<DomainId, Meter>,
}
