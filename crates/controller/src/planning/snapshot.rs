//! What a run keeps of a Delivery and its surroundings, whatever happens to them later.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use relaypool_api::delivery::DeliverySpec;
use relaypool_api::effective_validity;
use relaypool_api::message::{Attachment, MessageSnapshot, MessageTemplate, SigningKeyRef};
use relaypool_api::types::Domain;

use super::fingerprint::Fingerprint;
use super::recipients::RecipientList;
use super::source::SourceRef;
use super::{PlanInput, PlanProblem};

/// Digest over everything of a Delivery that is fixed when it is planned. When it no longer fits, the spec was changed
/// afterwards.
pub fn spec_digest(spec: &DeliverySpec) -> String {
    let DeliverySpec {
        pool,
        sender,
        message,
        recipients,
        relay,
        schedule,
        validity,
        priority,
        ip_affinity,
        on_block,
        test_mode,
        run_id,
        // What these say applies at any time.
        email_feedback: _,
        suspend: _,
        cancel: _,
        guard: _,
        report_detail: _,
        ttl_after_finished: _,
    } = spec;
    let mut digest = Fingerprint::new();
    let fixed = (
        (pool, sender, message, recipients, relay),
        (schedule, validity, priority, ip_affinity, test_mode, run_id),
    );
    // Added only where it is set, so that Deliveries planned before there was such a field keep their digest.
    let added_later = on_block.map_or(Ok(()), |on_block| digest.add(&("onBlock", on_block)));
    // Values of the API are JSON: they came in as it.
    match added_later.and_then(|()| digest.add(&fixed)) {
        Ok(()) => digest.finish(),
        Err(_) => String::new(),
    }
}

/// The snapshot of a run, without its fingerprint.
pub(super) fn message_snapshot(input: &PlanInput<'_>, slices: u32) -> Result<MessageSnapshot, PlanProblem> {
    let spec = &input.delivery.spec;
    let template = spec.message.as_ref().ok_or(PlanProblem::NoMessage)?;
    let RecipientList {
        total,
        rows: _,
        ignored,
        ignored_rows,
    } = input.recipients;
    Ok(MessageSnapshot {
        sender: spec.sender.clone(),
        message: with_attachments(template, input.attachments)?,
        return_path_domain: input.pool.spec.return_path_domain.clone(),
        dkim_keys: sorted(input.keys),
        validity: effective_validity(spec.validity),
        priority: spec.priority,
        ip_affinity: spec.ip_affinity.clone(),
        on_block: spec.on_block,
        test_mode: spec.test_mode,
        start_at: spec.schedule.as_ref().and_then(|schedule| schedule.start_at.clone()),
        fingerprint: String::new(),
        total: *total,
        slices,
        ignored: ignored.clone(),
        ignored_rows: ignored_rows.clone(),
    })
}

/// One order, so that the same keys make the same fingerprint.
fn sorted(keys: &[SigningKeyRef]) -> Vec<SigningKeyRef> {
    let mut keys = keys.to_vec();
    let order = |key: &SigningKeyRef| -> (Domain, Domain, String) {
        (key.domain.clone(), key.selector.clone(), key.version.clone())
    };
    keys.sort_by_key(order);
    keys
}

/// The message with the data of its attachments in it.
fn with_attachments(
    template: &MessageTemplate,
    contents: &BTreeMap<SourceRef, Vec<u8>>,
) -> Result<MessageTemplate, PlanProblem> {
    let attachments = template
        .attachments
        .iter()
        .map(|attachment| resolved(attachment, contents));
    Ok(MessageTemplate {
        attachments: attachments.collect::<Result<_, _>>()?,
        ..template.clone()
    })
}

fn resolved(attachment: &Attachment, contents: &BTreeMap<SourceRef, Vec<u8>>) -> Result<Attachment, PlanProblem> {
    let data = match (&attachment.data, SourceRef::of_attachment(attachment)) {
        (Some(data), _) => {
            // Tools wrap base64 at 76 characters; readers of the snapshot need not care.
            let compact: String = data
                .chars()
                .filter(|character| !character.is_ascii_whitespace())
                .collect();
            BASE64
                .decode(&compact)
                .map_err(|problem| PlanProblem::AttachmentNotBase64 {
                    filename: attachment.filename.clone(),
                    problem,
                })?;
            compact
        }
        (None, Some(source)) => {
            let content = contents.get(&source).ok_or(PlanProblem::ContentMissing(source))?;
            BASE64.encode(content)
        }
        (None, None) => return Err(PlanProblem::AttachmentWithoutContent(attachment.filename.clone())),
    };
    Ok(Attachment {
        data: Some(data),
        config_map_key_ref: None,
        secret_key_ref: None,
        ..attachment.clone()
    })
}
