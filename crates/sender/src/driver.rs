//! Runs the dispatcher: feeds it what happens and carries out what it wants done.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use relaypool_api::sending_ip::SiteStatus;
use relaypool_shaping::policy::PolicySet;
use relaypool_shaping::warm_up::Reservation;
use relaypool_smtp::client::TlsClient;
use relaypool_spool::{AddedSlice, CommitError, Spool};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::dispatcher::{
    AttemptReport, Dispatcher, DomainId, Effect, IntakeError, KeyRing, LaneChanges, PoolSettings, PoolShares, RunState,
    SenderReport, SessionId, SliceIntake, SliceReport, SourceIp, prune_lane_notes, write_lane_notes,
};
use crate::ledger::Millis;
use crate::resolver::{MxResolver, Route, RouteError};
use crate::session;

/// Events handled in one go before timers get their turn.
const EVENTS_AT_ONCE: usize = 256;

/// What happens inside the engine.
pub(crate) enum Event {
    RouteFound(DomainId, Result<Route, RouteError>),
    Attempted(AttemptReport),
    Closed(SessionId),
    /// What was to be kept of lanes is in the spool.
    LanesKept,
    /// Room for the warm-up of a sending IP is on disk.
    Reserved(String, Reservation),
}

/// What is asked of the engine from outside.
pub(crate) enum Command {
    Accept(Box<SliceIntake>, oneshot::Sender<Result<Accepted, IntakeError>>),
    SetRunState(String, RunState),
    SetSettings(PoolSettings),
    SetPolicies(PolicySet),
    SetIps(Vec<SourceIp>),
    SetKeys(KeyRing),
    SetPoolShares(PoolShares),
    GiveUpPoolShares,
    SetResolver(Box<MxResolver>),
    Forget(String, oneshot::Sender<bool>),
    SliceReports(Reports, oneshot::Sender<Vec<SliceReport>>),
    ReportAgain(String),
    SenderReport(oneshot::Sender<SenderReport>),
    LanesShown(Vec<(String, Vec<SiteStatus>)>),
    LaneChanges(oneshot::Sender<LaneChanges>),
    Drain(oneshot::Sender<()>),
}

/// Slices to report on.
pub(crate) enum Reports {
    All,
    /// See [`Dispatcher::due_slice_reports`].
    Due {
        interval: Millis,
        at_most: usize,
    },
}

/// Whether a slice was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// Taken in now.
    New,
    /// Here since before.
    Already,
}

/// A slice whose commit came back.
struct Committed {
    intake: Box<SliceIntake>,
    accepted_at: Millis,
    result: Result<relaypool_spool::Committed, CommitError>,
    answer: oneshot::Sender<Result<Accepted, IntakeError>>,
}

pub(crate) struct Driver {
    dispatcher: Dispatcher,
    resolver: MxResolver,
    spool: Spool,
    tls: TlsClient,
    commands: mpsc::Receiver<Command>,
    events: mpsc::UnboundedReceiver<Event>,
    event_sender: mpsc::UnboundedSender<Event>,
    commits: mpsc::UnboundedReceiver<Committed>,
    commit_sender: mpsc::UnboundedSender<Committed>,
    tasks: TaskTracker,
    /// Writes what lanes know, or did so last.
    keeping: Option<JoinHandle<()>>,
    low_space: u64,
    drained: Option<oneshot::Sender<()>>,
}

impl Driver {
    pub(crate) fn new(
        dispatcher: Dispatcher,
        resolver: MxResolver,
        spool: Spool,
        commands: mpsc::Receiver<Command>,
        low_space: u64,
    ) -> Self {
        let (event_sender, events) = mpsc::unbounded_channel();
        let (commit_sender, commits) = mpsc::unbounded_channel();
        Self {
            dispatcher,
            resolver,
            spool,
            tls: TlsClient::unverified(),
            commands,
            events,
            event_sender,
            commits,
            commit_sender,
            tasks: TaskTracker::new(),
            keeping: None,
            low_space,
            drained: None,
        }
    }

