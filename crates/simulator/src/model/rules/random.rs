//! Behaviours that are nothing but chance.

use std::sync::Arc;

use super::{Refusal, Rule, Scene, Step};
use crate::description::{Answer, Disconnects, Refusals};

/// Refuses a share of the commands of one phase.
#[derive(Debug)]
pub(super) struct Refuser {
    description: Refusals,
    reply: Arc<Answer>,
}

impl Refuser {
    pub(super) fn new(description: Refusals) -> Self {
        Self {
            reply: Arc::new(description.reply.clone()),
            description,
        }
    }
}

impl Rule for Refuser {
    fn judge(&mut self, step: Step<'_>, scene: &mut Scene<'_>) -> Result<(), Refusal> {
        let Refusals { phase, from, until, .. } = self.description;
        let holds =
            step.phase() == phase && scene.now >= from.get() && until.is_none_or(|until| scene.now < until.get());
        if holds && scene.by_chance(self.description.percent) {
            Err(Refusal::Reply(self.reply.clone()))
        } else {
            Ok(())
        }
    }
}

impl Rule for Disconnects {
    fn judge(&mut self, step: Step<'_>, scene: &mut Scene<'_>) -> Result<(), Refusal> {
        if step.phase() == self.phase && scene.by_chance(self.percent) {
            Err(Refusal::HangUp)
        } else {
            Ok(())
        }
    }
}
