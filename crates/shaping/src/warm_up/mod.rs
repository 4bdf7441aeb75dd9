//! Warm-up of new addresses: how many messages may leave today, and to whom.
//!
//! A new address has no reputation, and receivers distrust one that sends much at once. Its schedule gives each day a
//! volume; a day on which more than 90 % of it was accepted leads to the next stage, any other is repeated. See
//! `docs/warm-up.md` for the rules.
//!
//! ```text
//!  room ─ take ─► message under way ─ settle ─► delivered | used | not sent
//!           │                            refused ─► hold
//!  reservation ─► Record on disk ─ recorded      pass ─► day's end: next stage, or the same again
//! ```
//!
//! Nothing leaves that is not reserved in a [`Record`] on disk: after a crash, all that was reserved counts as sent. A
//! message under way at midnight counts for both days, so that a day cannot have more than its volume by the moment at which
//! messages are accepted either.

mod day;
mod hold;
mod plan;
mod providers;
mod record;
mod status;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use day::Day;
pub use hold::Refused;
use hold::{Hold, Weight};
pub use plan::{Destination, Plan, STANDARD_SCHEDULE};
use providers::Providers;
use record::ProviderRecord;
pub use record::Record;
pub use status::WARM;

/// Messages that are reserved at one time, at least: fewer would be a record on disk for every few messages.
const SMALLEST_BLOCK: u64 = 10;
/// … as a part of the day's volume.
const BLOCK_PART: u64 = 100;
/// … and at most: so many count as sent after a crash.
const LARGEST_BLOCK: u64 = 10_000;

/// After a crash, fewer acceptances than this part of the volume are forgotten.
const FORGOTTEN_PART: u64 = 1_000;

/// A stage is passed when more than so many tenths of its volume were accepted.
const TENTHS_TO_PASS: u128 = 9;

/// How far a warm-up is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Position {
    /// At this stage, from 1.
    Stage(u32),
    /// Through.
    Warm { since: Duration },
}

/// Whether a message may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// The address is warm.
    Unlimited,
    /// So many may, at once.
    Free(u64),
    /// As soon as more of the day's room is reserved.
    Reserving,
    /// None before this moment: the day's room, or the provider's, is used up.
    Until(Duration),
}

/// Room that a message under way has taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    provider: String,
}

/// What became of a message under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Accepted.
    Delivered,
    /// The provider had it, or nobody knows: its room is used.
    Used,
    /// The provider never got it: its room is free again.
    NotSent,
}

/// What a day came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DayEnd {
    /// The next stage begins: this one.
    Advanced(u32),
    /// The last stage is passed.
    Warm,
    /// The stage is repeated: a provider refused for reputation or rate; what it said.
    Held(String),
    /// The stage is repeated: too few were delivered.
    TooFew,
}

/// The warm-up of one address. Call [`pass`](Self::pass) with the time of now before anything else.
#[derive(Debug, Clone)]
pub struct WarmUp {
    plan: Plan,
    position: Position,
    day: Day,
    /// Messages that left today, those under way included.
    sent: u64,
    in_flight: u64,
    delivered: u64,
    /// How far `sent` may go by what is on disk.
    reserved: u64,
    /// The same when all records that were given out are on disk.
    asked: u64,
    /// Deliveries in the last record.
    recorded_deliveries: u64,
    /// Something else is to be recorded.
    changed: bool,
    /// Number of the next record.
    next_record: u64,
    /// The first record whose reservation holds: those before it are of another day, or were taken back by a later one.
    valid_from: u64,
    providers: Providers,
    hold: Option<Hold>,
    last_day: Option<String>,
}

impl WarmUp {
    /// Goes on with what is known of the address, or begins at the first stage.
    pub fn new(plan: Plan, known: Option<Record>, now: Duration) -> Self {
        let Some(known) = known else {
            return Self::at(plan, Position::Stage(1), now);
        };
        let position = match known.position {
            Position::Stage(stage) => Position::Stage(plan.stage_for(stage, known.volume)),
            warm @ Position::Warm { .. } => warm,
        };
        let sent = known.reserved.max(known.sent);
        let unknown = sent - known.sent;
        let listed = known
            .providers
            .iter()
            .map(|provider| (provider.name.clone(), provider.today(), provider.best_day));
        Self {
            providers: Providers::resumed(listed, unknown, known.others),
            day: known.day,
            sent,
            reserved: sent,
            asked: sent,
            delivered: known.delivered,
            recorded_deliveries: known.delivered,
            hold: known.hold,
            last_day: known.last_day,
            ..Self::at(plan, position, now)
        }
    }

