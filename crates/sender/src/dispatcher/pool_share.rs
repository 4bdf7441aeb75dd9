//! This sender's shares of pool-wide limits, and how its lanes share them.
//!
//! All lanes under one limit (the sending IPs towards the site) count together: a lane opens a connection only where the
//! share has room, and takes its turn in one common rate. The sender says what it wants and what it holds in its claims.

use std::collections::{BTreeMap, HashMap, VecDeque};

use relaypool_api::mx_policy::Scope;
use relaypool_api::pool_limits::{LimitedQuantity, MOST_CLAIMS, PoolLimitClaim, PoolLimitKey};
use relaypool_api::types::RateUnit;
use relaypool_shaping::policy::{EffectivePolicy, Origin};
use relaypool_shaping::pool_shares::TURN;
use relaypool_shaping::shared_rate::SharedRate;
use relaypool_shaping::site::Site;

use super::lane::{Lane, LaneId, SessionId, pacer_time, wake_time};
use super::{Dispatcher, dismiss};
use crate::ledger::Millis;

/// A share that was used a moment ago is wanted a little longer: the next message may be on its way to its lane.
const KEPT: Millis = 2_000;
/// How long a share counts as what holds a lane back after it did.
const RECENTLY: Millis = 10_000;
/// A sender wants to send what waits within so many seconds.
const HORIZON: u64 = 10;

/// What this sender may use of pool-wide limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PoolShares {
    /// All of each: it is the only sender of its pool.
    #[default]
    Whole,
    /// What it was granted.
    Granted(GrantedShares),
}

/// What a sender was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantedShares {
    /// UID of the RelayPool that says so.
    pub pool_uid: Option<String>,
    /// The revision of the last change among them; none before the first.
    pub revision: Option<u64>,
    /// The shares; of what is not listed it has none.
    pub shares: BTreeMap<PoolLimitKey, u64>,
    /// How many limits it may claim at a time.
    pub most_claims: usize,
}

impl Default for GrantedShares {
    fn default() -> Self {
        Self {
            pool_uid: None,
            revision: None,
            shares: BTreeMap::new(),
            most_claims: MOST_CLAIMS,
        }
    }
}

/// What the sender says of pool-wide limits, all at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolClaims {
    /// UID of the RelayPool whose grants it has followed.
    pub pool_uid: Option<String>,
    /// It has followed the grants up to this revision.
    pub revision: Option<u64>,
    /// Limits that it has a share of, then those that it wants one of, most wanted first.
    pub claims: Vec<PoolLimitClaim>,
    /// How many more there would be.
    pub left_out: u64,
}

impl PoolClaims {
    /// It wants nothing and holds nothing.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty() && self.left_out == 0
    }

    /// It wants or holds something, or has had a share before.
    pub fn is_known(&self) -> bool {
        !self.is_empty() || self.revision.is_some()
    }
}

/// Place of a limit in [`PoolLimits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LimitId(u32);

/// The pool-wide limits that a lane is under.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LaneLimits {
    pub(crate) connections: Option<LimitId>,
    pub(crate) rate: Option<LimitId>,
}

/// How a lane stands with the shares that it is under.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneShare {
    /// A share is what holds it back.
    pub(crate) holds_back: bool,
    /// Connections that the sender may have under the same limit.
    pub(crate) connections: u32,
}

#[derive(Debug, Default)]
pub(crate) struct PoolLimits {
    shares: PoolShares,
    limits: Vec<Limit>,
    ids: HashMap<PoolLimitKey, LimitId>,
    /// Nothing is wanted any more.
    given_up: bool,
}

/// One pool-wide limit as this sender sees it.
#[derive(Debug)]
struct Limit {
    key: PoolLimitKey,
    /// The whole limit, by the policies that this sender knows.
    whole: u64,
    /// Open sessions under it, those being opened included.
    open: u64,
    /// Those of them that were told to end.
    leaving: u64,
    /// Lanes that wait for a connection, and since when.
    waiting: VecDeque<(LaneId, Millis)>,
    rate: Option<SharedRate>,
    wanted_at: Millis,
}

