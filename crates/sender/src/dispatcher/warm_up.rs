//! The warm-up of this sender's IPs: what may leave today, what was reserved for it on disk, and where the rest goes.
//!
//! Room is checked when a message would leave and taken in the same step, so no sequence of events exceeds it. What finds
//! none in the lane of one IP is routed anew once: to another IP of this sender that has room, where its Delivery allows
//! that, else back into the same lane, where it waits for the next day without using up an attempt.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use relaypool_api::SendingIp;
use relaypool_api::reply::Phase;
use relaypool_api::sending_ip::{WarmUp as WarmUpSpec, WarmUpStatus};
use relaypool_bounce::{Action, Failure, Verdict};
use relaypool_shaping::site::{Site, best_preference};
use relaypool_shaping::warm_up::{
    DayEnd, Destination, Plan, Record, Refused, Reservation, Room, Settled, Taken, WARM, WarmUp,
};
use relaypool_spool::{Batch, MessageKey};

use super::attempt::Attempt;
use super::lane::{LaneId, pacer_time, wake_time};
use super::timers::Timer;
use super::{Dispatcher, Effect};
use crate::ledger::Millis;
use crate::resolver::Route;

/// Names of the notes in the spool begin with it; the address follows, because reputation belongs to the address.
const NOTE: &str = "warm-up/";

/// The warm-up of a sending IP, as it is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct WarmUpStart {
    /// The schedule.
    pub spec: WarmUpSpec,
    /// What the status of the SendingIp said when this sender got it: how far another sender had come.
    pub known: Option<WarmUpStatus>,
}

/// How the warm-up of an IP stands.
#[derive(Debug, Clone, PartialEq)]
pub struct WarmUpReport {
    /// Name of the SendingIp.
    pub ip: String,
    /// For SendingIp.status.
    pub status: WarmUpStatus,
}

/// The warm-ups of all IPs that have one, by name of the SendingIp.
#[derive(Debug, Default)]
pub(super) struct WarmUps {
    by_ip: BTreeMap<String, IpWarmUp>,
    /// The earliest wake-up that is set.
    woken_at: Option<Millis>,
}

#[derive(Debug)]
struct IpWarmUp {
    address: IpAddr,
    spec: WarmUpSpec,
    warm_up: WarmUp,
    /// Lanes that found no room.
    waiting: BTreeSet<LaneId>,
}

impl WarmUpStart {
    /// The warm-up that a SendingIp asks for, if any.
    pub(super) fn of(object: &SendingIp) -> Option<Self> {
        Some(Self {
            spec: object.spec.warm_up.clone()?,
            known: object.status.as_ref().and_then(|status| status.warm_up.clone()),
        })
    }
}

/// What a provider is told apart by, for a route.
pub(super) fn destination(route: &Route) -> Destination {
    let hosts = best_preference(route.hosts.iter().map(|host| (host.preference, &host.name)));
    Destination {
        site: Site::of(&hosts),
        hosts,
    }
}

impl Dispatcher {
    /// Takes up the warm-ups of the IPs that are new, changes those whose schedule did, and lets go of the others.
    pub(super) fn set_warm_ups(&mut self, now: Millis) {
        let wanted: BTreeMap<String, (IpAddr, WarmUpStart, Plan)> = self
            .ips
            .values()
            .filter_map(|ip| {
                let start = ip.warm_up.clone()?;
                let plan = Plan::of(Some(&start.spec))?;
                Some((ip.name.clone(), (ip.address, start, plan)))
            })
            .collect();
        let gone: Vec<String> = self
            .warm_ups
            .by_ip
            .keys()
            .filter(|ip| !wanted.contains_key(*ip))
            .cloned()
            .collect();
        for ip in gone {
            self.release_warm_up(&ip);
            self.warm_ups.by_ip.remove(&ip);
        }
        for (ip, (address, start, plan)) in wanted {
            match self.warm_ups.by_ip.get_mut(&ip) {
                Some(present) if present.spec == start.spec => {}
                Some(present) => {
                    present.spec = start.spec;
                    present.warm_up.set_plan(plan);
                }
                None => {
                    let warm_up = self.begin_warm_up(address, &start, plan, now);
                    let present = IpWarmUp {
                        address,
                        spec: start.spec,
                        warm_up,
                        waiting: BTreeSet::new(),
                    };
                    self.warm_ups.by_ip.insert(ip.clone(), present);
                }
            }
            self.record_warm_up(&ip, false);
        }
        for lane in &mut self.lanes {
            // There may be an IP now for what found none.
            lane.overflowed = None;
        }
        self.days_pass(now);
    }

