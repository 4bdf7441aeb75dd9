//! The engine: one sender's spool and everything that works on it, behind a handle.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use relaypool_api::delivery_slice::SliceRow;
use relaypool_api::message::MessageSnapshot;
use relaypool_api::sending_ip::SiteStatus;
use relaypool_shaping::policy::PolicySet;
use relaypool_spool::{Batch, CommitError, OpenError, Options, ReadError, Spool, SpoolFailure};
use tokio::sync::{mpsc, oneshot};

use crate::dispatcher::{
    Dispatcher, IntakeError, KeyRing, LaneChanges, PoolSettings, PoolShares, RunState, SenderReport, SliceIntake,
    SliceReport, SourceIp,
};
use crate::driver::{Accepted, Command, Driver, Reports, now};
use crate::ledger::Millis;
use crate::metrics::SenderMetrics;
use crate::resolver::MxResolver;

/// Commands that wait for the engine; whoever sends more waits too.
const QUEUED_COMMANDS: usize = 64;

/// What an engine is opened with.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Folder of the spool.
    pub spool: PathBuf,
    /// Settings of the pool.
    pub settings: PoolSettings,
    /// Bytes that must stay free on the spool's disk: below, no slices are taken in, and what is queued is still sent.
    pub low_space: u64,
}

/// A slice for the engine.
#[derive(Debug, Clone)]
pub struct NewSlice {
    /// UID of the DeliverySlice: taking in the same one again changes nothing.
    pub id: String,
    /// Name of the DeliverySlice.
    pub name: String,
    /// UID of the Delivery.
    pub delivery_uid: String,
    /// The message of the run.
    pub message: Arc<MessageSnapshot>,
    /// The recipients.
    pub rows: Vec<SliceRow>,
}

/// An engine could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The spool could not be opened.
    #[error("cannot open the spool {path}")]
    Spool {
        /// Its folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// What lies in the spool cannot be worked on.
    #[error("cannot go on with what is in the spool")]
    Recovery(#[source] IntakeError),
}

/// A handle of a running engine. Clones are handles of the same engine; it ends with [`Engine::drain`].
#[derive(Clone)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    spool: Spool,
}

/// The engine has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the engine has ended")]
pub struct EngineEnded;

impl Engine {
    /// Opens the spool, reads back what is in it, and begins to send it, as soon as there are IPs and keys.
    pub async fn open(
        config: EngineConfig,
        resolver: MxResolver,
        metrics: Arc<SenderMetrics>,
    ) -> Result<Self, EngineError> {
        let path = config.spool.clone();
        let opening = tokio::task::spawn_blocking(move || {
            let spool = Spool::open(&config.spool, Options::default()).map_err(|source| EngineError::Spool {
                path: config.spool.clone(),
                source,
            })?;
            let mut dispatcher = Dispatcher::new(spool.clone(), config.settings, metrics);
            dispatcher.recover(now()).map_err(EngineError::Recovery)?;
            Ok((spool, dispatcher, config.low_space))
        });
        let (spool, dispatcher, low_space) = opening
            .await
            .expect("opening a spool does not panic and is not aborted")?;
        tracing::info!(spool = %path.display(), "spool opened");
        let (commands, queue) = mpsc::channel(QUEUED_COMMANDS);
        tokio::spawn(Driver::new(dispatcher, resolver, spool.clone(), queue, low_space).run());
        Ok(Self { commands, spool })
    }

    /// Takes in a slice, whole or not at all. When this returns, it is durable.
    pub async fn accept(&self, slice: NewSlice) -> Result<Accepted, IntakeError> {
        let NewSlice {
            id,
            name,
            delivery_uid,
            message,
            rows,
        } = slice;
        let intake = Box::new(SliceIntake {
            id,
            name,
            delivery_uid,
            message,
            rows,
        });
        let (answer, accepted) = oneshot::channel();
        self.send(Command::Accept(intake, answer))
            .await
            .map_err(|_| IntakeError::Ending)?;
        accepted.await.unwrap_or(Err(IntakeError::Ending))
    }

    /// Says what is wanted with a Delivery; also of one whose slices are still to come.
    pub async fn set_run_state(&self, delivery_uid: &str, state: RunState) -> Result<(), EngineEnded> {
        self.send(Command::SetRunState(delivery_uid.to_owned(), state)).await
    }

    /// Replaces the settings of the pool.
    pub async fn set_settings(&self, settings: PoolSettings) -> Result<(), EngineEnded> {
        self.send(Command::SetSettings(settings)).await
    }

    /// Replaces all policies.
    pub async fn set_policies(&self, policies: PolicySet) -> Result<(), EngineEnded> {
        self.send(Command::SetPolicies(policies)).await
    }

    /// Replaces the sending IPs of this sender.
    pub async fn set_ips(&self, ips: Vec<SourceIp>) -> Result<(), EngineEnded> {
        self.send(Command::SetIps(ips)).await
    }

