//! The public scenarios.

use relaypool_api::{Duration, Rate};
use relaypool_simulator::description::{Percent, Provider, ServiceTime};
use relaypool_simulator::scenarios::Scenario as Public;

use super::{Against, DeliveredBy, Demand, Goals, Part, Receiver, Scenario, Share, Variation};

const HOUR: Duration = Duration::from_secs(3_600);

/// All of them, in order.
pub fn all() -> Vec<Scenario> {
    let mut scenarios: Vec<Scenario> = Public::ALL.into_iter().map(alone).collect();
    scenarios.push(mix());
    scenarios
}

/// The one with this name, in whichever case.
pub fn named(name: &str) -> Option<Scenario> {
    all()
        .into_iter()
        .find(|scenario| scenario.name.eq_ignore_ascii_case(name))
}

fn alone(public: Public) -> Scenario {
    let saturating = |window_cap, goals| Scenario {
        name: format!("{public:?}"),
        provider: Some(receiver(&public.provider(), "provider")),
        mix: Vec::new(),
        window_cap,
        demand: Demand::Saturating,
        duration: Some(HOUR),
        days: None,
        seeds: None,
        vary: Variation::default(),
        goals,
    };
    let recipients = |goals| Scenario {
        demand: Demand::Messages(1_000),
        ..saturating(20, goals)
    };
    match public {
        Public::A => Scenario {
            demand: Demand::Deliveries(1_000),
            ..saturating(20, shares(0.02, 0.95))
        },
        Public::B => Scenario {
            vary: Variation {
                changes: true,
                ..Variation::default()
            },
            ..saturating(50, shares(0.01, 0.85))
        },
        Public::C => saturating(
            20,
            Goals {
                max_blocks: Some(0),
                min_utilisation: Some(share(0.92)),
                ..Goals::default()
            },
        ),
        Public::D => saturating(
            20,
            Goals {
                min_delivered_per_second: Some(18.0),
                ..Goals::default()
            },
        ),
        Public::E1 => recipients(Goals {
            max_cuts: Some(0),
            min_delivered: Some(delivered(0.95, 360)),
            ..Goals::default()
        }),
        Public::E2 => recipients(Goals {
            every_cut_undone: true,
            min_delivered: Some(delivered(0.95, 900)),
            ..Goals::default()
        }),
        Public::F => saturating(
            40,
            Goals {
                min_utilisation: Some(share(0.85)),
                ..Goals::default()
            },
        ),
        Public::G => Scenario {
            demand: Demand::Daily(10_000),
            duration: None,
            days: Some(3),
            vary: Variation {
                time_of_day: true,
                ..Variation::default()
            },
            ..saturating(
                4,
                Goals {
                    min_delivered_per_day: Some(4_900),
                    max_refusals_per_day: Some(40),
                    ..Goals::default()
                },
            )
        },
    }
}

/// H: 60 % of the mail goes to the provider of C, and in all there is as much as its rate lets through in the run.
fn mix() -> Scenario {
    let percent = |percent: f64| Percent::try_from(percent).expect("a share");
    let part = |of_a_hundred, provider: &Provider, name| Part {
        percent: percent(of_a_hundred),
        provider: receiver(provider, name),
    };
    let mut unlimited = Public::C.provider();
    unlimited.behaviours = vec![
        ServiceTime {
            time: Duration::from_millis(500),
            jitter: percent(10.0),
        }
        .into(),
    ];
    let backlog: Rate = "60000/h".parse().expect("a rate");
    Scenario {
        name: "H".to_owned(),
        provider: None,
        mix: vec![
            part(60.0, &Public::C.provider(), "C"),
            part(20.0, &Public::A.provider(), "A"),
            part(10.0, &Public::D.provider(), "D"),
            part(10.0, &unlimited, "unlimited"),
        ],
        window_cap: 20,
        demand: Demand::Backlog(backlog),
        duration: Some(HOUR),
        days: None,
        seeds: None,
        vary: Variation::default(),
        goals: Goals {
            min_utilisation: Some(share(0.85)),
            against: Some(Against {
                controller: "fixed-generic".to_owned(),
                min_throughput_ratio: 4.0,
                max_soft_bounce_ratio: 0.1,
            }),
            ..Goals::default()
        },
    }
}

fn receiver(provider: &Provider, name: &str) -> Receiver {
    Receiver {
        name: name.to_owned(),
        ..Receiver::from(provider)
    }
}

fn shares(max_refused: f64, min_utilisation: f64) -> Goals {
    Goals {
        max_refused_share: Some(share(max_refused)),
        min_utilisation: Some(share(min_utilisation)),
        ..Goals::default()
    }
}

fn share(fraction: f64) -> Share {
    Share::try_from(fraction).expect("a share")
}

fn delivered(fraction: f64, seconds: u64) -> DeliveredBy {
    DeliveredBy {
        share: share(fraction),
        by: Duration::from_secs(seconds),
    }
}
