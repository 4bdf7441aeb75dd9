//! What is kept of a warm-up: in a sender's spool, and in the status of the address for the sender that has it next.

use std::time::Duration;

use relaypool_api::sending_ip::WarmUpStatus;
use serde::{Deserialize, Serialize};

use super::Position;
use super::day::Day;
use super::hold::Hold;
use super::providers::Today;

/// A warm-up as it is written down. What may be sent without another record is in it already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which of its owner's records it is. Means nothing after a restart.
    #[serde(skip)]
    pub(super) number: u64,
    pub(super) position: Position,
    /// The volume of the stage: the schedule may have changed when it is read.
    pub(super) volume: u64,
    pub(super) day: Day,
    pub(super) sent: u64,
    /// Messages of the day that may have been sent when nothing else is known.
    pub(super) reserved: u64,
    pub(super) delivered: u64,
    #[serde(default)]
    pub(super) providers: Vec<ProviderRecord>,
    /// Most that a provider which is not listed may have got today.
    #[serde(default)]
    pub(super) others: u64,
    #[serde(default)]
    pub(super) hold: Option<Hold>,
    #[serde(default)]
    pub(super) last_day: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProviderRecord {
    pub(super) name: String,
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) best_day: u64,
    #[serde(default)]
    pub(super) rate_refusals: u64,
}

impl Record {
    /// What the status of an address says of its warm-up; none where it says of none.
    pub fn from_status(status: &WarmUpStatus) -> Option<Self> {
        let millis = |time: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Time| {
            Duration::from_millis(u64::try_from(time.0.as_millisecond()).unwrap_or(0))
        };
        let (position, limit) = match (&status.warm_since, status.stage, status.limit) {
            (Some(since), ..) => (Position::Warm { since: millis(since) }, 0),
            (None, Some(stage), Some(limit)) => (Position::Stage(stage), limit),
            _ => return None,
        };
        let day = Day {
            date: status.day.clone().unwrap_or_default(),
            ends: status.day_ends.as_ref().map(millis).unwrap_or_default(),
            zone: String::new(),
        };
        let hold = status.held.as_ref().map(|message| Hold {
            since: status.held_since.as_ref().map(millis).unwrap_or_default(),
            day_ends: day.ends,
            message: message.clone(),
        });
        let providers = status.providers.iter().map(|provider| ProviderRecord {
            name: provider.site.clone(),
            sent: provider.sent,
            delivered: provider.delivered,
            best_day: provider.best_day,
            rate_refusals: 0,
        });
        Some(Self {
            number: 0,
            position,
            volume: limit,
            day,
            sent: status.sent,
            reserved: status.reserved.unwrap_or(limit).max(status.sent),
            delivered: status.delivered,
            providers: providers.collect(),
            others: status.sent,
            hold,
            last_day: status.last_day.clone(),
        })
    }

    /// Of what two places know of one address, the later; of one day, what leaves less room.
    #[must_use]
    pub fn later(self, other: Self) -> Self {
        let age = |record: &Self| {
            let is_warm = matches!(record.position, Position::Warm { .. });
            (is_warm, record.day.ends)
        };
        if age(&self) != age(&other) {
            return if age(&self) > age(&other) { self } else { other };
        }
        let (reserved, delivered) = (self.reserved.max(other.reserved), self.delivered.max(other.delivered));
        let more = if self.sent >= other.sent { self } else { other };
        Self {
            reserved,
            delivered,
            ..more
        }
    }
}

impl ProviderRecord {
    pub(super) fn today(&self) -> Today {
        Today {
            sent: self.sent,
            in_flight: 0,
            delivered: self.delivered,
            rate_refusals: self.rate_refusals,
        }
    }
}