impl PoolLimits {
    fn get(&self, id: LimitId) -> &Limit {
        &self.limits[id.0 as usize]
    }

    fn get_mut(&mut self, id: LimitId) -> &mut Limit {
        &mut self.limits[id.0 as usize]
    }

    fn share(&self, id: LimitId) -> u64 {
        let limit = self.get(id);
        match &self.shares {
            PoolShares::Whole => limit.whole,
            PoolShares::Granted(granted) => granted.shares.get(&limit.key).copied().unwrap_or(0).min(limit.whole),
        }
    }

    fn ids(&self) -> impl Iterator<Item = LimitId> + use<> {
        (0..u32::try_from(self.limits.len()).expect("limits are fewer than 2^32")).map(LimitId)
    }

    /// The limit of a key, with what its policy says now.
    fn id(&mut self, key: PoolLimitKey, whole: u64, unit: Option<RateUnit>) -> LimitId {
        let next = LimitId(u32::try_from(self.limits.len()).expect("limits are fewer than 2^32"));
        let id = *self.ids.entry(key.clone()).or_insert(next);
        if id == next {
            self.limits.push(Limit {
                key,
                whole,
                open: 0,
                leaving: 0,
                waiting: VecDeque::new(),
                rate: unit.map(SharedRate::new),
                wanted_at: 0,
            });
        }
        self.get_mut(id).whole = whole;
        id
    }

    /// Sets a common rate to the share of now.
    fn adjust_rate(&mut self, id: LimitId, now: Millis) {
        let share = self.share(id);
        if let Some(rate) = &mut self.get_mut(id).rate {
            rate.change(share, pacer_time(now));
        }
    }

    /// More connections than the share allows, without those that end already.
    fn excess(&self, id: LimitId) -> u64 {
        let limit = self.get(id);
        (limit.open - limit.leaving).saturating_sub(self.share(id))
    }
}

impl Dispatcher {
    /// The pool-wide limits for mail to a site under a policy.
    pub(crate) fn lane_limits(&mut self, policy: &EffectivePolicy, site: &Site, now: Millis) -> LaneLimits {
        let key = |origin: &Origin, quantity| match origin {
            Origin::Policy { name, .. } => Some(PoolLimitKey {
                policy: name.to_string(),
                site: site.to_string(),
                quantity,
            }),
            // Built-in profiles know of single addresses only.
            Origin::Default | Origin::Profile { .. } => None,
        };
        let mut limits = LaneLimits::default();
        if policy.max_connections_scope.value == Scope::Pool {
            let whole = u64::from(policy.max_connections.value);
            limits.connections = key(&policy.max_connections.from, LimitedQuantity::Connections)
                .map(|key| self.pool_limits.id(key, whole, None));
        }
        if let (Scope::Pool, Some(rate)) = (policy.rate_scope.value, policy.rate.value) {
            limits.rate = key(&policy.rate.from, LimitedQuantity::messages_per(rate.unit()))
                .map(|key| self.pool_limits.id(key, rate.messages(), Some(rate.unit())));
        }
        if let Some(id) = limits.rate {
            self.pool_limits.adjust_rate(id, now);
        }
        limits
    }

    /// Replaces the shares. Connections over a smaller share end after the message they are at.
    pub(crate) fn set_pool_shares(&mut self, shares: PoolShares, now: Millis) {
        let before: Vec<u64> = self.pool_limits.ids().map(|id| self.pool_limits.share(id)).collect();
        self.pool_limits.shares = shares;
        for (id, before) in self.pool_limits.ids().zip(before) {
            self.pool_limits.adjust_rate(id, now);
            if before == 0 && self.pool_limits.share(id) > 0 {
                self.pool_limits.get_mut(id).wanted_at = now;
            }
            self.end_idle_sessions_over_share(id);
            self.wake_waiting(id, now);
        }
        for lane in self.lane_ids_where(|limits| limits.rate.is_some()) {
            self.work(lane, now);
        }
    }

