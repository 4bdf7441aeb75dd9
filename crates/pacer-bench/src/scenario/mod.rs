//! What a run is about: who receives, how much there is to send, for how long, and what counts as good.

mod check;
mod goals;
mod located;
mod public;
mod scale;
mod share;

pub use check::ScenarioError;
pub use goals::{Against, DeliveredBy, Goals};
pub use public::{all, named};
pub use scale::Scale;
pub use share::{Share, ShareError};

use relaypool_api::{Domain, Duration, Rate};
use relaypool_simulator::description::{Answer, Behaviour, Latency, MailboxRule, MxHost, Percent, Provider};
use serde::{Deserialize, Serialize};

/// A scenario, as it is written in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scenario {
    /// Its name in the tables.
    pub name: String,
    /// The receiving provider, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Receiver>,
    /// Several providers, each with a share of the mail and a lane of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mix: Vec<Part>,
    /// Connections that each lane may have at most.
    pub window_cap: u32,
    /// What there is to send.
    #[serde(with = "serde_yaml::with::singleton_map")]
    pub demand: Demand,
    /// When the run ends. It ends earlier when there is nothing left to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
    /// Instead of `duration`: so many whole days of the provider, from midnight to midnight, behind what is left of the day
    /// in which the run starts. Days are not scaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
    /// How many seeds are played, unless the caller says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeds: Option<u64>,
    /// What differs from seed to seed beside the provider's chance.
    #[serde(default, skip_serializing_if = "Variation::is_none")]
    pub vary: Variation,
    /// What a good pacer reaches.
    #[serde(default)]
    pub goals: Goals,
}

/// What there is to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Demand {
    /// There is always a message that was never tried.
    Saturating,
    /// The same, and the run is over when so many are delivered.
    Deliveries(u64),
    /// So many messages, all there at the start.
    Messages(u64),
    /// What this rate makes over the whole run, all there at the start.
    Backlog(Rate),
    /// Messages come one by one, evenly or by chance, at this rate.
    Arrivals(Rate),
    /// So many messages a day: at once or evenly spread, which differs from seed to seed.
    Daily(u64),
}

/// One of several providers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Part {
    /// Its share of the mail. The shares of all parts make 100.
    pub percent: Percent,
    /// Who receives it.
    pub provider: Receiver,
}

/// What differs from seed to seed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variation {
    /// Changes of limits come up to a tenth of the time since the change before earlier or later.
    #[serde(default)]
    pub changes: bool,
    /// The run starts at any time of day, and the provider lives in any time zone.
    #[serde(default)]
    pub time_of_day: bool,
}

/// A receiving provider: the simulator's description, of which only the behaviours matter here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Receiver {
    /// Its name.
    #[serde(default = "provider_name", skip_serializing_if = "is_provider_name")]
    pub name: String,
    /// Domains it takes mail for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<Domain>,
    /// Its MX hosts. One is assumed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mx_hosts: Vec<MxHost>,
    /// What it does to connections and messages.
    #[serde(default, deserialize_with = "located::behaviours")]
    pub behaviours: Vec<Behaviour>,
    /// Mailboxes that do not answer with an acceptance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mailboxes: Vec<MailboxRule>,
    /// How long replies take. A refusal takes 50 ms unless said otherwise.
    #[serde(default = "quick_refusal")]
    pub latency: Latency,
    /// Of no matter here: messages have no size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_message_size: Option<u64>,
    /// Of no matter here: there is no TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_tls: Option<bool>,
    /// The reply to the final dot of an accepted message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Answer>,
    /// The reply to a recipient in a domain that is not hosted here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_hosted: Option<Answer>,
}

impl Receiver {
    /// The provider, for the model.
    pub fn provider(&self) -> Provider {
        let domain: Domain = "provider.example".parse().expect("a domain");
        let domain = self.domains.first().unwrap_or(&domain);
        let mut provider = Provider::new(&self.name, domain);
        provider.behaviours.clone_from(&self.behaviours);
        provider.mailboxes.clone_from(&self.mailboxes);
        provider.latency = self.latency;
        if !self.domains.is_empty() {
            provider.domains.clone_from(&self.domains);
        }
        if !self.mx_hosts.is_empty() {
            provider.mx_hosts.clone_from(&self.mx_hosts);
        }
        if let Some(accepted) = &self.accepted {
            provider.accepted = accepted.clone();
        }
        if let Some(not_hosted) = &self.not_hosted {
            provider.not_hosted = not_hosted.clone();
        }
        provider
    }
}

impl From<&Provider> for Receiver {
    fn from(provider: &Provider) -> Self {
        Self {
            name: provider.name.clone(),
            domains: Vec::new(),
            mx_hosts: Vec::new(),
            behaviours: provider.behaviours.clone(),
            mailboxes: provider.mailboxes.clone(),
            latency: provider.latency,
            max_message_size: None,
            start_tls: None,
            accepted: None,
            not_hosted: None,
        }
    }
}

impl Variation {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Scenario {
    /// Each lane's receiver and its share of the mail, as a fraction.
    pub fn parts(&self) -> Vec<(f64, &Receiver)> {
        let alone = self.provider.iter().map(|receiver| (1.0, receiver));
        let mixed = self.mix.iter().map(|part| (part.percent.fraction(), &part.provider));
        alone.chain(mixed).collect()
    }

    /// Whether some provider locks senders out.
    pub fn has_blocks(&self) -> bool {
        let mut behaviours = self.parts().into_iter().flat_map(|(_, receiver)| &receiver.behaviours);
        behaviours.any(|behaviour| matches!(behaviour, Behaviour::BlockAfterRefusals(_)))
    }
}

fn provider_name() -> String {
    "provider".to_owned()
}

fn is_provider_name(name: &str) -> bool {
    name == "provider"
}

fn quick_refusal() -> Latency {
    Latency {
        reply: Duration::default(),
        refusal: Duration::from_millis(50),
    }
}
