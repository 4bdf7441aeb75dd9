//! Objects from YAML files, as `kubectl apply -f` would take them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use kube::core::Resource;
use relaypool_api::{Delivery, DkimKey, MxPolicy, RelayPool, SendingIp};

use super::document::{Document, ObjectError, documents};

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

/// False when there was one of the same name.
fn insert<K: Resource>(objects: &mut BTreeMap<String, K>, object: K) -> bool {
    objects.insert(object.name_any(), object).is_none()
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