    /// Goes on where it is not known what was sent today: all of today's room counts as used.
    pub fn with_day_spent(plan: Plan, known: Option<Record>, now: Duration) -> Self {
        let mut warm_up = Self::new(plan, known, now);
        // The day that is known may be another; whatever it came to, today's must not begin anew.
        let _ended = warm_up.pass(now);
        warm_up.sent = warm_up.limit().unwrap_or(0).max(warm_up.sent);
        warm_up.reserve_anew(warm_up.sent);
        warm_up
    }

    fn at(plan: Plan, position: Position, now: Duration) -> Self {
        Self {
            day: Day::at(now, &plan.zone),
            plan,
            position,
            sent: 0,
            in_flight: 0,
            delivered: 0,
            reserved: 0,
            asked: 0,
            recorded_deliveries: 0,
            changed: true,
            next_record: 0,
            valid_from: 0,
            providers: Providers::default(),
            hold: None,
            last_day: None,
        }
    }

    /// A new plan, from now on: today's counts stay, and the stage is the one that asks for no more than the present one.
    pub fn set_plan(&mut self, plan: Plan) {
        if let Position::Stage(stage) = self.position {
            self.position = Position::Stage(plan.stage_for(stage, self.volume(stage)));
        }
        if !plan.tells_providers_apart_as(&self.plan) {
            self.providers.names_changed(self.sent);
        }
        self.plan = plan;
        self.changed = true;
    }

    /// Ends the day when it is over, and says what it came to.
    pub fn pass(&mut self, now: Duration) -> Option<DayEnd> {
        let Position::Stage(stage) = self.position else {
            return None;
        };
        if self.day.is_far_ahead(now) {
            self.reserve_anew(self.reserved);
            self.day = Day::at(now, &self.plan.zone);
            self.changed = true;
        }
        if !self.day.is_over(now) {
            return None;
        }
        let end = self.judge(stage);
        self.last_day = Some(self.summary(stage, &end));
        match end {
            DayEnd::Advanced(next) => self.position = Position::Stage(next),
            DayEnd::Warm => self.position = Position::Warm { since: now },
            DayEnd::Held(_) | DayEnd::TooFew => {}
        }
        if self.hold.as_ref().is_some_and(|hold| hold.day_ends != self.day.ends) {
            self.hold = None;
        }
        self.day = self.day.next(now, &self.plan.zone);
        self.providers.day_over();
        self.sent = self.in_flight;
        self.delivered = 0;
        self.recorded_deliveries = 0;
        self.reserve_anew(0);
        self.changed = true;
        Some(end)
    }

    /// So much is reserved, whatever records under way say.
    fn reserve_anew(&mut self, reserved: u64) {
        self.reserved = reserved;
        self.asked = reserved;
        self.valid_from = self.next_record;
    }

    fn judge(&self, stage: u32) -> DayEnd {
        if let Some(hold) = self.hold.as_ref().filter(|hold| hold.day_ends == self.day.ends) {
            return DayEnd::Held(hold.message.clone());
        }
        if u128::from(self.delivered) * 10 <= u128::from(self.volume(stage)) * TENTHS_TO_PASS {
            return DayEnd::TooFew;
        }
        if stage >= self.plan.stages() {
            DayEnd::Warm
        } else {
            DayEnd::Advanced(stage + 1)
        }
    }

    fn summary(&self, stage: u32, end: &DayEnd) -> String {
        let outcome = match end {
            DayEnd::Advanced(_) | DayEnd::Warm => "passed",
            DayEnd::Held(_) => "held after refusals",
            DayEnd::TooFew => "repeated: it takes more than 90 %",
        };
        let (date, delivered, volume) = (&self.day.date, self.delivered, self.volume(stage));
        format!("{date}: {delivered} of {volume} delivered, stage {stage} {outcome}")
    }

    fn volume(&self, stage: u32) -> u64 {
        // A plan has at least one stage, and positions are kept within it.
        self.plan.volume(stage).unwrap_or(0)
    }

    /// Messages that may be sent today; none once warm.
    pub fn limit(&self) -> Option<u64> {
        match self.position {
            Position::Stage(stage) => Some(self.volume(stage)),
            Position::Warm { .. } => None,
        }
    }

    /// Messages that were sent today.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// When the day ends; none once warm.
    pub fn day_ends(&self) -> Option<Duration> {
        self.limit().map(|_| self.day.ends)
    }

    /// Whether a message may leave for a destination.
    pub fn room(&self, destination: &Destination) -> Room {
        let Position::Stage(stage) = self.position else {
            return Room::Unlimited;
        };
        let of_day = self.volume(stage).saturating_sub(self.sent);
        let of_provider = self.providers.room(&self.plan, destination, stage);
        match of_day.min(of_provider) {
            0 => Room::Until(self.day.ends),
            _ if self.sent >= self.reserved => Room::Reserving,
            room => Room::Free(room.min(self.reserved - self.sent)),
        }
    }