    /// Works until the engine is dropped or has drained.
    pub(crate) async fn run(mut self) {
        loop {
            self.carry_out();
            if self.is_drained() {
                break;
            }
            let wake = self.dispatcher.next_wake().map(instant);
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => break,
                },
                Some(committed) = self.commits.recv() => self.slice_committed(committed),
                Some(event) = self.events.recv() => self.digest(event),
                () = sleep_until(wake) => self.dispatcher.tick(now()),
            }
        }
        self.tasks.close();
        self.dispatcher.release_warm_ups();
        self.keep_the_rest().await;
        if let Some(drained) = self.drained.take() {
            // Whoever waited may have given up.
            let _ = drained.send(());
        }
    }

    /// Writes all that lanes know and the spool does not.
    async fn keep_the_rest(&mut self) {
        if let Some(keeping) = self.keeping.take() {
            // One that panicked has written what it could.
            let _ = keeping.await;
        }
        loop {
            let notes = self.dispatcher.last_notes(now());
            if notes.is_empty() {
                return;
            }
            write_lane_notes(&self.spool, &notes).await;
        }
    }

    /// One event, and those that came meanwhile.
    fn digest(&mut self, event: Event) {
        self.happened(event);
        for _ in 1..EVENTS_AT_ONCE {
            match self.events.try_recv() {
                Ok(event) => self.happened(event),
                Err(_) => break,
            }
        }
        self.dispatcher.tick(now());
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::RouteFound(domain, found) => self.dispatcher.route_found(domain, found, now()),
            Event::Attempted(report) => self.dispatcher.attempted(report, now()),
            Event::Closed(session) => self.dispatcher.session_closed(session, now()),
            Event::LanesKept => self.dispatcher.lanes_kept(),
            Event::Reserved(ip, reservation) => self.dispatcher.room_reserved(&ip, reservation, now()),
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Accept(intake, answer) => self.accept(intake, answer),
            Command::SetRunState(delivery, state) => self.dispatcher.set_run_state(&delivery, state, now()),
            Command::SetSettings(settings) => self.dispatcher.set_settings(settings, now()),
            Command::SetPolicies(policies) => self.dispatcher.set_policies(policies, now()),
            Command::SetIps(ips) => self.dispatcher.set_ips(ips, now()),
            Command::SetKeys(keys) => self.dispatcher.set_keys(keys),
            Command::SetPoolShares(shares) => self.dispatcher.set_pool_shares(shares, now()),
            Command::GiveUpPoolShares => self.dispatcher.give_up_pool_shares(),
            Command::SetResolver(resolver) => self.resolver = *resolver,
            Command::Forget(id, answer) => self.forget(&id, answer),
            Command::SliceReports(which, answer) => self.report_slices(which, answer),
            Command::ReportAgain(id) => self.dispatcher.report_again(&id),
            Command::SenderReport(answer) => {
                let _ = answer.send(self.dispatcher.sender_report(now()));
            }
            Command::LanesShown(shown) => self.dispatcher.lanes_shown(shown),
            Command::LaneChanges(answer) => {
                let _ = answer.send(self.dispatcher.take_lane_changes());
            }
            Command::Drain(drained) => {
                self.drained = Some(drained);
                self.dispatcher.drain();
            }
        }
        self.dispatcher.tick(now());
    }

    /// Answers when the slice is durable.
    fn accept(&mut self, intake: Box<SliceIntake>, answer: oneshot::Sender<Result<Accepted, IntakeError>>) {
        if self.dispatcher.has_slice(&intake.id) {
            let _ = answer.send(Ok(Accepted::Already));
            return;
        }
        let refusal = match self.spool.free_space() {
            Ok(free) if free < self.low_space => Some(IntakeError::LowSpace {
                free_mebibytes: free >> 20,
            }),
            _ if self.drained.is_some() => Some(IntakeError::Ending),
            _ => None,
        };
        if let Some(refusal) = refusal {
            let _ = answer.send(Err(refusal));
            return;
        }
        let accepted_at = now();
        let commit = intake.submit(&self.dispatcher, accepted_at);
        let commits = self.commit_sender.clone();
        self.tasks.spawn(async move {
            let result = commit.await;
            let _ = commits.send(Committed {
                intake,
                accepted_at,
                result,
                answer,
            });
        });
    }

    fn slice_committed(&mut self, committed: Committed) {
        let Committed {
            intake,
            accepted_at,
            result,
            answer,
        } = committed;
        let outcome = match result {
            Ok(done) => match done.slices.first() {
                Some(AddedSlice::Added(number)) => self
                    .dispatcher
                    .slice_accepted(*number, &intake, accepted_at, now())
                    .map(|()| Accepted::New),
                _ => Ok(Accepted::Already),
            },
            Err(error) => Err(error.into()),
        };
        let _ = answer.send(outcome);
        self.dispatcher.tick(now());
    }

    fn forget(&mut self, id: &str, answer: oneshot::Sender<bool>) {
        let Some(commit) = self.dispatcher.forget_slice(id) else {
            let _ = answer.send(false);
            return;
        };
        self.tasks.spawn(async move {
            let _ = answer.send(commit.await.is_ok());
        });
    }

    /// A report must not say more than the disk knows: it waits for all that was handed to the spool before it.
    fn report_slices(&mut self, which: Reports, answer: oneshot::Sender<Vec<SliceReport>>) {
        let reports = match which {
            Reports::All => self.dispatcher.all_slice_reports(now()),
            Reports::Due { interval, at_most } => self.dispatcher.due_slice_reports(interval, at_most, now()),
        };
        let barrier = self.spool.submit_now(relaypool_spool::Batch::new());
        self.tasks.spawn(async move {
            if barrier.await.is_ok() {
                let _ = answer.send(reports);
            }
        });
    }

    fn carry_out(&mut self) {
        for effect in self.dispatcher.take_effects() {
            let events = self.event_sender.clone();
            match effect {
                Effect::LookUp(domain, name) => {
                    let resolver = self.resolver.clone();
                    self.tasks.spawn(async move {
                        let found = resolver.route(&name).await;
                        let _ = events.send(Event::RouteFound(domain, found));
                    });
                }
                Effect::Settle(session, recording) => {
                    self.tasks.spawn(async move {
                        // A spool that has failed ends the process; until then the place counts as free.
                        let _ = recording.await;
                        let _ = events.send(Event::Closed(session));
                    });
                }
                Effect::KeepLanes(notes) => {
                    let spool = self.spool.clone();
                    self.keeping = Some(tokio::spawn(async move {
                        write_lane_notes(&spool, &notes).await;
                        let _ = events.send(Event::LanesKept);
                    }));
                }
                Effect::PruneLanes(now) => {
                    let spool = self.spool.clone();
                    self.keeping = Some(tokio::spawn(async move {
                        prune_lane_notes(&spool, now).await;
                        let _ = events.send(Event::LanesKept);
                    }));
                }
                Effect::Reserve(ip, reservation, commit) => {
                    self.tasks.spawn(async move {
                        // A spool that has failed ends the process; until then nothing more leaves.
                        if commit.await.is_ok() {
                            let _ = events.send(Event::Reserved(ip, reservation));
                        }
                    });
                }
                Effect::Open(start) => {
                    self.tasks.spawn(session::run(*start, self.tls.clone(), events));
                }
            }
        }
    }

    fn is_drained(&self) -> bool {
        self.drained.is_some() && self.dispatcher.open_sessions() == 0
    }
}

/// The wall clock.
pub(crate) fn now() -> Millis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since_epoch.as_millis()).unwrap_or(Millis::MAX)
}

/// The moment on the timer's clock. A step of the wall clock is noticed at the next wake-up, which comes within a second.
fn instant(at: Millis) -> Instant {
    let wait = at.saturating_sub(now()).min(1_000);
    Instant::now() + Duration::from_millis(wait)
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
