//! Runs: what all slices of one planned Delivery share.

use std::collections::HashMap;
use std::sync::Arc;

use relaypool_api::message::{MessageSnapshot, SigningKeyRef};
use relaypool_api::names::signing_key_entry;
use relaypool_message::dkim::{Signer, SigningKey};
use relaypool_message::{Composer, TemplateError};
use relaypool_spool::MessageKey;
use serde::{Deserialize, Serialize};

use crate::ledger::Millis;

/// Place of a run in the dispatcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RunId(pub(crate) u32);

/// What the user wants with a Delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RunState {
    /// Send.
    #[default]
    Running,
    /// Hold what is queued.
    Suspended,
    /// End what is queued as Canceled.
    Canceled,
}

/// The keys a sender has, by the name of their entry in the pool's Secret.
pub type KeyRing = HashMap<String, Arc<SigningKey>>;

/// Everything a session needs to make a message of a run.
pub(crate) struct RunContent {
    pub(crate) snapshot: MessageSnapshot,
    pub(crate) composer: Composer,
}

impl RunContent {
    pub(crate) fn new(snapshot: MessageSnapshot) -> Result<Self, TemplateError> {
        let composer = Composer::compile(&snapshot)?;
        Ok(Self { snapshot, composer })
    }
}

/// Whether the messages of a run can be signed.
#[derive(Clone)]
pub(crate) enum Signing {
    /// Signed with these keys, or without any where the plan names none.
    Ready(Option<Arc<Signer>>),
    /// Waits for keys: never unsigned by accident.
    Missing(Vec<SigningKeyRef>),
}

pub(crate) struct Run {
    pub(crate) delivery_uid: String,
    pub(crate) content: Arc<RunContent>,
    pub(crate) state: RunState,
    pub(crate) signing: Signing,
    /// Messages that cannot go on until something changes: the run is resumed, starts, gets its keys or an IP.
    pub(crate) parked: Vec<MessageKey>,
}

/// Why a run's messages stay where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hold {
    Suspended,
    /// Until this moment.
    NotStarted(Millis),
    MissingKeys,
    /// None of this sender's IPs fits the affinity and reaches the provider.
    NoSendingIp,
}

impl Run {
    pub(crate) fn new(delivery_uid: String, content: Arc<RunContent>, state: RunState, keys: &KeyRing) -> Self {
        let signing = signing(&content.snapshot, keys);
        Self {
            delivery_uid,
            content,
            state,
            signing,
            parked: Vec::new(),
        }
    }

    /// Looks for missing keys again; true when the run can be signed now and could not before.
    pub(crate) fn keys_changed(&mut self, keys: &KeyRing) -> bool {
        if matches!(self.signing, Signing::Ready(_)) {
            return false;
        }
        self.signing = signing(&self.content.snapshot, keys);
        matches!(self.signing, Signing::Ready(_))
    }

    /// Why nothing of the run may leave now.
    pub(crate) fn hold(&self, now: Millis) -> Option<Hold> {
        if self.state != RunState::Running {
            return Some(Hold::Suspended);
        }
        if let Some(start) = self.starts_at().filter(|start| *start > now) {
            return Some(Hold::NotStarted(start));
        }
        matches!(self.signing, Signing::Missing(_)).then_some(Hold::MissingKeys)
    }

    pub(crate) fn starts_at(&self) -> Option<Millis> {
        let start = self.content.snapshot.start_at.as_ref()?;
        Some(Millis::try_from(start.0.as_millisecond()).unwrap_or(0))
    }
}

fn signing(snapshot: &MessageSnapshot, keys: &KeyRing) -> Signing {
    let (found, missing): (Vec<_>, Vec<_>) = snapshot
        .dkim_keys
        .iter()
        .map(|reference| (reference.clone(), keys.get(&signing_key_entry(reference)).cloned()))
        .partition(|(_, key)| key.is_some());
    if !missing.is_empty() {
        return Signing::Missing(missing.into_iter().map(|(reference, _)| reference).collect());
    }
    let found: Vec<_> = found
        .into_iter()
        .filter_map(|(reference, key)| Some((reference, key?)))
        .collect();
    if found.is_empty() {
        return Signing::Ready(None);
    }
    match Signer::new(found) {
        Ok(signer) => Signing::Ready(Some(Arc::new(signer))),
        Err(error) => {
            tracing::error!(error = %error, "a signing key is not what the plan asks for");
            Signing::Missing(snapshot.dkim_keys.clone())
        }
    }
}