    /// Goes on where the spool, or the sender before, left off.
    fn begin_warm_up(&self, address: IpAddr, start: &WarmUpStart, plan: Plan, now: Millis) -> WarmUp {
        let shown = start.known.as_ref().and_then(Record::from_status);
        let kept = match self.spool.note(&note(address)) {
            Ok(note) => note.map(|bytes| serde_json::from_slice::<Record>(&bytes).map_err(|error| error.to_string())),
            Err(error) => Some(Err(error.to_string())),
        };
        let now = pacer_time(now);
        match (kept, shown) {
            (None, shown) => WarmUp::new(plan, shown, now),
            (Some(Ok(kept)), None) => WarmUp::new(plan, Some(kept), now),
            (Some(Ok(kept)), Some(shown)) => WarmUp::new(plan, Some(kept.later(shown)), now),
            (Some(Err(error)), shown) => {
                tracing::error!(%address, error, "what is known of the warm-up cannot be read: nothing more leaves today");
                WarmUp::with_day_spent(plan, shown, now)
            }
        }
    }

    /// Whether something may leave from an IP for a destination now or in a moment. For the choice of an IP.
    pub(super) fn has_room(&self, ip: &str, destination: &Destination, now: Millis) -> bool {
        match self.room(ip, destination) {
            Room::Unlimited | Room::Free(_) | Room::Reserving => true,
            // A day that is over ends with the next look at it.
            Room::Until(at) => at <= pacer_time(now),
        }
    }

    fn room(&self, ip: &str, destination: &Destination) -> Room {
        let warm_up = self.warm_ups.by_ip.get(ip);
        warm_up.map_or(Room::Unlimited, |of_ip| of_ip.warm_up.room(destination))
    }

    /// Whether the next message of a lane may leave now. Where not, the lane is woken as soon as there is room, and what waits
    /// in it goes to another IP if it can.
    pub(super) fn warm_up_lets(&mut self, lane: LaneId, now: Millis) -> bool {
        let ip = self.lane_mut(lane).ip.clone();
        let Some(of_ip) = self.warm_ups.by_ip.get_mut(&ip) else {
            return true;
        };
        let end = of_ip.warm_up.pass(pacer_time(now));
        if let Some(end) = end {
            self.day_ended(&ip, &end);
        }
        let room = self.room(&ip, &self.lanes[lane.0 as usize].destination);
        match room {
            Room::Unlimited | Room::Free(_) => return true,
            Room::Reserving => self.record_warm_up(&ip, true),
            Room::Until(at) => self.hold_for_warm_up(lane, at, now),
        }
        if let Some(of_ip) = self.warm_ups.by_ip.get_mut(&ip) {
            of_ip.waiting.insert(lane);
        }
        false
    }

    fn hold_for_warm_up(&mut self, id: LaneId, at: Duration, now: Millis) {
        let lane = self.lane_mut(id);
        lane.pacer.hold_for_warm_up(pacer_time(now), at);
        let until = wake_time(at);
        let handed_over = lane.overflowed == Some(until);
        self.wake(id, until);
        // Once a day: what comes back could go nowhere else, and would come back again.
        if !handed_over && self.another_has_room(id, now) {
            self.lane_mut(id).overflowed = Some(until);
            self.empty_lane(id);
        }
    }

    fn another_has_room(&self, lane: LaneId, now: Millis) -> bool {
        let lane = &self.lanes[lane.0 as usize];
        let mut others = self.ips.values().filter(|ip| ip.name != lane.ip && !ip.suspended);
        others.any(|ip| self.has_room(&ip.name, &lane.destination, now))
    }

