//! How a limit that all senders of a pool have together is shared out among them.
//!
//! One number is shared: connections, or messages in one unit of time. [`reallocate`] turns what senders claim into what
//! they are granted. Claims and grants travel through a store (the status of an object) and come late, in any order or not
//! at all; still, all senders together never use more than the limit:
//!
//! - each change of a grant has a *revision*, and a sender says with its claim up to which revision it has followed;
//! - a share that shrinks still *counts* in full until its sender has followed it and says that it holds no more;
//! - a share grows only by what no share counts.
//!
//! A sender that does not answer keeps what it counts. The caller must write the result only over exactly the shares that
//! it was computed from (compare and swap), and read both from the store each time: the store is the only memory.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Where there are more senders with demand than the limit has units, a share that has been held for this long goes to the
/// sender that has waited longest.
pub const TURN: Duration = Duration::from_secs(30);

/// The share of one sender, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// What the sender may use once it knows of it.
    pub granted: u64,
    /// The most it may be using now. Not below `granted`.
    pub counted: u64,
    /// The revision of the last change of `granted`.
    pub revision: u64,
    /// When `granted` last became zero, or ceased to be.
    pub since: Duration,
}

/// What a sender says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// What it could make use of.
    pub wanted: u64,
    /// The most that it will use before it hears of a newer revision.
    pub held: u64,
    /// It has followed all grants up to this revision; none when it has not heard of any.
    pub revision: Option<u64>,
    /// Whether it has been heard lately. What it said stays true; what it wants may not be so any more.
    pub reachable: bool,
}

/// The new shares. Grants that change carry `revision`, which must be higher than any that ever was in the store. A sender
/// that claims nothing keeps what it has. Where the result equals `shares`, nothing need be written.
///
/// The limit is divided evenly, and what one sender does not want goes to the others. Where not every sender that wants
/// something can have one unit, they take turns (see [`TURN`]).
pub fn reallocate(
    limit: u64,
    shares: &BTreeMap<String, Share>,
    claims: &BTreeMap<String, Claim>,
    revision: u64,
    now: Duration,
) -> BTreeMap<String, Share> {
    let mut holders = holders(shares, claims, revision, now);
    let targets = targets(limit, &holders, now);
    for (name, holder) in &mut holders {
        let target = targets.get(name).copied().unwrap_or(0);
        if target < holder.share.granted {
            holder.set(target, revision, now);
        }
    }
    grow(limit, &mut holders, &targets, revision, now);
    holders
        .into_iter()
        .filter(|(_, holder)| holder.is_worth_keeping())
        .map(|(name, holder)| {
            let share = holder.into_share(shares.get(&name));
            (name, share)
        })
        .collect()
}

/// A share and what is known of its sender.
#[derive(Debug)]
struct Holder {
    share: Share,
    /// None: nobody knows, so the share stays as it is.
    wanted: Option<u64>,
}

impl Holder {
    /// A grant changes; what it counts does not fall by that.
    fn set(&mut self, granted: u64, revision: u64, now: Duration) {
        if (granted == 0) != (self.share.granted == 0) {
            self.share.since = now;
        }
        self.share.granted = granted;
        self.share.counted = self.share.counted.max(granted);
        self.share.revision = revision;
    }

    fn is_worth_keeping(&self) -> bool {
        self.share.granted > 0 || self.share.counted > 0 || self.wanted.is_some_and(|wanted| wanted > 0)
    }

    /// An acknowledgement alone is not worth a write: it can be read from the claim again.
    fn into_share(self, before: Option<&Share>) -> Share {
        match before {
            Some(before) if before.revision == self.share.revision && before.counted > self.share.counted => *before,
            _ => self.share,
        }
    }
}

fn holders(
    shares: &BTreeMap<String, Share>,
    claims: &BTreeMap<String, Claim>,
    revision: u64,
    now: Duration,
) -> BTreeMap<String, Holder> {
    let names: BTreeSet<&String> = shares.keys().chain(claims.keys()).collect();
    let holder = |name: &String| {
        let claim = claims.get(name);
        let mut share = shares.get(name).copied().unwrap_or(Share {
            granted: 0,
            // A share that the store has lost.
            counted: claim.map_or(0, |claim| claim.held),
            revision,
            since: now,
        });
        if let Some(claim) = claim.filter(|claim| claim.revision >= Some(share.revision)) {
            share.counted = claim.held.max(share.granted);
        }
        let wanted = claim.filter(|claim| claim.reachable).map(|claim| claim.wanted);
        (name.clone(), Holder { share, wanted })
    };
    names.into_iter().map(holder).collect()
}

