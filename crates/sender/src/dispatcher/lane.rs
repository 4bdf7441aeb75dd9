//! Lanes: the queue, the pacer and the sessions of one sending IP towards one site.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand::seq::SliceRandom;
use relaypool_api::message::Priority;
use relaypool_api::{Domain, EmailAddress};
use relaypool_message::dkim::Signer;
use relaypool_shaping::pacer::{Grant, Pacer, Sending, Sent};
use relaypool_shaping::policy::EffectivePolicy;
use relaypool_shaping::reply_rules::LaneRules;
use relaypool_shaping::warm_up::{Destination, Taken};
use relaypool_spool::{Commit, MessageKey};
use tokio::sync::oneshot;

use super::deferred::Deferred;
use super::lane_history::LaneHistory;
use super::lane_keeping::Unkept;
use super::lane_queue::LaneQueue;
use super::meter::Meter;
use super::path_state::Trouble;
use super::pool_share::{LaneLimits, LimitId};
use super::run::{Hold, RunContent, RunId, Signing};
use super::slice::{DomainId, Place};
use super::timers::Timer;
use super::warm_up::destination;
use super::{Dispatcher, Effect, dismiss};
use crate::connect::same_family;
use crate::ledger::{Millis, StoredRow, decode};
use crate::resolver::Route;

/// Place of a lane in the dispatcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LaneId(pub(crate) u32);

/// A session, unique over the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(crate) u64);

/// One sending IP towards one site.
pub(crate) struct Lane {
    /// Name of the SendingIp.
    pub(crate) ip: String,
    /// Name of the site; domains that a policy singles out have lanes of their own.
    pub(crate) site: String,
    pub(crate) queue: LaneQueue,
    pub(crate) pacer: Pacer,
    pub(crate) policy: Arc<EffectivePolicy>,
    /// The reply rules of the policy, and how far each is.
    pub(crate) rules: LaneRules,
    /// When [`Timer::Rules`] is set for: at most one is.
    pub(crate) rules_due: Option<Millis>,
    pub(crate) route: Arc<Route>,
    /// Open sessions, those being opened included.
    pub(crate) open: usize,
    /// Sessions that wait for a message.
    idle: VecDeque<SessionId>,
    /// The earliest wake-up that is set, so that not every attempt to send sets another.
    woken_at: Option<Millis>,
    pub(crate) delivered: Meter,
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    pub(crate) last_refusal: Option<LastRefusal>,
    /// Messages that wait for a time of their own and may be released before.
    pub(crate) deferred: Deferred,
    /// What is wrong with the path.
    pub(crate) trouble: Option<Trouble>,
    pub(crate) history: LaneHistory,
    pub(crate) unkept: Unkept,
    /// What warm-ups tell the provider apart by.
    pub(crate) destination: Destination,
    /// Until when the warm-up of its IP has no room, where what waited was routed anew for that.
    pub(crate) overflowed: Option<Millis>,
    /// The pool-wide limits that it is under.
    pub(crate) limits: LaneLimits,
    /// When a share of one of them last held it back.
    pub(crate) held_by_share: Option<Millis>,
}

/// The last thing a site refused on a lane.
#[derive(Debug, Clone)]
pub(crate) struct LastRefusal {
    pub(crate) at: Millis,
    pub(crate) reply: String,
    pub(crate) category: &'static str,
    pub(crate) retry_after: Option<Duration>,
}

/// A session as the dispatcher sees it.
pub(crate) struct Session {
    pub(crate) lane: LaneId,
    /// Messages given to it.
    pub(crate) given: u32,
    /// The message it is at.
    pub(crate) flying: Option<MessageKey>,
    /// Where its next message goes, while it waits for one.
    pub(crate) waiting: Option<oneshot::Sender<Option<Assignment>>>,
    /// The pacer's note of that message.
    pub(crate) sent: Option<Sent>,
    /// The room it took of its IP's warm-up.
    pub(crate) room: Option<Taken>,
    /// The recording of its last result.
    pub(crate) recording: Option<Commit>,
    /// The settings it was opened with; one whose settings are out of date is closed.
    settings: SessionSettings,
    /// The pool-wide limit that it counts under.
    pub(crate) limit: Option<LimitId>,
    /// It was told to end.
    pub(crate) is_leaving: bool,
}

