//! The templates of a message: minijinja with unknown variables as errors, and bounds on what a template may cost.

mod filters;
mod language;
mod variables;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use minijinja::{AutoEscape, Environment, ErrorKind, Output, State, UndefinedBehavior, Value};

pub(crate) use language::Place;
pub(crate) use variables::Variables;

use crate::error::{ComposeError, TemplateError};

/// Most steps of one template for one recipient. A step of a fine template takes less than a microsecond.
const MOST_STEPS: u64 = 50_000;

/// Longest body, in bytes before its transfer encoding.
const LONGEST_BODY: usize = 4 * 1024 * 1024;

/// Longest header value, in bytes before it is encoded.
const LONGEST_HEADER: usize = 8 * 1024;

/// The template of this field escapes values for HTML.
pub(crate) const HTML: &str = "message.html";

/// The compiled templates of a message, by field.
pub(crate) struct Templates {
    environment: Environment<'static>,
}

/// One of the templates.
pub(crate) struct Template {
    field: String,
    place: Place,
}

impl Templates {
    pub(crate) fn new() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_keep_trailing_newline(true);
        environment.set_fuel(Some(MOST_STEPS));
        environment.set_auto_escape_callback(|field| match field {
            HTML => AutoEscape::Html,
            _ => AutoEscape::None,
        });
        environment.set_formatter(format);
        filters::install(&mut environment);
        Self { environment }
    }

    /// Examines and compiles the template in a field.
    pub(crate) fn add(&mut self, field: String, source: &str, place: Place) -> Result<Template, TemplateError> {
        let source = match place {
            // A YAML block ends with a line break that its author did not mean as a part of the header.
            Place::Header => source.trim_end_matches(['\r', '\n']),
            Place::Body => source,
        };
        language::check(&field, source, place)?;
        self.environment
            .add_template_owned(field.clone(), source.to_owned())
            .map_err(|error| language::syntax_error(&field, &error))?;
        Ok(Template { field, place })
    }

    /// The text that a template makes for a recipient.
    pub(crate) fn render(&self, template: &Template, variables: &Arc<Variables>) -> Result<String, ComposeError> {
        let compiled = self
            .environment
            .get_template(&template.field)
            .map_err(|error| error_of(template, "", variables, &error))?;
        let mut output = Limited {
            bytes: Vec::with_capacity(compiled.source().len() + 256),
            limit: match template.place {
                Place::Header => LONGEST_HEADER,
                Place::Body => LONGEST_BODY,
            },
            exceeded: false,
        };
        let rendered = compiled.render_captured_to(Value::from_dyn_object(Arc::clone(variables)), &mut output);
        if output.exceeded {
            return Err(ComposeError::TooLong {
                field: template.field.clone(),
                limit: output.limit,
            });
        }
        rendered.map_err(|error| error_of(template, compiled.source(), variables, &error))?;
        // The engine writes text only.
        Ok(String::from_utf8(output.bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }
}

/// Refuses to print a null inside of a variable, as unknown ones are; the engine would print "None".
fn format(output: &mut Output<'_>, state: &State<'_, '_>, value: &Value) -> Result<(), minijinja::Error> {
    if value.is_none() {
        return Err(minijinja::Error::from(ErrorKind::UndefinedError));
    }
    minijinja::escape_formatter(output, state, value)
}

/// What an error of the engine means for the recipient.
fn error_of(template: &Template, source: &str, variables: &Variables, error: &minijinja::Error) -> ComposeError {
    let field = template.field.clone();
    let line = error.line().unwrap_or(1);
    let place = error.range().and_then(|range| whole_path(source, range));
    let unknown = variables.take_unknown();
    match (error.kind(), place, unknown) {
        // Part of a variable: `customer.name`, `orders[3]`.
        (ErrorKind::UndefinedError, Some(path), _) if is_path(path) => ComposeError::UnknownVariable {
            field,
            line,
            name: path.to_owned(),
        },
        // Some filters have other words for a value that is unknown.
        (ErrorKind::UndefinedError | ErrorKind::InvalidOperation, _, Some(name)) => {
            ComposeError::UnknownVariable { field, line, name }
        }
        (ErrorKind::UndefinedError, Some(expression), None) => ComposeError::UnknownVariable {
            field,
            line,
            name: expression.to_owned(),
        },
        (kind, ..) => ComposeError::Render {
            field,
            line,
            reason: match error.detail() {
                Some(detail) => format!("{kind}: {detail}"),
                None => kind.to_string(),
            },
        },
    }
}

/// What a range of a template holds; with its beginning where the engine only tells the end of a path, such as `.name` of
/// `customer.name`.
fn whole_path(source: &str, range: Range<usize>) -> Option<&str> {
    let text = source.get(range.clone())?;
    let start = match text.starts_with(['.', '[']) {
        true => source[..range.start].trim_end_matches(is_of_path).len(),
        false => range.start,
    };
    Some(source[start..range.end].trim())
}

fn is_of_path(character: char) -> bool {
    character.is_alphanumeric() || "_.[]\"'".contains(character)
}

fn is_path(text: &str) -> bool {
    text.contains(['.', '['])
        && text.starts_with(|character: char| character.is_alphabetic() || character == '_')
        && text.chars().all(is_of_path)
}

/// Takes so many bytes and no more.
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
    exceeded: bool,
}

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            self.exceeded = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