    /// Claims nothing any more.
    pub(crate) fn give_up_pool_shares(&mut self) {
        self.pool_limits.given_up = true;
    }

    /// Puts every session under the limits that its lane is under now: policies have changed.
    pub(crate) fn recount_pool_limits(&mut self, now: Millis) {
        for limit in &mut self.pool_limits.limits {
            (limit.open, limit.leaving) = (0, 0);
        }
        for session in self.sessions.values_mut() {
            session.limit = self.lanes[session.lane.0 as usize].limits.connections;
            if let Some(id) = session.limit {
                let limit = self.pool_limits.get_mut(id);
                limit.open += 1;
                limit.leaving += u64::from(session.is_leaving);
            }
        }
        for id in self.pool_limits.ids() {
            self.end_idle_sessions_over_share(id);
            self.wake_waiting(id, now);
        }
    }

    /// Whether the share has room for another connection of the lane. A lane that has to wait is worked on when there is.
    pub(crate) fn share_lets_open(&mut self, lane: LaneId, now: Millis) -> bool {
        let Some(id) = self.lanes[lane.0 as usize].limits.connections else {
            return true;
        };
        let limit = self.pool_limits.get(id);
        let has_room = limit.open < self.pool_limits.share(id);
        let waiting = limit.waiting.iter().map(|(waiting, _)| *waiting);
        let is_its_turn = waiting
            .filter(|waiting| *waiting != lane)
            .take(1)
            .all(|first| self.open_of(lane) <= self.open_of(first));
        if has_room && is_its_turn {
            return true;
        }
        self.lane_mut(lane).held_by_share = Some(now);
        let limit = self.pool_limits.get_mut(id);
        if limit.waiting.iter().all(|(waiting, _)| *waiting != lane) {
            limit.waiting.push_back((lane, now));
        }
        if !has_room {
            self.end_idle_session_of_another(id, lane);
        }
        false
    }

    /// Whether the share of a rate lets the lane send; the lane is worked on again when it does.
    pub(crate) fn share_lets_send(&mut self, lane: LaneId, now: Millis) -> bool {
        let Some(id) = self.lanes[lane.0 as usize].limits.rate else {
            return true;
        };
        let Some(next) = self.pool_limits.get(id).rate.as_ref().map(SharedRate::next) else {
            return true;
        };
        if next.is_some_and(|next| next <= pacer_time(now)) {
            return true;
        }
        self.lane_mut(lane).held_by_share = Some(now);
        if let Some(next) = next {
            let next = wake_time(next);
            // Lanes that wait for one moment would else always come in the same order, and the last of them never.
            let others = self.lane_ids_where(|limits| limits.rate == Some(id)).len() as u64 - 1;
            self.wake(lane, next + rand::random_range(0..=others.min(20)));
        }
        false
    }

    /// A message leaves: its turn in the common rate is taken.
    pub(crate) fn take_from_shared_rate(&mut self, lane: LaneId, now: Millis) {
        let Some(id) = self.lanes[lane.0 as usize].limits.rate else {
            return;
        };
        if let Some(rate) = &mut self.pool_limits.get_mut(id).rate {
            rate.take(pacer_time(now));
        }
    }

    /// A session of a lane begins. Returns the limit that it counts under.
    pub(crate) fn count_session(&mut self, lane: LaneId) -> Option<LimitId> {
        let id = self.lanes[lane.0 as usize].limits.connections?;
        self.pool_limits.get_mut(id).open += 1;
        Some(id)
    }

    /// A session is over: its place goes to whoever has waited longest.
    pub(crate) fn share_freed(&mut self, limit: Option<LimitId>, was_leaving: bool, now: Millis) {
        let Some(id) = limit else { return };
        let limit = self.pool_limits.get_mut(id);
        limit.open -= 1;
        limit.leaving -= u64::from(was_leaving);
        self.wake_waiting(id, now);
    }

