//! What a sender tells of its slices, its lanes and itself.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use relaypool_api::delivery::{DomainProgress, LogStatus, ReasonCount};
use relaypool_api::delivery_slice::{DeliverySliceStatus, MessageDetail, SlicePhase, StatusRanges};
use relaypool_api::index_ranges::IndexRanges;
use relaypool_api::sending_ip::{Binds, LaneState, Refusal, SiteStatus};
use relaypool_spool::SliceNumber;

use super::Dispatcher;
use super::lane::{Lane, pacer_time};
use super::run::Signing;
use super::slice::{DomainId, Slice, Slot};
use super::warm_up::WarmUpReport;
use crate::ledger::{MessageStatus, Millis};

/// Most bytes of message details in one status, as JSON: the whole status stays below 64 KB.
const DETAIL_BYTES: usize = 40_000;
/// Deliveries of up to so many recipients list each message.
const LISTED_MESSAGES: usize = 100;
/// Most reasons and most domains in one status.
const MOST_ENTRIES: usize = 50;

/// The status of one slice.
#[derive(Debug, Clone)]
pub struct SliceReport {
    /// UID of the DeliverySlice.
    pub id: String,
    /// Name of the DeliverySlice.
    pub name: String,
    /// UID of the Delivery.
    pub delivery_uid: String,
    /// Whether every message has come to its end.
    pub finished: bool,
    /// Keys that the slice waits for, where it does.
    pub missing_keys: Vec<String>,
    /// The status, without conditions.
    pub status: DeliverySliceStatus,
}

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
    /// Lanes that were ever used, busiest first.
    pub lanes: Vec<LaneReport>,
    /// Warm-ups of this sender's IPs.
    pub warm_ups: Vec<WarmUpReport>,
}

impl Dispatcher {
    /// Reports on every slice.
    pub(crate) fn all_slice_reports(&self, now: Millis) -> Vec<SliceReport> {
        self.slices
            .values()
            .map(|slice| self.slice_report(slice, now))
            .collect()
    }

    /// Reports on at most so many slices that are due: whose phase is new, and those that changed and were not reported on
    /// for `interval` milliseconds.
    pub(crate) fn due_slice_reports(&mut self, interval: Millis, at_most: usize, now: Millis) -> Vec<SliceReport> {
        let mut due: Vec<(bool, Millis, SliceNumber)> = self
            .slices
            .values()
            .filter(|slice| slice.dirty)
            .map(|slice| {
                let phase_is_new = slice.reported_phase != Some(self.phase(slice));
                (!phase_is_new, slice.reported_at, slice.number)
            })
            .filter(|(is_progress, reported_at, _)| !is_progress || now >= reported_at + interval)
            .collect();
        due.sort_unstable();
        due.truncate(at_most);
        due.into_iter()
            .map(|(_, _, number)| self.report_on(number, now))
            .collect()
    }

    fn report_on(&mut self, number: SliceNumber, now: Millis) -> SliceReport {
        let report = self.slice_report(&self.slices[&number], now);
        if let Some(slice) = self.slices.get_mut(&number) {
            slice.dirty = false;
            slice.reported_at = now;
            slice.reported_phase = report.status.phase;
        }
        report
    }

    fn phase(&self, slice: &Slice) -> SlicePhase {
        match &self.run(slice.run).signing {
            _ if slice.unfinished == 0 => SlicePhase::Finished,
            Signing::Missing(_) => SlicePhase::Waiting,
            Signing::Ready(_) => SlicePhase::Accepted,
        }
    }

    /// Asks for a slice to be reported on again: the report did not get through.
    pub(crate) fn report_again(&mut self, id: &str) {
        if let Some(slice) = self.slice_ids.get(id).and_then(|number| self.slices.get_mut(number)) {
            slice.dirty = true;
            slice.reported_phase = None;
        }
    }

    /// Reports on the sender and its lanes.
    pub(crate) fn sender_report(&mut self, now: Millis) -> SenderReport {
        let mut lanes: Vec<LaneReport> = (0..self.lanes.len())
            .map(|index| self.lane_report(index, now))
            .collect();
        lanes.sort_by_key(|lane| std::cmp::Reverse((lane.site.queued, lane.sent)));
        SenderReport {
            queued: self.slices.values().map(|slice| u64::from(slice.unfinished)).sum(),
            connections: self.sessions.len() as u64,
            relay_per_second: self.relayed.per_second(now),
            delivery_per_second: self.delivered.per_second(now),
            lanes,
            warm_ups: self.warm_up_reports(),
        }
    }

