//! The one owner of everything that waits: runs, slices, routes, lanes and timers.
//!
//! The dispatcher is a state machine. What happened and what time it is come in by its methods; what must be done outside
//! (look up a domain, open a session) comes out as [`Effect`]s. It runs in one task, so nothing here is shared or locked.
//!
//! ```text
//!  Unrouted ──► Routing ──► Lane ──► Flying ──► Done
//!     ▲           │          │         │
//!     └─────── Due / Parked ◄┴─────────┘
//! ```

mod attempt;
#[cfg(test)]
mod attempt_tests;
mod deferred;
mod intake;
mod ip_choice;
mod lane;
mod lane_history;
mod lane_keeping;
mod lane_note;
mod lane_queue;
mod lane_report;
mod meter;
mod next_attempt;
mod path_state;
mod pool_share;
mod report;
mod reputation;
mod routing;
mod rules;
mod run;
mod significant;
mod slice;
mod source_ip;
mod starved;
#[cfg(test)]
mod test_bed;
mod timers;
mod turns;
mod warm_up;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use relaypool_api::Domain;
use relaypool_api::message::OnBlock;
use relaypool_api::relay_pool::{PoolMode, RelayPoolSpec};
use relaypool_shaping::pacer::PacerLimits;
use relaypool_shaping::policy::{EffectivePolicy, PolicySet};
use relaypool_shaping::warm_up::Reservation;
use relaypool_spool::{Commit, ContentId, MessageKey, SliceNumber, Spool};
use tokio::sync::oneshot;

pub(crate) use attempt::{Attempt, AttemptReport};
pub use intake::IntakeError;
pub(crate) use intake::SliceIntake;
pub(crate) use lane::{Assignment, LaneId, SessionId, SessionStart};
pub use lane_history::{ChangeCounts, LaneChange, LaneChangeKind, LaneChanges};
pub(crate) use lane_note::LaneNote;
pub(crate) use lane_note::{prune as prune_lane_notes, write as write_lane_notes};
pub use lane_report::{IpReport, LaneReport, SenderReport};
pub use pool_share::{GrantedShares, PoolClaims, PoolShares};
pub use report::SliceReport;
pub(crate) use run::RunContent;
pub use run::{KeyRing, RunState};
pub use source_ip::SourceIp;
pub use warm_up::{WarmUpReport, WarmUpStart};

use crate::ledger::Millis;
use crate::metrics::SenderMetrics;
use lane::Lane;
use lane_keeping::LaneKeeping;
use lane_queue::LaneQueue;
use meter::Meter;
use pool_share::PoolLimits;
use routing::DomainEntry;
use run::{Run, RunId};
pub(crate) use slice::DomainId;
use slice::{Place, Slice};
use starved::Starved;
use timers::{Timer, Timers};
use warm_up::WarmUps;

/// Something to be done outside the dispatcher.
pub(crate) enum Effect {
    /// Look up the route of a domain and answer with [`Dispatcher::route_found`].
    LookUp(DomainId, Domain),
    /// Wait until the last result of a session that is over is durable, and say again that it is over.
    Settle(SessionId, Commit),
    /// Write what lanes know, durably, and say when it is done by [`Dispatcher::lanes_kept`].
    KeepLanes(Vec<LaneNote>),
    /// Remove what is known of lanes not used for long before this moment, and answer likewise.
    PruneLanes(Millis),
    /// Wait until room for a sending IP's warm-up is reserved durably, and say so by [`Dispatcher::room_reserved`].
    Reserve(String, Reservation, Commit),
    /// Open a session; it reports by [`Dispatcher::attempted`] and [`Dispatcher::session_closed`].
    Open(Box<SessionStart>),
}

/// Messages that are routed in one go before other events get their turn.
const ROUTED_AT_ONCE: usize = 256;

/// Settings of the pool that matter to the dispatcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// Name of the pool: policies may be for certain pools only.
    pub pool: String,
    /// TCP port of receiving hosts.
    pub smtp_port: u16,
    /// Connections open at one time, over all lanes: bounded by file descriptors and memory.
    pub max_connections: usize,
    /// Whether lanes learn from replies; otherwise only the limits of policies hold.
    pub adaptive: bool,
    /// What happens to messages whose sending IP a provider blocks, where their Delivery does not say.
    pub on_block: OnBlock,
}

/// Connections of a sender where nothing else is said: far below the file descriptors that containers commonly have.
const DEFAULT_MAX_CONNECTIONS: usize = 5_000;

