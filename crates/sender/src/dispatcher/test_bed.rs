//! A dispatcher in virtual time: a real spool, domains that are looked up at once, sessions that a test answers for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use relaypool_api::message::{MessageSnapshot, OnBlock};
use relaypool_api::reply::{Phase, Reply};
use relaypool_spool::{MessageKey, Options, Spool};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::resolver::{MxHost, Route};

/// How long each attempt takes.
const TOOK: Millis = 100;

pub(super) const SECOND: Millis = 1_000;
pub(super) const MINUTE: Millis = 60 * SECOND;
pub(super) const HOUR: Millis = 60 * MINUTE;

/// A message with a session.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    pub(super) session: SessionId,
    pub(super) key: MessageKey,
    /// Name of the SendingIp.
    pub(super) ip: String,
}

pub(super) struct Bed {
    pub(super) dispatcher: Dispatcher,
    pub(super) now: Millis,
    ips: Vec<SourceIp>,
    flights: Vec<Flight>,
    folder: TempDir,
    spool: Spool,
}

pub(super) fn settings() -> PoolSettings {
    PoolSettings {
        pool: "pool".into(),
        smtp_port: 25,
        max_connections: 1_000,
        adaptive: true,
        on_block: OnBlock::Wait,
    }
}

impl Bed {
    /// A sender with these IPs, of equal weight.
    pub(super) fn new(ips: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), Options::default()).unwrap();
        let mut bed = Self {
            dispatcher: dispatcher(&spool),
            now: 1_700_000_000_000,
            ips: Vec::new(),
            flights: Vec::new(),
            folder,
            spool,
        };
        bed.set_ips(ips);
        bed
    }

    pub(super) fn set_ips(&mut self, names: &[&str]) {
        self.ips = (1_u8..)
            .zip(names)
            .map(|(number, name)| source_ip(name, number))
            .collect();
        self.dispatcher.set_ips(self.ips.clone(), self.now);
        self.settle();
    }

    /// The same sender after its process ended.
    pub(super) async fn restart(self) -> Self {
        let Self {
            dispatcher: old,
            now,
            ips,
            folder,
            spool,
            ..
        } = self;
        drop(old);
        spool.close().await.unwrap();
        let spool = Spool::open(folder.path(), Options::default()).unwrap();
        let mut dispatcher = dispatcher(&spool);
        dispatcher.recover(now).unwrap();
        dispatcher.set_ips(ips.clone(), now);
        let mut bed = Self {
            dispatcher,
            now,
            ips,
            flights: Vec::new(),
            folder,
            spool,
        };
        bed.settle();
        bed
    }

    /// Takes in a slice of so many messages for one domain; `changes` are put over the message of the run.
    pub(super) async fn accept(&mut self, id: &str, count: usize, domain: &str, changes: Value) {
        self.take_in(id, count, domain, changes).await;
        self.settle();
    }

    /// The same, and nothing follows from it yet.
    pub(super) async fn take_in(&mut self, id: &str, count: usize, domain: &str, changes: Value) {
        let mut message = json!({
            "sender": { "address": "news@sender.example" },
            "message": { "subject": "s", "text": "t" },
            "validity": "3d", "fingerprint": id, "total": 1, "slices": 1,
        });
        for (name, value) in changes.as_object().unwrap() {
            message[name] = value.clone();
        }
        let message: MessageSnapshot = serde_json::from_value(message).unwrap();
        let row = |index| json!({ "index": index, "address": format!("user{index}@{domain}") });
        let intake = SliceIntake {
            id: id.to_owned(),
            name: id.to_owned(),
            delivery_uid: id.to_owned(),
            message: Arc::new(message),
            rows: (0..count)
                .map(|index| serde_json::from_value(row(index)).unwrap())
                .collect(),
        };
        let committed = intake.submit(&self.dispatcher, self.now).await.unwrap();
        let number = committed.slices[0].number();
        self.dispatcher
            .slice_accepted(number, &intake, self.now, self.now)
            .unwrap();
    }

    /// Lets the time pass, and all that becomes due happen in its time.
    pub(super) fn pass(&mut self, time: Millis) {
        let until = self.now + time;
        while let Some(wake) = self.dispatcher.next_wake().filter(|wake| *wake <= until) {
            self.now = self.now.max(wake);
            self.settle();
        }
        self.now = until;
        self.settle();
    }

    /// Carries out what the dispatcher wants until it wants nothing at this moment.
    pub(super) fn settle(&mut self) {
        loop {
            self.dispatcher.tick(self.now);
            let effects = self.dispatcher.take_effects();
            if effects.is_empty() && self.dispatcher.next_wake().is_none_or(|wake| wake > self.now) {
                return;
            }
            for effect in effects {
                self.carry_out(effect);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::LookUp(domain, name) => self.dispatcher.route_found(domain, Ok(route(&name)), self.now),
            Effect::Settle(session, _) => self.dispatcher.session_closed(session, self.now),
            Effect::KeepLanes(notes) => {
                futures::executor::block_on(write_lane_notes(&self.spool, &notes));
                self.dispatcher.lanes_kept();
            }
            Effect::PruneLanes(_) => self.dispatcher.lanes_kept(),
            Effect::Reserve(ip, reservation, _) => self.dispatcher.room_reserved(&ip, reservation, self.now),
            Effect::Open(start) => self.flights.push(Flight {
                session: start.id,
                key: start.first.key,
                ip: self.name_of(start.settings.source),
            }),
        }
    }

    fn name_of(&self, address: std::net::IpAddr) -> String {
        self.ips.iter().find(|ip| ip.bind == address).unwrap().name.clone()
    }

    /// The messages that are with sessions.
    pub(super) fn flights(&self) -> &[Flight] {
        &self.flights
    }

    /// Ends every attempt that is under way, each as `outcome` says, and its session.
    pub(super) fn answer(&mut self, outcome: impl Fn(&Flight) -> Attempt) {
        if !self.flights.is_empty() {
            self.now += TOOK;
        }
        for flight in std::mem::take(&mut self.flights) {
            let report = AttemptReport {
                session: flight.session,
                key: flight.key,
                attempt: outcome(&flight),
                took: Duration::from_millis(TOOK),
                next: None,
            };
            self.dispatcher.attempted(report, self.now);
            self.dispatcher.session_closed(flight.session, self.now);
        }
        self.settle();
    }

    /// Answers, and lets some time pass, until nothing is under way for a minute.
    pub(super) fn answer_all(&mut self, outcome: impl Fn(&Flight) -> Attempt) {
        let mut quiet = 0;
        while quiet < MINUTE {
            quiet = if self.flights.is_empty() { quiet + TOOK } else { 0 };
            self.answer(&outcome);
            self.pass(TOOK);
        }
    }

    /// Attempts of each message of a slice that have been counted.
    pub(super) fn attempts(&self, id: &str) -> Vec<u16> {
        self.slice(id).slots.iter().map(|slot| slot.attempts).collect()
    }

    /// The lane that a message would be in: of this IP, to the site of this domain.
    pub(super) fn lane(&self, ip: &str, domain: &str) -> LaneId {
        self.dispatcher.lane_id(ip, &self.site(domain)).unwrap()
    }

    pub(super) fn site(&self, domain: &str) -> String {
        let mut sites = self.dispatcher.lane_ids.keys();
        sites.find(|site| site.contains(domain)).unwrap().clone()
    }

    pub(super) fn slice(&self, id: &str) -> &Slice {
        &self.dispatcher.slices[&self.dispatcher.slice_ids[id]]
    }
}

