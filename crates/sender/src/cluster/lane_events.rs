//! Suspensions and recoveries of lanes as Events on SendingIps: a few by name, of more only how many.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::Api;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use relaypool_api::SendingIp;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::SenderIdentity;
use crate::dispatcher::{ChangeCounts, LaneChange, LaneChangeKind, LaneChanges};
use crate::ledger::Millis;

/// Events of one object in one [`WINDOW`] that name what happened; then there is one more at its end, with the counts of
/// the rest.
const MOST_NAMED: u32 = 4;

/// See [`MOST_NAMED`].
const WINDOW: Duration = Duration::from_secs(60);

/// Events that wait to be published; more are dropped, for they tell nothing that the status does not.
const QUEUED: usize = 100;

/// An Event is worth waiting for, but not for long.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest reply in a note, in bytes.
const MAX_REPLY: usize = 500;

/// Longest note, in bytes: the API server refuses more than 1 kB.
const MAX_NOTE: usize = 1_000;

/// Who publishes, as Events say it; which sender it was is said beside it.
const REPORTER: &str = "relaypool-sender";

/// Longest name of the sender in an Event, in bytes, by a rule of the API server.
const MAX_INSTANCE: usize = 128;

/// An Event to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    /// Name of the SendingIp.
    ip: String,
    suspended: bool,
    note: String,
}

/// Chooses what is told.
#[derive(Debug, Default)]
pub(super) struct LaneNotices {
    windows: HashMap<String, Window>,
}

/// What was told of one object lately.
#[derive(Debug)]
struct Window {
    began: Instant,
    named: u32,
    rest: ChangeCounts,
}

impl LaneNotices {
    /// What is to be told of these changes now.
    pub(super) fn of(&mut self, changes: LaneChanges, now: Instant) -> Vec<Notice> {
        let mut notices = Vec::new();
        self.close_windows(now, &mut notices);
        for change in changes.told {
            let window = self.windows.entry(change.ip.clone()).or_insert(Window::new(now));
            if window.named < MOST_NAMED {
                window.named += 1;
                notices.push(named(change));
            } else {
                match change.kind {
                    LaneChangeKind::Suspended { .. } => window.rest.suspended += 1,
                    LaneChangeKind::Recovered { .. } => window.rest.recovered += 1,
                }
            }
        }
        for (ip, counts) in changes.untold {
            let window = self.windows.entry(ip).or_insert(Window::new(now));
            window.rest.suspended += counts.suspended;
            window.rest.recovered += counts.recovered;
        }
        notices
    }

    fn close_windows(&mut self, now: Instant, notices: &mut Vec<Notice>) {
        self.windows.retain(|ip, window| {
            let open = now < window.began + WINDOW;
            if !open {
                notices.extend(summary(ip, window.rest));
            }
            open
        });
    }
}

impl Window {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            named: 0,
            rest: ChangeCounts::default(),
        }
    }
}

fn named(change: LaneChange) -> Notice {
    let (suspended, note) = match change.kind {
        LaneChangeKind::Suspended { until, why } => {
            let why = first_bytes(&why, MAX_REPLY);
            (
                true,
                format!("nothing is sent to {} until {}: {why}", change.site, moment(until)),
            )
        }
        LaneChangeKind::Recovered { since } => (
            false,
            format!(
                "{} accepts mail again, after a suspension at {}",
                change.site,
                moment(since)
            ),
        ),
    };
    Notice {
        ip: change.ip,
        suspended,
        note,
    }
}

fn summary(ip: &str, rest: ChangeCounts) -> Option<Notice> {
    let ChangeCounts { suspended, recovered } = rest;
    (suspended + recovered > 0).then(|| Notice {
        ip: ip.to_owned(),
        suspended: suspended > 0,
        note: format!(
            "within a minute, {suspended} more times a lane was suspended and {recovered} more times one recovered"
        ),
    })
}

fn moment(at: Millis) -> String {
    let seconds = i64::try_from(at / 1_000).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_string()
}

