//! Whatever limits a provider had: when it has none any more, the lane soon makes use of it.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../examples/random/compositions.rs"]
mod compositions;

use compositions::{Kind, composition};
use relaypool_pacer_bench::bench::run;
use relaypool_pacer_bench::omniscient;
use relaypool_pacer_bench::run::{Outcome, Plan};
use relaypool_pacer_bench::scenario::{Scale, Scenario};

/// Limits for twenty minutes, then two hours without.
const KIND: Kind = Kind {
    seconds: 1_200 + 7_200,
    unlimited_from: Some(1_200),
    with_broken: false,
    busiest: 8.0,
};

/// What is delivered in the last ten minutes.
fn at_the_end(outcome: &Outcome) -> u64 {
    let timeline = &outcome.lanes[0].timeline;
    let samples = (600.0 / timeline.step.as_secs_f64()) as usize;
    let last = timeline.samples.iter().rev().take(samples);
    last.map(|sample| sample.accepted).sum()
}

#[test]
fn a_lane_makes_use_of_a_provider_that_limits_nothing_any_more() {
    for number in 1..=20 {
        let yaml = composition(number, KIND);
        let scenario = Scenario::from_yaml(&yaml).unwrap();
        let plan = Plan::new(&scenario, Scale::Base, 1);
        let possible = at_the_end(&run(&plan, omniscient::NAME).unwrap());
        let outcome = run(&plan, "pacer").unwrap();
        let used = at_the_end(&outcome) as f64 / possible as f64;
        let view = outcome.lanes[0].view;
        assert!(used > 0.8, "{used:.3} of {possible}, {view:?}:\n{yaml}");
    }
}
