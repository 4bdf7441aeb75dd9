//! Objects from YAML files, as `kubectl apply -f` would take them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use kube::core::Resource;
use kube::core::object::HasSpec;
use relaypool_api::not_in_effect::{NotInEffect, Surroundings, notice};
use relaypool_api::schema::{unknown_fields, violations};
use relaypool_api::validation::Validate;
use relaypool_api::{Delivery, DkimKey, MxPolicy, RelayPool, SendingIp};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// All objects of a folder, by kind and name.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// RelayPools.
    pub pools: BTreeMap<String, RelayPool>,
    /// SendingIps.
    pub ips: BTreeMap<String, SendingIp>,
    /// MxPolicies.
    pub policies: BTreeMap<String, MxPolicy>,
    /// DkimKeys.
    pub keys: BTreeMap<String, DkimKey>,
    /// Deliveries.
    pub deliveries: BTreeMap<String, Delivery>,
    /// Secrets, their `stringData` merged into `data`.
    pub secrets: BTreeMap<String, Secret>,
    /// ConfigMaps.
    pub config_maps: BTreeMap<String, ConfigMap>,
}

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
struct Head {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: HeadMetadata,
}

#[derive(Deserialize, Default)]
struct HeadMetadata {
    #[serde(default)]
    name: String,
}

/// One document of a file.
struct Document<'a> {
    path: &'a Path,
    text: &'a str,
    /// Line of the file where the text begins, from 0.
    first_line: usize,
}

impl Objects {
    /// Reads a file, or all `.yaml` and `.yml` files of a folder in the order of their names.
    pub fn read(path: &Path) -> Result<Self, ObjectError> {
        let mut objects = Self::default();
        for file in yaml_files(path)? {
            let text = std::fs::read_to_string(&file).map_err(|source| ObjectError::Read {
                path: file.clone(),
                source,
            })?;
            for document in documents(&file, &text) {
                objects.add(&document)?;
            }
        }
        Ok(objects)
    }

    fn add(&mut self, document: &Document<'_>) -> Result<(), ObjectError> {
        let Some(head) = document.head()? else { return Ok(()) };
        let is_new = match head.kind.as_str() {
            "RelayPool" => insert(&mut self.pools, document.checked(&head)?),
            "SendingIp" => insert(&mut self.ips, document.checked(&head)?),
            "MxPolicy" => insert(&mut self.policies, document.checked(&head)?),
            "DkimKey" => insert(&mut self.keys, document.checked(&head)?),
            "Delivery" => insert(&mut self.deliveries, document.checked(&head)?),
            "Secret" => insert(&mut self.secrets, document.secret(&head)?),
            "ConfigMap" => insert(&mut self.config_maps, document.named(&head)?),
            // What a cluster needs beside these means nothing here.
            "Namespace" | "Kustomization" => true,
            other => return Err(document.invalid(&head, format!("kind '{other}' is not known here"))),
        };
        if is_new {
            Ok(())
        } else {
            Err(document.invalid(&head, "there is another of this kind and name before it".to_owned()))
        }
    }
}

