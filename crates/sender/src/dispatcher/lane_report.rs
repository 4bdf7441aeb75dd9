//! What a sender tells of its lanes and itself.

use std::collections::{BTreeMap, HashMap};

use relaypool_api::sending_ip::{Binds, LaneState, Refusal, SiteStatus};

use super::Dispatcher;
use super::lane::{Lane, LastRefusal, pacer_time};
use super::pool_share::{LaneShare, PoolClaims};
use super::report::time;
use super::significant::to_three_digits;
use super::warm_up::WarmUpReport;
use crate::ledger::Millis;

/// Most lanes of one sending IP that are reported on.
pub(crate) const MOST_LANES: usize = 50;

/// Longest reply in a report, in characters: cut, not cleaned, because only the whole text tells an expert what it means.
const MAX_REPLY: usize = 500;

/// How a lane stands.
#[derive(Debug, Clone)]
pub struct LaneReport {
    /// Name of the SendingIp.
    pub ip: String,
    /// Accepted since the process started.
    pub sent: u64,
    /// Given up since the process started.
    pub failed: u64,
    /// For SendingIp.status.
    pub site: SiteStatus,
}

/// How the lanes of a sending IP stand together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct IpReport {
    /// Messages that wait in its lanes.
    pub queued: u64,
    /// Messages accepted by receiving hosts per second.
    pub delivered_per_second: f64,
    /// Lanes that are suspended.
    pub suspended: u32,
}

/// How the sender stands.
#[derive(Debug, Clone, Default)]
pub struct SenderReport {
    /// Messages that have not come to their end.
    pub queued: u64,
    /// Open connections.
    pub connections: u64,
    /// Messages taken in per second.
    pub relay_per_second: f64,
    /// Messages accepted by receiving hosts per second.
    pub delivery_per_second: f64,
    /// The busiest lanes of each sending IP that is this sender's, at most 50 each, busiest first.
    pub lanes: Vec<LaneReport>,
    /// What is known of lanes that no message has used since the process started, with their sending IP.
    pub dormant: Vec<(String, SiteStatus)>,
    /// The sending IPs that are this sender's, by name.
    pub ips: BTreeMap<String, IpReport>,
    /// Warm-ups of this sender's IPs.
    pub warm_ups: Vec<WarmUpReport>,
    /// How many lanes are in a state and held by a limit.
    pub lane_counts: HashMap<(LaneState, Binds), u64>,
    /// What it claims of pool-wide limits.
    pub pool_claims: PoolClaims,
}

/// How a lane stands, in short.
#[derive(Debug, Clone, Copy)]
struct Standing {
    state: LaneState,
    binds: Binds,
    binds_since: Millis,
    suspended_until: Option<Millis>,
    connection_limit: u32,
}

impl Dispatcher {
    /// Reports on the sender and its lanes.
    pub(crate) fn sender_report(&mut self, now: Millis) -> SenderReport {
        let mut report = SenderReport {
            queued: self.slices.values().map(|slice| u64::from(slice.unfinished)).sum(),
            connections: self.sessions.len() as u64,
            relay_per_second: self.relayed.per_second(now),
            delivery_per_second: self.delivered.per_second(now),
            ips: self.ips.keys().map(|ip| (ip.clone(), IpReport::default())).collect(),
            pool_claims: self.pool_claims(now),
            ..SenderReport::default()
        };
        let shares = self.lane_shares(now);
        let mut by_ip: BTreeMap<&str, Vec<(&Lane, Standing)>> = BTreeMap::new();
        for (lane, share) in self.lanes.iter_mut().zip(shares) {
            let standing = standing(lane, share, now);
            // The lanes of an IP that has gone to another sender are that one's to report on.
            let Some(ip) = report.ips.get_mut(&lane.ip) else {
                continue;
            };
            ip.queued += lane.queue.len() as u64;
            ip.delivered_per_second += lane.delivered.per_second(now);
            ip.suspended += u32::from(standing.state == LaneState::Suspended);
            *report.lane_counts.entry((standing.state, standing.binds)).or_default() += 1;
            by_ip.entry(&lane.ip).or_default().push((lane, standing));
        }
        let mut busiest: Vec<(&Lane, Standing)> = by_ip.into_values().flat_map(busiest).collect();
        busiest.sort_by_key(|(lane, _)| std::cmp::Reverse(busyness(lane)));
        report.lanes = busiest
            .into_iter()
            .map(|(lane, standing)| lane_report(lane, standing, now))
            .collect();
        report.warm_ups = self.warm_up_reports();
        report.dormant = self.dormant_lanes(now);
        for (ip, site) in &report.dormant {
            if let Some(ip) = report.ips.get_mut(ip) {
                ip.suspended += u32::from(site.state == LaneState::Suspended);
            }
        }
        for ip in report.ips.values_mut() {
            ip.delivered_per_second = to_three_digits(ip.delivered_per_second);
        }
        report
    }
}

fn busiest(mut lanes: Vec<(&Lane, Standing)>) -> Vec<(&Lane, Standing)> {
    if lanes.len() > MOST_LANES {
        lanes.select_nth_unstable_by_key(MOST_LANES - 1, |(lane, _)| std::cmp::Reverse(busyness(lane)));
        lanes.truncate(MOST_LANES);
    }
    lanes
}

fn busyness(lane: &Lane) -> (usize, u64) {
    (lane.queue.len(), lane.sent)
}

fn standing(lane: &mut Lane, share: LaneShare, now: Millis) -> Standing {
    let at = pacer_time(now);
    let suspended_until = lane.pacer.suspended_until(at);
    let state = match (suspended_until, lane.queue.is_empty() && lane.open == 0) {
        (Some(_), _) => LaneState::Suspended,
        (None, true) => LaneState::Idle,
        (None, false) => LaneState::Sending,
    };
    let binds = if lane.queue.is_empty() && suspended_until.is_none() {
        Binds::NoDemand
    } else if share.holds_back && suspended_until.is_none() {
        Binds::PoolShare
    } else {
        lane.pacer.binds(at)
    };
    Standing {
        state,
        binds,
        binds_since: lane.history.bound_since(binds, now),
        suspended_until: suspended_until.map(|until| Millis::try_from(until.as_millis()).unwrap_or(Millis::MAX)),
        connection_limit: lane.pacer.connection_limit().min(share.connections),
    }
}

fn lane_report(lane: &Lane, standing: Standing, now: Millis) -> LaneReport {
    LaneReport {
        ip: lane.ip.clone(),
        sent: lane.sent,
        failed: lane.failed,
        site: SiteStatus {
            site: lane.site.clone(),
            state: standing.state,
            connections: u32::try_from(lane.open).unwrap_or(u32::MAX),
            delivered_per_second: to_three_digits(lane.delivered.per_second(now)),
            rate_limit: lane.pacer.rate_limit(),
            connection_limit: Some(standing.connection_limit),
            binds: standing.binds,
            binds_since: Some(time(standing.binds_since)),
            queued: i64::try_from(lane.queue.len()).unwrap_or(i64::MAX),
            suspended_until: standing.suspended_until.map(time),
            last_refusal: lane.last_refusal.as_ref().map(refusal),
            reputation: lane.history.reputation.summary(now),
        },
    }
}

pub(super) fn refusal(refusal: &LastRefusal) -> Refusal {
    Refusal {
        at: time(refusal.at),
        reply: refusal.reply.chars().take(MAX_REPLY).collect(),
        category: refusal.category.to_owned(),
        retry_after: refusal.retry_after.map(Into::into),
    }
}
