//! Slices come in: new ones through the spool, known ones from it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use relaypool_api::delivery_slice::SliceRow;
use relaypool_api::effective_validity;
use relaypool_api::message::MessageSnapshot;
use relaypool_message::TemplateError;
use relaypool_spool::{Batch, Commit, ContentId, MessageKey, NewSlice, ReadError, SliceNumber, SliceRecord};

use super::Dispatcher;
use super::run::{Run, RunContent, RunId, RunState};
use super::slice::{Place, Slice, Slot};
use super::timers::Timer;
use crate::ledger::{DamagedRecord, MessageStatus, Millis, SliceDetails, StateRecord, StoredRow, decode, encode};

/// A slice to take in.
#[derive(Debug, Clone)]
pub(crate) struct SliceIntake {
    /// UID of the DeliverySlice.
    pub(crate) id: String,
    /// Name of the DeliverySlice.
    pub(crate) name: String,
    /// UID of the Delivery.
    pub(crate) delivery_uid: String,
    /// The message of the run.
    pub(crate) message: Arc<MessageSnapshot>,
    /// The recipients.
    pub(crate) rows: Vec<SliceRow>,
}

/// Why a slice was not taken in, or a spool not read.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The message cannot be compiled: no recipient could ever get it.
    #[error("the message of the run is unusable")]
    Template(#[from] TemplateError),
    /// The spool could not take it.
    #[error("the spool cannot take the slice")]
    Spool(#[from] relaypool_spool::CommitError),
    /// The spool is too full: what is queued must be able to record its results.
    #[error("only {free_mebibytes} MiB are free on the spool's disk: no new slices until there is more")]
    LowSpace {
        /// What is left.
        free_mebibytes: u64,
    },
    /// The spool could not be read.
    #[error("the spool cannot be read")]
    Read(#[from] ReadError),
    /// Something in the spool is not what was written.
    #[error(transparent)]
    Damaged(#[from] DamagedRecord),
    /// A content in the spool is not what was written.
    #[error("the message of slice {slice} in the spool is missing or damaged")]
    Content {
        /// Name of the DeliverySlice.
        slice: String,
    },
    /// The sender is ending.
    #[error("the sender is ending")]
    Ending,
}

impl SliceIntake {
    /// The identity of the message: the digest of its JSON form.
    pub(crate) fn content(&self) -> (ContentId, Vec<u8>) {
        let json = serde_json::to_vec(&*self.message).expect("a snapshot always serialises");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &json);
        let mut id = [0; 32];
        id.copy_from_slice(digest.as_ref());
        (ContentId::new(id), json)
    }

    /// Hands the slice to the spool, whole or not at all. Nothing is sent before the commit is durable.
    pub(crate) fn submit(&self, dispatcher: &Dispatcher, now: Millis) -> Commit {
        let (content, json) = self.content();
        let details = SliceDetails {
            name: self.name.clone(),
            accepted_at: now,
        };
        let mut batch = Batch::new();
        batch.add_content(content, json).add_slice(NewSlice {
            id: self.id.clone(),
            delivery: self.delivery_uid.clone(),
            content,
            details: encode(&details),
            rows: self.rows.iter().map(|row| encode(&StoredRow::new(row))).collect(),
        });
        dispatcher.spool.submit_now(batch)
    }
}

impl Dispatcher {
    /// Whether a slice is here already.
    pub(crate) fn has_slice(&self, id: &str) -> bool {
        self.slice_ids.contains_key(id)
    }

    /// Begins to work on a slice that has just become durable.
    pub(crate) fn slice_accepted(
        &mut self,
        number: SliceNumber,
        intake: &SliceIntake,
        accepted_at: Millis,
        now: Millis,
    ) -> Result<(), IntakeError> {
        let (content_id, _) = intake.content();
        let run = self.run_for(&intake.delivery_uid, content_id, || Ok((*intake.message).clone()))?;
        let slots = intake.rows.iter().map(|_| Slot::fresh()).collect();
        self.metrics.accepted_messages.inc_by(intake.rows.len() as u64);
        self.relayed
            .add(u32::try_from(intake.rows.len()).unwrap_or(u32::MAX), now);
        self.add_slice(number, &intake.id, &intake.name, run, accepted_at, slots, now);
        Ok(())
    }

    /// Reads back everything that was in the spool when the process ended.
    pub(crate) fn recover(&mut self, now: Millis) -> Result<(), IntakeError> {
        self.timers.set(now, Timer::PruneLanes);
        for record in self.spool.slices()? {
            let details: SliceDetails = decode("slice", &record.details)?;
            let run = self.recovered_run(&record, &details.name)?;
            let (slots, last_change) = self.recovered_slots(&record)?;
            self.add_slice(
                record.number,
                &record.id,
                &details.name,
                run,
                details.accepted_at,
                slots,
                now,
            );
            if let Some(slice) = self.slices.get_mut(&record.number) {
                slice.finished_at = slice.finished_at.map(|_| last_change);
            }
        }
        Ok(())
    }

    fn recovered_run(&mut self, record: &SliceRecord, slice: &str) -> Result<RunId, IntakeError> {
        let missing = || IntakeError::Content {
            slice: slice.to_owned(),
        };
        let spool = self.spool.clone();
        self.run_for(&record.delivery, record.content, || {
            let json = spool.content(&record.content)?.ok_or_else(missing)?;
            serde_json::from_slice(&json).map_err(|_| missing())
        })
    }

    /// The messages of a slice as they were, and when the last of them changed.
    fn recovered_slots(&self, record: &SliceRecord) -> Result<(Vec<Slot>, Millis), IntakeError> {
        let mut slots: Vec<Slot> = (0..record.rows).map(|_| Slot::fresh()).collect();
        let mut last_change = 0;
        for state in self.spool.states(record.number)? {
            let (key, bytes) = state?;
            let state = StateRecord::decode(&bytes)?;
            last_change = last_change.max(state.at);
            if let Some(slot) = slots.get_mut(key.index as usize) {
                *slot = Slot::recovered(state);
            }
        }
        Ok((slots, last_change))
    }

    fn run_for(
        &mut self,
        delivery_uid: &str,
        content_id: ContentId,
        snapshot: impl FnOnce() -> Result<MessageSnapshot, IntakeError>,
    ) -> Result<RunId, IntakeError> {
        let key = (delivery_uid.to_owned(), content_id);
        if let Some(run) = self.run_ids.get(&key) {
            return Ok(*run);
        }
        let content = Arc::new(RunContent::new(snapshot()?)?);
        let state = self.wanted.get(delivery_uid).copied().unwrap_or_default();
        let id = RunId(u32::try_from(self.runs.len()).expect("runs are fewer than 2^32"));
        self.runs
            .push(Run::new(delivery_uid.to_owned(), content, state, &self.keys));
        self.run_ids.insert(key, id);
        Ok(id)
    }

    #[allow(clippy::too_many_arguments)] // the fields of a slice, all of them known only here
    fn add_slice(
        &mut self,
        number: SliceNumber,
        id: &str,
        name: &str,
        run: RunId,
        accepted_at: Millis,
        slots: Vec<Slot>,
        now: Millis,
    ) {
        let validity: Duration = effective_validity(Some(self.run(run).content.snapshot.validity)).into();
        let expires_at = accepted_at + Millis::try_from(validity.as_millis()).unwrap_or(Millis::MAX / 2);
        let unfinished = slots
            .iter()
            .filter(|slot| slot.status == MessageStatus::Waiting)
            .count();
        let unfinished = u32::try_from(unfinished).expect("a slice has fewer than 2^32 rows");
        for (index, slot) in (0_u32..).zip(&slots) {
            let key = MessageKey { slice: number, index };
            match slot.place {
                Place::Unrouted => self.await_routing(run, key),
                Place::Due => self.timers.set(slot.due, Timer::Due(key)),
                _ => {}
            }
        }
        self.timers.set(expires_at, Timer::Expire(number));
        self.metrics.queued.inc_by(i64::from(unfinished));
        self.slice_ids.insert(id.to_owned(), number);
        self.slices.insert(
            number,
            Slice {
                number,
                id: id.to_owned(),
                name: name.to_owned(),
                run,
                accepted_at,
                expires_at,
                finished_at: (unfinished == 0).then_some(now),
                slots,
                unfinished,
                dirty: true,
                reported_at: 0,
                reported_phase: None,
                meters: HashMap::new(),
            },
        );
        if self.run(run).state == RunState::Canceled {
            self.cancel_run(run, now);
        }
    }

    /// Forgets slices whose object is gone. What is with a session is decided first; ask again later for those.
    pub(crate) fn forget_slice(&mut self, id: &str) -> Option<Commit> {
        let number = *self.slice_ids.get(id)?;
        let slice = self.slices.get(&number)?;
        if slice.unfinished > 0 {
            return None;
        }
        self.slice_ids.remove(id);
        self.slices.remove(&number);
        let mut batch = Batch::new();
        batch.remove_slice(number);
        Some(self.spool.submit_now(batch))
    }
}