/// What a session is opened with and cannot change later.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SessionSettings {
    pub(crate) source: IpAddr,
    pub(crate) ehlo_name: Domain,
    pub(crate) policy: Arc<EffectivePolicy>,
}

/// A session to be opened.
pub(crate) struct SessionStart {
    pub(crate) id: SessionId,
    pub(crate) settings: SessionSettings,
    /// Hosts to try in this order.
    pub(crate) hosts: Vec<(Domain, SocketAddr)>,
    /// The message it is opened for.
    pub(crate) first: Assignment,
}

/// A message for a session.
pub(crate) struct Assignment {
    pub(crate) key: MessageKey,
    pub(crate) row: StoredRow,
    pub(crate) to: EmailAddress,
    pub(crate) content: Arc<RunContent>,
    /// None: the run is sent unsigned, as planned.
    pub(crate) signer: Option<Arc<Signer>>,
    /// When the message reached this sender: its Date.
    pub(crate) accepted_at: Millis,
    /// The recording of the result before this message. The session waits for it before it sends the message after this one.
    pub(crate) recording: Option<Commit>,
}

impl Lane {
    pub(crate) fn new(
        ip: String,
        site: String,
        pacer: Pacer,
        policy: Arc<EffectivePolicy>,
        route: Arc<Route>,
        now: Millis,
    ) -> Self {
        Self {
            ip,
            site,
            queue: LaneQueue::default(),
            pacer,
            rules: LaneRules::new(&policy.reply_rules),
            rules_due: None,
            policy,
            destination: destination(&route),
            overflowed: None,
            route,
            open: 0,
            idle: VecDeque::new(),
            woken_at: None,
            delivered: Meter::default(),
            sent: 0,
            failed: 0,
            last_refusal: None,
            deferred: Deferred::default(),
            trouble: None,
            history: LaneHistory::new(now),
            unkept: Unkept::default(),
            limits: LaneLimits::default(),
            held_by_share: None,
        }
    }

    /// Takes out the session that has waited longest for a message.
    pub(crate) fn next_idle(&mut self) -> Option<SessionId> {
        self.idle.pop_front()
    }

    /// Sessions that are at a message or on their way to one.
    pub(crate) fn busy(&self) -> usize {
        self.open.saturating_sub(self.idle.len())
    }

    /// How many messages one connection may carry.
    pub(crate) fn messages_per_connection(&self) -> u32 {
        self.pacer.messages_per_connection()
    }
}

/// The addresses of a route, best preference first, those of equal preference in an order of their own for each session:
/// that is how hosts share the load (RFC 5321 section 5.1).
fn in_order_of_trial(route: &Route, source: IpAddr, port: u16) -> Vec<(Domain, SocketAddr)> {
    let mut hosts: Vec<_> = route.hosts.iter().collect();
    hosts.shuffle(&mut rand::rng());
    hosts.sort_by_key(|host| host.preference);
    hosts
        .into_iter()
        .flat_map(|host| {
            host.addresses
                .iter()
                .map(move |address| (host.name.clone(), SocketAddr::new(*address, port)))
        })
        .filter(|(_, address)| same_family(source, address.ip()))
        .collect()
}

/// The moment as the pacer counts it.
pub(crate) fn pacer_time(now: Millis) -> Duration {
    Duration::from_millis(now)
}

/// When to wake for a moment of the pacer: up, never down. A wake-up a nanosecond early finds nothing to do and sets
/// itself again for the same millisecond, for ever.
pub(crate) fn wake_time(at: Duration) -> Millis {
    Millis::try_from(at.as_nanos().div_ceil(1_000_000)).unwrap_or(Millis::MAX)
}

