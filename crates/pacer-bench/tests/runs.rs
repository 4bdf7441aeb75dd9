//! Runs add up, can be repeated, and measure by a capacity that is what arithmetic says.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use relaypool_pacer_bench::bench::{Bench, Cell, run};
use relaypool_pacer_bench::omniscient;
use relaypool_pacer_bench::registry;
use relaypool_pacer_bench::run::{Outcome, Plan};
use relaypool_pacer_bench::scenario::{Demand, Scale, Scenario, named};

/// A scenario cut to four minutes.
fn short(name: &str) -> Scenario {
    let mut scenario = named(name).unwrap();
    if scenario.duration.is_some() {
        scenario.duration = Some("4m".parse().unwrap());
    }
    scenario
}

fn plan(scenario: &Scenario, seed: u64) -> Plan {
    Plan::new(scenario, Scale::Base, seed)
}

#[test]
fn every_attempt_and_every_message_is_accounted_for() {
    for name in ["A", "B", "C", "D", "E2", "H"] {
        let scenario = short(name);
        for controller in registry::names() {
            let plan = plan(&scenario, 3);
            let outcome = run(&plan, controller).unwrap();
            for lane in &outcome.lanes {
                let tally = &lane.tally;
                let case = format!("{name} {controller}: {tally:?}");
                assert!(tally.attempts > 0, "{case}");
                assert_eq!(tally.attempts, tally.accepted + tally.refused + tally.running, "{case}");
                assert_eq!(
                    tally.begun,
                    tally.accepted + tally.failed + tally.waiting + tally.running,
                    "a message is in one place: {case}"
                );
                let days: u64 = tally.days.iter().map(|day| day.accepted + day.refused).sum();
                assert_eq!(days, tally.accepted + tally.refused, "{case}");
            }
            assert!(outcome.elapsed <= plan.duration);
        }
    }
}

#[test]
fn a_seed_decides_everything() {
    for name in ["B", "D", "H"] {
        let scenario = short(name);
        for controller in ["pacer", "aimd", omniscient::NAME] {
            let again = |seed| run(&plan(&scenario, seed), controller).unwrap();
            assert_eq!(again(1), again(1), "{name} {controller}");
            assert_ne!(again(1), again(2), "{name} {controller}");
        }
    }
}

#[test]
fn no_lane_has_more_than_its_share_of_a_list() {
    let plan = plan(&named("H").unwrap(), 1);
    assert_eq!(plan.messages(), Some(60_000));
    let outcome = run(&plan, omniscient::NAME).unwrap();
    let lanes: Vec<u64> = outcome.lanes.iter().map(|lane| lane.tally.accepted).collect();
    assert_eq!(lanes, [36_000, 12_000, 6_000, 6_000]);
}

#[test]
fn capacity_is_what_arithmetic_says() {
    // Seconds of service are 1 but in C, where the rate is the limit.
    let expected = |name: &str, plan: &Plan| -> f64 {
        let seconds = plan.duration.as_secs_f64();
        match name {
            "B" => {
                let changes = plan.lanes[0]
                    .provider
                    .behaviours
                    .iter()
                    .find_map(|behaviour| match behaviour {
                        relaypool_simulator::description::Behaviour::ConnectionLimit(limit) => {
                            Some(limit.changes.clone())
                        }
                        _ => None,
                    });
                let at: Vec<f64> = changes
                    .unwrap()
                    .iter()
                    .map(|change| change.at.get().as_secs_f64())
                    .collect();
                20.0 * at[0] + 5.0 * (at[1] - at[0]) + 40.0 * (seconds - at[1])
            }
            "C" => 20.0 + 10.0 * seconds,
            "F" => 8.0 * seconds,
            _ => unreachable!(),
        }
    };
    for name in ["B", "C", "F"] {
        let scenario = named(name).unwrap();
        let plan = plan(&scenario, 2);
        let tally = run(&plan, omniscient::NAME).unwrap().total();
        assert_eq!(tally.refused, 0, "{name}");
        let share = tally.accepted as f64 / expected(name, &plan);
        assert!((0.99..1.005).contains(&share), "{name}: {share}");
    }
    let outcome = run(&plan(&named("A").unwrap(), 2), omniscient::NAME).unwrap();
    assert_eq!((outcome.total().accepted, outcome.total().refused), (1_000, 0));
    assert!(
        (198.0..202.0).contains(&outcome.elapsed.as_secs_f64()),
        "{:?}",
        outcome.elapsed
    );
}

