//! What each part of the pacer is worth: a scenario that the whole pacer passes, and that it fails without the part.

#![allow(clippy::unwrap_used, clippy::panic)]

use relaypool_pacer_bench::bench::{Bench, Cell};
use relaypool_pacer_bench::judge::Row;
use relaypool_pacer_bench::pacer::{NAME, name_without};
use relaypool_pacer_bench::scenario::{Scale, named};
use relaypool_shaping::pacer::Part;

/// Quick retries are not among them: what they shorten is the time of single messages, and no scenario counts that.
const NEEDED: [(Part, &str, Scale); 9] = [
    (Part::NoiseTest, "D", Scale::Base),
    (Part::NoiseTest, "E2", Scale::Base),
    (Part::LearnedRate, "C", Scale::Base),
    (Part::MeasuredRate, "C", Scale::Base),
    (Part::ProbeSpacing, "A", Scale::Base),
    (Part::ProvenWindow, "D", Scale::Base),
    (Part::Latency, "F", Scale::Base),
    (Part::Pauses, "G", Scale::Base),
    (Part::Greylisting, "E1", Scale::Times(0.5)),
];

fn row(scenario: &str, scale: Scale, controller: &str) -> Row {
    let scenario = named(scenario).unwrap();
    let cell = Cell {
        scenario: &scenario,
        scale,
        seed: 1,
    };
    Bench::default().row(cell, controller).unwrap().0
}

#[test]
fn without_the_part_the_scenario_fails() {
    for (part, scenario, scale) in NEEDED {
        let whole = row(scenario, scale, NAME);
        assert!(whole.pass, "{scenario} {scale}: {:?}", whole.missed);
        let without = row(scenario, scale, name_without(part));
        assert!(!without.pass, "{scenario} {scale} passes without {part}");
    }
}