/// The start of a text, cut between characters.
fn first_bytes(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Publishes Events beside everything else: an API server that is slow or away holds up nothing but them.
pub(super) struct LaneEvents {
    queue: mpsc::Sender<Notice>,
    _task: AbortOnDropHandle<()>,
}

impl LaneEvents {
    pub(super) fn start(client: Client, identity: &SenderIdentity) -> Self {
        let (queue, notices) = mpsc::channel(QUEUED);
        let publisher = Publisher {
            ips: Api::namespaced(client.clone(), &identity.namespace),
            client,
            reporter: Reporter {
                controller: REPORTER.to_owned(),
                instance: Some(first_bytes(&identity.name, MAX_INSTANCE).to_owned()),
            },
        };
        Self {
            queue,
            _task: AbortOnDropHandle::new(tokio::spawn(publisher.publish_all(notices))),
        }
    }

    /// Publishes soon, or drops what does not fit in the queue.
    pub(super) fn publish(&self, notice: Notice) {
        if let Err(error) = self.queue.try_send(notice) {
            tracing::debug!(%error, "an Event is dropped");
        }
    }
}

struct Publisher {
    ips: Api<SendingIp>,
    client: Client,
    reporter: Reporter,
}

impl Publisher {
    async fn publish_all(self, mut notices: mpsc::Receiver<Notice>) {
        while let Some(notice) = notices.recv().await {
            let ip = notice.ip.clone();
            match tokio::time::timeout(TIMEOUT, self.publish(notice)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(ip, %error, "cannot publish an Event"),
                Err(_) => tracing::warn!(ip, "cannot publish an Event: no answer"),
            }
        }
    }

    async fn publish(&self, notice: Notice) -> Result<(), kube::Error> {
        // `kubectl describe` finds Events by the UID of their object.
        let Some(ip) = self.ips.get_metadata_opt(&notice.ip).await? else {
            return Ok(());
        };
        let reference = ObjectReference {
            api_version: Some(SendingIp::api_version(&()).into_owned()),
            kind: Some(SendingIp::kind(&()).into_owned()),
            namespace: ip.metadata.namespace,
            name: Some(notice.ip),
            uid: ip.metadata.uid,
            ..ObjectReference::default()
        };
        let (type_, reason) = if notice.suspended {
            (EventType::Warning, "LaneSuspended")
        } else {
            (EventType::Normal, "LaneRecovered")
        };
        let event = Event {
            type_,
            reason: reason.to_owned(),
            action: "Send".to_owned(),
            note: Some(first_bytes(&notice.note, MAX_NOTE).to_owned()),
            secondary: None,
        };
        // A recorder takes two Events of one reason for one that came twice, and keeps the first note: one for each Event.
        Recorder::new(self.client.clone(), self.reporter.clone())
            .publish(&event, &reference)
            .await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn changes(ip: &str, count: u64, suspended: bool) -> LaneChanges {
        let change = |number: u64| LaneChange {
            ip: ip.to_owned(),
            site: format!("site{number}.example"),
            at: 0,
            kind: if suspended {
                LaneChangeKind::Suspended {
                    until: 1_795_000_000_000,
                    why: "451 4.7.1 too many ü".repeat(100),
                }
            } else {
                LaneChangeKind::Recovered { since: 5_000 }
            },
        };
        LaneChanges {
            told: (0..count).map(change).collect(),
            untold: BTreeMap::new(),
        }
    }

    #[test]
    fn a_few_are_named() {
        let mut notices = LaneNotices::default();
        let told = notices.of(changes("a", 2, true), Instant::now());
        assert_eq!(told.len(), 2);
        assert!(told[0].suspended);
        assert!(
            told[0]
                .note
                .starts_with("nothing is sent to site0.example until 2026-11-18T11:06:40Z: 451 4.7.1 too many"),
            "{}",
            told[0].note
        );
        assert!(told[0].note.len() < MAX_NOTE);
        let told = notices.of(changes("a", 1, false), Instant::now());
        assert!(!told[0].suspended);
        assert!(told[0].note.contains("accepts mail again"), "{}", told[0].note);
    }

    #[test]
    fn a_storm_becomes_a_few_and_a_summary() {
        let start = Instant::now();
        let mut notices = LaneNotices::default();
        let mut storm = changes("a", 1_000, true);
        let untold = ChangeCounts {
            suspended: 30,
            recovered: 7,
        };
        storm.untold.insert("a".to_owned(), untold);
        assert_eq!(notices.of(storm, start).len(), 4);
        // Another object has a budget of its own.
        assert_eq!(notices.of(changes("b", 1, true), start).len(), 1);
        assert!(notices.of(changes("a", 10, false), start + WINDOW / 2).is_empty());
        let told = notices.of(LaneChanges::default(), start + WINDOW);
        assert_eq!(told.len(), 1);
        assert!(told[0].suspended);
        assert!(told[0].note.contains("1026 more times"), "{}", told[0].note);
        assert!(told[0].note.contains("17 more times"), "{}", told[0].note);
        assert!(notices.of(LaneChanges::default(), start + 3 * WINDOW).is_empty());
        assert_eq!(notices.of(changes("a", 9, true), start + 3 * WINDOW).len(), 4);
    }
}
