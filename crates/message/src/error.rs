use std::fmt;

/// What is wrong with a message as its author wrote it, and where: found at planning, the same for all recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// The field, such as `message.subject` or `message.headers[2].value`.
    pub field: String,
    /// Line in the field's text, from 1, where there is one.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a field of a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The template engine cannot read it.
    #[error("{0}")]
    Syntax(String),
    /// A tag is so long, or a chain of `elif` is, that the engine could run out of stack.
    #[error("this is too complex: a tag holds at most {tokens} words and signs, a template at most {elifs} elif")]
    TooComplex {
        /// Most tokens between the delimiters of a tag.
        tokens: usize,
        /// Most `elif` in a template.
        elifs: usize,
    },
    /// A statement of the engine that mail templates do not have.
    #[error("{0} cannot be used in a message: use expressions, if, for and set")]
    Statement(&'static str),
    /// No such filter.
    #[error("there is no filter '{0}'")]
    Filter(String),
    /// No such test.
    #[error("there is no test '{0}'")]
    Test(String),
    /// No such function.
    #[error("there is no function '{0}'")]
    Function(String),
    /// A value could become too large for memory.
    #[error("this could make a value of more than {limit} bytes")]
    LargeValue {
        /// The limit in bytes.
        limit: u64,
    },
    /// A product of what may be text.
    #[error("* multiplies numbers: say that both sides are, with the filters int or float")]
    NotNumbers,
    /// A line break or another control character in the text of a header.
    #[error("a header must be one line without control characters")]
    ControlCharacter,
    /// Neither text nor html.
    #[error("a message needs text, html or both")]
    NoContent,
    /// Not a header name of RFC 5322 section 2.2.
    #[error("'{0}' is no header name: use up to 76 printable ASCII characters without a colon or spaces")]
    HeaderName(String),
    /// A header that Relaypool writes.
    #[error("the header '{0}' is written by Relaypool itself: use the field made for it (sender, subject, …)")]
    ReservedHeader(String),
    /// Neither mailto nor url, or one click without url, or no https.
    #[error("{0}")]
    ListUnsubscribe(&'static str),
    /// An attachment without content.
    #[error("the attachment has no data")]
    NoData,
    /// An attachment whose content is not base64.
    #[error("not base64: {0}")]
    Base64(String),
    /// An attachment whose type is none, or one that cannot be attached.
    #[error("'{0}' is no type for an attachment: write one such as application/pdf, and no multipart or message type")]
    ContentType(String),
    /// A file name with control characters or a slash.
    #[error("a file name is 1 to 255 bytes without control characters, / and \\")]
    FileName,
    /// A content id that cannot stand in a header.
    #[error("a content id is 1 to 127 letters, digits and characters of !#$%&'*+-/=?^_`{{|}}~.@")]
    ContentId,
}

impl TemplateError {
    pub(crate) fn new(field: impl Into<String>, problem: Problem) -> Self {
        Self {
            field: field.into(),
            line: None,
            problem,
        }
    }

    pub(crate) fn at(field: impl Into<String>, line: usize, problem: Problem) -> Self {
        Self {
            field: field.into(),
            line: Some(line),
            problem,
        }
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(formatter, "{} line {line}: {}", self.field, self.problem),
            None => write!(formatter, "{}: {}", self.field, self.problem),
        }
    }
}

impl std::error::Error for TemplateError {}

/// Why the message of one recipient cannot be made. It will not change by trying again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// A template names a variable that the recipient does not have, or has as null.
    #[error("{field} line {line}: the recipient has no variable '{name}'")]
    UnknownVariable {
        /// The field whose template it is.
        field: String,
        /// Line in the field's text, from 1.
        line: usize,
        /// The variable as the template writes it.
        name: String,
    },
    /// A template fails on this recipient's variables, or works too long.
    #[error("{field} line {line}: {reason}")]
    Render {
        /// The field whose template it is.
        field: String,
        /// Line in the field's text, from 1.
        line: usize,
        /// The engine's words.
        reason: String,
    },
    /// A header would hold a line break or another control character.
    #[error("{header}: a control character (such as a line break) in a header")]
    HeaderInjection {
        /// Name of the header.
        header: String,
    },
    /// A rendered template is too long.
    #[error("{field} is longer than {limit} bytes")]
    TooLong {
        /// The field whose template it is.
        field: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// A variable is too large.
    #[error("the variable '{name}' is larger than {limit} bytes")]
    LargeVariable {
        /// Name of the variable.
        name: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// The rendered address for unsubscribing cannot stand in a List-Unsubscribe header.
    #[error(
        "message.listUnsubscribe.url must become an https address in ASCII of at most {limit} characters: \
         use the urlencode filter on values"
    )]
    UnsubscribeUrl {
        /// The limit in characters.
        limit: usize,
    },
}
