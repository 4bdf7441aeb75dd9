//! What is said of a sending IP's sites in its status, and when it is written.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use relaypool_api::SendingIpStatus;
use relaypool_api::sending_ip::SiteStatus;
use tokio::time::Instant;

use crate::dispatcher::SenderReport;

/// Sites in the status of one IP; the lanes in a report are no more.
const MOST_SITES: usize = 50;

/// The statuses that were written, and so what is new.
#[derive(Debug)]
pub(super) struct SiteStatuses {
    interval: Duration,
    attempts: HashMap<String, Attempt>,
}

/// The last attempt to write a status.
#[derive(Debug)]
struct Attempt {
    at: Instant,
    /// None when it failed: nobody knows what is there.
    written: Option<SendingIpStatus>,
}

impl SiteStatuses {
    /// `interval` is the shortest time between two writes of one object.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            attempts: HashMap::new(),
        }
    }

    /// Statuses that differ from what was written, at most so many: those that have waited longest first.
    pub(super) fn due(
        &mut self,
        report: &SenderReport,
        at_most: usize,
        now: Instant,
    ) -> Vec<(String, SendingIpStatus)> {
        // An IP that leaves and comes back has been another sender's meanwhile.
        self.attempts.retain(|ip, _| report.ips.contains_key(ip));
        let mut due: Vec<_> =
            statuses(report)
                .into_iter()
                .filter_map(|(ip, status)| match self.attempts.get(&ip) {
                    None => Some((None, ip, status)),
                    Some(last) => (now >= last.at + self.interval && last.written.as_ref() != Some(&status))
                        .then_some((Some(last.at), ip, status)),
                })
                .collect();
        due.sort_by_key(|(at, ..)| *at);
        due.truncate(at_most);
        due.into_iter().map(|(_, ip, status)| (ip, status)).collect()
    }

    /// Notes an attempt to write a status, and what was written if it succeeded.
    pub(super) fn attempted(&mut self, ip: String, written: Option<SendingIpStatus>, now: Instant) {
        self.attempts.insert(ip, Attempt { at: now, written });
    }
}

/// The part of each IP's status that its owner writes of its sites.
fn statuses(report: &SenderReport) -> BTreeMap<String, SendingIpStatus> {
    let mut statuses: BTreeMap<String, SendingIpStatus> = report
        .ips
        .iter()
        .map(|(name, ip)| {
            let status = SendingIpStatus {
                delivered_per_second: Some(ip.delivered_per_second),
                queued: Some(i64::try_from(ip.queued).unwrap_or(i64::MAX)),
                suspended_sites: Some(ip.suspended),
                ..SendingIpStatus::default()
            };
            (name.clone(), status)
        })
        .collect();
    for lane in &report.lanes {
        if let Some(status) = statuses.get_mut(&lane.ip) {
            status.sites.push(lane.site.clone());
        }
    }
    for (ip, site) in &report.dormant {
        if let Some(status) = statuses.get_mut(ip).filter(|status| status.sites.len() < MOST_SITES) {
            status.sites.push(site.clone());
        }
    }
    for status in statuses.values_mut() {
        // In an order that does not change with every message.
        status.sites.sort_by(by_name);
    }
    statuses
}

fn by_name(one: &SiteStatus, other: &SiteStatus) -> std::cmp::Ordering {
    one.site.cmp(&other.site)
}

#[cfg(test)]
mod tests {
    use crate::dispatcher::{IpReport, LaneReport};

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn report(ips: &[(&str, u64)]) -> SenderReport {
        let site = serde_json::json!({ "site": "mx.example", "state": "Sending", "binds": "NoDemand" });
        SenderReport {
            ips: ips
                .iter()
                .map(|(ip, queued)| {
                    let report = IpReport {
                        queued: *queued,
                        ..IpReport::default()
                    };
                    ((*ip).to_owned(), report)
                })
                .collect(),
            lanes: ips
                .iter()
                .map(|(ip, _)| LaneReport {
                    ip: (*ip).to_owned(),
                    sent: 0,
                    failed: 0,
                    site: serde_json::from_value(site.clone()).unwrap(),
                })
                .collect(),
            ..SenderReport::default()
        }
    }

    /// Writes what is due, and says which.
    fn write(statuses: &mut SiteStatuses, report: &SenderReport, at_most: usize, now: Instant) -> Vec<String> {
        let due = statuses.due(report, at_most, now);
        due.into_iter()
            .map(|(ip, status)| {
                assert_eq!(status.sites.len(), 1);
                statuses.attempted(ip.clone(), Some(status), now);
                ip
            })
            .collect()
    }

    #[test]
    fn only_changes_are_written_and_not_too_often() {
        let start = Instant::now();
        let mut statuses = SiteStatuses::new(INTERVAL);
        assert_eq!(
            write(&mut statuses, &report(&[("a", 1), ("b", 1)]), 9, start),
            ["a", "b"]
        );
        let later = start + INTERVAL;
        assert!(write(&mut statuses, &report(&[("a", 1), ("b", 1)]), 9, later).is_empty());
        assert!(
            write(
                &mut statuses,
                &report(&[("a", 2), ("b", 1)]),
                9,
                later - Duration::from_millis(1)
            )
            .is_empty()
        );
        assert_eq!(write(&mut statuses, &report(&[("a", 2), ("b", 1)]), 9, later), ["a"]);
        // Another owner wrote meanwhile: it is written again, changed or not.
        assert!(write(&mut statuses, &report(&[("a", 2)]), 9, later).is_empty());
        assert_eq!(write(&mut statuses, &report(&[("a", 2), ("b", 1)]), 9, later), ["b"]);
    }

    #[test]
    fn a_write_that_failed_is_repeated_but_not_at_once() {
        let start = Instant::now();
        let mut statuses = SiteStatuses::new(INTERVAL);
        let report = report(&[("a", 1)]);
        statuses.attempted("a".to_owned(), None, start);
        assert!(write(&mut statuses, &report, 9, start + INTERVAL / 2).is_empty());
        assert_eq!(write(&mut statuses, &report, 9, start + INTERVAL), ["a"]);
    }

    #[test]
    fn sites_that_are_not_used_fill_what_is_left() {
        let mut report = report(&[("a", 1)]);
        let site = report.lanes[0].site.clone();
        for number in 0..60 {
            let dormant = SiteStatus {
                site: format!("dormant{number:02}"),
                ..site.clone()
            };
            report.dormant.push(("a".to_owned(), dormant));
            report.dormant.push(("of-another".to_owned(), site.clone()));
        }
        let status = &statuses(&report)["a"];
        assert_eq!(status.sites.len(), 50);
        assert!(status.sites.iter().any(|site| site.site == "mx.example"));
        assert!(status.sites.is_sorted_by(|one, other| one.site < other.site));
    }

    #[test]
    fn the_budget_is_shared_in_turn() {
        let mut now = Instant::now();
        let mut statuses = SiteStatuses::new(INTERVAL);
        let names = ["a", "b", "c", "d", "e"];
        let mut turns = Vec::new();
        for round in 0..5 {
            let all = names.map(|ip| (ip, round));
            turns.push(write(&mut statuses, &report(&all), 2, now));
            now += INTERVAL;
        }
        assert_eq!(
            turns,
            [
                vec!["a", "b"],
                vec!["c", "d"],
                vec!["e", "a"],
                vec!["b", "c"],
                vec!["d", "a"]
            ]
        );
    }
}