/// What each sender should have once all have followed.
fn targets(limit: u64, holders: &BTreeMap<String, Holder>, now: Duration) -> BTreeMap<String, u64> {
    if limit == 0 {
        return BTreeMap::new();
    }
    let silent = holders.iter().filter(|(_, holder)| holder.wanted.is_none());
    let mut targets: BTreeMap<String, u64> = silent
        .map(|(name, holder)| (name.clone(), holder.share.granted))
        .collect();
    let reserved = total(
        holders
            .values()
            .filter(|holder| holder.wanted.is_none())
            .map(|holder| holder.share.counted),
    );
    let free = limit.saturating_sub(reserved);
    let wanting: Vec<(&String, &Share, u64)> = holders
        .iter()
        .filter_map(|(name, holder)| Some((name, &holder.share, holder.wanted.filter(|wanted| *wanted > 0)?)))
        .collect();
    let divided = if wanting.len() as u64 <= free {
        divide(free, wanting)
    } else {
        take_turns(free, wanting, now)
    };
    targets.extend(divided);
    targets
}

/// Everybody gets what it wants up to a level that is the same for all. Units that are left over go to those that have most
/// already, so that nothing moves without need.
fn divide(free: u64, mut wanting: Vec<(&String, &Share, u64)>) -> Vec<(String, u64)> {
    wanting.sort_by_key(|(_, _, wanted)| *wanted);
    let (mut left, mut level) = (free, 0);
    let count = wanting.len() as u64;
    for (satisfied, (_, _, wanted)) in (0_u64..).zip(&wanting) {
        level = left / (count - satisfied);
        if *wanted > level {
            break;
        }
        left -= wanted;
        level = *wanted;
    }
    let mut spare = free - total(wanting.iter().map(|(_, _, wanted)| (*wanted).min(level)));
    wanting.sort_by_key(|(name, share, _)| (std::cmp::Reverse(share.granted), *name));
    let mut targets = Vec::new();
    for (name, _, wanted) in wanting {
        let extra = u64::from(wanted > level && spare > 0);
        spare -= extra;
        targets.push((name.clone(), wanted.min(level) + extra));
    }
    targets
}

/// One unit for each of the first: those in the middle of their turn, those that wait, those whose turn is over.
fn take_turns(free: u64, mut wanting: Vec<(&String, &Share, u64)>, now: Duration) -> Vec<(String, u64)> {
    wanting.sort_by_key(|(_, share, _)| {
        let is_holding = share.granted > 0;
        let is_over = is_holding && now.saturating_sub(share.since) >= TURN;
        match (is_holding, is_over) {
            (true, false) => (0, share.since),
            (false, _) => (1, share.since),
            (true, true) => (2, Duration::MAX.saturating_sub(share.since)),
        }
    });
    let first = usize::try_from(free).unwrap_or(usize::MAX);
    wanting
        .into_iter()
        .take(first)
        .map(|(name, _, _)| (name.clone(), 1))
        .collect()
}

/// Gives out what no share counts: first one unit to those that have nothing, whoever waits longest first; then the rest.
fn grow(
    limit: u64,
    holders: &mut BTreeMap<String, Holder>,
    targets: &BTreeMap<String, u64>,
    revision: u64,
    now: Duration,
) {
    let mut room = limit.saturating_sub(total(holders.values().map(|holder| holder.share.counted)));
    let mut growing: Vec<(Duration, &String)> = targets
        .iter()
        .filter_map(|(name, target)| {
            let share = &holders.get(name)?.share;
            (*target > share.granted).then_some((share.since, name))
        })
        .collect();
    growing.sort_unstable();
    for at_most in [1, u64::MAX] {
        for (_, name) in &growing {
            let (Some(holder), Some(target)) = (holders.get_mut(*name), targets.get(*name)) else {
                continue;
            };
            let counted = holder.share.counted;
            let grant = (*target).min(at_most).min(counted.saturating_add(room));
            if grant > holder.share.granted {
                holder.set(grant, revision, now);
                room -= holder.share.counted - counted;
            }
        }
    }
}