    /// A message leaves, for which there was [`Room::Free`]. None once warm: nothing is counted.
    pub fn take(&mut self, destination: &Destination) -> Option<Taken> {
        self.limit()?;
        self.sent = self.sent.saturating_add(1);
        self.in_flight = self.in_flight.saturating_add(1);
        let provider = self.plan.provider(destination).to_owned();
        let today = self.providers.entry(&provider);
        today.sent = today.sent.saturating_add(1);
        today.in_flight = today.in_flight.saturating_add(1);
        Some(Taken { provider })
    }

    /// What became of a message that had taken room.
    pub fn settle(&mut self, taken: Taken, settled: Settled) {
        let today = self.providers.entry(&taken.provider);
        self.in_flight = self.in_flight.saturating_sub(1);
        today.in_flight = today.in_flight.saturating_sub(1);
        match settled {
            Settled::Delivered => {
                self.delivered = self.delivered.saturating_add(1);
                today.delivered = today.delivered.saturating_add(1);
            }
            Settled::Used => {}
            Settled::NotSent => {
                self.sent = self.sent.saturating_sub(1);
                today.sent = today.sent.saturating_sub(1);
            }
        }
    }

    /// A provider refused a message, or the connection for one. Holds the stage where that is about the address. True when
    /// a hold begins.
    pub fn refused(&mut self, destination: &Destination, refused: Refused<'_>, now: Duration) -> bool {
        let (Some(volume), Some(weight)) = (self.limit(), Weight::of(refused.verdict)) else {
            return false;
        };
        let provider = self.plan.provider(destination).to_owned();
        let today = self.providers.entry(&provider);
        if weight == Weight::Rate {
            today.rate_refusals = today.rate_refusals.saturating_add(1);
        }
        let (sent, rate_refusals) = (today.sent, today.rate_refusals);
        let messages = sent
            .saturating_add(refused.waiting)
            .saturating_add(rate_refusals.max(1));
        let about_address = hold::matters(messages, volume)
            && (weight == Weight::Reputation || hold::are_too_many(rate_refusals, sent));
        let known_today = self.hold.as_ref().is_some_and(|hold| hold.day_ends == self.day.ends);
        if !about_address || known_today {
            return false;
        }
        let begins = self.hold.is_none();
        let since = self.hold.as_ref().map_or(now, |hold| hold.since);
        self.hold = Some(Hold {
            since,
            day_ends: self.day.ends,
            message: hold::message(&provider, refused),
        });
        self.changed = true;
        begins
    }

    /// What is to be put on disk now, if anything; tell [`recorded`](Self::recorded) when it is. With `wanted`, room is
    /// reserved for messages that are about to leave.
    pub fn reservation(&mut self, wanted: bool) -> Option<Record> {
        let limit = self.limit().unwrap_or(0);
        let block = (limit / BLOCK_PART).clamp(SMALLEST_BLOCK, LARGEST_BLOCK);
        let is_low = wanted && self.asked < limit && self.asked.saturating_sub(self.sent) <= block / 2;
        let deliveries = self.delivered.saturating_sub(self.recorded_deliveries);
        let many_deliveries = deliveries > 0 && deliveries >= limit / FORGOTTEN_PART;
        if !(is_low || self.changed || many_deliveries) {
            return None;
        }
        if is_low {
            self.asked = self.sent.saturating_add(block).min(limit).max(self.asked);
        }
        Some(self.record())
    }

    /// A record with nothing reserved, for when the address is given up or the process ends: all that is known is in it.
    pub fn released(&mut self) -> Record {
        self.reserve_anew(self.sent);
        self.record()
    }

    fn record(&mut self) -> Record {
        self.changed = false;
        self.recorded_deliveries = self.delivered;
        let (largest, others) = self.providers.largest();
        let providers = largest.into_iter().map(|(name, today, best_day)| ProviderRecord {
            name,
            sent: today.sent,
            delivered: today.delivered,
            best_day,
            rate_refusals: today.rate_refusals,
        });
        let number = self.next_record;
        self.next_record += 1;
        Record {
            number,
            position: self.position,
            volume: self.limit().unwrap_or(0),
            day: self.day.clone(),
            sent: self.sent,
            reserved: self.asked.max(self.sent),
            delivered: self.delivered,
            providers: providers.collect(),
            others,
            hold: self.hold.clone(),
            last_day: self.last_day.clone(),
        }
    }

    /// A record is on disk. True when it brings room.
    pub fn recorded(&mut self, reservation: Reservation) -> bool {
        let brings_room = reservation.record >= self.valid_from && reservation.reserved > self.reserved;
        if brings_room {
            self.reserved = reservation.reserved;
        }
        brings_room
    }
}

/// What a record reserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    record: u64,
    reserved: u64,
}

impl From<&Record> for Reservation {
    fn from(record: &Record) -> Self {
        Self {
            record: record.number,
            reserved: record.reserved,
        }
    }
}
