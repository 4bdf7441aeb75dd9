//! Rules for the parts of a message; a Delivery has them, and so has the snapshot in a message slice.

use super::{Findings, text};
use crate::cel::CelRule;
use crate::message::{Attachment, Header, ListUnsubscribe, MessageTemplate};

pub(crate) const TEXT_OR_HTML: CelRule =
    CelRule::new("has(self.text) || has(self.html)", "a message needs text, html or both");

pub(crate) const ONE_CONTENT: CelRule = CelRule::new(
    "[has(self.data), has(self.configMapKeyRef), has(self.secretKeyRef)].filter(set, set).size() == 1",
    "an attachment needs exactly one of data, configMapKeyRef and secretKeyRef",
);

pub(crate) const UNSUBSCRIBE_TARGET: CelRule = CelRule::new(
    "has(self.mailto) || has(self.url)",
    "listUnsubscribe needs mailto, url or both",
);

pub(crate) const ONE_CLICK_NEEDS_URL: CelRule = CelRule::new(
    "!self.oneClick || has(self.url)",
    "listUnsubscribe.oneClick needs url (https), because RFC 8058 posts to it",
);

/// Makes the list of reserved names and the CEL expression out of one enumeration.
macro_rules! reserved_headers {
    ($first:literal $(, $name:literal)* $(,)?) => {
        /// Names of headers, lower case, that only the message builder writes.
        pub(crate) const RESERVED_HEADERS: &[&str] = &[$first $(, $name)*];

        pub(crate) const HEADER_IS_FREE: CelRule = CelRule::new(
            concat!("!(self.lowerAscii() in ['", $first, "'" $(, ", '", $name, "'")*, "])"),
            "this header is written by Relaypool itself: use the field made for it (sender, subject, listUnsubscribe, …)",
        );
    };
}

reserved_headers!(
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "bcc",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "content-disposition",
    "content-id",
    "dkim-signature",
    "return-path",
    "received",
    "list-unsubscribe",
    "list-unsubscribe-post",
);

/// Checks a message at `path`.
pub(super) fn check(findings: &mut Findings, path: &str, message: &MessageTemplate) {
    findings.check(path, TEXT_OR_HTML, message.text.is_some() || message.html.is_some());
    for (index, header) in message.headers.iter().enumerate() {
        check_header(findings, &format!("{path}.headers[{index}]"), header);
    }
    for (index, attachment) in message.attachments.iter().enumerate() {
        check_attachment(findings, &format!("{path}.attachments[{index}]"), attachment);
    }
    if let Some(unsubscribe) = &message.list_unsubscribe {
        check_unsubscribe(findings, &format!("{path}.listUnsubscribe"), unsubscribe);
    }
}

fn check_header(findings: &mut Findings, path: &str, header: &Header) {
    let field = format!("{path}.name");
    findings.check(&field, text::HEADER_NAME, text::is_header_name(&header.name));
    let reserved = RESERVED_HEADERS
        .iter()
        .any(|name| name.eq_ignore_ascii_case(&header.name));
    findings.check(&field, HEADER_IS_FREE, !reserved);
}

fn check_attachment(findings: &mut Findings, path: &str, attachment: &Attachment) {
    let contents = [
        attachment.data.is_some(),
        attachment.config_map_key_ref.is_some(),
        attachment.secret_key_ref.is_some(),
    ];
    findings.check(path, ONE_CONTENT, count(contents) == 1);
    findings.check(
        format_args!("{path}.filename"),
        text::FILE_NAME,
        text::is_file_name(&attachment.filename),
    );
    findings.check(
        format_args!("{path}.contentType"),
        text::MEDIA_TYPE,
        text::is_media_type(&attachment.content_type),
    );
    findings.check(
        format_args!("{path}.contentId"),
        text::CONTENT_ID,
        attachment.content_id.as_deref().is_none_or(text::is_content_id),
    );
}

fn check_unsubscribe(findings: &mut Findings, path: &str, unsubscribe: &ListUnsubscribe) {
    findings.check(
        path,
        UNSUBSCRIBE_TARGET,
        unsubscribe.mailto.is_some() || unsubscribe.url.is_some(),
    );
    findings.check(
        path,
        ONE_CLICK_NEEDS_URL,
        !unsubscribe.one_click || unsubscribe.url.is_some(),
    );
    findings.check(
        format_args!("{path}.url"),
        text::HTTPS_URL,
        unsubscribe.url.as_deref().is_none_or(|url| url.starts_with("https://")),
    );
}

/// How many of the fields are set.
pub(super) fn count<const N: usize>(fields: [bool; N]) -> usize {
    fields.into_iter().filter(|set| *set).count()
}
