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

#[cfg(test)]
mod tests {
    use relaypool_simulator::description::{BlockAfterRefusals, RateLimit};

    use super::*;
    use crate::scenario::named;

    fn scaled(name: &str, scale: Scale) -> Scenario {
        scale.of(&named(name).unwrap())
    }

    fn behaviours(scenario: &Scenario) -> &[Behaviour] {
        &scenario.provider.as_ref().unwrap().behaviours
    }

    #[test]
    fn sizes_are_rounded_up_and_times_stay() {
        let half = scaled("A", Scale::Sizes(0.5));
        assert!(matches!(&behaviours(&half)[0], Behaviour::ConnectionLimit(limit) if limit.limit == 3));
        assert_eq!((half.window_cap, half.demand), (10, Demand::Deliveries(500)));
        assert_eq!(half.duration, Some(Duration::from_secs(3_600)));

        let larger = scaled("C", Scale::Sizes(5.0));
        let [Behaviour::RateLimit(rate), Behaviour::BlockAfterRefusals(block), _] = behaviours(&larger) else {
            panic!("{larger:?}");
        };
        let RateLimit { rate, burst, .. } = rate;
        assert_eq!((rate.to_string().as_str(), *burst), ("50/s", 100));
        let BlockAfterRefusals { refusals, within, .. } = block;
        assert_eq!((*refusals, *within), (150, Duration::from_secs(60)));
    }

    #[test]
    fn times_stretch_all_that_takes_time_but_no_calendar_day() {
        let slow = scaled("B", Scale::Times(2.0));
        let Behaviour::ConnectionLimit(limit) = &behaviours(&slow)[0] else {
            panic!("{slow:?}");
        };
        assert_eq!(limit.changes[1].at, Duration::from_secs(3_600));
        assert_eq!((limit.changes[1].limit, slow.window_cap), (40, 50));
        assert_eq!(slow.duration, Some(Duration::from_secs(7_200)));
        let latency = slow.provider.as_ref().unwrap().latency;
        assert_eq!(latency.refusal, Duration::from_millis(100));

        let quota = scaled("G", Scale::Times(5.0));
        assert_eq!((quota.days, quota.demand), (Some(3), Demand::Daily(10_000)));
    }

    #[test]
    fn a_shortfall_may_be_half_as_large_again() {
        let near = |share: Option<Share>, expected: f64| {
            let share = share.unwrap().get();
            assert!((share - expected).abs() < 1e-9, "{share}");
        };
        let a = scaled("A", Scale::Sizes(2.0)).goals;
        near(a.max_refused_share, 0.03);
        near(a.min_utilisation, 0.925);
        let e = scaled("E1", Scale::Times(0.5)).goals;
        near(e.min_delivered.map(|goal| goal.share), 0.925);
        assert_eq!(e.min_delivered.unwrap().by, Duration::from_secs(180));
        assert_eq!(e.max_cuts, Some(0), "none is none");
        assert_eq!(scaled("G", Scale::Sizes(5.0)).goals.max_refusals_per_day, Some(60));
        assert_eq!(scaled("A", Scale::Base), named("A").unwrap());
    }

    #[test]
    fn names_are_those_of_the_rows() {
        let names: Vec<String> = Scale::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "base",
                "sizes x0.5",
                "sizes x2",
                "sizes x5",
                "times x0.5",
                "times x2",
                "times x5"
            ]
        );
    }
}
