//! What has happened on a lane: its reputation, its suspensions, and since when which limit binds.

use std::collections::BTreeMap;

use relaypool_api::sending_ip::Binds;
use relaypool_bounce::{Basis, Verdict};
use serde::{Deserialize, Serialize};

use super::Dispatcher;
use super::lane::{LaneId, pacer_time};
use super::reputation::Reputation;
use crate::ledger::Millis;

/// Suspensions and recoveries that are told one by one while nobody asks; further ones are counted.
const MOST_TOLD: usize = 1_000;

/// What has happened on a lane, as far as it matters later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LaneHistory {
    /// When a message last came to an outcome.
    pub(crate) used_at: Millis,
    pub(crate) reputation: Reputation,
    /// The suspension that is not over before something is accepted again.
    pub(crate) suspension: Option<Suspension>,
    binds: Binds,
    binds_since: Millis,
}

/// A suspension, probes in between included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Suspension {
    pub(crate) since: Millis,
    pub(crate) until: Millis,
}

/// A lane was suspended, or mail flows on it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneChange {
    /// Name of the SendingIp.
    pub ip: String,
    /// Name of the site.
    pub site: String,
    /// When, in milliseconds since the Unix epoch.
    pub at: Millis,
    /// Which of the two.
    pub kind: LaneChangeKind,
}

/// What changed on a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneChangeKind {
    /// Nothing is sent for a while.
    Suspended {
        /// Until when, in milliseconds since the Unix epoch.
        until: Millis,
        /// The reply, or what went wrong.
        why: String,
    },
    /// Something was accepted again.
    Recovered {
        /// When it had been suspended, in milliseconds since the Unix epoch.
        since: Millis,
    },
}

/// Changes since somebody last asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaneChanges {
    /// One by one, oldest first; at most 1 000.
    pub told: Vec<LaneChange>,
    /// Those beyond, by SendingIp.
    pub untold: BTreeMap<String, ChangeCounts>,
}

/// Changes that are only counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChangeCounts {
    /// Suspensions.
    pub suspended: u64,
    /// Recoveries.
    pub recovered: u64,
}

impl LaneHistory {
    pub(crate) fn new(now: Millis) -> Self {
        Self {
            used_at: now,
            reputation: Reputation::default(),
            suspension: None,
            binds: Binds::NoDemand,
            binds_since: now,
        }
    }

    /// Notes which limit binds now, and says since when it does.
    pub(crate) fn bound_since(&mut self, binds: Binds, now: Millis) -> Millis {
        if self.binds != binds {
            self.binds = binds;
            self.binds_since = now;
        }
        self.binds_since
    }

    /// Counts an outcome. Only what a host said counts as a refusal: a connection that fails says nothing about esteem.
    fn count(&mut self, verdict: Option<&Verdict>, now: Millis) {
        self.used_at = now;
        match verdict {
            None => self.reputation.accepted(now),
            Some(verdict) if verdict.is_path_feedback() && verdict.basis != Basis::Failure => {
                self.reputation.refused(now);
            }
            Some(_) => {}
        }
    }

