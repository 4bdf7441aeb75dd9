//! A warm-up as the status of its address says it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use relaypool_api::sending_ip::{WarmUpProviderStatus, WarmUpStatus};

use super::{Position, WarmUp};

/// What the status says of an address that is warm.
pub const WARM: &str = "warm";

impl WarmUp {
    /// For the status of the address.
    pub fn status(&self) -> WarmUpStatus {
        let stage = match self.position {
            Position::Stage(stage) => stage,
            Position::Warm { since } => {
                return WarmUpStatus {
                    progress: WARM.to_owned(),
                    warm_since: Some(time(since)),
                    last_day: self.last_day.clone(),
                    ..WarmUpStatus::default()
                };
            }
        };
        let limit = self.volume(stage);
        WarmUpStatus {
            progress: format!("{stage}/{}", self.plan.stages()),
            stage: Some(stage),
            stages: Some(self.plan.stages()),
            day: Some(self.day.date.clone()),
            day_ends: Some(time(self.day.ends)),
            limit: Some(limit),
            // Any of it may be used before the next report: while the API server is away, there is none.
            reserved: Some(limit.max(self.sent)),
            sent: self.sent,
            delivered: self.delivered,
            held: self.hold.as_ref().map(|hold| hold.message.clone()),
            held_since: self.hold.as_ref().map(|hold| time(hold.since)),
            last_day: self.last_day.clone(),
            warm_since: None,
            providers: self.provider_statuses(stage),
        }
    }

    fn provider_statuses(&self, stage: u32) -> Vec<WarmUpProviderStatus> {
        let (largest, _) = self.providers.largest();
        let provider = |(site, today, best_day): (String, super::providers::Today, u64)| WarmUpProviderStatus {
            limit: self.providers.limit(&self.plan, &site, stage),
            sent: today.sent,
            delivered: today.delivered,
            best_day,
            site,
        };
        largest.into_iter().map(provider).collect()
    }
}

fn time(at: Duration) -> Time {
    let at = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    Time(Timestamp::from_millisecond(at).unwrap_or(Timestamp::UNIX_EPOCH))
}