impl Dispatcher {
    /// Puts a message into a lane's queue and lets the lane work.
    pub(crate) fn enqueue(&mut self, lane: LaneId, run: RunId, domain: DomainId, key: MessageKey, now: Millis) {
        let priority: Priority = self.run(run).content.snapshot.priority;
        self.set_place(key, Place::Lane);
        if let Some(first_refused) = self.first_refused(key, lane) {
            self.lane_mut(lane).deferred.remove(first_refused, key);
        }
        self.lane_mut(lane).queue.push(priority, run, domain, key);
        self.work(lane, now);
    }

    pub(crate) fn lane_woken(&mut self, lane: LaneId, now: Millis) {
        if self.lane_mut(lane).woken_at.is_some_and(|at| at <= now) {
            self.lane_mut(lane).woken_at = None;
        }
        self.work(lane, now);
    }

    /// Gives messages to sessions that wait, and opens sessions for what is left, as far as the pacer lets.
    pub(crate) fn work(&mut self, lane: LaneId, now: Millis) {
        let ip = self.ips.get(&self.lanes[lane.0 as usize].ip);
        if self.draining || ip.is_none_or(|ip| ip.suspended) {
            return;
        }
        self.feed_idle_sessions(lane, now);
        self.open_sessions_for(lane, now);
    }

    fn feed_idle_sessions(&mut self, lane: LaneId, now: Millis) {
        while !self.lane_mut(lane).queue.is_empty() {
            let Some(session) = self.lane_mut(lane).idle.pop_front() else {
                return;
            };
            let Some(waiting) = self
                .sessions
                .get_mut(&session)
                .and_then(|session| session.waiting.take())
            else {
                continue;
            };
            self.starved.session_busy(session);
            if waiting.is_closed() {
                continue;
            }
            if !self.may_send(lane, now) {
                self.wait_for_work(session, waiting);
                return;
            }
            match self.next_message(lane, now) {
                Some(assignment) => self.hand_over(session, assignment, waiting, now),
                None => self.wait_for_work(session, waiting),
            }
        }
    }

    fn open_sessions_for(&mut self, lane: LaneId, now: Millis) {
        while !self.lane_mut(lane).queue.is_empty() {
            let open = self.lane_mut(lane).pacer.may_open(pacer_time(now));
            if !self.granted(lane, open) || !self.may_send(lane, now) || !self.share_lets_open(lane, now) {
                return;
            }
            if self.sessions.len() >= self.settings.max_connections {
                return self.starve(lane);
            }
            let Some(assignment) = self.next_message(lane, now) else {
                return;
            };
            self.open_session(lane, assignment, now);
        }
    }

    fn may_send(&mut self, lane: LaneId, now: Millis) -> bool {
        let grant = self.lane_mut(lane).pacer.may_send(pacer_time(now));
        self.granted(lane, grant) && self.warm_up_lets(lane, now) && self.share_lets_send(lane, now)
    }

    /// True when the grant is for now; sets the lane's wake-up where it is for later.
    fn granted(&mut self, lane: LaneId, grant: Grant) -> bool {
        match grant {
            Grant::Now => true,
            Grant::At(at) => {
                self.wake(lane, wake_time(at));
                false
            }
            Grant::No => false,
        }
    }

    pub(crate) fn wake(&mut self, lane: LaneId, at: Millis) {
        if self.lane_mut(lane).woken_at.is_none_or(|set| at < set) {
            self.lane_mut(lane).woken_at = Some(at);
            self.timers.set(at, Timer::Lane(lane));
        }
    }

    /// The next message of the lane that may leave now. Entries that are stale are dropped, those whose run holds are parked.
    fn next_message(&mut self, lane: LaneId, now: Millis) -> Option<Assignment> {
        loop {
            let (run, key) = self.lane_mut(lane).queue.pop()?;
            if !self.is_at(key, Place::Lane) {
                continue;
            }
            if let Some(hold) = self.run(run).hold(now) {
                self.park(run, key, &hold);
                continue;
            }
            match self.assignment(key) {
                Ok(assignment) => return Some(assignment),
                Err(reason) => self.ignore(key, &reason, now),
            }
        }
    }