fn dispatcher(spool: &Spool) -> Dispatcher {
    let metrics = Arc::new(SenderMetrics::register(&mut Registry::default()));
    Dispatcher::new(spool.clone(), settings(), metrics)
}

fn source_ip(name: &str, number: u8) -> SourceIp {
    SourceIp {
        name: name.to_owned(),
        bind: [127, 0, 1, number].into(),
        address: [127, 0, 1, number].into(),
        ehlo_name: "out.sender.example".parse().unwrap(),
        weight: 1,
        suspended: false,
        labels: BTreeMap::new(),
        warm_up: None,
    }
}

/// Each domain has a host of its own.
fn route(domain: &Domain) -> Route {
    Route {
        hosts: vec![MxHost {
            name: format!("mx.{domain}").parse().unwrap(),
            preference: 0,
            addresses: vec![[127, 0, 0, 1].into()],
        }],
        valid_until: Instant::now() + Duration::from_secs(86_400),
    }
}

pub(super) fn refused(phase: Phase, reply: &str) -> Attempt {
    let code = reply[..3].parse::<u16>().unwrap().try_into().unwrap();
    let rest = &reply[4..];
    let (enhanced, text) = match rest.split_once(' ') {
        Some((first, text)) if first.parse::<relaypool_api::reply::EnhancedCode>().is_ok() => {
            (first.parse().ok(), text)
        }
        _ => (None, rest),
    };
    Attempt::Refused {
        phase,
        reply: Reply {
            code,
            enhanced,
            text: text.to_owned(),
        },
    }
}

pub(super) fn greylisted() -> Attempt {
    refused(Phase::RcptTo, "451 4.7.1 greylisted, please try again later")
}

pub(super) fn blocked() -> Attempt {
    refused(Phase::MailFrom, "554 5.7.1 blocked using a block list")
}
