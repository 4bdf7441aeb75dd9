//! Objects from YAML files, as `kubectl apply -f` would take them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use kube::core::Resource;
use relaypool_api::schema::unknown_fields;
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
        let Some(head) = document.parse::<Option<Head>>()? else {
            return Ok(());
        };
        match head.kind.as_str() {
            "RelayPool" => insert(&mut self.pools, document.checked(&head)?),
            "SendingIp" => insert(&mut self.ips, document.checked(&head)?),
            "MxPolicy" => insert(&mut self.policies, document.checked(&head)?),
            "DkimKey" => insert(&mut self.keys, document.checked(&head)?),
            "Delivery" => insert(&mut self.deliveries, document.checked(&head)?),
            "Secret" => insert(&mut self.secrets, with_string_data(document.parse()?)),
            "ConfigMap" => insert(&mut self.config_maps, document.parse()?),
            // What a cluster needs beside these means nothing here.
            "Namespace" | "Kustomization" => {}
            other => return Err(document.invalid(&head, format!("kind '{other}' is not known here"))),
        }
        Ok(())
    }
}

impl Document<'_> {
    fn parse<T: DeserializeOwned>(&self) -> Result<T, ObjectError> {
        serde_yaml::from_str(self.text).map_err(|error| ObjectError::Yaml {
            path: self.path.to_owned(),
            line: error.location().map(|location| self.first_line + location.line()),
            problem: without_location(&error),
        })
    }

    /// An object of ours: no unknown field, and all rules kept.
    fn checked<K: DeserializeOwned + Validate>(&self, head: &Head) -> Result<K, ObjectError> {
        let raw: serde_json::Value = self.parse()?;
        if head.metadata.name.is_empty() {
            return Err(self.invalid(head, "metadata.name is missing".to_owned()));
        }
        if let Some(unknown) = unknown_fields(&head.kind, &raw).first() {
            return Err(self.invalid(head, unknown.to_string()));
        }
        let object: K = self.parse()?;
        match object.problems().first() {
            Some(problem) => Err(self.invalid(head, problem.to_string())),
            None => Ok(object),
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

fn insert<K: Resource>(objects: &mut BTreeMap<String, K>, object: K) {
    objects.insert(object.name_any(), object);
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
        if line.trim_end() == "---" {
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
    }

    #[test]
    fn an_empty_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Objects::read(folder.path()), Err(ObjectError::Empty(_))));
    }
}
