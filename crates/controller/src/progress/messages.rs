//! Each message of a small Delivery.

use relaypool_api::delivery::{LogStatus, MessageReport, ReportDetail};
use relaypool_api::delivery_slice::MessageDetail;
use relaypool_api::message::IgnoredRow;

use super::slice_view::{MAX_LISTED_MESSAGES, RunView, SliceView};
use super::tally::Positions;

/// Each message of a run, in the order of the list: none when there are more than 100 or only counts are wanted.
pub(super) fn messages(
    detail: &ReportDetail,
    email_feedback: bool,
    run: &RunView,
    slices: &[&SliceView],
) -> Vec<MessageReport> {
    if !wanted(detail, run.total) {
        return Vec::new();
    }
    let sent_to = slices.iter().flat_map(|slice| of_slice(slice, email_feedback));
    let mut messages: Vec<_> = run.ignored_rows.iter().map(of_ignored).chain(sent_to).collect();
    messages.sort_by_key(|message| message.index);
    messages.truncate(MAX_LISTED_MESSAGES);
    messages
}

/// The ignored rows of a list that is not planned.
pub(super) fn ignored_messages(detail: &ReportDetail, total: u64, ignored: &[IgnoredRow]) -> Vec<MessageReport> {
    if !wanted(detail, total) {
        return Vec::new();
    }
    ignored.iter().map(of_ignored).take(MAX_LISTED_MESSAGES).collect()
}

fn wanted(detail: &ReportDetail, total: u64) -> bool {
    *detail == ReportDetail::Messages && total <= MAX_LISTED_MESSAGES as u64
}

fn of_ignored(row: &IgnoredRow) -> MessageReport {
    MessageReport {
        index: row.index,
        address: row.address.clone(),
        status: LogStatus::Ignored,
        attempts: 0,
        reason: Some(row.reason.clone()),
        reply: None,
        next_attempt: None,
    }
}

fn of_slice(slice: &SliceView, email_feedback: bool) -> Vec<MessageReport> {
    let positions = Positions::of(slice);
    let details = slice
        .status
        .as_ref()
        .map(|status| status.details.as_slice())
        .unwrap_or_default();
    let heads = slice.spec.rows.heads.iter().enumerate();
    heads
        .map(|(position, head)| {
            let at_position = |detail: &&MessageDetail| detail.position as usize == position;
            let detail = details.iter().find(at_position);
            MessageReport {
                index: head.index,
                address: head.address.clone(),
                status: positions.state(position as u64).log_status(email_feedback),
                attempts: detail.map_or(0, |detail| detail.attempts),
                reason: detail.and_then(|detail| detail.reason.clone()),
                reply: detail.and_then(|detail| detail.reply.clone()),
                next_attempt: detail.and_then(|detail| detail.next_attempt.clone()),
            }
        })
        .collect()
}