    /// Takes room for a message that leaves now.
    pub(super) fn take_room(&mut self, lane: LaneId) -> Option<Taken> {
        let lane = &self.lanes[lane.0 as usize];
        let ip = lane.ip.clone();
        let taken = self.warm_ups.by_ip.get_mut(&ip)?.warm_up.take(&lane.destination);
        // In good time, so that the next need not wait for the disk.
        self.record_warm_up(&ip, true);
        taken
    }

    /// What became of a message that had taken room.
    pub(super) fn settle_room(
        &mut self,
        key: MessageKey,
        lane: LaneId,
        taken: Taken,
        attempt: &Attempt,
        verdict: Option<&Verdict>,
        now: Millis,
    ) {
        let settled = self.settled(key, attempt, verdict);
        let lane = &self.lanes[lane.0 as usize];
        let ip = lane.ip.clone();
        let Some(of_ip) = self.warm_ups.by_ip.get_mut(&ip) else {
            return;
        };
        of_ip.warm_up.settle(taken, settled);
        if let (Attempt::Refused { reply, .. }, Some(verdict)) = (attempt, verdict) {
            let refused = Refused {
                verdict,
                reply: &reply.to_string(),
                waiting: u64::try_from(lane.queue.len()).unwrap_or(u64::MAX),
            };
            if of_ip.warm_up.refused(&lane.destination, refused, pacer_time(now)) {
                tracing::warn!(ip, site = lane.site, reply = %reply, "the warm-up is held at its stage");
            }
        }
        self.record_warm_up(&ip, false);
        if settled == Settled::NotSent {
            self.work_waiting(&ip, now);
        }
    }

    /// A message that had taken room never left.
    pub(super) fn give_room_back(&mut self, lane: LaneId, taken: Taken, now: Millis) {
        let ip = self.lane_mut(lane).ip.clone();
        if let Some(of_ip) = self.warm_ups.by_ip.get_mut(&ip) {
            of_ip.warm_up.settle(taken, Settled::NotSent);
            self.work_waiting(&ip, now);
        }
    }

    /// The schedule counts messages, not attempts: one that is asked to come again before its content was taken gets its
    /// room then. One that was refused for good was sent all the same, and so was one of which nobody knows.
    fn settled(&self, key: MessageKey, attempt: &Attempt, verdict: Option<&Verdict>) -> Settled {
        match attempt {
            // A test ends before the content: no message was delivered.
            Attempt::Accepted if self.is_test(key) => Settled::Used,
            Attempt::Accepted => Settled::Delivered,
            Attempt::Refused { phase, .. } => {
                let for_good = verdict.is_some_and(|verdict| verdict.action == Action::Fail);
                if for_good || *phase == Phase::EndOfData {
                    Settled::Used
                } else {
                    Settled::NotSent
                }
            }
            Attempt::Failed { failure, .. } => match failure {
                Failure::Timeout(Phase::EndOfData)
                | Failure::ConnectionLost(Phase::EndOfData)
                | Failure::BadReply(Phase::EndOfData) => Settled::Used,
                _ => Settled::NotSent,
            },
            Attempt::Ignored { .. } => Settled::NotSent,
        }
    }

    fn is_test(&self, key: MessageKey) -> bool {
        let slice = self.slices.get(&key.slice);
        slice.is_some_and(|slice| self.run(slice.run).content.snapshot.test_mode)
    }

    /// Puts on disk what is to be there, and reserves room for what wants to leave.
    fn record_warm_up(&mut self, ip: &str, wanted: bool) {
        let Some(of_ip) = self.warm_ups.by_ip.get_mut(ip) else {
            return;
        };
        let Some(record) = of_ip.warm_up.reservation(wanted) else {
            return;
        };
        let reservation = Reservation::from(&record);
        let commit = self.spool.submit_now(batch(of_ip.address, &record));
        self.effects.push(Effect::Reserve(ip.to_owned(), reservation, commit));
    }

