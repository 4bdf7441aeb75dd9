//! Agreement of the classifier with replies seen in the wild.
//!
//! `data/smtp-replies.tsv`: code, enhanced code, text, provider, the category a reader gives (`a|b`: `b` is acceptable too),
//! source. The phase of these replies is not known.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use relaypool_api::reply::{EnhancedCode, Reply, ReplyCode};
use relaypool_bounce::{Category, Reading, classify};

const CORPUS: &str = include_str!("data/smtp-replies.tsv");

/// Replies on which the classifier agrees with a reader: 171 of 189 (90 %). What was reached must not be lost again.
const FLOOR: usize = 171;

struct Row {
    reply: Reply,
    expected: Vec<Category>,
    original: &'static str,
}

fn rows() -> Vec<Row> {
    CORPUS
        .lines()
        .skip(1)
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            let [code, enhanced, original, _provider, expected, _source] = columns[..] else {
                panic!("not six columns: {line}");
            };
            Row {
                reply: Reply {
                    code: ReplyCode::try_from(code.parse::<u16>().unwrap()).unwrap(),
                    enhanced: enhanced.parse().ok(),
                    text: without_codes(original, code),
                },
                expected: expected.split('|').map(|name| name.parse().unwrap()).collect(),
                original,
            }
        })
        .collect()
}

/// The text as a client sees it: the codes at the start of each line are gone.
fn without_codes(text: &str, code: &str) -> String {
    let is_code = |word: &str| {
        let rest = word.strip_prefix(code).unwrap_or(word);
        let rest = rest.strip_prefix('-').unwrap_or(rest);
        rest.is_empty() || rest.parse::<EnhancedCode>().is_ok()
    };
    text.split(' ')
        .filter(|word| !is_code(word))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn agreement_with_readers_does_not_fall() {
    let rows = rows();
    let mut wrong: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for row in &rows {
        let verdict = classify(&Reading::quoted(&row.reply));
        if !row.expected.contains(&verdict.category) {
            wrong
                .entry(row.expected[0].as_str())
                .or_default()
                .push(format!("{} ({:?}): {}", verdict.category, verdict.basis, row.original));
        }
    }
    let misses: usize = wrong.values().map(Vec::len).sum();
    let agreed = rows.len() - misses;
    assert!(
        agreed >= FLOOR,
        "agreement fell from {FLOOR} to {agreed} of {}: {wrong:#?}",
        rows.len()
    );
}
