//! What the single fields of a scenario cannot say about themselves, and reading one from a file.

use std::collections::HashSet;

use relaypool_simulator::description::Behaviour;
use relaypool_simulator::{World, WorldError};

use super::{Demand, Goals, Receiver, Scenario};
use crate::registry;

const DAY: f64 = 86_400.0;

/// Days that a run may last.
const LONGEST: f64 = 31.0;

/// Attempts that a run may have, about.
const MOST_ATTEMPTS: f64 = 1e9;

/// Messages that a run may have, where they have an end.
const MOST_MESSAGES: f64 = 2e6;

/// Why a scenario cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It is not written as a scenario is.
    #[error(transparent)]
    Syntax(#[from] serde_yaml::Error),
    /// A provider could not be run.
    #[error(transparent)]
    Provider(#[from] WorldError),
    /// Fields that do not go together, or values that cannot be.
    #[error("{field}: {problem}")]
    Field {
        /// Which one.
        field: &'static str,
        /// What is wrong, and how to put it right.
        problem: String,
    },
}

impl Scenario {
    /// Reads one scenario in YAML, or in JSON, which is YAML too.
    ///
    /// # Errors
    ///
    /// When it is not well formed, has fields that are not known, or contradicts itself. The message names the field, and
    /// the line where a single one is to blame.
    pub fn from_yaml(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = serde_yaml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Checks that it can be played.
    ///
    /// # Errors
    ///
    /// The first contradiction found.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let is_name = |character: char| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_' | '.');
        let named = !self.name.is_empty() && self.name.chars().count() <= 60 && self.name.chars().all(is_name);
        require(named, "name", "use 1 to 60 letters, digits, spaces, '-', '_' and '.'")?;
        self.check_receivers()?;
        self.check_length()?;
        require(
            (1..=10_000).contains(&self.window_cap),
            "windowCap",
            "must be from 1 to 10000",
        )?;
        let seeds = self.seeds.is_none_or(|seeds| (1..=10_000).contains(&seeds));
        require(seeds, "seeds", "must be from 1 to 10000")?;
        self.check_amount()?;
        self.goals.check(self)
    }

    fn check_receivers(&self) -> Result<(), ScenarioError> {
        require(
            self.provider.is_some() == self.mix.is_empty(),
            "provider",
            "give either provider or mix",
        )?;
        let percent: f64 = self.mix.iter().map(|part| 100.0 * part.percent.fraction()).sum();
        require(
            self.mix.is_empty() || (percent - 100.0).abs() < 0.01,
            "mix",
            &format!("the parts make {percent} per cent: they must make 100"),
        )?;
        let mut names = HashSet::new();
        for (_, receiver) in self.parts() {
            require(
                names.insert(&receiver.name),
                "mix",
                &format!("two providers are named '{}': give each its own name", receiver.name),
            )?;
            receiver.check()?;
        }
        Ok(())
    }

    fn check_length(&self) -> Result<(), ScenarioError> {
        require(
            self.duration.is_some() != self.days.is_some(),
            "duration",
            "give either duration or days",
        )?;
        let days = self.length_in_seconds() / DAY;
        let field = if self.days.is_some() { "days" } else { "duration" };
        require(
            days > 0.0 && days <= LONGEST,
            field,
            "must be more than 0 and at most 31 days",
        )
    }

    fn check_amount(&self) -> Result<(), ScenarioError> {
        let seconds = self.length_in_seconds();
        let messages = match self.demand {
            Demand::Saturating => 1.0,
            Demand::Deliveries(messages) | Demand::Messages(messages) => messages as f64,
            Demand::Backlog(rate) | Demand::Arrivals(rate) => rate.per_second() * seconds,
            Demand::Daily(messages) => messages as f64 * (seconds / DAY).ceil(),
        };
        require(
            (1.0..=MOST_MESSAGES).contains(&messages),
            "demand",
            &format!("makes {messages} messages: there may be from 1 to {MOST_MESSAGES}"),
        )?;
        let quickest = self.parts().into_iter().map(|(_, receiver)| receiver.quickest());
        let attempts = seconds / quickest.fold(f64::MAX, f64::min) * f64::from(self.window_cap);
        require(
            attempts <= MOST_ATTEMPTS,
            "duration",
            &format!("there could be {attempts:.0} attempts in this time: at most {MOST_ATTEMPTS:.0} can be played"),
        )
    }

    fn length_in_seconds(&self) -> f64 {
        let duration = self.duration.map(|duration| duration.get().as_secs_f64());
        let days = self.days.map(|days| f64::from(days) * DAY);
        duration.or(days).unwrap_or_default()
    }

    fn has_end(&self) -> bool {
        !matches!(self.demand, Demand::Saturating | Demand::Deliveries(_))
    }
}

impl Receiver {
    /// Seconds of the shortest attempt.
    fn quickest(&self) -> f64 {
        let service = self.behaviours.iter().map(|behaviour| match behaviour {
            Behaviour::ServiceTime(service) => {
                let jitter = service.jitter.fraction().min(0.9);
                service.time.get().as_secs_f64() * (1.0 - jitter)
            }
            _ => 0.0,
        });
        let accepted = service.sum::<f64>() + self.latency.reply.get().as_secs_f64();
        accepted.min(self.latency.refusal.get().as_secs_f64())
    }

    fn check(&self) -> Result<(), ScenarioError> {
        let providers = vec![self.provider()];
        let world = World {
            providers,
            ..World::default()
        };
        world.check()?;
        // Time would stand still for a sender that tries again at once.
        require(
            self.quickest() >= 0.001,
            "provider",
            "attempts must take time: give it a serviceTime, and a latency with a refusal of at least 1ms",
        )
    }
}

impl Goals {
    fn check(&self, scenario: &Scenario) -> Result<(), ScenarioError> {
        let is_amount = |amount: f64| amount.is_finite() && amount >= 0.0;
        require(
            self.min_delivered_per_second.is_none_or(is_amount),
            "goals.minDeliveredPerSecond",
            "must be a number, 0 or more",
        )?;
        require(
            self.min_delivered.is_none() || scenario.has_end(),
            "goals.minDelivered",
            "there must be an end to the messages: demand must be messages, backlog, arrivals or daily",
        )?;
        let counts_days = self.min_delivered_per_day.is_some() || self.max_refusals_per_day.is_some();
        require(
            !counts_days || scenario.days.is_some(),
            "goals.minDeliveredPerDay",
            "a run that is judged by days must be as long as whole days: give days instead of duration",
        )?;
        let Some(against) = &self.against else {
            return Ok(());
        };
        let known = registry::names();
        require(
            known.contains(&against.controller.as_str()),
            "goals.against.controller",
            &format!("must be one of {}", known.join(", ")),
        )?;
        require(
            is_amount(against.min_throughput_ratio) && is_amount(against.max_soft_bounce_ratio),
            "goals.against",
            "ratios must be numbers, 0 or more",
        )
    }
}

fn require(holds: bool, field: &'static str, problem: &str) -> Result<(), ScenarioError> {
    if holds {
        return Ok(());
    }
    Err(ScenarioError::Field {
        field,
        problem: problem.to_owned(),
    })
}