    /// Whether a session has to go: there are more than the share allows, or another lane has fewer or has waited long.
    pub(crate) fn share_is_wanted_back(&self, id: SessionId, now: Millis) -> bool {
        let session = &self.sessions[&id];
        let Some(limit_id) = session.limit else { return false };
        if self.pool_limits.excess(limit_id) > 0 {
            return true;
        }
        let limit = self.pool_limits.get(limit_id);
        let another = limit.waiting.iter().find(|(waiting, _)| *waiting != session.lane);
        another.is_some_and(|(waiting, since)| {
            let has_waited_long = pacer_time(now.saturating_sub(*since)) >= TURN;
            limit.leaving == 0
                && limit.open >= self.pool_limits.share(limit_id)
                && (has_waited_long || self.open_of(session.lane) >= self.open_of(*waiting) + 2)
        })
    }

    /// Whether a session that finds no message should end rather than wait for one: another lane could use its place.
    pub(crate) fn place_is_waited_for(&self, id: SessionId) -> bool {
        let session = &self.sessions[&id];
        let Some(limit) = session.limit.map(|id| self.pool_limits.get(id)) else {
            return false;
        };
        let others = limit.waiting.iter().filter(|(waiting, _)| *waiting != session.lane);
        others.count() as u64 > limit.leaving && self.lanes[session.lane.0 as usize].queue.is_empty()
    }

