//! Why a reconcile failed, and is repeated.

use std::time::Duration;

/// Why a reconcile failed. What is wrong with an object is no such error: that is said in its status.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused or could not be reached.
    #[error("cannot {action}: {source}")]
    Api {
        /// What was tried.
        action: String,
        /// What the client says.
        source: Box<kube::Error>,
    },
    /// The API server did not answer.
    #[error("cannot {action}: no answer within {} s", .after.as_secs())]
    Timeout {
        /// What was tried.
        action: String,
        /// For how long.
        after: Duration,
    },
    /// An object could not be written as JSON.
    #[error("cannot write {what} as JSON: {source}")]
    Encoding {
        /// What was to be written.
        what: &'static str,
        /// What the encoder says.
        source: serde_json::Error,
    },
}

/// Why the controller does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The name servers of the machine are not known.
    #[error("cannot set up name resolution: {0}")]
    Dns(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A watch ended, though nobody asked it to.
    #[error("a watch has ended")]
    WatchEnded,
}