    /// A record is on disk.
    pub(crate) fn room_reserved(&mut self, ip: &str, reservation: Reservation, now: Millis) {
        let of_ip = self.warm_ups.by_ip.get_mut(ip);
        if of_ip.is_some_and(|of_ip| of_ip.warm_up.recorded(reservation)) {
            self.work_waiting(ip, now);
        }
    }

    fn work_waiting(&mut self, ip: &str, now: Millis) {
        let Some(of_ip) = self.warm_ups.by_ip.get_mut(ip) else {
            return;
        };
        for lane in std::mem::take(&mut of_ip.waiting) {
            self.work(lane, now);
        }
    }

    /// Ends the days that are over, and sets the wake-up for the next to end.
    pub(super) fn days_pass(&mut self, now: Millis) {
        let at = pacer_time(now);
        let mut ended = Vec::new();
        for (ip, of_ip) in &mut self.warm_ups.by_ip {
            ended.extend(of_ip.warm_up.pass(at).map(|end| (ip.clone(), end)));
        }
        for (ip, end) in ended {
            self.day_ended(&ip, &end);
            self.work_waiting(&ip, now);
        }
        let ends = self
            .warm_ups
            .by_ip
            .values()
            .filter_map(|of_ip| of_ip.warm_up.day_ends());
        if let Some(next) = ends.min() {
            let next = wake_time(next);
            if self.warm_ups.woken_at.is_none_or(|set| set <= now || next < set) {
                self.warm_ups.woken_at = Some(next);
                self.timers.set(next, Timer::WarmUps);
            }
        }
    }

    fn day_ended(&mut self, ip: &str, end: &DayEnd) {
        match end {
            DayEnd::Advanced(stage) => tracing::info!(ip, stage, "the warm-up goes on to its next stage"),
            DayEnd::Warm => tracing::info!(ip, "the warm-up is over: the address is warm"),
            DayEnd::Held(refusal) => {
                tracing::warn!(ip, refusal, "the warm-up repeats its stage: a provider refused mail")
            }
            DayEnd::TooFew => tracing::info!(ip, "the warm-up repeats its stage: too few messages were delivered"),
        }
        self.record_warm_up(ip, false);
    }

    /// Puts on disk exactly what was used: nothing leaves any more.
    pub(crate) fn release_warm_ups(&mut self) {
        let ips: Vec<String> = self.warm_ups.by_ip.keys().cloned().collect();
        for ip in ips {
            self.release_warm_up(&ip);
        }
    }

    fn release_warm_up(&mut self, ip: &str) {
        if let Some(of_ip) = self.warm_ups.by_ip.get_mut(ip) {
            let record = of_ip.warm_up.released();
            // Where it does not get there, the reservation before counts as used.
            drop(self.spool.submit_now(batch(of_ip.address, &record)));
            self.metrics.forget_warm_up(ip);
        }
    }

    /// How the warm-ups of all IPs stand; one without says that it is warm.
    pub(super) fn warm_up_reports(&self) -> Vec<WarmUpReport> {
        let report = |ip: &String| {
            let Some(of_ip) = self.warm_ups.by_ip.get(ip) else {
                return WarmUpStatus {
                    progress: WARM.to_owned(),
                    ..WarmUpStatus::default()
                };
            };
            match of_ip.warm_up.limit() {
                Some(limit) => self.metrics.set_warm_up(ip, of_ip.warm_up.sent(), limit),
                None => self.metrics.forget_warm_up(ip),
            }
            of_ip.warm_up.status()
        };
        self.ips
            .keys()
            .map(|ip| WarmUpReport {
                ip: ip.clone(),
                status: report(ip),
            })
            .collect()
    }
}

fn note(address: IpAddr) -> String {
    format!("{NOTE}{address}")
}

fn batch(address: IpAddr, record: &Record) -> Batch {
    let json = serde_json::to_vec(record).expect("a record of plain fields always serialises");
    let mut batch = Batch::new();
    batch.set_note(note(address), json);
    batch
}

#[cfg(test)]
mod tests;