    /// A session is told to end.
    pub(crate) fn session_leaves(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.is_leaving) else {
            return;
        };
        session.is_leaving = true;
        if let Some(limit) = session.limit {
            self.pool_limits.get_mut(limit).leaving += 1;
        }
    }

    /// How each lane stands with the shares that it is under.
    pub(crate) fn lane_shares(&self, now: Millis) -> Vec<LaneShare> {
        let share = |(index, lane): (u32, &Lane)| {
            let limit = lane.limits.connections;
            let waits = limit.is_some_and(|id| {
                let waiting = &self.pool_limits.get(id).waiting;
                waiting.iter().any(|(waiting, _)| *waiting == LaneId(index))
            });
            let connections = limit.map(|id| self.pool_limits.share(id));
            LaneShare {
                holds_back: waits || lane.held_by_share.is_some_and(|at| now < at + RECENTLY),
                connections: connections.map_or(u32::MAX, |share| u32::try_from(share).unwrap_or(u32::MAX)),
            }
        };
        (0_u32..).zip(&self.lanes).map(share).collect()
    }

    /// What the sender wants and holds of each limit.
    pub(crate) fn pool_claims(&mut self, now: Millis) -> PoolClaims {
        let PoolShares::Granted(granted) = &self.pool_limits.shares else {
            return PoolClaims::default();
        };
        let (pool_uid, revision, most) = (granted.pool_uid.clone(), granted.revision, granted.most_claims);
        let wanted = self.wanted_of_limits(now);
        let mut claims: Vec<PoolLimitClaim> = self
            .pool_limits
            .ids()
            .zip(wanted)
            .filter_map(|(id, wanted)| self.claim(id, wanted, now))
            .collect();
        claims.sort_by_key(|claim| (claim.held == 0, std::cmp::Reverse(claim.wanted)));
        let left_out = claims.len().saturating_sub(most) as u64;
        claims.truncate(most);
        claims.sort_by_key(PoolLimitClaim::key);
        PoolClaims {
            pool_uid,
            revision,
            claims,
            left_out,
        }
    }

    fn claim(&mut self, id: LimitId, wanted: u64, now: Millis) -> Option<PoolLimitClaim> {
        let share = self.pool_limits.share(id);
        let is_given_up = self.pool_limits.given_up;
        let limit = self.pool_limits.get_mut(id);
        if wanted > 0 {
            limit.wanted_at = now;
        }
        let is_kept = now < limit.wanted_at + KEPT && !is_given_up;
        let wanted = match wanted {
            0 if is_kept => share,
            wanted => wanted.min(limit.whole),
        };
        let held = match &limit.rate {
            Some(rate) => rate.held(pacer_time(now)),
            None => share.max(limit.open),
        };
        (wanted > 0 || held > 0).then(|| PoolLimitClaim {
            policy: limit.key.policy.clone(),
            site: limit.key.site.clone(),
            quantity: limit.key.quantity,
            wanted,
            held,
        })
    }

    /// What the lanes under each limit could use, in the order of the limits.
    fn wanted_of_limits(&self, now: Millis) -> Vec<u64> {
        let mut wanted = vec![0_u64; self.pool_limits.limits.len()];
        for lane in &self.lanes {
            let waiting = lane.queue.len() as u64;
            let busy = lane.busy() as u64;
            let is_usable = self.ips.get(&lane.ip).is_some_and(|ip| !ip.suspended);
            let is_suspended = lane.pacer.suspended_until(pacer_time(now)).is_some();
            if self.pool_limits.given_up || !is_usable || is_suspended {
                continue;
            }
            if let Some(id) = lane.limits.connections {
                // A lane that uses all it has learned may learn that it can have more.
                let learned = u64::from(lane.pacer.connection_limit());
                let most = if busy < learned { learned } else { 2 * learned };
                wanted[id.0 as usize] += (waiting + busy).min(most);
            }
            if let Some(id) = lane.limits.rate {
                let unit = self
                    .pool_limits
                    .get(id)
                    .key
                    .quantity
                    .unit()
                    .map_or(1, RateUnit::seconds);
                let in_time = (waiting + busy).saturating_mul(unit / unit.min(HORIZON));
                wanted[id.0 as usize] = wanted[id.0 as usize].saturating_add(in_time);
            }
        }
        wanted
    }

    /// Lets lanes that wait for a connection open one each, as long as there is room.
    fn wake_waiting(&mut self, id: LimitId, now: Millis) {
        while self.pool_limits.get(id).open < self.pool_limits.share(id) {
            let Some((lane, _)) = self.pool_limits.get_mut(id).waiting.pop_front() else {
                return;
            };
            self.work(lane, now);
        }
    }

    /// Connections that nobody uses must not keep another sender waiting.
    fn end_idle_sessions_over_share(&mut self, id: LimitId) {
        if self.pool_limits.excess(id) == 0 {
            return;
        }
        for lane in self.lane_ids_where(|limits| limits.connections == Some(id)) {
            while self.pool_limits.excess(id) > 0 && self.end_idle_session(lane) {}
        }
    }

    /// Nor another lane of this sender.
    fn end_idle_session_of_another(&mut self, id: LimitId, lane: LaneId) {
        if self.pool_limits.get(id).leaving > 0 {
            return;
        }
        let lanes = self.lane_ids_where(|limits| limits.connections == Some(id));
        for other in lanes {
            let has_work = !self.lanes[other.0 as usize].queue.is_empty();
            if other != lane && !has_work && self.end_idle_session(other) {
                return;
            }
        }
    }

    /// True when there was one.
    fn end_idle_session(&mut self, lane: LaneId) -> bool {
        while let Some(session) = self.lane_mut(lane).next_idle() {
            let waiting = self
                .sessions
                .get_mut(&session)
                .and_then(|session| session.waiting.take());
            if let Some(waiting) = waiting {
                self.session_leaves(session);
                dismiss(waiting);
                return true;
            }
        }
        false
    }

    fn open_of(&self, lane: LaneId) -> usize {
        self.lanes[lane.0 as usize].open
    }

    fn lane_ids_where(&self, fits: impl Fn(&LaneLimits) -> bool) -> Vec<LaneId> {
        (0_u32..)
            .zip(&self.lanes)
            .filter(|(_, lane)| fits(&lane.limits))
            .map(|(index, _)| LaneId(index))
            .collect()
    }
}