    /// Compares what is known of suspensions with what the pacer says now.
    fn notice_suspension(&mut self, until: Option<Millis>, accepted: bool, now: Millis) -> Noticed {
        match (until, self.suspension) {
            (Some(until), None) => {
                self.suspension = Some(Suspension { since: now, until });
                Noticed::Suspended(until)
            }
            (Some(until), Some(known)) if until != known.until => {
                self.suspension = Some(Suspension { until, ..known });
                // Refusals of what was on its way already belong to the same news; a probe that failed is news.
                if now >= known.until {
                    Noticed::Suspended(until)
                } else {
                    Noticed::Prolonged
                }
            }
            (None, Some(known)) if accepted => {
                self.suspension = None;
                Noticed::Recovered(known.since)
            }
            _ => Noticed::Nothing,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noticed {
    Nothing,
    Suspended(Millis),
    Prolonged,
    Recovered(Millis),
}

impl LaneChanges {
    fn push(&mut self, change: LaneChange) {
        if self.told.len() < MOST_TOLD {
            return self.told.push(change);
        }
        let counts = self.untold.entry(change.ip).or_default();
        match change.kind {
            LaneChangeKind::Suspended { .. } => counts.suspended += 1,
            LaneChangeKind::Recovered { .. } => counts.recovered += 1,
        }
    }
}

impl Dispatcher {
    /// The pacer of a lane was told of an outcome (no verdict: a message was accepted). Counts it, notices what it led to,
    /// and sees to it that it is kept.
    pub(super) fn lane_learned(&mut self, id: LaneId, verdict: Option<&Verdict>, now: Millis) {
        let lane = &mut self.lanes[id.0 as usize];
        lane.history.count(verdict, now);
        let until = lane.pacer.suspended_until(pacer_time(now));
        let until = until.map(|until| Millis::try_from(until.as_millis()).unwrap_or(Millis::MAX));
        let noticed = lane.history.notice_suspension(until, verdict.is_none(), now);
        let kind = match noticed {
            Noticed::Nothing => return self.lane_changed(id, now),
            Noticed::Prolonged => return self.keep_lane_at_once(id),
            Noticed::Suspended(until) => {
                let why = lane.last_refusal.as_ref().map(|refusal| refusal.reply.clone());
                LaneChangeKind::Suspended {
                    until,
                    why: why.unwrap_or_default(),
                }
            }
            Noticed::Recovered(since) => LaneChangeKind::Recovered { since },
        };
        let change = LaneChange {
            ip: lane.ip.clone(),
            site: lane.site.clone(),
            at: now,
            kind,
        };
        tracing::info!(ip = change.ip, site = change.site, kind = ?change.kind, "lane changed");
        self.lane_changes.push(change);
        self.keep_lane_at_once(id);
    }

    /// Suspensions and recoveries since the last call.
    pub(crate) fn take_lane_changes(&mut self) -> LaneChanges {
        std::mem::take(&mut self.lane_changes)
    }
}

#[cfg(test)]
mod tests {
    use relaypool_api::reply::Phase;
    use serde_json::json;

    use super::super::path_state::PathState;
    use super::super::test_bed::{Bed, blocked, refused};
    use super::*;
    use crate::dispatcher::Attempt;

    #[test]
    fn a_suspension_lasts_until_something_is_accepted() {
        let mut history = LaneHistory::new(0);
        assert_eq!(history.notice_suspension(None, true, 5), Noticed::Nothing);
        assert_eq!(history.notice_suspension(Some(100), false, 10), Noticed::Suspended(100));
        // What was on its way: refused as well, or accepted.
        assert_eq!(history.notice_suspension(Some(100), false, 11), Noticed::Nothing);
        assert_eq!(history.notice_suspension(Some(120), false, 12), Noticed::Prolonged);
        assert_eq!(history.notice_suspension(Some(120), true, 13), Noticed::Nothing);
        // The probe fails, the next one does not.
        assert_eq!(
            history.notice_suspension(Some(400), false, 130),
            Noticed::Suspended(400)
        );
        assert_eq!(history.notice_suspension(None, false, 410), Noticed::Nothing);
        assert_eq!(history.notice_suspension(None, true, 420), Noticed::Recovered(10));
        assert_eq!(history.suspension, None);
    }

    #[test]
    fn the_limit_that_binds_has_a_beginning() {
        let mut history = LaneHistory::new(7);
        assert_eq!(history.bound_since(Binds::NoDemand, 10), 7);
        assert_eq!(history.bound_since(Binds::LearnedRate, 20), 20);
        assert_eq!(history.bound_since(Binds::LearnedRate, 30), 20);
        assert_eq!(history.bound_since(Binds::Suspended, 40), 40);
    }

    #[test]
    fn changes_that_nobody_asks_for_are_counted() {
        let mut changes = LaneChanges::default();
        for at in 0..3_000 {
            let kind = if at % 2 == 0 {
                LaneChangeKind::Suspended {
                    until: at + 1,
                    why: String::new(),
                }
            } else {
                LaneChangeKind::Recovered { since: at }
            };
            changes.push(LaneChange {
                ip: "a".into(),
                site: "s".into(),
                at,
                kind,
            });
        }
        assert_eq!(changes.told.len(), 1_000);
        let counts = changes.untold["a"];
        assert_eq!((counts.suspended, counts.recovered), (1_000, 1_000));
    }

    #[tokio::test]
    async fn suspensions_and_recoveries_are_told() {
        let mut bed = Bed::new(&["a"]);
        bed.accept("s", 3, "moody.example", json!({})).await;
        bed.answer(|_| refused(Phase::MailFrom, "450 4.7.1 your reputation is poor"));
        let suspended_at = bed.now;
        let changes = bed.dispatcher.take_lane_changes();
        let [suspended] = &changes.told[..] else {
            panic!("all refusals together are one suspension: {changes:?}");
        };
        let LaneChangeKind::Suspended { until, why } = &suspended.kind else {
            panic!("{suspended:?}");
        };
        assert_eq!((suspended.ip.as_str(), suspended.at), ("a", suspended_at));
        assert_eq!(suspended.site, bed.site("moody.example"));
        assert_eq!(why, "450 4.7.1 your reputation is poor");
        let until = *until;

        // The probe is refused: the suspension goes on. Then one is accepted, and it is over.
        bed.pass(until - bed.now);
        assert_eq!(bed.flights().len(), 1);
        bed.answer(|_| refused(Phase::MailFrom, "450 4.7.1 your reputation is poor"));
        let changes = bed.dispatcher.take_lane_changes().told;
        let [
            LaneChange {
                kind: LaneChangeKind::Suspended { until: longer, .. },
                ..
            },
        ] = &changes[..]
        else {
            panic!("{changes:?}");
        };
        assert!(*longer > until);
        bed.pass(longer - bed.now);
        bed.answer(|_| Attempt::Accepted);
        let changes = bed.dispatcher.take_lane_changes().told;
        let kinds: Vec<_> = changes.into_iter().map(|change| change.kind).collect();
        assert_eq!(kinds, [LaneChangeKind::Recovered { since: suspended_at }]);
    }

    #[tokio::test]
    async fn a_blocked_path_is_blocked_after_a_restart_too() {
        let mut bed = Bed::new(&["a"]);
        bed.accept("s", 3, "moody.example", json!({})).await;
        bed.answer(|_| blocked());
        let standing = |bed: &mut Bed| {
            let site = bed.site("moody.example");
            let report = bed.dispatcher.sender_report(bed.now);
            let until = report.lanes[0].site.suspended_until.clone();
            (bed.dispatcher.path_state("a", &site, bed.now), until)
        };
        let before = standing(&mut bed);
        assert_eq!(before.0, PathState::Blocked);
        let mut bed = bed.restart().await;
        assert_eq!(standing(&mut bed), before);
    }
}
