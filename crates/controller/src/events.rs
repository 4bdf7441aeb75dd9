//! Events: what a person who runs `kubectl describe` should read about an object.

use std::time::Duration;

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use relaypool_api::names::CONTROLLER_MANAGER;

/// An Event is worth waiting for, but not for long.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest note, in bytes: the API server refuses more than 1 kB.
const MAX_NOTE: usize = 1_000;

/// Something that happened to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    /// Nothing is wrong, or something is.
    warning: bool,
    /// What happened, in one word.
    reason: String,
    /// What was done, in one word.
    action: &'static str,
    /// The same for people. No secrets.
    note: String,
}

impl Notice {
    /// All is well.
    pub(crate) fn normal(reason: impl Into<String>, action: &'static str, note: impl Into<String>) -> Self {
        Self {
            warning: false,
            reason: reason.into(),
            action,
            note: note.into(),
        }
    }

    /// Somebody should look.
    pub(crate) fn warning(reason: impl Into<String>, action: &'static str, note: impl Into<String>) -> Self {
        Self {
            warning: true,
            ..Self::normal(reason, action, note)
        }
    }
}

/// Publishes Events. That one cannot be published is logged and changes nothing else.
#[derive(Clone)]
pub(crate) struct Events(Recorder);

impl Events {
    pub(crate) fn new(client: Client) -> Self {
        let reporter = Reporter {
            controller: CONTROLLER_MANAGER.to_owned(),
            // The pod's name, where there is a pod.
            instance: std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).ok(),
        };
        Self(Recorder::new(client, reporter))
    }

    pub(crate) async fn publish(&self, about: &impl Resource<DynamicType = ()>, notice: Notice) {
        let reference = about.object_ref(&());
        let event = Event {
            type_: if notice.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: notice.reason,
            action: notice.action.to_owned(),
            note: Some(first_bytes(&notice.note, MAX_NOTE).to_owned()),
            secondary: None,
        };
        match tokio::time::timeout(TIMEOUT, self.0.publish(&event, &reference)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(reason = event.reason, %error, "cannot publish an Event"),
            Err(_) => tracing::warn!(reason = event.reason, "cannot publish an Event: no answer"),
        }
    }
}

/// The start of a text, cut between characters.
fn first_bytes(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_cut_between_characters() {
        assert_eq!(first_bytes("aüb", 2), "a");
        assert_eq!(first_bytes("aüb", 3), "aü");
        assert_eq!(first_bytes("aüb", 30), "aüb");
    }
}