    /// Replaces the signing keys.
    pub async fn set_keys(&self, keys: KeyRing) -> Result<(), EngineEnded> {
        self.send(Command::SetKeys(keys)).await
    }

    /// Replaces what this sender may use of pool-wide limits. Without it, all of each.
    pub async fn set_pool_shares(&self, shares: PoolShares) -> Result<(), EngineEnded> {
        self.send(Command::SetPoolShares(shares)).await
    }

    /// Wants nothing of pool-wide limits any more, to its end: what it has is used until it is taken away.
    pub async fn give_up_pool_shares(&self) -> Result<(), EngineEnded> {
        self.send(Command::GiveUpPoolShares).await
    }

    /// Replaces the way routes are looked up.
    pub async fn set_resolver(&self, resolver: MxResolver) -> Result<(), EngineEnded> {
        self.send(Command::SetResolver(Box::new(resolver))).await
    }

    /// Forgets a slice whose object is gone. False as long as it has messages that have not come to their end.
    pub async fn forget(&self, slice_id: &str) -> Result<bool, EngineEnded> {
        let (answer, forgotten) = oneshot::channel();
        self.send(Command::Forget(slice_id.to_owned(), answer)).await?;
        forgotten.await.map_err(|_| EngineEnded)
    }

    /// Reports on all slices. What a report says is durable.
    pub async fn slice_reports(&self) -> Result<Vec<SliceReport>, EngineEnded> {
        self.reports(Reports::All).await
    }

    /// Reports on at most so many slices whose phase is new, or that changed and were not reported on for `interval`. What
    /// a report says is durable.
    pub async fn due_slice_reports(&self, interval: Duration, at_most: usize) -> Result<Vec<SliceReport>, EngineEnded> {
        let interval = Millis::try_from(interval.as_millis()).unwrap_or(Millis::MAX / 2);
        self.reports(Reports::Due { interval, at_most }).await
    }

    async fn reports(&self, which: Reports) -> Result<Vec<SliceReport>, EngineEnded> {
        let (answer, reports) = oneshot::channel();
        self.send(Command::SliceReports(which, answer)).await?;
        reports.await.map_err(|_| EngineEnded)
    }

    /// Asks for a slice to be due again: its report did not get through.
    pub async fn report_again(&self, slice_id: &str) -> Result<(), EngineEnded> {
        self.send(Command::ReportAgain(slice_id.to_owned())).await
    }

    /// Reports on the sender and its lanes.
    pub async fn report(&self) -> Result<SenderReport, EngineEnded> {
        let (answer, report) = oneshot::channel();
        self.send(Command::SenderReport(answer)).await?;
        report.await.map_err(|_| EngineEnded)
    }

    /// Tells what the status of SendingIps shows of their sites, before they become this sender's: a lane of which nothing is
    /// in the spool begins with it.
    pub async fn lanes_shown(&self, shown: Vec<(String, Vec<SiteStatus>)>) -> Result<(), EngineEnded> {
        self.send(Command::LanesShown(shown)).await
    }

    /// Suspensions and recoveries of lanes since the last call.
    pub async fn lane_changes(&self) -> Result<LaneChanges, EngineEnded> {
        let (answer, changes) = oneshot::channel();
        self.send(Command::LaneChanges(answer)).await?;
        changes.await.map_err(|_| EngineEnded)
    }

    /// A small named value in the spool.
    pub fn note(&self, name: &str) -> Result<Option<Vec<u8>>, ReadError> {
        self.spool.note(name)
    }

    /// Sets a small named value in the spool.
    pub async fn set_note(&self, name: &str, bytes: Vec<u8>) -> Result<(), CommitError> {
        let mut batch = Batch::new();
        batch.set_note(name, bytes);
        self.spool.commit(batch).await.map(drop)
    }

    /// Resolves when the engine has ended.
    pub async fn ended(&self) {
        self.commands.closed().await;
    }

    /// Resolves when the spool has failed: nothing can be recorded any more, and the process must end.
    pub async fn failed(&self) -> SpoolFailure {
        self.spool.failed().await
    }

    /// Ends the engine: open transactions finish, for at most `grace`; the rest stays in the spool. True when all
    /// sessions ended in time.
    pub async fn drain(self, grace: Duration) -> bool {
        let (drained, done) = oneshot::channel();
        let in_time = match self.commands.send(Command::Drain(drained)).await {
            Ok(()) => tokio::time::timeout(grace, done).await.is_ok(),
            Err(_) => true,
        };
        let Self { commands, spool } = self;
        drop(commands);
        if let Err(failure) = spool.close().await {
            tracing::error!(error = %failure, "the spool had failed before it was closed");
        }
        in_time
    }

    async fn send(&self, command: Command) -> Result<(), EngineEnded> {
        self.commands.send(command).await.map_err(|_| EngineEnded)
    }
}