impl Document<'_> {
    /// What the document is; none where it is empty.
    fn head(&self) -> Result<Option<Head>, ObjectError> {
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
    fn named<T: DeserializeOwned>(&self, head: &Head) -> Result<T, ObjectError> {
        match head.metadata.name.as_str() {
            "" => Err(self.invalid(head, "metadata.name is missing".to_owned())),
            name if !is_object_name(name) => Err(self.invalid(head, NO_OBJECT_NAME.to_owned())),
            _ => self.parse(),
        }
    }

    /// An object of ours: no unknown field, all rules kept, and nothing that only later versions can do.
    fn checked<K>(&self, head: &Head) -> Result<K, ObjectError>
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
    fn secret(&self, head: &Head) -> Result<Secret, ObjectError> {
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

    fn invalid(&self, head: &Head, problem: String) -> ObjectError {
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

/// False when there was one of the same name.
fn insert<K: Resource>(objects: &mut BTreeMap<String, K>, object: K) -> bool {
    objects.insert(object.name_any(), object).is_none()
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

fn yaml_files(path: &Path) -> Result<Vec<PathBuf>, ObjectError> {
    let cannot_read = |source| ObjectError::Read {
        path: path.to_owned(),
        source,
    };
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(cannot_read)? {
        let file = entry.map_err(cannot_read)?.path();
        if matches!(
            file.extension().and_then(|extension| extension.to_str()),
            Some("yaml" | "yml")
        ) {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        Err(ObjectError::Empty(path.to_owned()))
    } else {
        Ok(files)
    }
}

/// Cuts a file at its `---` lines, so that an error names the line of the file and one document's error is its own.
fn documents<'a>(path: &'a Path, text: &'a str) -> Vec<Document<'a>> {
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

impl fmt::Display for Objects {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} pools, {} sending IPs, {} policies, {} DKIM keys, {} deliveries",
            self.pools.len(),
            self.ips.len(),
            self.policies.len(),
            self.keys.len(),
            self.deliveries.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &str = "apiVersion: relaypool.dev/v1alpha1\nkind: RelayPool\nmetadata:\n  name: main\nspec: {}\n";

    fn read(text: &str) -> Result<Objects, ObjectError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.yaml"), text).unwrap();
        Objects::read(folder.path())
    }

    fn error(text: &str) -> String {
        let error = read(text).unwrap_err().to_string();
        error.rsplit_once("/a.yaml").unwrap_or(("", &error)).1.to_owned()
    }

    #[test]
    fn several_documents_and_comments() {
        let secret = "kind: Secret\napiVersion: v1\nmetadata: {name: s}\nstringData: {a: b}\n";
        let objects = read(&format!("# first\n---\n{POOL}---\n# nothing\n---\n{secret}")).unwrap();
        assert_eq!(objects.pools["main"].spec.smtp_port, 25);
        assert_eq!(objects.secrets["s"].data.as_ref().unwrap()["a"].0, b"b");
    }

    #[test]
    fn errors_name_file_and_line() {
        assert!(
            error(&format!("{POOL}---\nkind: [\n")).starts_with(":8: "),
            "{}",
            error(&format!("{POOL}---\nkind: [\n"))
        );
        let wrong_type = format!("{POOL}---\n{}", POOL.replace("spec: {}", "spec:\n  smtpPort: many"));
        assert!(error(&wrong_type).starts_with(":12: "), "{}", error(&wrong_type));
        let unknown = error(&POOL.replace("spec: {}", "spec: {replica: 2}"));
        assert!(
            unknown.starts_with(":2: RelayPool main: ") && unknown.contains("spec.replica"),
            "{unknown}"
        );
        assert!(error("kind: Pod\nmetadata: {name: p}\n").contains("kind 'Pod' is not known here"));
        assert!(error("just words\n").starts_with(":1: this is no object"));
        assert!(error(&format!("{POOL}--- # twice\n{POOL}")).starts_with(":8: RelayPool main: there is another"));
    }

    #[test]
    fn what_an_api_server_would_refuse_is_refused() {
        for (spec, words) in [
            ("spec: {smtpPort: 0}", "spec.smtpPort: must be at least 1"),
            ("spec: {returnPathDomain: 'a b'}", "a b"),
        ] {
            let refused = error(&POOL.replace("spec: {}", spec));
            assert!(refused.contains(words), "{refused}");
        }
        for name in ["../elsewhere", "Main", "a..b", "-a", "a_b"] {
            let refused = error(&POOL.replace("main", &format!("'{name}'")));
            assert!(refused.contains("metadata.name is made of"), "{refused}");
        }
        assert!(error(&POOL.replace("name: main", "labels: {}")).contains("metadata.name is missing"));
    }

    /// Without the proxy, mail would leave from another address than the one that is declared.
    #[test]
    fn what_this_version_cannot_do_without_harm_is_refused() {
        let ip = "kind: SendingIp\nmetadata: {name: a}\nspec: {pool: main, address: 192.0.2.1, ehloName: a.example, egress: {socks5: 'proxy:1080'}}\n";
        assert!(error(ip).contains("spec.egress.socks5"), "{}", error(ip));
    }

    #[test]
    fn errors_in_secrets_do_not_quote_them() {
        for broken in [
            "stringData: hunter2",
            "stringData: {a: [hunter2]}",
            "data: {a: 'hunter2!'}",
            "data: hunter2",
        ] {
            let refused = error(&format!("kind: Secret\nmetadata: {{name: s}}\n{broken}\n"));
            assert!(
                refused.contains("Secret s") && !refused.contains("hunter2"),
                "{refused}"
            );
        }
        let key = error("-----BEGIN PRIVATE KEY-----\nhunter2\n");
        assert!(!key.contains("hunter2"), "{key}");
    }

    #[test]
    fn an_empty_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Objects::read(folder.path()), Err(ObjectError::Empty(_))));
    }
}
