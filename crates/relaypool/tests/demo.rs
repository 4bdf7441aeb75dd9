//! `relaypool demo`: what it says about itself, checked against what it left behind, with other people's code where there is
//! some.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use support::relaypool;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Messages whose signatures are verified.
const SAMPLE: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_accounts_for_every_message_and_signs_so_that_others_can_verify() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("demo");
    let python = tokio::spawn(python());
    let report = demo(&kept).await;

    let number = |name: &str| {
        report[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no {name} in {report:#}"))
    };
    let (sent, failed, ignored) = (number("sent"), number("failed"), number("ignored"));
    assert_eq!(number("total"), 2_000);
    assert_eq!(sent + failed + ignored, 2_000);
    assert!(sent > 1_900, "{report:#}");
    assert_eq!(number("unaccounted"), 0);
    assert_eq!(number("accepted_by_simulator"), sent);
    assert_eq!(number("duplicates"), 0);
    assert_eq!(number("dkim_verified"), sent);

    let status = &report["status"];
    assert_eq!(status["phase"], "Completed", "{status:#}");
    for (kind, value) in [
        ("Ready", "True"),
        ("Reconciling", "False"),
        ("Stalled", "False"),
        ("Completed", "True"),
    ] {
        let conditions = status["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|condition| condition["type"] == kind);
        assert_eq!(found.unwrap()["status"], value, "{kind}: {status:#}");
    }
    let reasons = status["reasons"].as_array().unwrap();
    // Of the mistakes in the list: 8 domains do not exist and 2 take no mail.
    for (reason, count) in [
        ("Invalid domain", 8 + 2),
        ("User unknown", 2),
        ("Mailbox full", 4),
        ("Malformed address", 4),
        ("Duplicate", 5),
    ] {
        let found = reasons.iter().filter(|entry| entry["reason"] == reason);
        let counted: u64 = found.map(|entry| entry["count"].as_u64().unwrap()).sum();
        assert_eq!(counted, count, "{reason}: {reasons:#?}");
    }

    let messages = eml_files(&kept.join("accepted"));
    assert_eq!(messages.len() as u64, sent);
    let sample: Vec<&PathBuf> = messages.iter().step_by(messages.len() / SAMPLE).take(SAMPLE).collect();
    verify(&python.await.unwrap(), &report["dkim_records"], &sample).await;

    // The providers are gone by now: what is at its end stays there.
    let mut again = relaypool();
    again.args(["local", "--json", "--file"]).arg(kept.join("yaml"));
    let output = again.arg("--state").arg(kept.join("state")).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let deliveries: Value = serde_json::from_slice(&output.stdout).unwrap();
    for part in [
        "phase",
        "counts",
        "success",
        "reasons",
        "plan",
        "validity",
        "startedAt",
        "completedAt",
    ] {
        assert_eq!(deliveries[0]["status"][part], status[part], "{part}");
    }

    // A demo in the same folder would have nothing to show.
    let output = relaypool().arg("demo").arg("--keep").arg(&kept).output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("has the state of an earlier demo"), "{errors}");
}

/// Runs the demo; returns its report.
async fn demo(kept: &Path) -> Value {
    let run = relaypool().args(["demo", "--json", "--keep"]).arg(kept).output();
    let output = tokio::time::timeout(2 * support::PATIENCE, run)
        .await
        .expect("the demo ends")
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(errors, "", "nothing is wrong");
    serde_json::from_slice(&output.stdout).expect("one JSON object and nothing else")
}

fn eml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A Python with dkimpy.
async fn python() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/python-tools.sh");
    let output = Command::new(script).stderr(Stdio::inherit()).output().await.unwrap();
    assert!(
        output.status.success(),
        "the Python packages of the tests cannot be had"
    );
    let output = String::from_utf8(output.stdout).unwrap();
    Path::new(output.lines().last().unwrap()).join("bin/python")
}

/// Both signatures of each message are good, and neither is once the message was changed.
async fn verify(python: &Path, records: &Value, messages: &[&PathBuf]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/verify_dkim.py");
    let mut verifier = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let asked = json!({ "records": records, "messages": messages }).to_string();
    let mut input = verifier.stdin.take().unwrap();
    input.write_all(asked.as_bytes()).await.unwrap();
    drop(input);
    let output = verifier.wait_with_output().await.unwrap();
    assert!(output.status.success());
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.len(), SAMPLE);
    for (answer, message) in answers.iter().zip(messages) {
        let expected = json!({
            "whole": { "rsa-sha256": true, "ed25519-sha256": true },
            "changed": { "rsa-sha256": false, "ed25519-sha256": false },
        });
        assert_eq!(*answer, expected, "{}", message.display());
    }
}
