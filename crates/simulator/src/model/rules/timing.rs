//! Behaviours that refuse nothing and cost time.

use rand::RngExt;

use super::{Refusal, Rule, Scene, Step};
use crate::description::{ServiceTime, Slowdown};
use crate::model::decision::stretch;

impl Rule for ServiceTime {
    fn judge(&mut self, step: Step<'_>, scene: &mut Scene<'_>) -> Result<(), Refusal> {
        if step == Step::EndOfData {
            let swing = scene.random.random_range(-1.0..=1.0) * self.jitter.fraction();
            let time = stretch(self.time.get(), 1.0 + swing);
            scene.effect.added = scene.effect.added.saturating_add(time);
        }
        Ok(())
    }
}

impl Rule for Slowdown {
    fn judge(&mut self, _: Step<'_>, scene: &mut Scene<'_>) -> Result<(), Refusal> {
        if scene.open(self.scope) > self.beyond_connections {
            scene.effect.factor *= self.factor;
            scene.effect.extra = scene.effect.extra.saturating_add(self.extra.get());
        }
        Ok(())
    }
}