impl PoolSettings {
    /// The settings of a pool.
    pub fn new(name: &str, pool: &RelayPoolSpec) -> Self {
        Self {
            pool: name.to_owned(),
            smtp_port: pool.smtp_port,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            adaptive: pool.mode == PoolMode::Adaptive,
            on_block: pool.on_block,
        }
    }
}

pub(crate) struct Dispatcher {
    spool: Spool,
    metrics: Arc<SenderMetrics>,
    settings: PoolSettings,
    policies: Arc<PolicySet>,
    keys: KeyRing,
    ips: BTreeMap<String, SourceIp>,
    /// What is wanted with Deliveries, by UID.
    wanted: HashMap<String, RunState>,
    runs: Vec<Run>,
    run_ids: HashMap<(String, ContentId), RunId>,
    slices: HashMap<SliceNumber, Slice>,
    slice_ids: HashMap<String, SliceNumber>,
    domains: Vec<DomainEntry>,
    domain_ids: HashMap<Domain, DomainId>,
    lanes: Vec<Lane>,
    /// By site and IP.
    lane_ids: HashMap<String, BTreeMap<String, LaneId>>,
    sessions: HashMap<SessionId, lane::Session>,
    next_session: u64,
    timers: Timers,
    /// Messages that wait to be routed. They take turns like those in a lane: routing reads every row, and what is urgent must
    /// not wait until that is done for all of a large delivery.
    unrouted: LaneQueue,
    /// Lanes whose connections wait for the sender's own limit.
    starved: Starved,
    keeping: LaneKeeping,
    lane_changes: LaneChanges,
    warm_ups: WarmUps,
    pool_limits: PoolLimits,
    draining: bool,
    effects: Vec<Effect>,
    relayed: Meter,
    delivered: Meter,
}

impl Dispatcher {
    pub(crate) fn new(spool: Spool, settings: PoolSettings, metrics: Arc<SenderMetrics>) -> Self {
        Self {
            spool,
            metrics,
            settings,
            policies: Arc::new(PolicySet::default()),
            keys: KeyRing::new(),
            ips: BTreeMap::new(),
            wanted: HashMap::new(),
            runs: Vec::new(),
            run_ids: HashMap::new(),
            slices: HashMap::new(),
            slice_ids: HashMap::new(),
            domains: Vec::new(),
            domain_ids: HashMap::new(),
            lanes: Vec::new(),
            lane_ids: HashMap::new(),
            sessions: HashMap::new(),
            next_session: 0,
            timers: Timers::default(),
            unrouted: LaneQueue::default(),
            starved: Starved::default(),
            keeping: LaneKeeping::default(),
            lane_changes: LaneChanges::default(),
            warm_ups: WarmUps::default(),
            pool_limits: PoolLimits::default(),
            draining: false,
            effects: Vec::new(),
            relayed: Meter::default(),
            delivered: Meter::default(),
        }
    }

    /// What is to be done outside since the last call.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// When [`tick`](Self::tick) is needed next; a moment in the past means now.
    pub(crate) fn next_wake(&self) -> Option<Millis> {
        if self.unrouted.is_empty() || self.draining {
            self.timers.next()
        } else {
            Some(0)
        }
    }