#[test]
fn broken_backends_cost_an_omniscient_sender_only_their_refusals() {
    let outcome = run(&plan(&short("D"), 1), omniscient::NAME).unwrap();
    let per_second = outcome.total().accepted as f64 / outcome.elapsed.as_secs_f64();
    assert!((19.4..19.9).contains(&per_second), "{per_second}");
}

#[test]
fn a_quota_is_used_up_day_by_day_without_a_refusal() {
    for seed in 1..=3 {
        let plan = plan(&named("G").unwrap(), seed);
        let tally = run(&plan, omniscient::NAME).unwrap().total();
        assert_eq!(tally.refused, 0);
        let days: Vec<u64> = tally.days.iter().map(|day| day.accepted).collect();
        assert_eq!(days[1..4], [5_000; 3], "the first is what is left of a day: {days:?}");
        assert!(plan.duration < Duration::from_secs(4 * 86_400));
    }
}

#[test]
fn greylisting_costs_an_omniscient_sender_its_delay() {
    let Outcome { elapsed, lanes } = run(&plan(&named("E2").unwrap(), 1), omniscient::NAME).unwrap();
    assert_eq!((lanes[0].tally.accepted, lanes[0].tally.refused), (1_000, 1_000));
    assert!((340.0..360.0).contains(&elapsed.as_secs_f64()), "{elapsed:?}");
}

#[test]
fn a_rate_that_changes_is_kept() {
    let scenario = Scenario::from_yaml(
        "name: steps\n\
         provider:\n\
         \x20 behaviours:\n\
         \x20 - { kind: rateLimit, rate: 10/s, burst: 5, changes: [{ at: 100s, rate: 1/m, burst: 1 }, { at: 200s, rate: 5/s, burst: 1 }] }\n\
         \x20 - { kind: refusals, phase: Greeting, from: 250s, until: 260s }\n\
         \x20 - { kind: serviceTime, time: 100ms }\n\
         windowCap: 10\n\
         demand: saturating\n\
         duration: 300s\n",
    )
    .unwrap();
    let tally = run(&plan(&scenario, 1), omniscient::NAME).unwrap().total();
    assert_eq!(tally.refused, 0);
    let expected = 5 + 1_000 + 1 + 90 * 5;
    assert!(
        tally.accepted.abs_diff(expected) <= 6,
        "{} of {expected}",
        tally.accepted
    );
}

#[test]
fn a_failed_message_leaves() {
    let mut scenario = short("A");
    let receiver = scenario.provider.as_mut().unwrap();
    receiver.mailboxes = serde_yaml::from_str("[{ percent: 100, reply: 550 5.1.1 nobody here }]").unwrap();
    scenario.demand = Demand::Messages(50);
    let outcome = run(&plan(&scenario, 1), "pacer").unwrap();
    let tally = outcome.total();
    assert_eq!((tally.failed, tally.accepted, tally.waiting), (50, 0, 0));
    assert!(outcome.elapsed < Duration::from_secs(60));
}

#[test]
fn rows_of_the_capacity_are_perfect() {
    let mut bench = Bench::default();
    for name in ["A", "C", "F"] {
        let scenario = short(name);
        let cell = Cell {
            scenario: &scenario,
            scale: Scale::Sizes(2.0),
            seed: 1,
        };
        let (row, _) = bench.row(cell, omniscient::NAME).unwrap();
        assert!(row.pass, "{row:?}");
        assert_eq!(row.utilisation, Some(1.0));
        assert_eq!(row.scale, "sizes x2");
        assert_eq!(row.blocks, (name == "C").then_some(0));
    }
}
