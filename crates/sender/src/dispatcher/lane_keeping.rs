//! When what lanes know is written to the spool, and how a lane begins with it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use relaypool_api::Rate;
use relaypool_api::sending_ip::{Binds, LaneState, SiteStatus};
use relaypool_shaping::pacer::{Pacer, Shown, Snapshot};
use relaypool_shaping::policy::EffectivePolicy;

use super::lane::{Lane, LaneId, pacer_time};
use super::lane_history::{LaneHistory, Suspension};
use super::lane_note::{self, LaneNote};
use super::lane_report::{MOST_LANES, refusal};
use super::path_state::Trouble;
use super::report::time;
use super::source_ip::SourceIp;
use super::timers::Timer;
use super::{Dispatcher, Effect};
use crate::ledger::Millis;
use crate::resolver::Route;

/// A change is written so many milliseconds after it: half of what is promised, for the writing takes its time as well.
const KEPT_AFTER: Millis = 5_000;

/// Lanes that are written in one batch. However many have changed, results of messages wait for no more than this, and
/// there is one such batch at a time.
const KEPT_AT_ONCE: usize = 1_000;

/// Lanes not used for long are looked for so often.
const PRUNE_INTERVAL: Millis = 86_400_000;

/// Whether what a lane knows is in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Unkept {
    /// It is, or is on its way there.
    #[default]
    Nothing,
    /// Not all; it has a place in the queue of those that changed.
    Changed,
    /// Not all, and it should be there at once.
    Urgent,
}

/// Which lanes are to be written.
#[derive(Debug, Default)]
pub(crate) struct LaneKeeping {
    /// Lanes by when they changed first, oldest first. An entry whose lane was written meanwhile is stale.
    changed: VecDeque<(Millis, LaneId)>,
    urgent: VecDeque<LaneId>,
    /// A batch, or the removal of old notes, is under way.
    busy: bool,
    woken_at: Option<Millis>,
    /// Everything is urgent: the sender ends.
    ending: bool,
    /// What is known of lanes that no message has used yet, by SendingIp and lane: from their notes, or as the owner before
    /// showed it.
    dormant: HashMap<(String, String), SiteStatus>,
}

impl Dispatcher {
    /// A lane that begins with what is known of it: from the spool, or else from what the owner of the IP before showed.
    pub(super) fn new_lane(
        &mut self,
        (ip, site): (String, String),
        policy: &Arc<EffectivePolicy>,
        route: &Arc<Route>,
        now: Millis,
    ) -> Lane {
        let limits = self.pacer_limits(policy);
        let name = (ip, site);
        let shown = self.keeping.dormant.remove(&name);
        let (ip, site) = name;
        let (policy, route) = (Arc::clone(policy), Arc::clone(route));
        let lane = |pacer| Lane::new(ip.clone(), site.clone(), pacer, policy, route, now);
        if let Some(note) = lane_note::read(&self.spool, &ip, &site, now) {
            let last_refusal = note.last_refusal();
            let mut lane = lane(Pacer::restore(limits, note.pacer, pacer_time(now)));
            lane.last_refusal = last_refusal;
            lane.history = note.history;
            lane.trouble = note.trouble;
            return lane;
        }
        let Some(shown) = shown else {
            return lane(Pacer::new(limits));
        };
        let (history, snapshot) = from_shown(&shown, now);
        let mut lane = lane(Pacer::restore(limits, snapshot, pacer_time(now)));
        lane.trouble = history.suspension.map(|_| Trouble::Pause);
        lane.history = history;
        lane
    }

    /// What the owner before showed of the sites of IPs that are about to become this sender's.
    pub(crate) fn lanes_shown(&mut self, shown: Vec<(String, Vec<SiteStatus>)>) {
        let ips = &self.ips;
        self.keeping.dormant.retain(|(ip, _), _| ips.contains_key(ip));
        for (ip, sites) in shown {
            for site in sites {
                self.keeping.dormant.insert((ip.clone(), site.site.clone()), site);
            }
        }
    }

