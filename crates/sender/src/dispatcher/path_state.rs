//! Whether a lane's path is usable, blocked or dead, and what moves to another sending IP when it is blocked.

use relaypool_api::message::OnBlock;
use relaypool_api::reply::Phase;
use relaypool_bounce::{Action, Category, Verdict};
use serde::{Deserialize, Serialize};

use super::Dispatcher;
use super::attempt::Attempt;
use super::lane::{Lane, LaneId, pacer_time};
use super::run::RunId;
use super::slice::Place;
use crate::ledger::Millis;

/// How the path from one sending IP to one site is, as far as the choice of an IP goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathState {
    /// Nothing is known against it.
    Open,
    /// Its pacer holds it back: nothing gets through, or the host asked for a pause.
    Suspended,
    /// The provider refuses mail from the IP.
    Blocked,
}

/// Why a lane was last suspended. It stays until something is accepted: a suspension that is over has healed nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Trouble {
    Pause,
    Block,
}

impl Lane {
    pub(crate) fn path_state(&self, now: Millis) -> PathState {
        // When the suspension is over, one message tries the path; until that is decided the others keep away.
        let is_being_tried = self.trouble.is_some() && (self.open > 0 || !self.queue.is_empty());
        let suspended = self.pacer.suspended_until(pacer_time(now)).is_some();
        match self.trouble {
            _ if !suspended && !is_being_tried => PathState::Open,
            Some(Trouble::Block) => PathState::Blocked,
            Some(Trouble::Pause) | None => PathState::Suspended,
        }
    }

    /// Takes note of an outcome that the pacer knows already. True where it changes what the lane is good for.
    fn note_trouble(&mut self, attempt: &Attempt, verdict: Option<&Verdict>, now: Millis) -> bool {
        let before = self.trouble;
        let suspended = self.pacer.suspended_until(pacer_time(now)).is_some();
        self.trouble = match verdict {
            Some(verdict) if suspended && is_block(verdict) => Some(Trouble::Block),
            Some(_) if suspended => before.or(Some(Trouble::Pause)),
            Some(verdict) if reached_a_recipient(verdict) => None,
            None if !suspended && matches!(attempt, Attempt::Accepted) => None,
            _ => before,
        };
        self.trouble != before
    }
}

/// The provider does not want mail from this IP, for good or for now.
fn is_block(verdict: &Verdict) -> bool {
    verdict.action == Action::HoldPath || verdict.category == Category::MailBlock
}

/// The host was willing to talk about a recipient: it does not refuse everything from this IP.
fn reached_a_recipient(verdict: &Verdict) -> bool {
    !verdict.is_path_feedback() && matches!(verdict.phase, Some(Phase::RcptTo | Phase::Data | Phase::EndOfData))
}

impl Dispatcher {
    /// How the path from an IP to a site is.
    pub(crate) fn path_state(&self, ip: &str, site: &str, now: Millis) -> PathState {
        match self.lane_id(ip, site) {
            Some(lane) => self.lanes[lane.0 as usize].path_state(now),
            None => PathState::Open,
        }
    }

    /// Whether messages of a run leave from another IP when theirs is blocked.
    pub(crate) fn moves_when_blocked(&self, run: RunId) -> bool {
        let of_delivery = self.run(run).content.snapshot.on_block;
        of_delivery.unwrap_or(self.settings.on_block) == OnBlock::Move
    }

    /// An attempt on a lane is over: its path may have become usable or unusable.
    pub(crate) fn path_changed(&mut self, lane: LaneId, attempt: &Attempt, verdict: Option<&Verdict>, now: Millis) {
        if !self.lane_mut(lane).note_trouble(attempt, verdict, now) {
            return;
        }
        match self.lanes[lane.0 as usize].trouble {
            Some(Trouble::Block) => self.move_blocked(lane, now),
            Some(Trouble::Pause) => {}
            None => self.move_to_site_of(lane, now),
        }
    }

    /// Lets messages of a blocked lane that may leave from another IP find one.
    pub(crate) fn move_blocked(&mut self, lane: LaneId, now: Millis) {
        let is_blocked = self.lanes[lane.0 as usize].path_state(now) == PathState::Blocked;
        if !is_blocked || self.ips.len() < 2 || self.lane_mut(lane).queue.is_empty() {
            return;
        }
        let mut moved: u64 = 0;
        for (run, key) in self.lane_mut(lane).queue.drain() {
            if !self.is_at(key, Place::Lane) {
                continue;
            }
            if self.moves_when_blocked(run) {
                self.requeue(key);
                moved += 1;
            } else {
                self.put_back(lane, run, key);
            }
        }
        if moved > 0 {
            let lane = self.lane_mut(lane);
            tracing::info!(ip = %lane.ip, site = %lane.site, messages = moved, "blocked: messages look for another sending IP");
        }
    }

    /// Lets messages of all blocked lanes that may leave from another IP look for one.
    pub(crate) fn move_all_blocked(&mut self, now: Millis) {
        for index in 0..self.lanes.len() {
            self.move_blocked(LaneId(u32::try_from(index).expect("lanes are fewer than 2^32")), now);
        }
    }

    /// A lane has recovered: messages that are blocked on other lanes of its site may use it.
    fn move_to_site_of(&mut self, recovered: LaneId, now: Millis) {
        let site = &self.lanes[recovered.0 as usize].site;
        let others: Vec<LaneId> = self.ips.keys().filter_map(|ip| self.lane_id(ip, site)).collect();
        for lane in others {
            self.move_blocked(lane, now);
        }
    }

    fn put_back(&mut self, lane: LaneId, run: RunId, key: relaypool_spool::MessageKey) {
        match self.slot_mut(key).and_then(|slot| slot.domain()) {
            Some(domain) => {
                let priority = self.run(run).content.snapshot.priority;
                self.lane_mut(lane).queue.push(priority, run, domain, key);
            }
            None => self.requeue(key),
        }
    }
}
