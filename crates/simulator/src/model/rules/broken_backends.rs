use std::sync::Arc;

use rand::RngExt;

use super::{Refusal, Rule, Scene, Step};
use crate::description::{Answer, BrokenBackends};

/// Sends each connection to a backend by chance.
#[derive(Debug)]
pub(super) struct Pool {
    backends: u32,
    broken: u32,
    reply: Arc<Answer>,
}

impl Pool {
    pub(super) fn new(description: BrokenBackends) -> Self {
        Self {
            backends: description.backends.max(1),
            broken: description.broken,
            reply: Arc::new(description.reply),
        }
    }
}

impl Rule for Pool {
    fn judge(&mut self, step: Step<'_>, scene: &mut Scene<'_>) -> Result<(), Refusal> {
        if step == Step::Greeting && scene.random.random_range(0..self.backends) < self.broken {
            Err(Refusal::Reply(self.reply.clone()))
        } else {
            Ok(())
        }
    }
}
