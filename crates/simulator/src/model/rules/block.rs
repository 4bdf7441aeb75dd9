use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Refusal, Rule, Scene, Step};
use crate::description::{Answer, BlockAfterRefusals};

/// Counts the refusals of each source and locks it out when they are too many.
#[derive(Debug)]
pub(super) struct Blocks {
    description: BlockAfterRefusals,
    reply: Arc<Answer>,
    sources: HashMap<IpAddr, Record>,
    lockouts: u64,
}

#[derive(Debug, Default)]
struct Record {
    /// Times of the latest refusals, never more than it takes to be locked out.
    refusals: VecDeque<Duration>,
    locked_out_until: Option<Duration>,
}

impl Blocks {
    pub(super) fn new(description: BlockAfterRefusals) -> Self {
        Self {
            reply: Arc::new(description.reply.clone()),
            sources: HashMap::new(),
            lockouts: 0,
            description,
        }
    }
}

impl Rule for Blocks {
    fn judge(&mut self, step: Step<'_>, scene: &mut Scene<'_>) -> Result<(), Refusal> {
        let locked_out = self
            .sources
            .get(&scene.source)
            .is_some_and(|record| record.is_locked_out(scene.now));
        if locked_out && matches!(step, Step::Greeting | Step::MailFrom) {
            Err(Refusal::Reply(self.reply.clone()))
        } else {
            Ok(())
        }
    }

    fn witness_refusal(&mut self, now: Duration, source: IpAddr) {
        let record = self.sources.entry(source).or_default();
        if record.is_locked_out(now) {
            // Knocking at a locked door does not lengthen the sentence.
            return;
        }
        record.refusals.push_back(now);
        let too_old = now.checked_sub(self.description.within.get());
        while record.refusals.front().is_some_and(|at| Some(*at) < too_old) {
            record.refusals.pop_front();
        }
        if record.refusals.len() >= self.description.refusals as usize {
            record.refusals.clear();
            record.locked_out_until = Some(now.saturating_add(self.description.period.get()));
            self.lockouts += 1;
        }
    }

    fn lockouts(&self) -> u64 {
        self.lockouts
    }
}

impl Record {
    fn is_locked_out(&self, now: Duration) -> bool {
        self.locked_out_until.is_some_and(|until| now < until)
    }
}
