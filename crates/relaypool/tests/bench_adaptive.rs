//! `relaypool bench adaptive` as it is called.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Command, Output};

use serde_json::Value;

const SCENARIO: &str = "\
name: little
provider:
  behaviours:
  - { kind: connectionLimit, limit: 3 }
  - { kind: serviceTime, time: 1s, jitter: 10 }
windowCap: 8
demand: saturating
duration: 60s
goals: { maxRefusedShare: 1 }
";

/// Runs it on `scenario` in a folder of its own.
fn bench(scenario: &str, arguments: &[&str]) -> (Output, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("little.yaml"), scenario).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_relaypool"))
        .args(["bench", "adaptive", "--scenario", "little.yaml", "--folder", "drawings"])
        .args(arguments)
        .current_dir(folder.path())
        .output()
        .unwrap();
    (output, folder)
}

#[test]
fn prints_an_entry_for_each_run_and_draws() {
    let (output, folder) = bench(SCENARIO, &["--controller", "pacer,aimd", "--seeds", "2", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let of = |controller: &str| rows.iter().filter(|row| row["controller"] == controller).count();
    assert_eq!((of("pacer"), of("aimd")), (14, 2), "the pacer at seven scales");
    let row = &rows[0];
    assert_eq!(
        (&row["scenario"], &row["scale"], &row["pass"]),
        (&"little".into(), &"base".into(), &true.into())
    );
    assert!(row["utilisation"].as_f64().unwrap() > 0.5 && row["capacity"].as_u64().unwrap() > 150);
    for none in ["delivered_share", "blocks", "throughput_ratio", "soft_bounce_ratio"] {
        assert!(row[none].is_null(), "{none}");
    }
    let drawing = std::fs::read_to_string(folder.path().join("drawings/adaptive-little.svg")).unwrap();
    assert!(drawing.contains("Scenario little"));
}

#[test]
fn fails_when_the_pacer_misses_a_goal() {
    let impossible = SCENARIO.replace("maxRefusedShare: 1", "minDeliveredPerSecond: 4");
    let (output, _folder) = bench(&impossible, &["--seeds", "1", "--scales", "base"]);
    assert_eq!(output.status.code(), Some(1));
    let (table, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(table.contains("fixed-tuned") && table.contains("0/1"), "{table}");
    assert!(
        error.contains("the pacer misses goals in 1 of 1 runs") && error.contains("delivered a second"),
        "{error}"
    );
    let (output, _folder) = bench(&impossible, &["--seeds", "1", "--controller", "aimd"]);
    assert!(output.status.success(), "only the pacer must reach them");
}

#[test]
fn explains_what_is_wrong_with_a_file() {
    let (output, _folder) = bench(&SCENARIO.replace("limit: 3", "limits: 3"), &[]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    for part in ["little.yaml", "limits", "line 4"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}