fn total(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn share(granted: u64, counted: u64, revision: u64) -> Share {
        Share {
            granted,
            counted,
            revision,
            since: NOW,
        }
    }

    fn claim(wanted: u64, held: u64, revision: u64) -> Claim {
        Claim {
            wanted,
            held,
            revision: Some(revision),
            reachable: true,
        }
    }

    fn named<T: Copy, const N: usize>(all: [(&str, T); N]) -> BTreeMap<String, T> {
        all.map(|(name, one)| (name.to_owned(), one)).into()
    }

    fn granted(shares: &BTreeMap<String, Share>) -> Vec<u64> {
        shares.values().map(|share| share.granted).collect()
    }

    #[test]
    fn divides_by_demand() {
        for (limit, wanted, expected) in [
            (10, [20, 20, 20], [4, 3, 3]),
            (10, [20, 1, 20], [5, 1, 4]),
            (10, [2, 3, 4], [2, 3, 4]),
            (10, [0, 0, 40], [0, 0, 10]),
            (3, [9, 9, 9], [1, 1, 1]),
            (2, [9, 9, 9], [1, 1, 0]),
            (0, [9, 9, 9], [0, 0, 0]),
        ] {
            let claims = named([
                ("a", claim(wanted[0], 0, 0)),
                ("b", claim(wanted[1], 0, 0)),
                ("c", claim(wanted[2], 0, 0)),
            ]);
            let shares = reallocate(limit, &BTreeMap::new(), &claims, 1, NOW);
            let got = ["a", "b", "c"].map(|name| shares.get(name).map_or(0, |share| share.granted));
            assert_eq!(got, expected, "{limit} for {wanted:?}");
        }
    }

    #[test]
    fn a_share_shrinks_is_acknowledged_and_only_then_another_grows() {
        let shares = named([("a", share(10, 10, 1))]);
        let newcomer = claim(20, 0, 1);
        let shrunk = reallocate(10, &shares, &named([("a", claim(20, 10, 1)), ("b", newcomer)]), 2, NOW);
        assert_eq!(granted(&shrunk), [5, 0]);
        assert_eq!(shrunk["a"].counted, 10);

        // It has heard of it, and three connections too many are still at their last message.
        let closing = named([("a", claim(20, 8, 2)), ("b", newcomer)]);
        let partly = reallocate(10, &shrunk, &closing, 3, NOW);
        assert_eq!(granted(&partly), [5, 2]);

        let closed = named([("a", claim(20, 5, 2)), ("b", claim(20, 2, 3))]);
        let done = reallocate(10, &partly, &closed, 4, NOW);
        assert_eq!(granted(&done), [5, 5]);
        let still = named([("a", claim(20, 5, 4)), ("b", claim(20, 5, 4))]);
        assert_eq!(reallocate(10, &done, &still, 5, NOW), done, "and then nothing moves");
    }

    #[test]
    fn who_does_not_answer_keeps_its_share() {
        let shares = named([("a", share(4, 4, 1)), ("b", share(3, 3, 1)), ("c", share(3, 3, 1))]);
        let silent = Claim {
            reachable: false,
            ..claim(20, 4, 1)
        };
        let claims = named([("a", silent), ("b", claim(20, 3, 1)), ("c", claim(0, 3, 1))]);
        let after = reallocate(10, &shares, &claims, 2, NOW);
        assert_eq!(granted(&after), [4, 3, 0]);
        let claims = named([("b", claim(20, 3, 2)), ("c", claim(0, 0, 2))]);
        let after = reallocate(10, &after, &claims, 3, NOW);
        assert_eq!(granted(&after), [4, 6], "nor does one whose claim is gone");
        // The limit is no more: even this share ends, and counts until its sender says so.
        let ended = reallocate(0, &after, &BTreeMap::new(), 4, NOW);
        assert_eq!((granted(&ended), ended["a"].counted), (vec![0, 0], 4));
    }

    #[test]
    fn senders_take_turns_at_a_limit_that_is_smaller_than_their_number() {
        let mut shares = BTreeMap::new();
        let mut held_by = BTreeSet::new();
        let mut revision = 1;
        let mut now = NOW;
        for _ in 0..6 {
            let before = shares.clone();
            for _ in 0..3 {
                // Everybody follows at once.
                let claims = ["a", "b", "c"].map(|name| {
                    let held = shares.get(name).map_or(0, |share: &Share| share.granted);
                    (name, claim(5, held, revision))
                });
                revision += 1;
                shares = reallocate(1, &shares, &named(claims), revision, now);
            }
            assert_eq!(shares.values().map(|share| share.granted).sum::<u64>(), 1);
            assert_ne!(granted(&shares), granted(&before), "the turn was over");
            let holder = shares.iter().find(|(_, share)| share.granted == 1).unwrap();
            held_by.insert(holder.0.clone());
            now += TURN;
        }
        assert_eq!(held_by.len(), 3);
    }

    #[test]
    fn nothing_is_left_of_senders_that_want_and_hold_nothing() {
        let shares = named([("a", share(4, 4, 1))]);
        let shares = reallocate(10, &shares, &named([("a", claim(0, 4, 1))]), 2, NOW);
        assert_eq!(granted(&shares), [0]);
        let shares = reallocate(10, &shares, &named([("a", claim(0, 0, 2))]), 3, NOW);
        assert!(shares.is_empty());
    }

    #[test]
    fn a_share_that_the_store_lost_counts_as_its_sender_says() {
        let claims = named([("a", claim(20, 8, 7)), ("b", claim(20, 0, 7))]);
        let shares = reallocate(10, &BTreeMap::new(), &claims, 8, NOW);
        assert_eq!(granted(&shares), [5, 2]);
        assert_eq!(shares["a"].counted, 8);
    }
}
