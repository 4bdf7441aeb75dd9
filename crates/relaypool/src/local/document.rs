//! One document of a YAML file: what it is, and whether it may be used.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Secret;
use kube::core::object::HasSpec;
use relaypool_api::not_in_effect::{NotInEffect, Surroundings, notice};
use relaypool_api::schema::{unknown_fields, violations};
use relaypool_api::validation::Validate;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A file that cannot be used, and where.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// A file or folder could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No YAML, or YAML of another shape.
    #[error("{}: {problem}", at(.path, .line))]
    Yaml {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: Option<usize>,
        /// What is wrong with it.
        problem: String,
    },
    /// YAML that is fine, of an object that is not.
    #[error("{}: {kind} {name}: {problem}", at(.path, .line))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line where the object begins, from 1.
        line: Option<usize>,
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No file at all.
    #[error("{0} has no .yaml or .yml file")]
    Empty(PathBuf),
}

fn at(path: &Path, line: &Option<usize>) -> String {
    match line {
        Some(line) => format!("{}:{line}", path.display()),
        None => path.display().to_string(),
    }
}

/// The part of a document that says what it is.
#[derive(Deserialize)]
pub struct Head {
    /// Its kind.
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    metadata: HeadMetadata,
}

#[derive(Deserialize, Default)]
struct HeadMetadata {
    #[serde(default)]
    name: String,
}

/// One document of a file.
pub struct Document<'a> {
    path: &'a Path,
    text: &'a str,
    /// Line of the file where the text begins, from 0.
    first_line: usize,
}

impl Document<'_> {
    /// What the document is; none where it is empty.
    pub fn head(&self) -> Result<Option<Head>, ObjectError> {
        match self.parse()? {
            serde_yaml::Value::Null => Ok(None),
            serde_yaml::Value::Mapping(_) => self.parse().map(Some),
            _ => Err(ObjectError::Yaml {
                path: self.path.to_owned(),
                line: Some(self.first_line + 1),
                problem: "this is no object: it begins with apiVersion, kind and metadata".to_owned(),
            }),
        }
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T, ObjectError> {
        serde_yaml::from_str(self.text).map_err(|error| self.malformed(&error, without_location(&error)))
    }

    /// An object with a name that an API server would take: names become parts of the names of files.
    pub fn named<T: DeserializeOwned>(&self, head: &Head) -> Result<T, ObjectError> {
        match head.metadata.name.as_str() {
            "" => Err(self.invalid(head, "metadata.name is missing".to_owned())),
            name if !is_object_name(name) => Err(self.invalid(head, NO_OBJECT_NAME.to_owned())),
            _ => self.parse(),
        }
    }

    /// An object of ours: no unknown field, all rules kept, and nothing that only later versions can do.
    pub fn checked<K>(&self, head: &Head) -> Result<K, ObjectError>
    where
        K: DeserializeOwned + Validate + HasSpec,
        K::Spec: NotInEffect,
    {
        let raw: serde_json::Value = self.named(head)?;
        if let Some(unknown) = unknown_fields(&head.kind, &raw).first() {
            return Err(self.invalid(head, unknown.to_string()));
        }
        let mut problems = violations(&head.kind, &raw);
        let object: K = serde_yaml::from_str(self.text).map_err(|error| {
            let words = without_location(&error);
            // The schema says what would be right; the parser only that this is not.
            let same = problems
                .iter()
                .find(|problem| words.starts_with(&format!("{}: ", problem.field)));
            self.malformed(&error, same.map_or(words.clone(), ToString::to_string))
        })?;
        problems.extend(object.problems());
        problems.extend(object.spec().obstacles());
        if let Some(problem) = problems.first() {
            return Err(self.invalid(head, problem.to_string()));
        }
        let ignored = object.spec().fields_not_in_effect(Surroundings::Elsewhere);
        if !ignored.is_empty() {
            tracing::warn!("{} {}: {}", head.kind, head.metadata.name, notice(&ignored));
        }
        Ok(object)
    }

    /// Errors say where a Secret is wrong, but in words of their own: those of the parser may quote what is secret.
    pub fn secret(&self, head: &Head) -> Result<Secret, ObjectError> {
        let _: serde::de::IgnoredAny = self.named(head)?;
        let secret = serde_yaml::from_str(self.text).map_err(|error| {
            let problem = format!(
                "Secret {}: data maps names to base64, stringData maps names to text",
                head.metadata.name
            );
            self.malformed(&error, problem)
        })?;
        Ok(with_string_data(secret))
    }

    fn malformed(&self, error: &serde_yaml::Error, problem: String) -> ObjectError {
        ObjectError::Yaml {
            path: self.path.to_owned(),
            line: error.location().map(|location| self.first_line + location.line()),
            problem,
        }
    }

    /// The error that something is wrong with the object of this document.
    pub fn invalid(&self, head: &Head, problem: String) -> ObjectError {
        let kind_at = self.text.lines().position(|line| line.starts_with("kind:"));
        ObjectError::Invalid {
            path: self.path.to_owned(),
            line: Some(self.first_line + kind_at.unwrap_or(0) + 1),
            kind: head.kind.clone(),
            name: head.metadata.name.clone(),
            problem,
        }
    }
}

const NO_OBJECT_NAME: &str = "metadata.name is made of lower case letters, digits, '-' and '.', and begins and ends with \
                              a letter or digit";

/// The API server's rule for the names of our kinds (RFC 1123 subdomain).
fn is_object_name(name: &str) -> bool {
    let is_alphanumeric = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    name.len() <= 253
        && name.split('.').all(|label| {
            label.starts_with(is_alphanumeric)
                && label.ends_with(is_alphanumeric)
                && label
                    .chars()
                    .all(|character| is_alphanumeric(character) || character == '-')
        })
}

/// As the API server does: `stringData` is plain text for people, and goes into `data`.
fn with_string_data(mut secret: Secret) -> Secret {
    for (key, text) in secret.string_data.take().unwrap_or_default() {
        let bytes = k8s_openapi::ByteString(text.into_bytes());
        secret.data.get_or_insert_default().insert(key, bytes);
    }
    secret
}

/// Cuts a file at its `---` lines, so that an error names the line of the file and one document's error is its own.
pub fn documents<'a>(path: &'a Path, text: &'a str) -> Vec<Document<'a>> {
    let mut documents = Vec::new();
    let (mut start, mut first_line, mut at) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let end = at + line.len();
        if is_separator(line) {
            documents.push(Document {
                path,
                text: &text[start..at],
                first_line,
            });
            (start, first_line) = (end, number + 1);
        }
        at = end;
    }
    documents.push(Document {
        path,
        text: &text[start..],
        first_line,
    });
    documents.retain(|document| {
        document
            .text
            .lines()
            .any(|line| !line.trim().is_empty() && !line.starts_with('#'))
    });
    documents
}

/// `---`, with a comment behind it or without.
fn is_separator(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("---") else {
        return false;
    };
    let words = rest.trim_start();
    words.is_empty() || (words.len() < rest.len() && words.starts_with('#'))
}

/// The message without "at line … column …": that line counts from the document's beginning.
fn without_location(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}
