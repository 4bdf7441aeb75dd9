//! `relaypool policies`: the built-in profiles as files that `kubectl apply`, and local mode, take.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Command, Output};

fn relaypool(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_relaypool"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn what_is_printed_is_what_is_read() {
    let all = relaypool(&["policies"]);
    assert!(all.status.success());
    let one = text(&relaypool(&["policies", "yahoo"]).stdout);
    assert!(text(&all.stdout).contains(&one));
    assert!(
        one.starts_with("# Yahoo") && one.contains("\nkind: MxPolicy\n"),
        "{one}"
    );

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("policies.yaml"), &all.stdout).unwrap();
    let local = relaypool(&["local", "-f", folder.path().to_str().unwrap()]);
    let said = text(&local.stderr);
    let count = text(&all.stdout).matches("\nkind: MxPolicy\n").count();
    assert!(
        said.contains("there is no Delivery") && said.contains(&format!("{count} policies")),
        "all were read: {said}"
    );
}

#[test]
fn an_unknown_profile_is_an_error_that_names_those_there_are() {
    let output = relaypool(&["policies", "altavista"]);
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("'altavista'") && said.contains("gmail, gmx"), "{said}");
}
