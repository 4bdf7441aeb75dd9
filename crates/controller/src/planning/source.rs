//! Content that a Delivery refers to: one key of a ConfigMap or a Secret.

use std::fmt;

use relaypool_api::delivery::Recipients;
use relaypool_api::message::Attachment;

/// Kind of the object that holds content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SourceKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// One key of a ConfigMap or a Secret in the namespace of the Delivery.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceRef {
    /// ConfigMap or Secret.
    pub kind: SourceKind,
    /// Name of the object.
    pub name: String,
    /// Key within it.
    pub key: String,
}

impl SourceRef {
    /// A key of a ConfigMap.
    pub fn config_map(name: &str, key: &str) -> Self {
        Self {
            kind: SourceKind::ConfigMap,
            name: name.to_owned(),
            key: key.to_owned(),
        }
    }

    /// A key of a Secret.
    pub fn secret(name: &str, key: &str) -> Self {
        Self {
            kind: SourceKind::Secret,
            name: name.to_owned(),
            key: key.to_owned(),
        }
    }

    /// Where the list of recipients lies; none for an inline list and for one in an object store.
    pub fn of_recipients(recipients: &Recipients) -> Option<Self> {
        let config_map = recipients.config_map_key_ref.as_ref();
        let secret = recipients.secret_key_ref.as_ref();
        config_map
            .map(|list| Self::config_map(&list.name, &list.key))
            .or_else(|| secret.map(|list| Self::secret(&list.name, &list.key)))
    }

    /// Where an attachment lies; none for one that carries its data itself.
    pub fn of_attachment(attachment: &Attachment) -> Option<Self> {
        let config_map = attachment.config_map_key_ref.as_ref();
        let secret = attachment.secret_key_ref.as_ref();
        config_map
            .map(|content| Self::config_map(&content.name, &content.key))
            .or_else(|| secret.map(|content| Self::secret(&content.name, &content.key)))
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        })
    }
}

impl fmt::Display for SourceRef {
    /// Such as `key list.csv of ConfigMap customers`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "key {} of {} {}", self.key, self.kind, self.name)
    }
}
