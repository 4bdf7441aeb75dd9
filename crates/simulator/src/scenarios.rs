//! The providers of the pacer's public scenarios, for simulations in virtual time.
//!
//! In all of them a refusal costs 50 ms and the service time swings by ±10 %. They are examples of a family.

use relaypool_api::reply::Phase;
use relaypool_api::{Domain, Duration, Rate};

use crate::description::{
    Answer, Behaviour, BlockAfterRefusals, BrokenBackends, ConnectionLimit, DailyQuota, Greylisting, Latency,
    LimitChange, Percent, Provider, RateLimit, ServiceTime, Slowdown,
};

/// A public scenario with one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scenario {
    /// At most 5 connections at a time, refused at connect beyond.
    A,
    /// The same with a limit that moves: 20, from 600 s on 5, from 1 800 s on 40.
    B,
    /// 10 messages a second (burst 20) and no more; 30 refusals within 60 s lock the source out for 600 s.
    C,
    /// One of four backends refuses always.
    D,
    /// Greylisting of 300 s that says so.
    E1,
    /// The same behind a neutral text.
    E2,
    /// Beyond 8 connections every reply takes ten times as long.
    F,
    /// 5 000 messages a day, then refusals until midnight in a time zone nobody told.
    G,
}

/// What the providers that hide their reasons say.
const NEUTRAL: &str = "421 4.3.2 try again later";

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 8] = [Self::A, Self::B, Self::C, Self::D, Self::E1, Self::E2, Self::F, Self::G];

    /// The provider of the scenario. It takes mail for `provider.example`.
    pub fn provider(self) -> Provider {
        let domain: Domain = "provider.example".parse().expect("a domain");
        let mut provider = Provider::new(&format!("scenario {self:?}"), &domain);
        provider.latency = Latency {
            reply: Duration::default(),
            refusal: Duration::from_millis(50),
        };
        provider.behaviours = self.limits();
        provider.with(ServiceTime {
            time: match self {
                Self::C => Duration::from_millis(500),
                _ => Duration::from_secs(1),
            },
            jitter: Percent::try_from(10.0).expect("a share"),
        })
    }

    fn limits(self) -> Vec<Behaviour> {
        let neutral = Answer::known(NEUTRAL);
        let connections = |limit| ConnectionLimit {
            reply: neutral.clone(),
            ..ConnectionLimit::new(limit)
        };
        let change = |seconds, limit| LimitChange {
            at: Duration::from_secs(seconds),
            limit,
        };
        let greylisting = Greylisting::new(Duration::from_secs(300));
        match self {
            Self::A => vec![connections(5).into()],
            Self::B => {
                let mut limit = connections(20);
                limit.changes = vec![change(600, 5), change(1_800, 40)];
                vec![limit.into()]
            }
            Self::C => {
                let rate: Rate = "10/s".parse().expect("a rate");
                let (within, period) = (Duration::from_secs(60), Duration::from_secs(600));
                vec![
                    RateLimit {
                        phase: Phase::MailFrom,
                        reply: neutral.clone(),
                        ..RateLimit::new(rate, 20)
                    }
                    .into(),
                    BlockAfterRefusals {
                        reply: neutral,
                        ..BlockAfterRefusals::new(30, within, period)
                    }
                    .into(),
                ]
            }
            Self::D => vec![
                BrokenBackends {
                    reply: neutral,
                    ..BrokenBackends::one_of(4)
                }
                .into(),
            ],
            Self::E1 => vec![greylisting.into()],
            Self::E2 => vec![
                Greylisting {
                    reply: neutral,
                    ..greylisting
                }
                .into(),
            ],
            Self::F => vec![
                Slowdown {
                    beyond_connections: 8,
                    factor: 10.0,
                    extra: Duration::default(),
                    scope: crate::description::Scope::SourceIp,
                }
                .into(),
            ],
            Self::G => vec![
                DailyQuota {
                    utc_offset_minutes: -7 * 60,
                    ..DailyQuota::new(5_000)
                }
                .into(),
            ],
        }
    }
}
