//! The sample files: the public scenarios written out, and one of one's own.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;

use relaypool_pacer_bench::campaign::{Campaign, Scales};
use relaypool_pacer_bench::chart::chart;
use relaypool_pacer_bench::scenario::{self, Scenario};
use relaypool_pacer_bench::table::table;

fn sample(name: &str) -> Scenario {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../manifests/samples/scenarios")
        .join(format!("{name}.yaml"));
    Scenario::from_yaml(&std::fs::read_to_string(&path).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_samples_are_the_public_scenarios() {
    for public in scenario::all() {
        assert_eq!(sample(&public.name.to_lowercase()), public);
        public.check().unwrap();
    }
}

#[test]
fn the_example_of_the_documentation_can_be_played() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/simulator.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("### A scenario of your own").unwrap();
    let example = section.split("```").nth(1).unwrap();
    let scenario = Scenario::from_yaml(example.strip_prefix("yaml").unwrap()).unwrap();
    assert_eq!(scenario.name, "evening outage");
}

#[test]
fn a_scenario_in_json_is_the_same() {
    for public in scenario::all() {
        let json = serde_json::to_string(&public).unwrap();
        assert_eq!(Scenario::from_yaml(&json).unwrap(), public);
    }
}

#[test]
fn a_scenario_of_ones_own_is_played_tabulated_and_drawn() {
    let campaign = Campaign {
        scenarios: vec![sample("evening-outage")],
        controllers: ["pacer", "aimd"].map(String::from).to_vec(),
        seeds: Some(2),
        scales: Scales::Base,
    };
    let results = campaign.play().unwrap();
    let names: Vec<(&str, u64)> = results
        .rows
        .iter()
        .map(|row| (row.controller.as_str(), row.seed))
        .collect();
    assert_eq!(names, [("pacer", 1), ("pacer", 2), ("aimd", 1), ("aimd", 2)]);
    for row in &results.rows {
        assert!((10_000..12_000).contains(&row.messages.unwrap()), "{row:?}");
        assert!(row.accepted <= row.capacity + 50, "{row:?}");
        assert!(row.blocks.is_none() && row.throughput_ratio.is_none());
    }
    assert!(table(&results.rows).contains("evening outage"));
    let runs: Vec<_> = results.drawn.iter().collect();
    let svg = chart("evening outage", &runs).unwrap();
    for text in [
        "Scenario evening outage",
        "pacer",
        "aimd",
        "omniscient",
        "minutes",
        "</svg>",
    ] {
        assert!(svg.contains(text), "{text}");
    }
}

#[test]
fn an_unknown_controller_is_named() {
    let campaign = Campaign {
        scenarios: vec![sample("a")],
        controllers: vec!["guess".to_owned()],
        seeds: Some(1),
        scales: Scales::Base,
    };
    let error = campaign.play().unwrap_err().to_string();
    assert!(error.contains("guess") && error.contains("fixed-generic"), "{error}");
}

/// A change to a sample, and what the message must say.
const MISTAKES: [(&str, &str, &str, &[&str]); 22] = [
    (
        "a",
        "limit: 5",
        "limti: 5",
        &["provider.behaviours[0]", "limti", "line 5"],
    ),
    ("a", "limit: 5", "limit: five", &["limit:", "five", "line 5"]),
    ("a", "time: 1s", "time: 1", &["time:", "line 6"]),
    (
        "a",
        "kind: serviceTime",
        "kind: servicetime",
        &["servicetime", "line 6"],
    ),
    ("c", "rate: 10/s", "rate: 10/x", &["rate:", "10/x", "line 5"]),
    ("a", "windowCap: 20", "windowCap: many", &["windowCap", "line 7"]),
    ("a", "windowCap: 20", "windowCap: 0", &["windowCap", "1 to 10000"]),
    ("a", "windowCap: 20", "windowCaps: 20", &["windowCaps"]),
    (
        "a",
        "{ deliveries: 1000 }",
        "{ delivery: 1000 }",
        &["demand", "delivery", "line 8"],
    ),
    (
        "a",
        "{ deliveries: 1000 }",
        "{ deliveries: 0 }",
        &["demand", "0 messages"],
    ),
    (
        "a",
        "{ deliveries: 1000 }",
        "{ messages: 99999999999 }",
        &["demand", "2000000"],
    ),
    ("a", "duration: 1h", "duration: 1h\ndays: 2", &["duration", "either"]),
    ("a", "duration: 1h", "duration: 32d", &["duration", "31 days"]),
    (
        "a",
        "maxRefusedShare: 0.02",
        "maxRefusedShare: 2",
        &["goals", "0 to 1", "line 11"],
    ),
    (
        "a",
        "maxRefusedShare: 0.02",
        "maxRefusedshare: 0.02",
        &["goals", "maxRefusedshare", "line 11"],
    ),
    (
        "a",
        "maxRefusedShare: 0.02",
        "maxRefusedShare: .nan",
        &["goals", "line 11"],
    ),
    ("a", "time: 1s", "time: 0s", &["provider", "take time"]),
    ("d", "backends: 4", "backends: 0", &["brokenBackends", "backends"]),
    ("h", "percent: 60", "percent: 50", &["mix", "90"]),
    ("h", "name: A", "name: C", &["mix", "'C'"]),
    (
        "h",
        "controller: fixed-generic",
        "controller: fixed",
        &["goals.against.controller", "fixed-generic"],
    ),
    ("g", "days: 3", "duration: 3d", &["goals.minDeliveredPerDay", "days"]),
];

#[test]
fn mistakes_are_named_with_field_and_line() {
    for (file, from, to, expected) in MISTAKES {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../manifests/samples/scenarios");
        let text = std::fs::read_to_string(path.join(format!("{file}.yaml"))).unwrap();
        let broken = text.replacen(from, to, 1);
        assert_ne!(broken, text, "{from}");
        let error = match Scenario::from_yaml(&broken) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{file} is read with '{to}'"),
        };
        for part in expected {
            assert!(error.contains(part), "'{to}' must be explained with '{part}': {error}");
        }
    }
}

#[test]
fn what_is_no_scenario_is_refused_without_a_crash() {
    for text in ["", "[]", "name: A", "{", "a: &a [*a]", "name: {", "\u{0}", "- - - -"] {
        assert!(Scenario::from_yaml(text).is_err(), "{text}");
    }
}
