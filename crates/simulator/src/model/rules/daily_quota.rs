use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Refusal, Rule, Scene, Step};
use crate::description::{Answer, DailyQuota};

/// Counts each account's messages of the day.
#[derive(Debug)]
pub(super) struct Quota {
    description: DailyQuota,
    reply: Arc<Answer>,
    used: HashMap<Option<IpAddr>, Used>,
}

#[derive(Debug, Clone, Copy)]
struct Used {
    day: i64,
    messages: u64,
}

impl Quota {
    pub(super) fn new(description: DailyQuota) -> Self {
        Self {
            reply: Arc::new(description.reply.clone()),
            used: HashMap::new(),
            description,
        }
    }

    /// Days since the provider's last midnight before the start.
    fn day(&self, now: Duration) -> i64 {
        let since_midnight_utc = now.saturating_add(self.description.time_of_day_at_start.get());
        let seconds = i64::try_from(since_midnight_utc.as_secs()).unwrap_or(i64::MAX);
        seconds
            .saturating_add(i64::from(self.description.utc_offset_minutes) * 60)
            .div_euclid(86_400)
    }
}

impl Rule for Quota {
    fn judge(&mut self, step: Step<'_>, scene: &mut Scene<'_>) -> Result<(), Refusal> {
        if step.phase() != self.description.phase {
            return Ok(());
        }
        let today = Used {
            day: self.day(scene.now),
            messages: 0,
        };
        let used = self.used.entry(scene.account(self.description.scope)).or_insert(today);
        if used.day != today.day {
            *used = today;
        }
        if used.messages >= self.description.messages {
            return Err(Refusal::Reply(self.reply.clone()));
        }
        used.messages += 1;
        Ok(())
    }
}
