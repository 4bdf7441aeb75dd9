//! Sums over the slices of a run.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use relaypool_api::delivery::{DomainProgress, LogStatus, ReasonCount};

use super::slice_view::{RunView, SliceView};
use super::statuses;

/// Most reasons in a status.
const MAX_REASONS: usize = 50;
/// Most domains in a status, the sum of the others included.
const MAX_DOMAINS: usize = 50;
/// Name of the sum of domains that have no entry of their own.
const OTHER: &str = "other";

type ReasonKey = (LogStatus, String, Option<u16>, Option<String>);

/// Why messages failed, wait or are ignored, most frequent first.
pub(super) fn reasons(run: &RunView, slices: &[&SliceView], email_feedback: bool) -> Vec<ReasonCount> {
    let reported = statuses(slices).flat_map(|status| status.reasons.iter().cloned());
    let as_shown = reported.map(|reason| ReasonCount {
        status: shown(reason.status, email_feedback),
        ..reason
    });
    sum(as_shown.chain(ignored_counts(&run.ignored)))
}

/// Why rows of a list are ignored, most frequent first.
pub(super) fn ignored_reasons(ignored: &BTreeMap<String, u64>) -> Vec<ReasonCount> {
    sum(ignored_counts(ignored))
}

/// Without email feedback, a message that is with its sender counts as sent until it fails.
fn shown(status: LogStatus, email_feedback: bool) -> LogStatus {
    match status {
        LogStatus::TakenIntoAccount if !email_feedback => LogStatus::Sent,
        other => other,
    }
}

fn ignored_counts(ignored: &BTreeMap<String, u64>) -> impl Iterator<Item = ReasonCount> {
    ignored.iter().map(|(reason, &count)| ReasonCount {
        status: LogStatus::Ignored,
        reason: reason.clone(),
        bounce_code: None,
        category: None,
        count,
    })
}

fn sum(reasons: impl Iterator<Item = ReasonCount>) -> Vec<ReasonCount> {
    let mut sums = BTreeMap::<ReasonKey, u64>::new();
    for reason in reasons {
        let key = (reason.status, reason.reason, reason.bounce_code, reason.category);
        let sum = sums.entry(key).or_default();
        *sum = sum.saturating_add(reason.count);
    }
    let counted = sums
        .into_iter()
        .map(|((status, reason, bounce_code, category), count)| ReasonCount {
            status,
            reason,
            bounce_code,
            category,
            count,
        });
    let mut list: Vec<_> = counted.collect();
    // The sort is stable, so equal counts stay in the order of their keys and a status does not flicker.
    list.sort_by_key(|reason| Reverse(reason.count));
    list.truncate(MAX_REASONS);
    list
}

/// Progress of the domains with most messages, and the sum of the others.
pub(super) fn domains(slices: &[&SliceView]) -> Vec<DomainProgress> {
    let mut sums = BTreeMap::<&str, DomainProgress>::new();
    let mut others = empty(OTHER);
    for progress in statuses(slices).flat_map(|status| &status.domains) {
        match progress.domain.as_str() {
            OTHER => add(&mut others, progress),
            domain => add(sums.entry(domain).or_insert_with(|| empty(domain)), progress),
        }
    }
    let mut list: Vec<_> = sums.into_values().collect();
    list.sort_by_key(|progress| Reverse(progress.total));
    let room = if others.total > 0 || list.len() > MAX_DOMAINS {
        MAX_DOMAINS - 1
    } else {
        MAX_DOMAINS
    };
    for progress in list.drain(room.min(list.len())..) {
        add(&mut others, &progress);
    }
    if others.total > 0 {
        list.push(others);
    }
    for progress in &mut list {
        progress.per_second = (progress.per_second * 10.0).round() / 10.0;
    }
    list
}

fn empty(domain: &str) -> DomainProgress {
    DomainProgress {
        domain: domain.to_owned(),
        total: 0,
        sent: 0,
        waiting: 0,
        failed: 0,
        per_second: 0.0,
    }
}

fn add(sum: &mut DomainProgress, progress: &DomainProgress) {
    sum.total = sum.total.saturating_add(progress.total);
    sum.sent = sum.sent.saturating_add(progress.sent);
    sum.waiting = sum.waiting.saturating_add(progress.waiting);
    sum.failed = sum.failed.saturating_add(progress.failed);
    sum.per_second += progress.per_second;
}
