//! A pool-wide limit under a store that both sides see late, whose writes come late, in any order or not at all, with
//! senders and controllers that die: never more than the limit is used, and it is shared out once the world is calm.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use relaypool_shaping::pool_shares::{Claim, Share, TURN, reallocate};

const SENDERS: usize = 4;

/// What the store has, at one version.
#[derive(Debug, Clone, Default, PartialEq)]
struct Stored {
    version: u64,
    revision: u64,
    shares: BTreeMap<String, Share>,
    claims: BTreeMap<String, Claim>,
}

/// One sender. Its memory is lost when it dies; so are its connections.
#[derive(Debug, Clone, Default)]
struct Sender {
    wanted: u64,
    open: u64,
    share: u64,
    revision: Option<u64>,
    /// It has seen the store up to this version: a watch does not go back, nor does a new process read what is older.
    seen: u64,
}

/// Something that happens.
#[derive(Debug, Clone)]
enum Step {
    /// A sender's demand changes.
    Want(usize, u64),
    /// A sender opens what it may.
    Open(usize),
    /// One of its connections ends.
    Close(usize),
    /// A sender sees the store as it was at some version that it has not seen yet.
    Watch(usize, Index),
    /// A sender sends its claim off.
    Report(usize),
    /// A claim that is under way arrives, whichever was sent first.
    Arrive(Index),
    /// A claim that is under way is lost.
    Lose(Index),
    /// A sender dies and comes back. What it had sent off may still arrive.
    Restart(usize),
    /// A controller reads the store. There may be two, and one of them may have died since.
    Read(usize),
    /// A controller writes what follows from what it read, unless the store has changed since.
    Write(usize),
    /// Whether the controllers have lately heard of a sender.
    Reachable(usize, bool),
    /// Time passes.
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let sender = 0..SENDERS;
    prop_oneof![
        1 => (sender.clone(), 0..20_u64).prop_map(|(sender, wanted)| Step::Want(sender, wanted)),
        4 => sender.clone().prop_map(Step::Open),
        2 => sender.clone().prop_map(Step::Close),
        4 => (sender.clone(), any::<Index>()).prop_map(|(sender, at)| Step::Watch(sender, at)),
        4 => sender.clone().prop_map(Step::Report),
        4 => any::<Index>().prop_map(Step::Arrive),
        1 => any::<Index>().prop_map(Step::Lose),
        1 => sender.clone().prop_map(Step::Restart),
        4 => (0..2_usize).prop_map(Step::Read),
        4 => (0..2_usize).prop_map(Step::Write),
        1 => (sender, any::<bool>()).prop_map(|(sender, reachable)| Step::Reachable(sender, reachable)),
        1 => (1..40_u64).prop_map(Step::Wait),
    ]
}

#[derive(Debug)]
struct World {
    limit: u64,
    now: Duration,
    /// Everything the store ever had, newest last.
    history: Vec<Stored>,
    senders: Vec<Sender>,
    under_way: Vec<(usize, Claim)>,
    reachable: [bool; SENDERS],
    read: [Option<Stored>; 2],
}

fn name(sender: usize) -> String {
    format!("main-{sender}")
}

impl World {
    fn new(limit: u64) -> Self {
        Self {
            limit,
            now: Duration::from_secs(1_000),
            history: vec![Stored::default()],
            senders: vec![Sender::default(); SENDERS],
            under_way: Vec::new(),
            reachable: [true; SENDERS],
            read: [None, None],
        }
    }

    fn stored(&self) -> &Stored {
        self.history.last().unwrap()
    }