    /// Does what has become due.
    pub(crate) fn tick(&mut self, now: Millis) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Due(key) => self.message_due(key, now),
                Timer::Expire(slice) => self.expire_slice(slice, now),
                Timer::Lane(lane) => self.lane_woken(lane, now),
                Timer::Rules(lane) => self.rules_due(lane, now),
                Timer::Start(run) => self.release_parked(run),
                Timer::KeepLanes => self.keeping_woken(),
                Timer::PruneLanes => self.prune_lanes(now),
                Timer::WarmUps => self.days_pass(now),
            }
        }
        for _ in 0..ROUTED_AT_ONCE {
            let Some((_, key)) = self.unrouted.pop() else { break };
            self.route(key, now);
        }
        self.keep_lanes(now);
    }

    /// Replaces what is wanted with a Delivery. Acts on what is queued at once.
    pub(crate) fn set_run_state(&mut self, delivery_uid: &str, state: RunState, now: Millis) {
        let before = self.wanted.insert(delivery_uid.to_owned(), state).unwrap_or_default();
        if before == state {
            return;
        }
        let affected: Vec<RunId> = self.runs_of(delivery_uid).collect();
        for run in affected {
            self.runs[run.0 as usize].state = state;
            match state {
                RunState::Running => self.release_parked(run),
                RunState::Suspended => {}
                RunState::Canceled => self.cancel_run(run, now),
            }
        }
    }

    /// Replaces the settings. A change of mode acts on all lanes at once; queues stay as they are.
    pub(crate) fn set_settings(&mut self, settings: PoolSettings, now: Millis) {
        let mode_changes = settings.adaptive != self.settings.adaptive;
        let move_changes = settings.on_block != self.settings.on_block;
        self.settings = settings;
        self.serve_starved(now);
        if move_changes {
            self.move_all_blocked(now);
        }
        if mode_changes {
            for index in 0..self.lanes.len() {
                let lane = LaneId(u32::try_from(index).expect("lanes are fewer than 2^32"));
                self.renew_limits(lane, now);
                // A lane that was held by what it had learned would not be asked again otherwise.
                self.work(lane, now);
            }
        }
    }

    /// The limits of a policy, under the mode of the pool.
    fn pacer_limits(&self, policy: &EffectivePolicy) -> PacerLimits {
        let mut limits = policy.pacer_limits();
        if !self.settings.adaptive {
            limits.adaptive = None;
        }
        limits
    }

    /// Replaces the keys; runs that waited for one go on.
    pub(crate) fn set_keys(&mut self, keys: KeyRing) {
        self.keys = keys;
        for index in 0..self.runs.len() {
            if self.runs[index].keys_changed(&self.keys) {
                self.release_parked(RunId(u32::try_from(index).expect("runs are fewer than 2^32")));
            }
        }
    }

    /// Stops giving out work: sessions end after the message they are at.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        self.keep_everything_at_once();
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.starved.session_busy(session);
            if let Some(waiting) = self
                .sessions
                .get_mut(&session)
                .and_then(|session| session.waiting.take())
            {
                dismiss(waiting);
            }
        }
    }

    /// Connections that are open or being opened.
    pub(crate) fn open_sessions(&self) -> usize {
        self.sessions.len()
    }

    fn runs_of(&self, delivery_uid: &str) -> impl Iterator<Item = RunId> {
        let ids: Vec<RunId> = self
            .run_ids
            .iter()
            .filter(|((uid, _), _)| uid == delivery_uid)
            .map(|(_, id)| *id)
            .collect();
        ids.into_iter()
    }

    fn run(&self, id: RunId) -> &Run {
        &self.runs[id.0 as usize]
    }

    /// Puts the parked messages of a run back to the start.
    fn release_parked(&mut self, run: RunId) {
        let parked = std::mem::take(&mut self.runs[run.0 as usize].parked);
        for key in parked {
            if self.is_at(key, Place::Parked) {
                self.requeue(key);
            }
        }
    }

    /// Puts a message to the end of those that wait to be routed.
    fn requeue(&mut self, key: MessageKey) {
        let Some(run) = self.slices.get(&key.slice).map(|slice| slice.run) else {
            return;
        };
        self.set_place(key, Place::Unrouted);
        self.await_routing(run, key);
    }

    fn await_routing(&mut self, run: RunId, key: MessageKey) {
        let priority = self.run(run).content.snapshot.priority;
        // The domain may not be known before the row is read, and does not matter before there is a lane.
        self.unrouted.push(priority, run, DomainId(0), key);
    }

    fn message_due(&mut self, key: MessageKey, now: Millis) {
        let slot = self
            .slices
            .get(&key.slice)
            .and_then(|slice| slice.slots.get(key.index as usize));
        // A stale entry: the message was moved on since.
        if slot.is_some_and(|slot| slot.place == Place::Due && slot.due <= now) {
            self.requeue(key);
        }
    }

    fn is_at(&self, key: MessageKey, place: Place) -> bool {
        self.slices
            .get(&key.slice)
            .and_then(|slice| slice.slots.get(key.index as usize))
            .is_some_and(|slot| slot.place == place)
    }

    fn set_place(&mut self, key: MessageKey, place: Place) {
        if let Some(slot) = self.slot_mut(key) {
            slot.place = place;
        }
    }

    fn slot_mut(&mut self, key: MessageKey) -> Option<&mut slice::Slot> {
        self.slices.get_mut(&key.slice)?.slots.get_mut(key.index as usize)
    }
}

/// Tells a session that waits for work that there is none: it quits.
fn dismiss(waiting: oneshot::Sender<Option<Assignment>>) {
    // A session that is gone needs no telling.
    let _ = waiting.send(None);
}
