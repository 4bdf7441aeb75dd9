//! Other ways to pace mail, each built from its public description and tuned fairly; its file says how.
//!
//! What is compared is pacing, so all else is shared: every rival is told the same verdicts by the same classifier, gives
//! up a message when the classifier says that it has failed, and starts from the same cap on connections. Where a rule of
//! the original would only hurt it in these scenarios, it is left out, and the file of the rival says so.

pub mod aimd;
pub mod fixed;
pub mod postfix;
pub mod regex_suspend;
mod retries;
mod trigger;

#[cfg(test)]
mod playground;

use std::time::Duration;

use crate::controller::Controller;
use aimd::Aimd;
use fixed::Fixed;
use postfix::{Feedback, Postfix};
use regex_suspend::RegexSuspend;

/// What an expert knows of a provider. Only [`Fixed::tuned`] is told.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Knowledge {
    /// Connections that the provider bears from one source; none where there is no limit. Where it moves, the least of the
    /// run: a fixed rule must be safe at all times.
    pub connections: Option<u32>,
    /// Messages a second that it takes; none where there is no limit.
    pub messages_per_second: Option<f64>,
    /// Messages a day that it takes; none where there is no limit.
    pub per_day: Option<u64>,
    /// How long a message takes in a connection of its own, as the logs show it; none where that is not known.
    pub time_per_message: Option<Duration>,
}

/// The names, in the order of the tables.
pub const NAMES: [&str; 7] = [
    fixed::GENERIC,
    fixed::TUNED,
    Feedback::One.name(),
    Feedback::OneByN.name(),
    Feedback::OneBySqrtN.name(),
    aimd::NAME,
    regex_suspend::NAME,
];

/// Every rival, each with at most `cap` connections.
pub fn all(cap: u32, knowledge: &Knowledge) -> Vec<Box<dyn Controller>> {
    NAMES.iter().filter_map(|name| by_name(name, cap, knowledge)).collect()
}

/// The rival of this name; none where there is no such rival.
pub fn by_name(name: &str, cap: u32, knowledge: &Knowledge) -> Option<Box<dyn Controller>> {
    let postfix = |feedback| Some(Box::new(Postfix::new(feedback, cap)) as Box<dyn Controller>);
    match name {
        fixed::GENERIC => Some(Box::new(Fixed::generic(cap))),
        fixed::TUNED => Some(Box::new(Fixed::tuned(cap, knowledge))),
        aimd::NAME => Some(Box::new(Aimd::new(cap))),
        regex_suspend::NAME => Some(Box::new(RegexSuspend::new(cap))),
        _ => [Feedback::One, Feedback::OneByN, Feedback::OneBySqrtN]
            .into_iter()
            .find(|feedback| feedback.name() == name)
            .and_then(postfix),
    }
}

#[cfg(test)]
mod tests {
    use relaypool_simulator::scenarios::Scenario;

    use super::*;
    use playground::Playground;

    #[test]
    fn every_rival_starts_in_every_scenario_with_every_cap() {
        for scenario in Scenario::ALL {
            for cap in [1, 20] {
                for mut rival in all(cap, &Knowledge::default()) {
                    let mut playground = Playground::new(&scenario.provider(), 1);
                    let played = playground.play(&mut *rival, Duration::from_secs(5));
                    assert!(played.attempts > 0, "{scenario:?} {cap} {}", rival.name());
                    let view = rival.view(Duration::from_secs(5));
                    assert!(view.window <= f64::from(cap), "{scenario:?} {cap} {}", rival.name());
                }
            }
        }
    }

    #[test]
    fn every_name_has_its_rival() {
        let rivals = all(20, &Knowledge::default());
        let names: Vec<&str> = rivals.iter().map(|rival| rival.name()).collect();
        assert_eq!(names, NAMES);
        assert!(by_name("pacer", 20, &Knowledge::default()).is_none());
    }
}