    /// Looks up what is known of the lanes of IPs that become this sender's: it belongs in their status before a message
    /// uses the lane again.
    pub(super) fn recall_lanes(&mut self, ips: &[SourceIp], now: Millis) {
        for ip in ips.iter().filter(|ip| !self.ips.contains_key(&ip.name)) {
            for note in lane_note::latest(&self.spool, &ip.name, MOST_LANES, now) {
                let name = (note.ip.clone(), note.site.clone());
                if self.lane_id(&name.0, &name.1).is_none() {
                    self.keeping.dormant.insert(name, shown_of(note, now));
                }
            }
        }
    }

    /// How the lanes stand that no message has used yet.
    pub(super) fn dormant_lanes(&self, now: Millis) -> Vec<(String, SiteStatus)> {
        let mut lanes: Vec<(String, SiteStatus)> = self
            .keeping
            .dormant
            .iter()
            .filter(|((ip, _), _)| self.ips.contains_key(ip))
            .map(|((ip, _), site)| (ip.clone(), dormant(site, now)))
            .collect();
        // Suspended ones first, for there may be more than a status has room for.
        lanes.sort_by(|(_, one), (_, other)| {
            let rank = |site: &SiteStatus| (site.suspended_until.is_none(), site.site.clone());
            rank(one).cmp(&rank(other))
        });
        lanes
    }

    /// Something changed on a lane that should be kept.
    pub(super) fn lane_changed(&mut self, id: LaneId, now: Millis) {
        let lane = &mut self.lanes[id.0 as usize];
        if lane.unkept == Unkept::Nothing {
            lane.unkept = Unkept::Changed;
            self.keeping.changed.push_back((now, id));
        }
    }

    /// Something changed on a lane that must not be lost.
    pub(super) fn keep_lane_at_once(&mut self, id: LaneId) {
        let lane = &mut self.lanes[id.0 as usize];
        if lane.unkept != Unkept::Urgent {
            lane.unkept = Unkept::Urgent;
            self.keeping.urgent.push_back(id);
        }
    }

    /// Begins to write what is due, unless something is being written.
    pub(super) fn keep_lanes(&mut self, now: Millis) {
        if self.keeping.busy {
            return;
        }
        let notes = self.due_notes(now);
        if !notes.is_empty() {
            self.keeping.busy = true;
            return self.effects.push(Effect::KeepLanes(notes));
        }
        if let Some((since, _)) = self.keeping.changed.front() {
            let at = since + KEPT_AFTER;
            if self.keeping.woken_at.is_none_or(|set| at < set) {
                self.keeping.woken_at = Some(at);
                self.timers.set(at, Timer::KeepLanes);
            }
        }
    }

    fn due_notes(&mut self, now: Millis) -> Vec<LaneNote> {
        let mut notes = Vec::new();
        while notes.len() < KEPT_AT_ONCE {
            let Some(id) = self.next_due(now) else { break };
            let lane = &mut self.lanes[id.0 as usize];
            if lane.unkept != Unkept::Nothing {
                lane.unkept = Unkept::Nothing;
                notes.push(LaneNote::of(lane));
            }
        }
        notes
    }

    fn next_due(&mut self, now: Millis) -> Option<LaneId> {
        let keeping = &mut self.keeping;
        if let Some(id) = keeping.urgent.pop_front() {
            return Some(id);
        }
        let (since, _) = keeping.changed.front()?;
        // A clock that was set back must not put off what is there.
        let is_due = keeping.ending || now >= since + KEPT_AFTER || now < *since;
        is_due.then(|| keeping.changed.pop_front().map(|(_, id)| id)).flatten()
    }

    pub(super) fn keeping_woken(&mut self) {
        self.keeping.woken_at = None;
    }

    /// What was being written is written.
    pub(crate) fn lanes_kept(&mut self) {
        self.keeping.busy = false;
    }

    /// From now on every change is written at once.
    pub(super) fn keep_everything_at_once(&mut self) {
        self.keeping.ending = true;
    }

    /// The next of all lanes that have changed, at the end, when nothing is being written any more.
    pub(crate) fn last_notes(&mut self, now: Millis) -> Vec<LaneNote> {
        self.keeping.ending = true;
        self.due_notes(now)
    }