    fn store(&mut self, change: impl FnOnce(&mut Stored)) {
        let mut next = self.stored().clone();
        change(&mut next);
        next.version += 1;
        self.history.push(next);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Want(sender, wanted) => self.senders[sender].wanted = wanted,
            Step::Open(sender) => {
                let sender = &mut self.senders[sender];
                sender.open = sender.open.max(sender.share.min(sender.wanted));
            }
            Step::Close(sender) => self.senders[sender].open = self.senders[sender].open.saturating_sub(1),
            Step::Watch(sender, at) => {
                let seen = usize::try_from(self.senders[sender].seen).unwrap();
                let newer = &self.history[seen..];
                let version = newer[at.index(newer.len())].version;
                self.watch(sender, version);
            }
            Step::Report(sender) => self.under_way.push((sender, self.claim(sender))),
            Step::Arrive(which) if !self.under_way.is_empty() => {
                let (sender, claim) = self.under_way.remove(which.index(self.under_way.len()));
                self.store(|stored| {
                    stored.claims.insert(name(sender), claim);
                });
            }
            Step::Lose(which) if !self.under_way.is_empty() => {
                self.under_way.remove(which.index(self.under_way.len()));
            }
            Step::Arrive(_) | Step::Lose(_) => {}
            Step::Restart(sender) => {
                let wanted = self.senders[sender].wanted;
                // Its first list is as new as the store.
                let seen = self.stored().version;
                self.senders[sender] = Sender {
                    wanted,
                    seen,
                    ..Sender::default()
                };
            }
            Step::Read(controller) => self.read[controller] = Some(self.stored().clone()),
            Step::Write(controller) => self.write(controller),
            Step::Reachable(sender, reachable) => self.reachable[sender] = reachable,
            Step::Wait(seconds) => self.now += Duration::from_secs(seconds),
        }
    }

    fn watch(&mut self, sender: usize, version: u64) {
        let stored = &self.history[usize::try_from(version).unwrap()];
        let share = stored.shares.get(&name(sender)).map_or(0, |share| share.granted);
        let sender = &mut self.senders[sender];
        sender.seen = version;
        sender.share = share;
        sender.revision = Some(stored.revision);
    }

    fn claim(&self, sender: usize) -> Claim {
        let sender = &self.senders[sender];
        Claim {
            wanted: sender.wanted,
            held: sender.open.max(sender.share),
            revision: sender.revision,
            reachable: true,
        }
    }

    fn write(&mut self, controller: usize) {
        let Some(read) = self.read[controller].take() else {
            return;
        };
        if read.version != self.stored().version {
            return;
        }
        let mut claims = read.claims;
        for (sender, reachable) in self.reachable.iter().enumerate() {
            if let Some(claim) = claims.get_mut(&name(sender)) {
                claim.reachable = *reachable;
            }
        }
        let revision = read.revision + 1;
        let shares = reallocate(self.limit, &read.shares, &claims, revision, self.now);
        if shares != read.shares {
            self.store(|stored| {
                stored.shares = shares;
                stored.revision = revision;
            });
        }
    }

    fn used(&self) -> u64 {
        self.senders.iter().map(|sender| sender.open).sum()
    }

    fn may_be_used(&self) -> u64 {
        self.senders.iter().map(|sender| sender.open.max(sender.share)).sum()
    }

    /// Everybody sees, reports and writes, again and again.
    fn calm(&mut self, rounds: usize) {
        self.reachable = [true; SENDERS];
        for _ in 0..rounds {
            for sender in 0..SENDERS {
                self.watch(sender, self.stored().version);
                let state = &mut self.senders[sender];
                state.open = state.share.min(state.wanted);
                let claim = self.claim(sender);
                self.store(|stored| {
                    stored.claims.insert(name(sender), claim);
                });
            }
            self.step(Step::Read(0));
            self.step(Step::Write(0));
        }
    }

    fn granted(&self) -> [u64; SENDERS] {
        std::array::from_fn(|sender| self.stored().shares.get(&name(sender)).map_or(0, |share| share.granted))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_limit_is_never_exceeded(limit in 1..16_u64, steps in proptest::collection::vec(step(), 1..300)) {
        let mut world = World::new(limit);
        for step in steps {
            world.step(step.clone());
            prop_assert!(world.used() <= limit, "{} used after {:?}", world.used(), step);
            prop_assert!(world.may_be_used() <= limit, "{} may be used after {:?}", world.may_be_used(), step);
            let granted: u64 = world.granted().iter().sum();
            prop_assert!(granted <= limit, "{granted} granted");
        }
    }

    #[test]
    fn once_it_is_calm_everybody_has_a_share(limit in 1..16_u64, steps in proptest::collection::vec(step(), 0..150), wanted in proptest::array::uniform4(0..20_u64)) {
        let mut world = World::new(limit);
        for step in steps {
            world.step(step);
        }
        world.under_way.clear();
        for (sender, wanted) in world.senders.iter_mut().zip(wanted) {
            sender.wanted = wanted;
        }
        world.calm(8);
        let granted = world.granted();
        let wanting = wanted.iter().filter(|wanted| **wanted > 0).count() as u64;
        prop_assert_eq!(granted.iter().sum::<u64>(), limit.min(wanted.iter().sum()), "all of it is given out");
        for (granted, wanted) in granted.iter().zip(wanted) {
            prop_assert!(*granted <= wanted);
            if wanting <= limit {
                prop_assert!(*granted >= wanted.min(limit / SENDERS as u64).min(wanted));
                prop_assert_eq!(*granted > 0, wanted > 0);
            }
        }
        if wanting <= limit {
            let before = world.stored().shares.clone();
            world.calm(3);
            prop_assert_eq!(&world.stored().shares, &before, "and nothing moves any more");
        } else {
            let mut held = [false; SENDERS];
            for _ in 0..=wanting {
                world.now += TURN;
                world.calm(4);
                for (held, granted) in held.iter_mut().zip(world.granted()) {
                    *held |= granted > 0;
                }
            }
            prop_assert_eq!(held.iter().filter(|held| **held).count() as u64, wanting, "nobody starves");
        }
    }

    #[test]
    fn a_lower_limit_lets_nothing_grow(limits in proptest::array::uniform2(1..16_u64), steps in proptest::collection::vec(step(), 1..200)) {
        let mut world = World::new(limits[0]);
        let turn = steps.len() / 2;
        let mut most = limits[0];
        for (number, step) in steps.into_iter().enumerate() {
            if number == turn {
                world.limit = limits[1];
                most = most.max(limits[1]);
            }
            world.step(step);
            prop_assert!(world.may_be_used() <= most);
        }
        world.under_way.clear();
        world.calm(8);
        prop_assert!(world.may_be_used() <= limits[1]);
    }
}
