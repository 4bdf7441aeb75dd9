//! Whatever happens, in whatever order: no day has more than its volume.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use relaypool_api::sending_ip::WarmUp as Spec;
use relaypool_shaping::site::Site;
use relaypool_shaping::warm_up::{Destination, Plan, Record, Reservation, Room, Settled, Taken, WarmUp};
use serde_json::json;

#[derive(Debug, Clone)]
enum Step {
    /// As many messages as there is room for, up to this, to a provider.
    Send(usize, u64),
    /// The oldest messages under way come to their end.
    Settle(usize, Settled),
    /// The oldest records that are under way to the disk arrive.
    Disk(usize),
    /// Time goes on, by minutes, or goes back.
    Pass(i64),
    /// The process is killed: what is not on disk is lost.
    Crash,
    /// The process ends in order.
    End,
    /// The address gets the other schedule, or its own back.
    Replan,
}

fn step() -> impl Strategy<Value = Step> {
    let settled = prop_oneof![
        5 => Just(Settled::Delivered),
        1 => Just(Settled::Used),
        1 => Just(Settled::NotSent)
    ];
    prop_oneof![
        8 => (0..PROVIDERS, 1_u64..60).prop_map(|(provider, messages)| Step::Send(provider, messages)),
        6 => (1_usize..60, settled).prop_map(|(count, settled)| Step::Settle(count, settled)),
        6 => (1_usize..4).prop_map(Step::Disk),
        3 => prop_oneof![5 => 1_i64..600, 2 => 600_i64..3_000, 1 => -200_i64..0, 1 => -20_000_i64..0].prop_map(Step::Pass),
        1 => Just(Step::Crash),
        1 => Just(Step::End),
        1 => Just(Step::Replan),
    ]
}

const PROVIDERS: usize = 3;

struct World {
    spec: Spec,
    other: Spec,
    warm_up: WarmUp,
    now: Duration,
    /// What a crash leaves.
    disk: Option<Record>,
    /// Records on their way to the disk, in order.
    writing: VecDeque<Record>,
    under_way: VecDeque<Taken>,
    /// Messages that left, by day; those that came back unsent taken off. Kept by an outsider who sees every message.
    left: BTreeMap<Day, u64>,
    accepted: BTreeMap<Day, u64>,
    /// The highest limit that each day had.
    limits: BTreeMap<Day, u64>,
    /// Messages that were under way when each day began. A person who lowers the limit does not call them back.
    carried: BTreeMap<Day, u64>,
    /// Of the messages under way, the day each left.
    left_on: VecDeque<Day>,
    /// How often the clock was found days ahead: the dates after that come again.
    corrections: u32,
    last_day: Option<Duration>,
}

/// Corrections of the clock before it, and its end.
type Day = (u32, Duration);

fn destination(number: usize) -> Destination {
    let hosts = vec![format!("mx.provider{number}.example").parse().unwrap()];
    Destination {
        site: Site::of(&hosts),
        hosts,
    }
}

impl World {
    fn new(schedule: &[u64], other: &[u64], zone: &str) -> Self {
        let spec: Spec = serde_json::from_value(json!({ "schedule": schedule, "timeZone": zone })).unwrap();
        let limited = json!([{ "mxHosts": ["*.provider0.example"], "maxPercent": 50 }]);
        let other = json!({ "schedule": other, "timeZone": "Asia/Tokyo", "providers": limited });
        let now = Duration::from_secs(1_795_176_000);
        let mut world = Self {
            warm_up: WarmUp::new(Plan::of(Some(&spec)).unwrap(), None, now),
            spec,
            other: serde_json::from_value(other).unwrap(),
            now,
            disk: None,
            writing: VecDeque::new(),
            under_way: VecDeque::new(),
            left: BTreeMap::new(),
            accepted: BTreeMap::new(),
            limits: BTreeMap::new(),
            carried: BTreeMap::new(),
            left_on: VecDeque::new(),
            corrections: 0,
            last_day: None,
        };
        world.pass();
        world
    }

    fn pass(&mut self) {
        self.warm_up.pass(self.now);
        let ends = self.warm_up.day_ends();
        if ends.is_some() && ends < self.last_day {
            self.corrections += 1;
        }
        self.last_day = ends;
        if let (Some(day), Some(limit)) = (self.today(), self.warm_up.limit()) {
            self.carried.entry(day).or_insert(self.under_way.len() as u64);
            let most = self.limits.entry(day).or_default();
            *most = limit.max(*most);
        }
    }