    /// Looks for notes of lanes that are to be forgotten.
    pub(super) fn prune_lanes(&mut self, now: Millis) {
        if self.keeping.busy {
            return self.timers.set(now + KEPT_AFTER, Timer::PruneLanes);
        }
        // A note must not be removed while it is being written anew.
        self.keeping.busy = true;
        self.effects.push(Effect::PruneLanes(now));
        self.timers.set(now + PRUNE_INTERVAL, Timer::PruneLanes);
    }
}

/// A note as a status shows it. Limits are left out: they depend on policies that are not known before there is mail.
fn shown_of(note: LaneNote, now: Millis) -> SiteStatus {
    let suspension = note.history.suspension;
    SiteStatus {
        site: note.site.clone(),
        state: LaneState::Idle,
        connections: 0,
        delivered_per_second: 0.0,
        rate_limit: None,
        connection_limit: None,
        binds: suspension.map_or(Binds::NoDemand, |_| Binds::Suspended),
        binds_since: suspension.map(|suspension| time(suspension.since)),
        queued: 0,
        suspended_until: suspension.map(|suspension| time(suspension.until)),
        last_refusal: note.last_refusal().as_ref().map(refusal),
        reputation: note.history.reputation.summary(now),
    }
}

/// How a site stands to which nothing is sent.
fn dormant(site: &SiteStatus, now: Millis) -> SiteStatus {
    let suspended_until = site.suspended_until.clone().filter(|until| until.0 > time(now).0);
    let (state, binds) = match suspended_until {
        Some(_) => (LaneState::Suspended, Binds::Suspended),
        None => (LaneState::Idle, Binds::NoDemand),
    };
    SiteStatus {
        state,
        binds,
        binds_since: site.binds_since.clone().filter(|_| site.binds == binds),
        suspended_until,
        connections: 0,
        delivered_per_second: 0.0,
        queued: 0,
        ..site.clone()
    }
}

