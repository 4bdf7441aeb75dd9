//! One run of a scenario: everything that the seed and the scale decide, decided.

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use relaypool_simulator::description::{Behaviour, Provider};

use super::backlog::Supply;
use crate::days::Days;
use crate::scenario::{Demand, Scale, Scenario, Variation};

const DAY: Duration = Duration::from_secs(86_400);

/// One run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// A lane for each provider.
    pub lanes: Vec<LanePlan>,
    /// When it is over.
    pub duration: Duration,
    /// It is over before, when so many messages are delivered.
    pub enough: Option<u64>,
    /// What is delivered by this time is counted.
    pub deadline: Option<Duration>,
    /// Decides all chance.
    pub seed: u64,
}

/// One lane.
#[derive(Debug, Clone)]
pub struct LanePlan {
    /// Who receives.
    pub provider: Provider,
    /// Its calendar.
    pub days: Days,
    /// Connections at most.
    pub window_cap: u32,
    /// What there is to send.
    pub supply: Supply,
}

impl Plan {
    /// The run of `scenario` at `scale` with this seed.
    pub fn new(scenario: &Scenario, scale: Scale, seed: u64) -> Self {
        let scenario = scale.of(scenario);
        let mut random = StdRng::seed_from_u64(seed ^ 0x7061_6365_725f_6265);
        let parts: Vec<(f64, Provider)> = scenario
            .parts()
            .into_iter()
            .map(|(share, receiver)| (share, varied(receiver.provider(), scenario.vary, &mut random)))
            .collect();
        let days = |provider: &Provider| Days::of_provider(provider);
        let duration = match (scenario.duration, scenario.days) {
            (Some(duration), _) => duration.get(),
            (None, whole) => {
                let first = parts.first().map(|(_, provider)| days(provider));
                let rest = first
                    .filter(|days| !days.starts_at_midnight())
                    .map_or(Duration::ZERO, |days| days.next_midnight(Duration::ZERO));
                rest + DAY * whole.unwrap_or(1)
            }
        };
        let lanes = parts
            .into_iter()
            .map(|(share, provider)| LanePlan {
                days: days(&provider),
                window_cap: scenario.window_cap,
                supply: supply(scenario.demand, share, duration, &mut random),
                provider,
            })
            .collect();
        Self {
            lanes,
            duration,
            enough: match scenario.demand {
                Demand::Deliveries(enough) => Some(enough),
                _ => None,
            },
            deadline: scenario.goals.min_delivered.map(|delivered| delivered.by.get()),
            seed,
        }
    }

    /// How many messages there are in all, where their number has an end.
    pub fn messages(&self) -> Option<u64> {
        self.lanes.iter().map(|lane| lane.supply.messages()).sum()
    }
}

impl Supply {
    fn messages(&self) -> Option<u64> {
        match self {
            Self::Endless => None,
            Self::List(messages) => Some(*messages),
            Self::Arrivals(times) => Some(times.len() as u64),
        }
    }
}

fn supply(demand: Demand, share: f64, duration: Duration, random: &mut StdRng) -> Supply {
    let part = |messages: f64| (messages * share).round() as u64;
    match demand {
        Demand::Saturating | Demand::Deliveries(_) => Supply::Endless,
        Demand::Messages(messages) => Supply::List(part(messages as f64)),
        Demand::Backlog(rate) => Supply::List(part(rate.per_second() * duration.as_secs_f64())),
        Demand::Arrivals(rate) => {
            let per_second = rate.per_second() * share;
            let by_chance = random.random::<bool>();
            Supply::Arrivals(arrivals(per_second, duration, by_chance.then_some(random)))
        }
        Demand::Daily(messages) => {
            let messages = part(messages as f64);
            if random.random::<bool>() {
                return Supply::Arrivals(arrivals(messages as f64 / DAY.as_secs_f64(), duration, None));
            }
            let days = duration.as_secs().div_ceil(DAY.as_secs());
            let day = |day| std::iter::repeat_n(DAY * u32::try_from(day).unwrap_or(u32::MAX), messages as usize);
            Supply::Arrivals((0..days).flat_map(day).collect())
        }
    }
}

/// Arrivals at an even rate, or those of a Poisson process where chance is given.
fn arrivals(per_second: f64, duration: Duration, mut chance: Option<&mut StdRng>) -> VecDeque<Duration> {
    let mut times = VecDeque::new();
    let mut at = 0.0;
    while at < duration.as_secs_f64() && per_second > 0.0 {
        times.push_back(Duration::from_secs_f64(at));
        let gap = match &mut chance {
            Some(random) => -(1.0 - random.random::<f64>()).ln(),
            None => 1.0,
        };
        at += gap / per_second;
    }
    times
}

fn varied(mut provider: Provider, vary: Variation, random: &mut StdRng) -> Provider {
    for behaviour in &mut provider.behaviours {
        match behaviour {
            Behaviour::ConnectionLimit(limit) if vary.changes => {
                limit.changes.sort_by_key(|change| change.at);
                shift(limit.changes.iter_mut().map(|change| &mut change.at), random);
            }
            Behaviour::RateLimit(limit) if vary.changes => {
                limit.changes.sort_by_key(|change| change.at);
                shift(limit.changes.iter_mut().map(|change| &mut change.at), random);
            }
            Behaviour::DailyQuota(quota) if vary.time_of_day => {
                quota.utc_offset_minutes = 30 * random.random_range(-24..=28);
                quota.time_of_day_at_start = relaypool_api::Duration::from_secs(random.random_range(0..86_400));
            }
            _ => {}
        }
    }
    provider
}

/// Moves each time by up to a tenth of what lies between it and the one before.
fn shift<'a>(times: impl Iterator<Item = &'a mut relaypool_api::Duration>, random: &mut StdRng) {
    let mut before = Duration::ZERO;
    for time in times {
        let planned = time.get();
        let by = (planned - before).mul_f64(0.2 * random.random::<f64>());
        *time = (planned - (planned - before).mul_f64(0.1) + by).into();
        before = planned;
    }
}
