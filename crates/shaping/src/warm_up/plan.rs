//! What a warm-up should be: its stages, its days, and the limits that a person set for single providers.

use jiff::tz::TimeZone;
use relaypool_api::Domain;
use relaypool_api::sending_ip::{WarmUp as Spec, WarmUpProvider};
use relaypool_api::types::time_zone;

use crate::site::Site;

/// Messages for each day of the standard schedule.
pub const STANDARD_SCHEDULE: [u64; 29] = [
    200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 50_000, 75_000, 100_000, 150_000, 200_000, 250_000, 325_000,
    400_000, 500_000, 600_000, 750_000, 1_000_000, 1_250_000, 1_750_000, 2_000_000, 3_000_000, 4_250_000, 5_000_000,
    6_000_000, 7_500_000, 10_000_000,
];

/// Where a message goes: what a provider is told apart by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The site.
    pub site: Site,
    /// Its hosts of the best preference.
    pub hosts: Vec<Domain>,
}

/// The schedule of one address.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Never empty, and no entry is zero.
    volumes: Vec<u64>,
    pub(super) zone: Zone,
    providers: Vec<Provider>,
}

/// A time zone with the name it goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Zone {
    pub(super) name: String,
    pub(super) zone: TimeZone,
}

/// An entry of `warmUp.providers`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Provider {
    /// Its masks as one text: the name it is counted under.
    name: String,
    limit: WarmUpProvider,
}

impl Plan {
    /// The plan of an address; none for one that has no warm-up, or is warm already.
    ///
    /// A time zone that this version does not know counts as UTC: the address is Stalled with it, and what is queued must
    /// still have days.
    pub fn of(spec: Option<&Spec>) -> Option<Self> {
        let spec = spec.filter(|spec| !spec.already_warm)?;
        let mut volumes: Vec<u64> = spec.schedule.clone().unwrap_or_default();
        volumes.retain(|volume| *volume > 0);
        if volumes.is_empty() {
            volumes = STANDARD_SCHEDULE.to_vec();
        }
        Some(Self {
            volumes,
            zone: Zone::of(spec.time_zone.as_deref()),
            providers: spec.providers.iter().map(Provider::from).collect(),
        })
    }

    /// Number of stages.
    pub fn stages(&self) -> u32 {
        u32::try_from(self.volumes.len()).unwrap_or(u32::MAX)
    }

    /// Messages for a day of a stage, from 1; none behind the last.
    pub fn volume(&self, stage: u32) -> Option<u64> {
        let index = usize::try_from(stage.checked_sub(1)?).ok()?;
        self.volumes.get(index).copied()
    }

    /// The stage that goes on with what was reached under another plan: the same one where it has the same volume, else the
    /// last that asks for no more.
    pub(super) fn stage_for(&self, stage: u32, volume: u64) -> u32 {
        if self.volume(stage) == Some(volume) {
            return stage;
        }
        let fitting = self.volumes.iter().rposition(|of_stage| *of_stage <= volume);
        u32::try_from(fitting.unwrap_or(0) + 1).unwrap_or(u32::MAX)
    }

    /// The name under which a destination is counted: that of the first entry it fits, else that of its site.
    pub(super) fn provider<'a>(&'a self, destination: &'a Destination) -> &'a str {
        let entry = self.providers.iter().find(|entry| entry.fits(destination));
        entry.map_or(destination.site.as_str(), |entry| &entry.name)
    }

    /// What a person set for a provider, in messages for a day of this volume.
    pub(super) fn explicit_limit(&self, provider: &str, volume: u64) -> Option<u64> {
        let entry = self.providers.iter().find(|entry| entry.name == provider)?;
        let share = entry.limit.max_percent.map(|percent| percent_of(volume, percent));
        share.into_iter().chain(entry.limit.max_messages).min()
    }

    /// Whether providers are told apart in the same way.
    pub(super) fn tells_providers_apart_as(&self, other: &Self) -> bool {
        let names = |plan: &Self| {
            plan.providers
                .iter()
                .map(|entry| entry.name.clone())
                .collect::<Vec<_>>()
        };
        names(self) == names(other)
    }
}

impl Provider {
    fn fits(&self, destination: &Destination) -> bool {
        let fits_one = |host: &Domain| self.limit.mx_hosts.iter().any(|mask| mask.matches(host.as_str()));
        !destination.hosts.is_empty() && destination.hosts.iter().all(fits_one)
    }
}

impl From<&WarmUpProvider> for Provider {
    fn from(limit: &WarmUpProvider) -> Self {
        let masks: Vec<&str> = limit.mx_hosts.iter().map(|mask| mask.as_str()).collect();
        Self {
            name: masks.join(","),
            limit: limit.clone(),
        }
    }
}

impl Zone {
    fn of(name: Option<&str>) -> Self {
        let name = name.unwrap_or("UTC");
        Self {
            name: name.to_owned(),
            zone: time_zone(name).unwrap_or(TimeZone::UTC),
        }
    }
}

/// At least one: a limit of nothing would hold mail for ever where a stage is small.
fn percent_of(volume: u64, percent: u32) -> u64 {
    let share = u128::from(volume) * u128::from(percent) / 100;
    u64::try_from(share).unwrap_or(u64::MAX).max(1)
}