    fn slice_report(&self, slice: &Slice, now: Millis) -> SliceReport {
        let run = self.run(slice.run);
        let missing_keys = match &run.signing {
            Signing::Missing(keys) if slice.unfinished > 0 => {
                keys.iter().map(relaypool_api::names::signing_key_entry).collect()
            }
            _ => Vec::new(),
        };
        SliceReport {
            id: slice.id.clone(),
            name: slice.name.clone(),
            delivery_uid: run.delivery_uid.clone(),
            finished: slice.unfinished == 0,
            missing_keys,
            status: DeliverySliceStatus {
                observed_generation: None,
                conditions: Vec::new(),
                phase: Some(self.phase(slice)),
                accepted_at: Some(time(slice.accepted_at)),
                finished_at: slice.finished_at.map(time),
                ranges: Some(ranges(&slice.slots)),
                reasons: reasons(&slice.slots),
                details: details(&slice.slots),
                domains: self.domain_progress(slice, now),
            },
        }
    }

    fn domain_progress(&self, slice: &Slice, now: Millis) -> Vec<DomainProgress> {
        let mut by_domain: HashMap<Option<DomainId>, DomainProgress> = HashMap::new();
        for slot in &slice.slots {
            let progress = by_domain.entry(slot.domain()).or_insert_with(|| DomainProgress {
                domain: slot
                    .domain()
                    .map_or_else(|| "other".to_owned(), |domain| self.domain_name(domain).to_string()),
                total: 0,
                sent: 0,
                waiting: 0,
                failed: 0,
                per_second: slot
                    .domain()
                    .and_then(|domain| slice.meters.get(&domain))
                    .map_or(0.0, |meter| meter.per_second(now)),
            });
            progress.total += 1;
            match slot.status {
                MessageStatus::Waiting => progress.waiting += 1,
                MessageStatus::Sent => progress.sent += 1,
                MessageStatus::Failed => progress.failed += 1,
                MessageStatus::Ignored | MessageStatus::Canceled => {}
            }
        }
        largest_domains(by_domain.into_values().collect())
    }

    fn lane_report(&mut self, index: usize, now: Millis) -> LaneReport {
        let lane = &mut self.lanes[index];
        let at = pacer_time(now);
        let suspended_until = lane.pacer.suspended_until(at);
        let state = match (suspended_until, lane.queue.is_empty() && lane.open == 0) {
            (Some(_), _) => LaneState::Suspended,
            (None, true) => LaneState::Idle,
            (None, false) => LaneState::Sending,
        };
        let binds = if lane.queue.is_empty() && suspended_until.is_none() {
            Binds::NoDemand
        } else {
            lane.pacer.binds(at)
        };
        LaneReport {
            ip: lane.ip.clone(),
            sent: lane.sent,
            failed: lane.failed,
            site: SiteStatus {
                site: lane.site.clone(),
                state,
                connections: u32::try_from(lane.open).unwrap_or(u32::MAX),
                delivered_per_second: lane.delivered.per_second(now),
                rate_limit: lane.policy.rate.value,
                connection_limit: Some(lane.pacer.connection_limit()),
                binds,
                queued: i64::try_from(lane.queue.len()).unwrap_or(i64::MAX),
                suspended_until: suspended_until.map(|until| time(Millis::try_from(until.as_millis()).unwrap_or(now))),
                last_refusal: last_refusal(lane),
            },
        }
    }
}

fn last_refusal(lane: &Lane) -> Option<Refusal> {
    let refusal = lane.last_refusal.as_ref()?;
    Some(Refusal {
        at: time(refusal.at),
        reply: refusal.reply.chars().take(500).collect(),
        category: refusal.category.to_owned(),
        retry_after: refusal.retry_after.map(Into::into),
    })
}

