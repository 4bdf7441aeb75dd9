//! The tree of MIME parts of a message (RFC 2046): texts that differ for each recipient between parts that do not.

use lettre::message::header::{ContentDisposition, ContentType, Headers};
use relaypool_api::message::Attachment;

use crate::encoding::{self, TransferEncoding};
use crate::error::{Problem, TemplateError};

/// The parts that are the same for all recipients, encoded once, with their headers.
#[derive(Default)]
pub(crate) struct Layout {
    /// Images that the HTML part shows.
    inline: Vec<Vec<u8>>,
    attached: Vec<Vec<u8>>,
}

/// The texts of one recipient's message, their lines ending with line feeds.
pub(crate) struct Texts<'a> {
    pub(crate) text: Option<&'a str>,
    pub(crate) html: Option<&'a str>,
}

impl Layout {
    /// Encodes the attachments. With `complete`, each must have its data; otherwise one that refers to a ConfigMap or a
    /// Secret is only examined.
    pub(crate) fn new(attachments: &[Attachment], has_html: bool, complete: bool) -> Result<Self, TemplateError> {
        let mut layout = Self::default();
        for (index, attachment) in attachments.iter().enumerate() {
            let part = part(attachment, complete).map_err(|(field, problem)| {
                TemplateError::new(format!("message.attachments[{index}].{field}"), problem)
            })?;
            match attachment.content_id {
                Some(_) if has_html => layout.inline.push(part),
                _ => layout.attached.push(part),
            }
        }
        Ok(layout)
    }

    /// Writes the message's own content headers and its body. `boundary` is what all boundaries begin with.
    pub(crate) fn write(&self, out: &mut Vec<u8>, boundary: &str, texts: &Texts<'_>) {
        let fixed: usize = self.inline.iter().chain(&self.attached).map(Vec::len).sum();
        out.reserve(fixed + 1024);
        if self.attached.is_empty() {
            self.write_content(out, boundary, texts);
        } else {
            let mut multipart = Multipart::open(out, "mixed", format!("{boundary}_m"));
            multipart.part(|out| self.write_content(out, boundary, texts));
            self.attached.iter().for_each(|part| multipart.encoded(part));
            multipart.close();
        }
        if !out.ends_with(b"\r\n") {
            out.extend_from_slice(b"\r\n");
        }
    }

    fn write_content(&self, out: &mut Vec<u8>, boundary: &str, texts: &Texts<'_>) {
        match (texts.text, texts.html) {
            (Some(text), Some(html)) => {
                let mut multipart = Multipart::open(out, "alternative", format!("{boundary}_a"));
                multipart.part(|out| write_text(out, "plain", text));
                multipart.part(|out| self.write_html(out, boundary, html));
                multipart.close();
            }
            (None, Some(html)) => self.write_html(out, boundary, html),
            (text, None) => write_text(out, "plain", text.unwrap_or_default()),
        }
    }

    fn write_html(&self, out: &mut Vec<u8>, boundary: &str, html: &str) {
        if self.inline.is_empty() {
            write_text(out, "html", html);
        } else {
            let mut multipart = Multipart::open(out, "related; type=\"text/html\"", format!("{boundary}_r"));
            multipart.part(|out| write_text(out, "html", html));
            self.inline.iter().for_each(|part| multipart.encoded(part));
            multipart.close();
        }
    }
}

/// A part that consists of parts.
struct Multipart<'a> {
    out: &'a mut Vec<u8>,
    boundary: String,
}

impl<'a> Multipart<'a> {
    fn open(out: &'a mut Vec<u8>, kind: &str, boundary: String) -> Self {
        let header = format!("Content-Type: multipart/{kind};\r\n boundary=\"{boundary}\"\r\n");
        out.extend_from_slice(header.as_bytes());
        Self { out, boundary }
    }

    fn part(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.delimiter();
        self.out.extend_from_slice(b"\r\n");
        write(self.out);
    }

    fn encoded(&mut self, part: &[u8]) {
        self.part(|out| out.extend_from_slice(part));
    }

    fn close(mut self) {
        self.delimiter();
        self.out.extend_from_slice(b"--");
    }

    /// The line break before a delimiter belongs to it, not to the part before.
    fn delimiter(&mut self) {
        self.out.extend_from_slice(b"\r\n--");
        self.out.extend_from_slice(self.boundary.as_bytes());
    }
}

fn write_text(out: &mut Vec<u8>, subtype: &str, text: &str) {
    let encoding = TransferEncoding::for_text(text);
    for piece in [
        "Content-Type: text/",
        subtype,
        "; charset=utf-8\r\nContent-Transfer-Encoding: ",
        encoding.name(),
        "\r\n\r\n",
    ] {
        out.extend_from_slice(piece.as_bytes());
    }
    encoding.write(out, text);
}

/// The headers and the base64 content of an attachment. An error names the field of the attachment.
fn part(attachment: &Attachment, complete: bool) -> Result<Vec<u8>, (&'static str, Problem)> {
    let content_type = content_type(&attachment.content_type).ok_or_else(|| {
        let problem = Problem::ContentType(attachment.content_type.escape_debug().to_string());
        ("contentType", problem)
    })?;
    if !is_file_name(&attachment.filename) {
        return Err(("filename", Problem::FileName));
    }
    let mut headers = Headers::new();
    headers.set(content_type);
    headers.set(match attachment.content_id {
        Some(_) => ContentDisposition::inline_with_name(&attachment.filename),
        None => ContentDisposition::attachment(&attachment.filename),
    });
    let mut part = headers.to_string();
    if let Some(content_id) = &attachment.content_id {
        if !is_content_id(content_id) {
            return Err(("contentId", Problem::ContentId));
        }
        part.push_str(&format!("Content-ID: <{content_id}>\r\n"));
    }
    part.push_str("Content-Transfer-Encoding: base64\r\n\r\n");
    let content = match &attachment.data {
        Some(data) => encoding::from_base64(data).map_err(|error| ("data", Problem::Base64(error.to_string())))?,
        None if complete => return Err(("data", Problem::NoData)),
        None => Vec::new(),
    };
    let mut part = part.into_bytes();
    part.extend_from_slice(&encoding::base64(content));
    Ok(part)
}

/// A type whose content may be base64; parts of composite types (RFC 2045 section 6.4) may not.
fn content_type(text: &str) -> Option<ContentType> {
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("multipart/") || lower.starts_with("message/") || text.contains(char::is_control) {
        return None;
    }
    ContentType::parse(text).ok()
}

fn is_file_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && !name.contains(|character: char| character.is_control() || "/\\".contains(character))
}

fn is_content_id(id: &str) -> bool {
    (1..=127).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.@".contains(&byte))
}