    /// Keeps a message with its run until the hold is over.
    pub(crate) fn park(&mut self, run: RunId, key: MessageKey, hold: &Hold) {
        self.set_place(key, Place::Parked);
        self.runs[run.0 as usize].parked.push(key);
        if let Hold::NotStarted(start) = hold {
            // One timer a run would do; a second one finds nothing parked.
            if self.run(run).parked.len() == 1 {
                self.timers.set(*start, Timer::Start(run));
            }
        }
    }

    /// Everything a session needs for a message, read from the spool. An error is a reason to ignore the message.
    fn assignment(&self, key: MessageKey) -> Result<Assignment, String> {
        let slice = &self.slices[&key.slice];
        let run = self.run(slice.run);
        let row = self.row(key)?;
        let to = row.address.parse::<EmailAddress>().map_err(|error| error.to_string())?;
        let signer = match &run.signing {
            Signing::Ready(signer) => signer.clone(),
            Signing::Missing(_) => unreachable!("a run without its keys holds its messages"),
        };
        Ok(Assignment {
            key,
            row,
            to,
            content: Arc::clone(&run.content),
            signer,
            accepted_at: slice.accepted_at,
            recording: None,
        })
    }

    pub(crate) fn row(&self, key: MessageKey) -> Result<StoredRow, String> {
        let bytes = self.spool.row(key).map_err(|error| error.to_string())?;
        let bytes = bytes.ok_or("the row is missing in the spool")?;
        decode("row", &bytes).map_err(|error| error.to_string())
    }

    fn open_session(&mut self, lane: LaneId, first: Assignment, now: Millis) {
        let port = self.settings.smtp_port;
        let (source, route, policy) = {
            let lane = self.lane_mut(lane);
            (lane.ip.clone(), Arc::clone(&lane.route), Arc::clone(&lane.policy))
        };
        let ip = &self.ips[&source];
        let settings = SessionSettings {
            source: ip.bind,
            ehlo_name: ip.ehlo_name.clone(),
            policy,
        };
        let hosts = in_order_of_trial(&route, ip.bind, port);
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let key = first.key;
        let sent = self.tell_pacer_of_sending(lane, key, true, now);
        let room = self.take_room(lane);
        let limit = self.count_session(lane);
        self.sessions.insert(
            id,
            Session {
                lane,
                given: 1,
                flying: Some(key),
                sent: Some(sent),
                room,
                waiting: None,
                recording: None,
                settings: settings.clone(),
                limit,
                is_leaving: false,
            },
        );
        self.set_place(key, Place::Flying);
        self.metrics.connections.inc();
        self.effects.push(Effect::Open(Box::new(SessionStart {
            id,
            settings,
            hosts,
            first,
        })));
    }

    fn hand_over(
        &mut self,
        id: SessionId,
        mut assignment: Assignment,
        waiting: oneshot::Sender<Option<Assignment>>,
        now: Millis,
    ) {
        let key = assignment.key;
        let Some(lane) = self.sessions.get(&id).map(|session| session.lane) else {
            return;
        };
        let sent = self.tell_pacer_of_sending(lane, key, false, now);
        let room = self.take_room(lane);
        if let Some(session) = self.sessions.get_mut(&id) {
            assignment.recording = session.recording.take();
            session.given += 1;
            session.flying = Some(key);
            session.sent = Some(sent);
            session.room = room;
        }
        self.set_place(key, Place::Flying);
        if waiting.send(Some(assignment)).is_err() {
            // The session went away in this moment; session_closed puts the message back.
            tracing::debug!(session = id.0, "session left before its message came");
        }
    }

    fn tell_pacer_of_sending(&mut self, lane: LaneId, key: MessageKey, new_connection: bool, now: Millis) -> Sent {
        let attempts = self.slot_mut(key).map_or(0, |slot| slot.attempts);
        let first_refused = self.first_refused(key, lane).map(pacer_time);
        self.take_from_shared_rate(lane, now);
        let lane = self.lane_mut(lane);
        if new_connection {
            lane.open += 1;
            lane.pacer.opened(pacer_time(now));
        }
        let sending = Sending {
            new_connection,
            attempt: u32::from(attempts) + 1,
            first_refused,
        };
        lane.pacer.sent(pacer_time(now), sending)
    }