fn ranges(slots: &[Slot]) -> StatusRanges {
    let of = |status: MessageStatus| {
        let positions = (0_u64..)
            .zip(slots)
            .filter(|(_, slot)| slot.status == status)
            .map(|(position, _)| position);
        positions.collect::<IndexRanges>().to_string()
    };
    StatusRanges {
        waiting: of(MessageStatus::Waiting),
        sent: of(MessageStatus::Sent),
        failed: of(MessageStatus::Failed),
        ignored: of(MessageStatus::Ignored),
        canceled: of(MessageStatus::Canceled),
    }
}

fn reasons(slots: &[Slot]) -> Vec<ReasonCount> {
    type Key<'a> = (LogStatus, &'a str, Option<u16>, Option<&'a str>);
    let mut counts: BTreeMap<Key<'_>, u64> = BTreeMap::new();
    for slot in slots {
        if let Some(last) = slot.last.as_deref() {
            let key = (
                log_status(slot.status),
                last.reason.as_str(),
                last.bounce_code,
                last.category.as_deref(),
            );
            *counts.entry(key).or_default() += 1;
        }
    }
    let mut counts: Vec<ReasonCount> = counts
        .into_iter()
        .map(|((status, reason, bounce_code, category), count)| ReasonCount {
            status,
            reason: reason.to_owned(),
            bounce_code,
            category: category.map(str::to_owned),
            count,
        })
        .collect();
    counts.sort_by_key(|reason| std::cmp::Reverse(reason.count));
    counts.truncate(MOST_ENTRIES);
    counts
}

/// Details of messages with something to tell: those at their end first, then those that wait; within the byte budget.
fn details(slots: &[Slot]) -> Vec<MessageDetail> {
    // Where each message is listed one by one, the reader wants to know about the uneventful ones too.
    let few = slots.len() <= LISTED_MESSAGES;
    let told = |slot: &Slot| slot.last.is_some() || slot.attempts > 1 || (few && slot.attempts > 0);
    let at_end = (0_u32..)
        .zip(slots)
        .filter(|(_, slot)| told(slot) && slot.status != MessageStatus::Waiting);
    let waiting = (0_u32..)
        .zip(slots)
        .filter(|(_, slot)| told(slot) && slot.status == MessageStatus::Waiting);
    let mut bytes = 0;
    let mut details: Vec<MessageDetail> = at_end
        .chain(waiting)
        .map(|(position, slot)| MessageDetail {
            position,
            attempts: u32::from(slot.attempts),
            reason: slot.last.as_ref().map(|last| last.reason.clone()),
            reply: slot
                .last
                .as_ref()
                .map(|last| last.reply.clone())
                .filter(|reply| !reply.is_empty()),
            next_attempt: (slot.due > 0).then(|| time(slot.due)),
        })
        .take_while(|detail| {
            // Names of fields and quotes come to about 100 bytes; JSON escapes may double a reply.
            bytes +=
                100 + detail.reason.as_ref().map_or(0, String::len) + 2 * detail.reply.as_ref().map_or(0, String::len);
            bytes <= DETAIL_BYTES
        })
        .collect();
    details.sort_by_key(|detail| detail.position);
    details
}

/// The domains with most messages, the rest summed up as `other`.
fn largest_domains(mut domains: Vec<DomainProgress>) -> Vec<DomainProgress> {
    domains.sort_by(|one, other| other.total.cmp(&one.total).then_with(|| one.domain.cmp(&other.domain)));
    if domains.len() <= MOST_ENTRIES {
        return domains;
    }
    let rest = domains.split_off(MOST_ENTRIES);
    let other = rest.into_iter().reduce(|mut sum, one| {
        sum.domain = "other".to_owned();
        sum.total += one.total;
        sum.sent += one.sent;
        sum.waiting += one.waiting;
        sum.failed += one.failed;
        sum.per_second += one.per_second;
        sum
    });
    domains.extend(other);
    domains
}

fn log_status(status: MessageStatus) -> LogStatus {
    match status {
        MessageStatus::Waiting => LogStatus::TakenIntoAccount,
        MessageStatus::Sent => LogStatus::Sent,
        MessageStatus::Failed => LogStatus::Failed,
        MessageStatus::Ignored => LogStatus::Ignored,
        MessageStatus::Canceled => LogStatus::Canceled,
    }
}

fn time(at: Millis) -> Time {
    let at = i64::try_from(at).unwrap_or(i64::MAX);
    Time(Timestamp::from_millisecond(at).unwrap_or(Timestamp::UNIX_EPOCH))
}