    fn today(&self) -> Option<Day> {
        Some((self.corrections, self.warm_up.day_ends()?))
    }

    fn write(&mut self, wanted: bool) {
        self.writing.extend(self.warm_up.reservation(wanted));
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Send(provider, messages) => self.send(provider, messages),
            Step::Settle(count, settled) => (0..count).for_each(|_| self.settle(settled)),
            Step::Disk(count) => (0..count).for_each(|_| self.arrive()),
            Step::Pass(minutes) => {
                let by = Duration::from_secs(minutes.unsigned_abs() * 60);
                self.now = if minutes < 0 { self.now - by } else { self.now + by };
                self.pass();
                self.write(false);
            }
            Step::Crash => self.restart(),
            Step::End => {
                let last = self.warm_up.released();
                self.writing.push_back(last);
                (0..self.writing.len()).for_each(|_| self.arrive());
                self.restart();
            }
            Step::Replan => {
                std::mem::swap(&mut self.spec, &mut self.other);
                self.warm_up.set_plan(Plan::of(Some(&self.spec)).unwrap());
                self.pass();
                self.write(false);
            }
        }
    }

    fn send(&mut self, provider: usize, messages: u64) {
        let destination = destination(provider);
        for _ in 0..messages {
            match self.warm_up.room(&destination) {
                Room::Free(_) => {}
                Room::Reserving => return self.write(true),
                Room::Until(at) => {
                    assert!(at > self.now, "waits for a moment that was");
                    return;
                }
                Room::Unlimited => return,
            }
            let taken = self.warm_up.take(&destination).unwrap();
            let day = self.today().unwrap();
            self.under_way.push_back(taken);
            self.left_on.push_back(day);
            *self.left.entry(day).or_default() += 1;
            self.write(true);
        }
    }

    fn settle(&mut self, settled: Settled) {
        let (Some(taken), Some(day)) = (self.under_way.pop_front(), self.left_on.pop_front()) else {
            return;
        };
        self.warm_up.settle(taken, settled);
        match settled {
            Settled::Delivered => {
                if let Some(today) = self.today() {
                    *self.accepted.entry(today).or_default() += 1;
                }
            }
            Settled::NotSent => *self.left.get_mut(&day).unwrap() -= 1,
            Settled::Used => {}
        }
        self.write(false);
    }

    fn arrive(&mut self) {
        if let Some(record) = self.writing.pop_front() {
            self.warm_up.recorded(Reservation::from(&record));
            self.disk = Some(record);
        }
    }

    /// What was under way has left, for all anybody knows.
    fn restart(&mut self) {
        self.under_way.clear();
        self.left_on.clear();
        self.writing.clear();
        // As it lies on disk.
        let bytes = serde_json::to_vec(&self.disk).unwrap();
        let known = serde_json::from_slice(&bytes).unwrap();
        self.warm_up = WarmUp::new(Plan::of(Some(&self.spec)).unwrap(), known, self.now);
        let recorded = self.warm_up.day_ends();
        self.pass();
        if let Some(today) = self.today().filter(|(_, ends)| recorded != Some(*ends)) {
            // A crash right after midnight forgets what was under way over it; what leaves today is counted all the same.
            self.accepted.remove(&today);
        }
    }

    fn check(&self) {
        for (day, left) in &self.left {
            assert!(left <= &self.limits[day], "{left} left of {}", self.limits[day]);
        }
        for (day, accepted) in &self.accepted {
            let most = self.limits[day].max(self.carried[day]);
            assert!(accepted <= &most, "{accepted} accepted of {most}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_day_has_more_than_its_volume(
        schedule in proptest::collection::vec(1_u64..120, 1..4),
        other in proptest::collection::vec(1_u64..120, 1..4),
        zone in prop_oneof![Just("UTC"), Just("Europe/Paris"), Just("America/Havana")],
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(&schedule, &other, zone);
        for step in &steps {
            world.step(step);
            world.check();
        }
    }

    /// With a disk that works and no crash, all of a day's room can be used: the cap is a limit, not a leak.
    #[test]
    fn all_of_a_days_room_can_be_used(volume in 1_u64..500, chunk in 1_u64..80) {
        let mut world = World::new(&[volume], &[1], "UTC");
        for _ in 0..volume + 10 {
            world.step(&Step::Send(0, chunk));
            world.step(&Step::Disk(9));
            world.step(&Step::Settle(200, Settled::Delivered));
        }
        prop_assert_eq!(world.left.values().sum::<u64>(), volume);
    }
}
