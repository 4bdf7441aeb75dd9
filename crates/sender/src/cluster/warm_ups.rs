//! What is said of the warm-up of a sending IP in its status, and when it is written.

use std::collections::HashMap;
use std::time::Duration;

use relaypool_api::SendingIpStatus;
use relaypool_api::sending_ip::WarmUpStatus;
use tokio::time::Instant;

use crate::dispatcher::SenderReport;

/// The warm-ups that were written, and so what is new.
#[derive(Debug)]
pub(super) struct WarmUpStatuses {
    interval: Duration,
    written: HashMap<String, (Instant, WarmUpStatus)>,
}

impl WarmUpStatuses {
    /// `interval` is the shortest time between two writes of one object.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            written: HashMap::new(),
        }
    }

    /// Statuses that differ from what was written, at most so many: those that have waited longest first. Another stage or
    /// hold waits for no interval.
    pub(super) fn due(
        &mut self,
        report: &SenderReport,
        at_most: usize,
        now: Instant,
    ) -> Vec<(String, SendingIpStatus)> {
        // An IP that leaves and comes back has been another sender's meanwhile.
        self.written
            .retain(|ip, _| report.warm_ups.iter().any(|warm_up| warm_up.ip == *ip));
        let mut due: Vec<_> = report
            .warm_ups
            .iter()
            .map(|warm_up| (self.written.get(&warm_up.ip), warm_up))
            .filter(|(written, warm_up)| {
                written.is_none_or(|(at, before)| {
                    let is_news = before.progress != warm_up.status.progress || before.held != warm_up.status.held;
                    *before != warm_up.status && (is_news || now >= *at + self.interval)
                })
            })
            .map(|(written, warm_up)| (written.map(|(at, _)| *at), warm_up))
            .collect();
        due.sort_by_key(|(at, _)| *at);
        due.truncate(at_most);
        due.into_iter()
            .map(|(_, warm_up)| {
                let status = SendingIpStatus {
                    warm_up: Some(warm_up.status.clone()),
                    ..SendingIpStatus::default()
                };
                (warm_up.ip.clone(), status)
            })
            .collect()
    }

    /// Notes that a status was written.
    pub(super) fn written(&mut self, ip: String, status: SendingIpStatus, now: Instant) {
        self.written.insert(ip, (now, status.warm_up.unwrap_or_default()));
    }
}

#[cfg(test)]
mod tests {
    use crate::dispatcher::WarmUpReport;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn report(ips: &[(&str, &str, u64)]) -> SenderReport {
        let warm_ups = ips.iter().map(|(ip, progress, sent)| WarmUpReport {
            ip: (*ip).to_owned(),
            status: WarmUpStatus {
                progress: (*progress).to_owned(),
                sent: *sent,
                ..WarmUpStatus::default()
            },
        });
        SenderReport {
            warm_ups: warm_ups.collect(),
            ..SenderReport::default()
        }
    }

    /// Writes what is due, and says which.
    fn write(statuses: &mut WarmUpStatuses, ips: &[(&str, &str, u64)], now: Instant) -> Vec<String> {
        let due = statuses.due(&report(ips), 9, now);
        due.into_iter()
            .map(|(ip, status)| {
                assert!(status.warm_up.is_some() && status.sites.is_empty());
                statuses.written(ip.clone(), status, now);
                ip
            })
            .collect()
    }

    #[test]
    fn counts_wait_for_the_interval_and_news_do_not() {
        let mut statuses = WarmUpStatuses::new(INTERVAL);
        let start = Instant::now();
        assert_eq!(
            write(&mut statuses, &[("a", "1/2", 1), ("b", "warm", 0)], start),
            ["a", "b"]
        );
        assert!(write(&mut statuses, &[("a", "1/2", 5), ("b", "warm", 0)], start).is_empty());
        assert_eq!(write(&mut statuses, &[("a", "2/2", 5), ("b", "warm", 0)], start), ["a"]);
        let later = start + INTERVAL;
        assert_eq!(write(&mut statuses, &[("a", "2/2", 6), ("b", "warm", 0)], later), ["a"]);
        assert!(write(&mut statuses, &[("a", "2/2", 6)], later).is_empty());
        assert_eq!(write(&mut statuses, &[("a", "2/2", 6), ("b", "warm", 0)], later), ["b"]);
    }
}