fn from_shown(shown: &SiteStatus, now: Millis) -> (LaneHistory, Snapshot) {
    let until = shown.suspended_until.as_ref();
    let until = until.and_then(|until| Millis::try_from(until.0.as_millisecond()).ok());
    let until = until.filter(|until| *until > now);
    let mut history = LaneHistory::new(now);
    history.suspension = until.map(|until| Suspension { since: now, until });
    // A rate of a policy that was shown binds through the policy; as a learned one it would bind no further.
    let seen = Shown {
        rate: shown.rate_limit.map(Rate::per_second),
        connections: shown.connection_limit,
        suspended_until: until.map(pacer_time),
    };
    (history, Snapshot::from_shown(pacer_time(now), seen))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use prometheus_client::registry::Registry;
    use relaypool_spool::{Options, Spool};

    use super::*;
    use crate::dispatcher::PoolSettings;
    use crate::metrics::SenderMetrics;

    struct Bench {
        dispatcher: Dispatcher,
        _folder: tempfile::TempDir,
    }

    /// A dispatcher with so many lanes that no message has used.
    fn bench(lanes: usize) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), Options::default()).unwrap();
        let settings = PoolSettings {
            pool: "pool".into(),
            smtp_port: 25,
            max_connections: 1_000,
            adaptive: true,
            on_block: relaypool_api::message::OnBlock::Wait,
        };
        let metrics = Arc::new(SenderMetrics::register(&mut Registry::default()));
        let mut dispatcher = Dispatcher::new(spool, settings, metrics);
        let policy = Arc::new(dispatcher.policies.resolve("pool", &"a.example".parse().unwrap(), &[]));
        let route = Arc::new(Route {
            hosts: Vec::new(),
            valid_until: Instant::now(),
        });
        for number in 0..lanes {
            let name = ("ip".to_owned(), format!("site{number}.example"));
            let lane = dispatcher.new_lane(name, &policy, &route, 1);
            dispatcher.lanes.push(lane);
        }
        Bench {
            dispatcher,
            _folder: folder,
        }
    }

    impl Bench {
        fn change_all(&mut self, now: Millis) {
            for index in 0..self.dispatcher.lanes.len() {
                self.dispatcher.lane_changed(LaneId(u32::try_from(index).unwrap()), now);
            }
        }

        /// The batch that is to be written now.
        fn batch(&mut self, now: Millis) -> Option<Vec<LaneNote>> {
            self.dispatcher.tick(now);
            let mut effects = self.dispatcher.take_effects();
            assert!(effects.len() <= 1, "one batch at a time");
            effects.pop().map(|effect| match effect {
                Effect::KeepLanes(notes) => notes,
                _ => panic!("another effect"),
            })
        }
    }

    #[tokio::test]
    async fn many_lanes_are_written_in_bounded_batches_one_at_a_time() {
        let mut bench = bench(10_500);
        let changed_at = 1_000_000;
        bench.change_all(changed_at);
        bench.change_all(changed_at + 1);
        assert!(bench.batch(changed_at + KEPT_AFTER - 1).is_none());
        assert_eq!(bench.dispatcher.next_wake(), Some(changed_at + KEPT_AFTER));

        let due = changed_at + KEPT_AFTER;
        let mut sizes = Vec::new();
        while let Some(notes) = bench.batch(due) {
            assert!(bench.batch(due).is_none(), "the one before is not written yet");
            lane_note::write(&bench.dispatcher.spool, &notes).await;
            sizes.push(notes.len());
            bench.dispatcher.lanes_kept();
        }
        assert_eq!(sizes.iter().sum::<usize>(), 10_500, "each once");
        assert!(sizes.iter().all(|size| *size <= KEPT_AT_ONCE));
        assert_eq!(bench.dispatcher.spool.notes("lane/ip/").unwrap().count(), 10_500);
        assert!(bench.batch(due + 1_000_000).is_none(), "nothing changed since");
    }

    #[tokio::test]
    async fn what_is_urgent_goes_first_and_at_once() {
        let mut bench = bench(3);
        bench.change_all(1_000);
        bench.dispatcher.keep_lane_at_once(LaneId(2));
        bench.dispatcher.keep_lane_at_once(LaneId(2));
        let notes = bench.batch(1_001).unwrap();
        assert_eq!(notes.len(), 1);
        assert_eq!(notes[0].site, "site2.example");
        // While it is being written, more becomes urgent: it follows when that is done, with all that is due by then.
        bench.dispatcher.keep_lane_at_once(LaneId(1));
        assert!(bench.batch(1_002).is_none());
        bench.dispatcher.lanes_kept();
        let sites = |notes: Vec<LaneNote>| notes.into_iter().map(|note| note.site).collect::<Vec<_>>();
        assert_eq!(
            sites(bench.batch(1_000 + KEPT_AFTER).unwrap()),
            ["site1.example", "site0.example"]
        );
    }

    #[tokio::test]
    async fn at_the_end_everything_is_written_at_once() {
        let mut bench = bench(5);
        bench.change_all(1_000);
        bench.dispatcher.drain();
        assert_eq!(bench.batch(1_000).unwrap().len(), 5);
        bench.change_all(1_001);
        assert_eq!(bench.dispatcher.last_notes(1_001).len(), 5);
        assert_eq!(bench.dispatcher.last_notes(1_001).len(), 0);
    }

    #[tokio::test]
    async fn old_notes_are_looked_for_once_a_day_but_not_while_others_are_written() {
        let mut bench = bench(1);
        bench.dispatcher.recover(1_000).unwrap();
        bench.dispatcher.keep_lane_at_once(LaneId(0));
        bench.dispatcher.keep_lanes(1_000);
        assert_eq!(bench.batch(1_000).unwrap().len(), 1);
        bench.dispatcher.lanes_kept();
        let mut pruned = Vec::new();
        for hour in 0..72 {
            let now = 1_000 + KEPT_AFTER + hour * 3_600_000;
            bench.dispatcher.tick(now);
            for effect in bench.dispatcher.take_effects() {
                assert!(matches!(effect, Effect::PruneLanes(at) if at == now));
                pruned.push(hour);
                bench.dispatcher.lanes_kept();
            }
        }
        assert_eq!(pruned, [0, 24, 48]);
    }
}
