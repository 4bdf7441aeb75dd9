use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Refusal, Rule, Scene, Step};
use crate::description::{Answer, Greylisting};
use crate::stable_hash::stable_hash;

/// Remembers when each (source, return path, recipient) was first seen.
#[derive(Debug)]
pub(super) struct Greylist {
    delay: Duration,
    reply: Arc<Answer>,
    /// By hash, which keeps a million recipients in tens of megabytes.
    first_seen: HashMap<u64, Duration>,
}

impl Greylist {
    pub(super) fn new(description: Greylisting) -> Self {
        Self {
            delay: description.delay.get(),
            reply: Arc::new(description.reply),
            first_seen: HashMap::new(),
        }
    }
}

impl Rule for Greylist {
    fn judge(&mut self, step: Step<'_>, scene: &mut Scene<'_>) -> Result<(), Refusal> {
        let Step::RcptTo { recipient } = step else {
            return Ok(());
        };
        let key = stable_hash(&[
            scene.source.to_string().as_bytes(),
            scene.return_path.as_bytes(),
            recipient.as_bytes(),
        ]);
        let now = scene.now;
        match self.first_seen.get(&key) {
            Some(first) if now >= first.saturating_add(self.delay) => Ok(()),
            Some(_) => Err(Refusal::Reply(self.reply.clone())),
            None => {
                self.first_seen.insert(key, now);
                Err(Refusal::Reply(self.reply.clone()))
            }
        }
    }
}
