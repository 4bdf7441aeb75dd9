use std::sync::Arc;

use super::{Refusal, Rule, Scene, Step};
use crate::description::{Answer, MessagesPerConnection};

/// Ends a connection that has had its share of messages.
#[derive(Debug)]
pub(super) struct Limit {
    limit: u32,
    silently: bool,
    reply: Arc<Answer>,
}

impl Limit {
    pub(super) fn new(description: MessagesPerConnection) -> Self {
        Self {
            limit: description.limit,
            silently: description.silently,
            reply: Arc::new(description.reply),
        }
    }
}

impl Rule for Limit {
    fn judge(&mut self, step: Step<'_>, scene: &mut Scene<'_>) -> Result<(), Refusal> {
        match step {
            Step::EndOfData if self.silently && scene.messages_ended + 1 >= self.limit => {
                scene.effect.close = true;
                Ok(())
            }
            Step::MailFrom if scene.messages_ended >= self.limit => Err(Refusal::Reply(self.reply.clone())),
            _ => Ok(()),
        }
    }
}