    fn wait_for_work(&mut self, id: SessionId, waiting: oneshot::Sender<Option<Assignment>>) {
        let is_waited_for = self.sessions.contains_key(&id) && self.place_is_waited_for(id);
        if is_waited_for || !self.starved.is_empty() {
            self.session_leaves(id);
            return dismiss(waiting);
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.waiting = Some(waiting);
        self.starved.session_idle(id);
        let lane = session.lane;
        self.lane_mut(lane).idle.push_back(id);
    }

    /// A session asks for its next message.
    pub(crate) fn next_for(&mut self, id: SessionId, next: oneshot::Sender<Option<Assignment>>, now: Millis) {
        let Some(session) = self.sessions.get(&id) else {
            return dismiss(next);
        };
        let lane = session.lane;
        if self.draining || self.is_out_of_date(id, now) {
            self.session_leaves(id);
            return dismiss(next);
        }
        if self.lane_mut(lane).queue.is_empty() || !self.may_send(lane, now) {
            return self.wait_for_work(id, next);
        }
        match self.next_message(lane, now) {
            Some(assignment) => self.hand_over(id, assignment, next, now),
            None => self.wait_for_work(id, next),
        }
    }

    /// Whether a session should end rather than go on: it has carried its share, its settings changed, its IP is
    /// suspended or gone, there are more sessions than there may be, or other lanes have none.
    fn is_out_of_date(&self, id: SessionId, now: Millis) -> bool {
        let session = &self.sessions[&id];
        let (lane, given) = (session.lane, session.given);
        let lane = &self.lanes[lane.0 as usize];
        let Some(ip) = self.ips.get(&lane.ip) else { return true };
        ip.suspended
            || given >= lane.messages_per_connection()
            || session.settings.source != ip.bind
            || session.settings.ehlo_name != ip.ehlo_name
            || session.settings.policy.session_settings_differ(&lane.policy)
            || lane.open > lane.pacer.connection_limit() as usize
            || self.makes_room(given)
            || self.share_is_wanted_back(id, now)
    }

    /// A session is over. What it still held goes back to the lane.
    pub(crate) fn session_closed(&mut self, id: SessionId, now: Millis) {
        // Its place is free for another connection only when its last result is on disk: the bound of two repeats is one for
        // each place, not for each connection that ever had it.
        if let Some(recording) = self.sessions.get_mut(&id).and_then(|session| session.recording.take()) {
            return self.effects.push(Effect::Settle(id, recording));
        }
        let Some(mut session) = self.sessions.remove(&id) else {
            return;
        };
        self.metrics.connections.dec();
        self.starved.session_busy(id);
        let lane = session.lane;
        {
            let lane = self.lane_mut(lane);
            lane.open -= 1;
            lane.pacer.closed(pacer_time(now));
            lane.idle.retain(|idle| *idle != id);
        }
        if let Some(key) = session.flying.filter(|key| self.is_at(*key, Place::Flying)) {
            self.requeue(key);
        }
        if let Some(room) = session.room.take() {
            self.give_room_back(lane, room, now);
        }
        self.share_freed(session.limit, session.is_leaving, now);
        self.serve_starved(now);
        self.work(lane, now);
    }

    pub(crate) fn lane_mut(&mut self, lane: LaneId) -> &mut Lane {
        &mut self.lanes[lane.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_wakes_before_the_moment() {
        let now = 1_700_000_000_000;
        assert_eq!(wake_time(pacer_time(now)), now);
        for nanoseconds in [1, 999, 1_000, 999_999, 1_000_000] {
            let at = pacer_time(now) + Duration::from_nanos(nanoseconds);
            assert_eq!(wake_time(at), now + 1, "{nanoseconds}");
        }
        assert_eq!(wake_time(Duration::MAX), Millis::MAX);
    }
}
