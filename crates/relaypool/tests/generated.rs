//! The files that are made from the types are what the program makes of them now.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What to do about a difference.
const ADVICE: &str = "run `make crds` and commit the result";

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn relaypool(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_relaypool"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The files of a folder, by name.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}; {ADVICE}", folder.display()));
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

#[test]
fn the_definitions_are_those_of_the_types() {
    let folder = tempfile::tempdir().unwrap();
    relaypool(&["crds", "--output", folder.path().to_str().unwrap()]);
    let (made, kept) = (files(folder.path()), files(&project().join("crds")));
    assert_eq!(
        made.keys().collect::<Vec<_>>(),
        kept.keys().collect::<Vec<_>>(),
        "{ADVICE}"
    );
    assert_eq!(made.len(), 6);
    for (name, text) in &made {
        assert!(*text == kept[name], "crds/{name} is out of date: {ADVICE}");
    }

    // Without a folder, the same in one stream, as `kubectl apply -f -` takes it.
    let printed = relaypool(&["crds"]);
    let all: String = printed_in_order(&made, &printed);
    assert_eq!(printed, all);
}

/// The files put together as one stream, in the order in which `printed` has them.
fn printed_in_order(files: &BTreeMap<String, String>, printed: &str) -> String {
    let mut documents: Vec<&String> = files.values().collect();
    documents.sort_by_key(|document| printed.find(document.as_str()));
    documents
        .into_iter()
        .map(|document| format!("---\n{document}"))
        .collect()
}

#[test]
fn the_reference_is_that_of_the_types() {
    let kept = std::fs::read_to_string(project().join("docs/reference.md")).unwrap_or_default();
    let made = relaypool(&["reference"]);
    assert!(made.starts_with("# "), "{made}");
    assert!(made == kept, "docs/reference.md is out of date: {ADVICE}");
}
