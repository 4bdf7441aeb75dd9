//! The same scenario, smaller or larger, faster or slower.

use std::fmt;

use relaypool_api::{Duration, Rate};
use relaypool_simulator::description::Behaviour;

use super::{Demand, Goals, Receiver, Scenario, Share};

/// How a row differs from the scenario as it is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// Not at all.
    Base,
    /// Limits, rates, bursts, quotas, the refusals borne before a block, numbers of messages, and the window cap are so many
    /// times as large, rounded up.
    Sizes(f64),
    /// Service times, latencies, windows, delays, blocks, the times at which limits change, the duration and the deadlines
    /// are so many times as long. A calendar day stays a day.
    Times(f64),
}

/// How much further from perfect a scaled row may be than the row as it is written.
const SLACK: f64 = 1.5;

impl Scale {
    /// The row as it is written, and its six variants.
    pub const ALL: [Self; 7] = [
        Self::Base,
        Self::Sizes(0.5),
        Self::Sizes(2.0),
        Self::Sizes(5.0),
        Self::Times(0.5),
        Self::Times(2.0),
        Self::Times(5.0),
    ];

    /// The scenario at this scale. Its goals are wider by [`slack`](Self::slack); those that can only be said in terms of a
    /// capacity are left for the judge.
    #[must_use]
    pub fn of(self, scenario: &Scenario) -> Scenario {
        let mut scaled = scenario.clone();
        scaled.window_cap = self.size(scaled.window_cap);
        scaled.demand = match scaled.demand {
            Demand::Saturating => Demand::Saturating,
            Demand::Deliveries(messages) => Demand::Deliveries(self.count(messages)),
            Demand::Messages(messages) => Demand::Messages(self.count(messages)),
            Demand::Backlog(rate) => Demand::Backlog(self.rate(rate)),
            Demand::Arrivals(rate) => Demand::Arrivals(self.rate(rate)),
            Demand::Daily(messages) => Demand::Daily(self.count(messages)),
        };
        scaled.duration = scaled.duration.map(|duration| self.time(duration));
        let receivers = scaled.provider.iter_mut();
        for receiver in receivers.chain(scaled.mix.iter_mut().map(|part| &mut part.provider)) {
            self.receiver(receiver);
        }
        self.goals(&mut scaled.goals);
        scaled
    }

    /// By how much a shortfall may be larger than in the row as it is written.
    pub fn slack(self) -> f64 {
        match self {
            Self::Base => 1.0,
            Self::Sizes(_) | Self::Times(_) => SLACK,
        }
    }

    fn goals(self, goals: &mut Goals) {
        let slack = self.slack();
        let widen = |share: &mut Share| *share = Share::clamped(1.0 - slack * (1.0 - share.get()));
        goals.max_refused_share = goals.max_refused_share.map(|share| Share::clamped(share.get() * slack));
        goals.min_utilisation.iter_mut().for_each(widen);
        if let Some(delivered) = &mut goals.min_delivered {
            widen(&mut delivered.share);
            delivered.by = self.time(delivered.by);
        }
        goals.max_refusals_per_day = goals
            .max_refusals_per_day
            .map(|refusals| (refusals as f64 * slack).ceil() as u64);
    }

    fn receiver(self, receiver: &mut Receiver) {
        receiver.latency.reply = self.time(receiver.latency.reply);
        receiver.latency.refusal = self.time(receiver.latency.refusal);
        for behaviour in &mut receiver.behaviours {
            self.behaviour(behaviour);
        }
    }

    fn behaviour(self, behaviour: &mut Behaviour) {
        match behaviour {
            Behaviour::ConnectionLimit(limit) => {
                limit.limit = self.size(limit.limit);
                for change in &mut limit.changes {
                    change.at = self.time(change.at);
                    change.limit = self.size(change.limit);
                }
            }
            Behaviour::RateLimit(limit) => {
                limit.rate = self.rate(limit.rate);
                limit.burst = self.count(limit.burst);
                for change in &mut limit.changes {
                    change.at = self.time(change.at);
                    change.rate = self.rate(change.rate);
                    change.burst = self.count(change.burst);
                }
            }
            Behaviour::BlockAfterRefusals(block) => {
                block.refusals = self.size(block.refusals);
                block.within = self.time(block.within);
                block.period = self.time(block.period);
            }
            Behaviour::DailyQuota(quota) => quota.messages = self.count(quota.messages),
            Behaviour::Greylisting(greylisting) => greylisting.delay = self.time(greylisting.delay),
            Behaviour::ServiceTime(service) => service.time = self.time(service.time),
            Behaviour::Slowdown(slowdown) => {
                slowdown.beyond_connections = self.size(slowdown.beyond_connections);
                slowdown.extra = self.time(slowdown.extra);
            }
            Behaviour::MessagesPerConnection(limit) => limit.limit = self.size(limit.limit),
            Behaviour::Refusals(refusals) => {
                refusals.from = self.time(refusals.from);
                refusals.until = refusals.until.map(|until| self.time(until));
            }
            Behaviour::BrokenBackends(_) | Behaviour::Disconnects(_) => {}
        }
    }

    fn size(self, size: u32) -> u32 {
        u32::try_from(self.count(u64::from(size))).unwrap_or(u32::MAX)
    }

    fn count(self, count: u64) -> u64 {
        match self {
            Self::Sizes(factor) => (count as f64 * factor).ceil() as u64,
            Self::Base | Self::Times(_) => count,
        }
    }

    fn rate(self, rate: Rate) -> Rate {
        Rate::new(self.count(rate.messages()), rate.unit()).unwrap_or(rate)
    }

    fn time(self, time: Duration) -> Duration {
        match self {
            Self::Times(factor) => time.get().mul_f64(factor).into(),
            Self::Base | Self::Sizes(_) => time,
        }
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => formatter.write_str("base"),
            Self::Sizes(factor) => write!(formatter, "sizes x{factor}"),
            Self::Times(factor) => write!(formatter, "times x{factor}"),
        }
    }
}
