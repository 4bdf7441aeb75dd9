//! What each provider gets of a warm-up day.
//!
//! Receivers judge an address each for itself, so the volume of the address as a whole is only half of a warm-up: one that
//! sent 100 messages a day to a provider and sends it 100,000 the next day looks like a stolen machine there, whatever it
//! sent elsewhere. So each provider has a ramp of its own: at most [`GROWTH`] times what it took on its best day, and
//! always a tenth of the day's volume. As the volumes of the schedule grow more slowly than that, a mix of providers that
//! stays as it is never meets the limit, be it one provider alone; one that is new in the mix needs a few days.

use std::collections::HashMap;

use super::plan::{Destination, Plan};

/// How many times as much as on its best day a provider gets at most. The steepest step of the standard schedule is 2.5, and
/// a stage counts as passed from 90 % on: 2.5 / 0.9 is just below.
const GROWTH: u64 = 3;

/// The part of the day's volume that every provider may get.
const ALWAYS: u64 = 10;

/// Providers that are remembered over a restart and shown. Those that matter are fewer: a best day that allows more than
/// every provider gets anyway is more than a thirtieth of the volume.
pub(super) const MOST_PROVIDERS: usize = 30;

/// Counts of one provider today.
#[derive(Debug, Clone, Default)]
pub(super) struct Today {
    /// Messages that left, those under way included.
    pub(super) sent: u64,
    pub(super) in_flight: u64,
    pub(super) delivered: u64,
    pub(super) rate_refusals: u64,
}

/// The counts of all providers, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Providers {
    today: HashMap<String, Today>,
    /// What a provider without an entry may have got today: not zero after a restart.
    floor: u64,
    /// Most that each accepted on one day.
    best: HashMap<String, u64>,
}

impl Providers {
    /// Those of a warm-up that goes on. `unknown` messages may have gone to any of them, and up to `floor` to each that is not
    /// listed.
    pub(super) fn resumed(listed: impl Iterator<Item = (String, Today, u64)>, unknown: u64, floor: u64) -> Self {
        let mut providers = Self {
            floor: floor.saturating_add(unknown),
            ..Self::default()
        };
        for (name, mut today, best) in listed {
            today.sent = today.sent.saturating_add(unknown);
            if best > 0 {
                providers.best.insert(name.clone(), best);
            }
            providers.today.insert(name, today);
        }
        providers
    }

    /// Messages that may still go to a provider today.
    pub(super) fn room(&self, plan: &Plan, destination: &Destination, stage: u32) -> u64 {
        let name = plan.provider(destination);
        self.limit(plan, name, stage).saturating_sub(self.sent(name))
    }

    /// Messages that may go to a provider today.
    pub(super) fn limit(&self, plan: &Plan, name: &str, stage: u32) -> u64 {
        let volume = plan.volume(stage).unwrap_or(u64::MAX);
        if let Some(limit) = plan.explicit_limit(name, volume) {
            return limit;
        }
        let always = (volume / ALWAYS).max(plan.volume(1).unwrap_or(volume));
        let best = self.best_day(name);
        let grown = best.saturating_mul(GROWTH).max(grown_with_volume(plan, stage, best));
        always.max(grown).min(volume)
    }

    pub(super) fn sent(&self, name: &str) -> u64 {
        self.today.get(name).map_or(self.floor, |today| today.sent)
    }

    pub(super) fn best_day(&self, name: &str) -> u64 {
        self.best.get(name).copied().unwrap_or(0)
    }

    pub(super) fn entry(&mut self, name: &str) -> &mut Today {
        if !self.today.contains_key(name) {
            let today = Today {
                sent: self.floor,
                ..Today::default()
            };
            self.today.insert(name.to_owned(), today);
        }
        self.today.entry(name.to_owned()).or_default()
    }

    /// From now on, any provider that is new today may have got so many under another name.
    pub(super) fn names_changed(&mut self, sent: u64) {
        self.floor = self.floor.max(sent);
    }

    /// The day is over: what is under way counts for the next.
    pub(super) fn day_over(&mut self) {
        self.floor = 0;
        for (name, today) in std::mem::take(&mut self.today) {
            let best = self.best.entry(name.clone()).or_default();
            *best = today.delivered.max(*best);
            if today.in_flight > 0 {
                let carried = Today {
                    sent: today.in_flight,
                    in_flight: today.in_flight,
                    ..Today::default()
                };
                self.today.insert(name, carried);
            }
        }
        let mut best: Vec<(String, u64)> = self.best.drain().filter(|(_, best)| *best > 0).collect();
        best.sort_unstable_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        best.truncate(MOST_PROVIDERS);
        self.best.extend(best);
    }

    /// Those that matter most, and the most that any of the others may have got today.
    pub(super) fn largest(&self) -> (Vec<(String, Today, u64)>, u64) {
        let mut names: Vec<&String> = self.today.keys().chain(self.best.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let mut all: Vec<(String, Today, u64)> = names
            .into_iter()
            .map(|name| {
                let unseen = Today {
                    sent: self.floor,
                    ..Today::default()
                };
                let today = self.today.get(name).cloned().unwrap_or(unseen);
                (name.clone(), today, self.best_day(name))
            })
            .collect();
        all.sort_by_key(|(_, today, best)| std::cmp::Reverse((*best).max(today.sent)));
        let others = all.split_off(all.len().min(MOST_PROVIDERS));
        let most = others.iter().map(|(_, today, _)| today.sent).max().unwrap_or(0);
        (all, most.max(self.floor))
    }
}

/// For schedules with steeper steps than the standard one: a provider may grow as the volume does, with the same slack for
/// what was not accepted.
fn grown_with_volume(plan: &Plan, stage: u32, best: u64) -> u64 {
    let (Some(volume), Some(before)) = (plan.volume(stage), plan.volume(stage.saturating_sub(1))) else {
        return 0;
    };
    let grown = u128::from(best) * u128::from(volume) * 10 / (u128::from(before) * 9);
    u64::try_from(grown).unwrap_or(u64::MAX)
}
