use std::sync::Arc;
use std::time::Duration;

use super::{Refusal, Rule, Scene, Step};
use crate::description::{Answer, ConnectionLimit};

/// Refuses connections beyond the limit of the hour.
#[derive(Debug)]
pub(super) struct Limit {
    description: ConnectionLimit,
    reply: Arc<Answer>,
}

impl Limit {
    pub(super) fn new(description: ConnectionLimit) -> Self {
        Self {
            reply: Arc::new(description.reply.clone()),
            description,
        }
    }

    /// The last change whose time has come holds.
    fn limit_at(&self, now: Duration) -> u32 {
        self.description
            .changes
            .iter()
            .filter(|change| change.at.get() <= now)
            .max_by_key(|change| change.at)
            .map_or(self.description.limit, |change| change.limit)
    }
}

impl Rule for Limit {
    fn judge(&mut self, step: Step<'_>, scene: &mut Scene<'_>) -> Result<(), Refusal> {
        let limit = self.limit_at(scene.now);
        if step == Step::Greeting && scene.open(self.description.scope) > limit {
            Err(Refusal::Reply(self.reply.clone()))
        } else {
            Ok(())
        }
    }
}
