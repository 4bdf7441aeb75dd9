use std::collections::BTreeMap;

use relaypool_api::EmailAddress;
use relaypool_api::message::{ListUnsubscribe, MessageSnapshot, MessageTemplate, Sender};

use crate::encoding::canonical_lines;
use crate::error::{ComposeError, Problem, TemplateError};
use crate::header::{self, LONGEST_PIECE};
use crate::identity::Identity;
use crate::layout::{Layout, Texts};
use crate::template::{HTML, Place, Template, Templates, Variables};

/// Makes the messages of a run. Compiled once and shared by threads; a pure function of what it is given.
pub struct Composer {
    templates: Templates,
    from: EmailAddress,
    from_name: Option<Template>,
    reply_to: Option<EmailAddress>,
    subject: Template,
    text: Option<Template>,
    html: Option<Template>,
    headers: Vec<(String, Template)>,
    list_unsubscribe: Option<Unsubscribe>,
    layout: Layout,
}

/// A message as it goes over the wire, but for DKIM signatures before it and dot-stuffing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composed {
    /// The message: lines of at most 998 octets that end with CRLF, 7-bit but for addresses in headers.
    pub bytes: Vec<u8>,
    /// An address in the headers has characters outside ASCII, so the receiving host must offer SMTPUTF8 (RFC 6531).
    pub needs_smtputf8: bool,
}

/// The List-Unsubscribe headers of a run.
struct Unsubscribe {
    url: Option<Template>,
    mailto: Option<String>,
    one_click: bool,
}

/// Examines a message before it is planned. Attachments that refer to a ConfigMap or a Secret need no data yet.
pub fn check_template(sender: &Sender, message: &MessageTemplate) -> Result<(), TemplateError> {
    Composer::new(sender, message, false).map(drop)
}

impl Composer {
    /// Compiles the templates of a run and encodes its attachments, which must hold their data.
    pub fn compile(snapshot: &MessageSnapshot) -> Result<Self, TemplateError> {
        Self::new(&snapshot.sender, &snapshot.message, true)
    }

    fn new(sender: &Sender, message: &MessageTemplate, complete: bool) -> Result<Self, TemplateError> {
        if message.text.is_none() && message.html.is_none() {
            return Err(TemplateError::new("message", Problem::NoContent));
        }
        let mut templates = Templates::new();
        let mut add = |field: &str, source: &Option<String>, place| {
            let source = source.as_deref();
            source
                .map(|source| templates.add(field.to_owned(), source, place))
                .transpose()
        };
        let from_name = add("sender.name", &sender.name, Place::Header)?;
        let text = add("message.text", &message.text, Place::Body)?;
        let html = add(HTML, &message.html, Place::Body)?;
        let subject = templates.add("message.subject".to_owned(), &message.subject, Place::Header)?;
        let headers = message
            .headers
            .iter()
            .enumerate()
            .map(|(index, header)| {
                check_name(index, &header.name)?;
                let field = format!("message.headers[{index}].value");
                let value = templates.add(field, &header.value, Place::Header)?;
                Ok((header.name.clone(), value))
            })
            .collect::<Result<_, TemplateError>>()?;
        let list_unsubscribe = message
            .list_unsubscribe
            .as_ref()
            .map(|list_unsubscribe| Unsubscribe::compile(list_unsubscribe, &mut templates))
            .transpose()?;
        Ok(Self {
            layout: Layout::new(&message.attachments, html.is_some(), complete)?,
            templates,
            from: sender.address.clone(),
            from_name,
            reply_to: sender.reply_to.clone(),
            subject,
            text,
            html,
            headers,
            list_unsubscribe,
        })
    }

    /// Makes the message to `to`, whose variables are given. The same arguments make the same bytes, at every attempt.
    ///
    /// # Errors
    /// Those of one recipient: the others' messages may be fine. Trying again does not help.
    pub fn compose(
        &self,
        to: &EmailAddress,
        variables: &BTreeMap<String, serde_json::Value>,
        identity: &Identity,
    ) -> Result<Composed, ComposeError> {
        let variables = Variables::new(to, variables)?;
        let render = |template: &Template| self.templates.render(template, &variables);
        let header = |name: &str, template: &Template| {
            let value = render(template)?;
            header::one_line(name, &value).map(str::to_owned)
        };
        let body = |template: &Option<Template>| template.as_ref().map(render).transpose();

        let mut out = Vec::with_capacity(2048);
        let from_name = self
            .from_name
            .as_ref()
            .map(|template| header("From", template))
            .transpose()?;
        header::write_mailbox(&mut out, "From", from_name.as_deref().unwrap_or_default(), &self.from);
        header::write_mailbox(&mut out, "To", "", to);
        if let Some(reply_to) = &self.reply_to {
            header::write_mailbox(&mut out, "Reply-To", "", reply_to);
        }
        header::write_text(&mut out, "Subject", &header("Subject", &self.subject)?);
        header::write_exact(&mut out, "Date", &[identity.date_header()]);
        header::write_exact(&mut out, "Message-ID", &["<", identity.message_id(), ">"]);
        if let Some(unsubscribe) = &self.list_unsubscribe {
            let url = unsubscribe
                .url
                .as_ref()
                .map(|url| header("List-Unsubscribe", url))
                .transpose()?;
            unsubscribe.write(&mut out, url)?;
        }
        for (name, value) in &self.headers {
            header::write_text(&mut out, name, &header(name, value)?);
        }
        header::write_exact(&mut out, "MIME-Version", &["1.0"]);

        let (text, html) = (body(&self.text)?, body(&self.html)?);
        let (text, html) = (
            text.as_deref().map(canonical_lines),
            html.as_deref().map(canonical_lines),
        );
        let texts = Texts {
            text: text.as_deref(),
            html: html.as_deref(),
        };
        let length = texts.text.map_or(0, str::len) + texts.html.map_or(0, str::len);
        out.reserve(length + length / 8);
        self.layout.write(&mut out, &identity.boundary(), &texts);

        let addresses = [Some(&self.from), Some(to), self.reply_to.as_ref()];
        Ok(Composed {
            bytes: out,
            needs_smtputf8: addresses.into_iter().flatten().any(EmailAddress::needs_smtputf8),
        })
    }
}

fn check_name(index: usize, name: &str) -> Result<(), TemplateError> {
    let problem = if !header::is_name(name) {
        Problem::HeaderName(name.escape_debug().to_string())
    } else if header::is_reserved(name) {
        Problem::ReservedHeader(name.to_owned())
    } else {
        return Ok(());
    };
    Err(TemplateError::new(format!("message.headers[{index}].name"), problem))
}

impl Unsubscribe {
    fn compile(list_unsubscribe: &ListUnsubscribe, templates: &mut Templates) -> Result<Self, TemplateError> {
        const URL: &str = "message.listUnsubscribe.url";
        let error = |field: &str, words| Err(TemplateError::new(field, Problem::ListUnsubscribe(words)));
        match &list_unsubscribe.url {
            Some(url) if !url.starts_with("https://") => {
                return error(URL, "an unsubscribe url must start with https://");
            }
            None if list_unsubscribe.one_click => {
                return error(URL, "oneClick needs url (https), because RFC 8058 posts to it");
            }
            None if list_unsubscribe.mailto.is_none() => {
                return error("message.listUnsubscribe", "listUnsubscribe needs mailto, url or both");
            }
            _ => {}
        }
        let url = list_unsubscribe.url.as_deref();
        Ok(Self {
            url: url
                .map(|url| templates.add(URL.to_owned(), url, Place::Header))
                .transpose()?,
            mailto: list_unsubscribe.mailto.as_ref().map(mailto),
            one_click: list_unsubscribe.one_click,
        })
    }

    /// Writes List-Unsubscribe (RFC 2369) with the url first, and List-Unsubscribe-Post (RFC 8058).
    fn write(&self, out: &mut Vec<u8>, url: Option<String>) -> Result<(), ComposeError> {
        if url.as_deref().is_some_and(|url| !is_https_url(url)) {
            return Err(ComposeError::UnsubscribeUrl { limit: LONGEST_PIECE });
        }
        let items: Vec<String> = url
            .iter()
            .chain(&self.mailto)
            .map(|address| format!("<{address}>"))
            .collect();
        header::write_list(out, "List-Unsubscribe", &items);
        if self.one_click {
            header::write_exact(out, "List-Unsubscribe-Post", &["List-Unsubscribe=One-Click"]);
        }
        Ok(())
    }
}

/// True for what stands between angle brackets without ending them: RFC 3986 characters, and no more than fit a line.
fn is_https_url(url: &str) -> bool {
    url.len() <= LONGEST_PIECE
        && url.len() > "https://".len()
        && url.starts_with("https://")
        && url
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte))
}

/// An address as a `mailto:` URL (RFC 6068), in ASCII whatever the address.
fn mailto(address: &EmailAddress) -> String {
    let mut url = "mailto:".to_owned();
    for byte in address.local_part().bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~+!$'*".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url.push('@');
    url.push_str(address.domain().as_str());
    url
}
