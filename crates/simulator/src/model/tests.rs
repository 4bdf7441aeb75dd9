//! Each behaviour at work, and two public scenarios against a naive client.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use relaypool_api::Duration as Span;

use super::*;
use crate::description::{
    BlockAfterRefusals, BrokenBackends, ConnectionLimit, DailyQuota, Disconnects, Greylisting, LimitChange,
    MailboxRule, MessagesPerConnection, Percent, RateChange, RateLimit, Refusals, Scope, ServiceTime, Slowdown,
};
use crate::scenarios::Scenario;

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const ADA: &str = "ada@one.example";

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn provider() -> Provider {
    Provider::new("one", &"one.example".parse().unwrap())
}

fn model(behaviour: impl Into<crate::description::Behaviour>) -> ProviderModel {
    ProviderModel::new(&provider().with(behaviour), 1)
}

/// Connects and begins a transaction; the code of the first refusal, or of the acceptance of MAIL FROM.
fn begin(model: &mut ProviderModel, now: f64, source: IpAddr) -> (ConnectionId, u16) {
    let (id, greeting) = model.connect(at(now), source);
    if !greeting.is_acceptance() {
        return (id, greeting.code().unwrap());
    }
    model.hello(at(now), id);
    (id, model.mail(at(now), id, "sender@example.org").code().unwrap())
}

/// A whole message in a connection of its own, over at once; the last code, or none when the provider hung up.
fn send(model: &mut ProviderModel, now: f64, source: IpAddr, recipient: &str) -> Option<u16> {
    let attempt = model.attempt(at(now), source, "sender@example.org", recipient);
    model.disconnect(attempt.connection);
    attempt.reply.map(|reply| reply.code().get())
}

#[test]
fn connections_beyond_the_limit_are_refused_at_connect() {
    let mut limit = ConnectionLimit::new(2);
    limit.changes = vec![LimitChange {
        at: Span::from_secs(100),
        limit: 1,
    }];
    let mut model = model(limit);
    let (first, greeting) = model.connect(at(0.0), SOURCE);
    assert_eq!(greeting.code(), Some(220));
    let (second, greeting) = model.connect(at(0.0), SOURCE);
    assert!(!greeting.close);
    let (_, refused) = model.connect(at(0.0), SOURCE);
    assert_eq!((refused.code(), refused.close), (Some(421), true));
    assert!(
        model.connect(at(0.0), OTHER).1.is_acceptance(),
        "another source has its own limit"
    );
    assert_eq!(model.open_connections(), 3);

    model.disconnect(second);
    model.disconnect(second);
    assert!(
        !model.connect(at(100.0), SOURCE).1.is_acceptance(),
        "the limit is 1 by now"
    );
    model.disconnect(first);
    assert!(model.connect(at(100.0), SOURCE).1.is_acceptance());
}

#[test]
fn a_limit_for_all_counts_all() {
    let mut limit = ConnectionLimit::new(1);
    limit.scope = Scope::Provider;
    let mut model = model(limit);
    assert!(model.connect(at(0.0), SOURCE).1.is_acceptance());
    assert!(!model.connect(at(0.0), OTHER).1.is_acceptance());
}

#[test]
fn a_token_bucket_lets_the_burst_and_then_the_rate_through() {
    let mut limit = RateLimit::new("10/s".parse().unwrap(), 3);
    limit.changes = vec![RateChange {
        at: Span::from_secs(1_000),
        rate: "1/h".parse().unwrap(),
        burst: 1,
    }];
    let mut model = model(limit);
    for (now, source, expected) in [
        (0.0, SOURCE, 250),
        (0.0, SOURCE, 250),
        (0.0, SOURCE, 250),
        (0.0, SOURCE, 451),
        (0.0, OTHER, 250),
        (0.099_999, SOURCE, 451),
        (0.1, SOURCE, 250),
        (0.1, SOURCE, 451),
        (10.0, SOURCE, 250),
        (10.0, SOURCE, 250),
        (10.0, SOURCE, 250),
        (10.0, SOURCE, 451),
        (1_000.0, SOURCE, 250),
        (1_000.0, SOURCE, 451),
        (4_599.0, SOURCE, 451),
        (4_600.0, SOURCE, 250),
    ] {
        assert_eq!(begin(&mut model, now, source).1, expected, "at {now}");
    }
}

#[test]
fn a_rate_of_recipients_is_counted_at_rcpt() {
    let mut limit = RateLimit::new("1/h".parse().unwrap(), 2);
    limit.phase = Phase::RcptTo;
    let mut model = model(limit);
    let (id, code) = begin(&mut model, 0.0, SOURCE);
    assert_eq!(code, 250);
    let codes = [(); 3].map(|()| model.rcpt(at(0.0), id, ADA).code().unwrap());
    assert_eq!(codes, [250, 250, 451]);
}

#[test]
fn too_many_refusals_lock_the_source_out_for_a_while() {
    let always = Refusals {
        until: Some(Span::from_secs(50)),
        ..Refusals::all(Phase::MailFrom, "451 4.7.1 no".parse().unwrap())
    };
    let block = BlockAfterRefusals {
        reply: "554 5.7.1 blocked".parse().unwrap(),
        ..BlockAfterRefusals::new(3, Span::from_secs(10), Span::from_secs(100))
    };
    let mut model = ProviderModel::new(&provider().with(always).with(block), 1);
    let (open, _) = begin(&mut model, 0.0, SOURCE);
    // The refusal at 0 has left the window of 10 s by 10.1, so the third within it is the one at 18.
    for (now, code) in [
        (9.0, 451),
        (10.1, 451),
        (18.0, 451),
        (19.0, 554),
        (117.9, 554),
        (118.0, 250),
    ] {
        assert_eq!(begin(&mut model, now, SOURCE).1, code, "at {now}");
        assert_eq!(model.lockouts(), u64::from(now >= 18.0), "counted once, when it begins");
        if now == 19.0 {
            let known = model.mail(at(now), open, "sender@example.org").code();
            assert_eq!(known, Some(451), "the first behaviour in the list answers");
        }
    }
    assert_eq!(begin(&mut model, 60.0, OTHER).1, 250);
}

#[test]
fn a_lock_out_also_holds_in_connections_open_already() {
    let block = BlockAfterRefusals::new(1, Span::from_secs(10), Span::from_secs(100));
    let mut model = ProviderModel::new(&provider().with(block).with(ConnectionLimit::new(1)), 1);
    let (open, greeting) = model.connect(at(0.0), SOURCE);
    assert!(greeting.is_acceptance());
    assert!(!model.connect(at(1.0), SOURCE).1.is_acceptance());
    let refused = model.mail(at(2.0), open, "");
    assert_eq!((refused.code(), refused.close), (Some(421), true));
}

#[test]
fn a_daily_quota_ends_at_the_providers_midnight() {
    let quota = DailyQuota {
        // Two hours east of Greenwich, and the run starts at 20:00 UTC: midnight is two hours away.
        utc_offset_minutes: 120,
        time_of_day_at_start: Span::from_secs(20 * 3_600),
        ..DailyQuota::new(2)
    };
    let mut model = model(quota);
    for (hour, expected) in [
        (0.0, 250),
        (1.0, 250),
        (1.5, 421),
        (1.999, 421),
        (2.0, 250),
        (20.0, 250),
        (25.9, 421),
        (26.0, 250),
    ] {
        assert_eq!(begin(&mut model, hour * 3_600.0, SOURCE).1, expected, "after {hour} h");
    }
}

#[test]
fn greylisting_defers_the_first_attempt_of_each_triple() {
    let mut model = model(Greylisting::new(Span::from_secs(300)));
    for (now, source, recipient, expected) in [
        (0.0, SOURCE, ADA, 451),
        (299.0, SOURCE, ADA, 451),
        (300.0, SOURCE, ADA, 250),
        (301.0, SOURCE, ADA, 250),
        (301.0, OTHER, ADA, 451),
        (301.0, SOURCE, "bob@one.example", 451),
    ] {
        assert_eq!(
            send(&mut model, now, source, recipient),
            Some(expected),
            "{recipient} at {now}"
        );
    }
    let attempt = model.attempt(at(302.0), SOURCE, "another@example.org", ADA);
    assert_eq!(attempt.phase, Phase::RcptTo, "another sender is another triple");
}

#[test]
fn mailboxes_and_foreign_domains_are_answered_before_any_limit() {
    let full = MailboxRule::matching("full-*".parse().unwrap(), "452 4.2.2 full".parse().unwrap());
    let provider = provider()
        .with_mailboxes(full)
        .with(Refusals::all(Phase::RcptTo, "421 4.3.2 later".parse().unwrap()))
        .with(BlockAfterRefusals::new(1, Span::from_secs(10), Span::from_secs(100)));
    let mut model = ProviderModel::new(&provider, 1);
    for (recipient, expected) in [
        ("ada@elsewhere.example", 550),
        ("ada", 550),
        ("full-ada@ONE.example", 452),
        (ADA, 421),
        (ADA, 421),
    ] {
        assert_eq!(send(&mut model, 0.0, SOURCE, recipient), Some(expected), "{recipient}");
    }
}

#[test]
fn one_of_four_backends_refuses() {
    let mut model = model(BrokenBackends::one_of(4));
    let refused = (0..4_000)
        .filter(|_| send(&mut model, 0.0, SOURCE, ADA) == Some(421))
        .count();
    assert!((900..1_100).contains(&refused), "{refused} of 4000");
}

#[test]
fn service_time_swings_and_the_slowdown_stretches_it() {
    let service = ServiceTime {
        time: Span::from_secs(1),
        jitter: Percent::try_from(10.0).unwrap(),
    };
    let slowdown = Slowdown {
        beyond_connections: 2,
        factor: 10.0,
        extra: Span::from_secs(5),
        scope: Scope::SourceIp,
    };
    let mut model = ProviderModel::new(&provider().with(slowdown).with(service), 1);
    let mut fastest = (0..200)
        .map(|_| {
            let attempt = model.attempt(at(0.0), SOURCE, "", ADA);
            model.disconnect(attempt.connection);
            attempt.takes
        })
        .collect::<Vec<_>>();
    fastest.sort();
    assert!(
        fastest[0] >= at(0.9) && fastest[199] <= at(1.1),
        "{:?}",
        (fastest[0], fastest[199])
    );
    assert!(fastest[199] - fastest[0] > at(0.15), "it does swing");

    let connections = [(); 3].map(|()| model.connect(at(0.0), SOURCE).0);
    model.mail(at(0.0), connections[0], "");
    let slow = model.end_of_data(at(0.0), connections[0]).delay;
    assert!(slow >= at(14.0) && slow <= at(16.0), "{slow:?}");
    model.disconnect(connections[2]);
    let fast = model.end_of_data(at(0.0), connections[0]).delay;
    assert!(fast <= at(1.1), "{fast:?}");
}

#[test]
fn latency_differs_for_refusals() {
    let mut provider = provider().with(Refusals::all(Phase::RcptTo, "451 no".parse().unwrap()));
    provider.latency = Latency {
        reply: Span::from_millis(10),
        refusal: Span::from_millis(50),
    };
    let mut model = ProviderModel::new(&provider, 1);
    // Greeting, EHLO and MAIL FROM at 10 ms each, then the refusal.
    assert_eq!(model.attempt(at(0.0), SOURCE, "", ADA).takes, at(0.08));
}

#[test]
fn disconnects_come_without_a_reply() {
    let mut model = model(Disconnects {
        phase: Phase::EndOfData,
        percent: Percent::try_from(50.0).unwrap(),
    });
    let lost = (0..1_000)
        .filter(|_| send(&mut model, 0.0, SOURCE, ADA).is_none())
        .count();
    assert!((400..600).contains(&lost), "{lost} of 1000");
    assert_eq!(model.open_connections(), 0);
}

#[test]
fn refusals_by_chance_keep_to_their_time() {
    let refusals = Refusals {
        percent: Percent::ALL,
        from: Span::from_secs(10),
        until: Some(Span::from_secs(20)),
        ..Refusals::all(Phase::EndOfData, "554 5.7.1 spam".parse().unwrap())
    };
    let mut model = model(refusals);
    for (now, expected) in [(9.9, 250), (10.0, 554), (19.9, 554), (20.0, 250)] {
        assert_eq!(send(&mut model, now, SOURCE, ADA), Some(expected), "at {now}");
    }
}

#[test]
fn a_connection_has_its_share_of_messages() {
    for silently in [false, true] {
        let mut model = model(MessagesPerConnection {
            silently,
            ..MessagesPerConnection::new(2)
        });
        let (id, _) = model.connect(at(0.0), SOURCE);
        let message = |model: &mut ProviderModel| {
            assert!(model.mail(at(0.0), id, "").is_acceptance());
            assert!(model.rcpt(at(0.0), id, ADA).is_acceptance());
            let decision = model.end_of_data(at(0.0), id);
            assert!(decision.is_acceptance());
            decision.close
        };
        assert!(!message(&mut model));
        assert_eq!(message(&mut model), silently);
        if !silently {
            let refused = model.mail(at(0.0), id, "");
            assert_eq!((refused.code(), refused.close), (Some(421), true));
        }
    }
}

#[test]
fn a_connection_that_is_over_gets_no_reply() {
    let mut model = ProviderModel::new(&provider(), 1);
    let (id, _) = model.connect(at(0.0), SOURCE);
    model.disconnect(id);
    let decision = model.mail(at(0.0), id, "");
    assert_eq!((decision.reply, decision.close), (None, true));
}

/// What a client gets that keeps `window` attempts under way whatever it is told.
struct Outcome {
    accepted: usize,
    refused: usize,
    ended: Duration,
}

fn naive_client(scenario: Scenario, window: usize, wanted: usize, run: Duration) -> Outcome {
    let mut model = ProviderModel::new(&scenario.provider(), 7);
    let mut under_way = BinaryHeap::new();
    let mut outcome = Outcome {
        accepted: 0,
        refused: 0,
        ended: Duration::ZERO,
    };
    let start = |model: &mut ProviderModel, now: Duration| {
        let attempt = model.attempt(now, SOURCE, "sender@example.org", "ada@provider.example");
        Reverse((now + attempt.takes, attempt.connection, attempt.is_accepted()))
    };
    for _ in 0..window {
        under_way.push(start(&mut model, Duration::ZERO));
    }
    while let Some(Reverse((now, connection, accepted))) = under_way.pop() {
        if now > run || outcome.accepted == wanted {
            break;
        }
        model.disconnect(connection);
        outcome.ended = now;
        if accepted {
            outcome.accepted += 1;
        } else {
            outcome.refused += 1;
        }
        under_way.push(start(&mut model, now));
    }
    outcome
}

#[test]
fn scenario_a_refuses_a_client_that_does_not_learn() {
    let outcome = naive_client(Scenario::A, 20, 1_000, at(3_600.0));
    // Five at a time, one second each; the other fifteen knock twenty times a second.
    assert!(
        (195.0..210.0).contains(&outcome.ended.as_secs_f64()),
        "{:?}",
        outcome.ended
    );
    assert!(outcome.refused > 50_000, "{} refusals", outcome.refused);

    let outcome = naive_client(Scenario::A, 5, 1_000, at(3_600.0));
    assert_eq!(outcome.refused, 0, "within the limit nothing is refused");
}

#[test]
fn scenario_c_blocks_a_client_that_does_not_learn() {
    let outcome = naive_client(Scenario::C, 20, usize::MAX, at(1_300.0));
    assert!(
        outcome.accepted < 500,
        "{} accepted in an hour of blocks",
        outcome.accepted
    );

    let outcome = naive_client(Scenario::C, 4, usize::MAX, at(3_600.0));
    assert_eq!(outcome.refused, 0, "four at a time stay under ten a second");
    assert!(outcome.accepted > 28_000, "{}", outcome.accepted);
}

#[test]
fn the_scenarios_are_sound() {
    for scenario in Scenario::ALL {
        let world = crate::World {
            providers: vec![scenario.provider()],
            zones: Vec::new(),
        };
        world.check().unwrap();
    }
}

proptest! {
    /// The same seed and calls give the same decisions, and every connection that ends is forgotten.
    #[test]
    fn runs_repeat(seed: u64, calls in proptest::collection::vec((0_u8..4, 0_u64..100, 0_usize..8), 1..100)) {
        let provider = provider()
            .with(BrokenBackends::one_of(3))
            .with(ConnectionLimit::new(4))
            .with(RateLimit::new("5/s".parse().unwrap(), 5))
            .with(ServiceTime { time: Span::from_millis(300), jitter: Percent::try_from(50.0).unwrap() })
            .with(Disconnects { phase: Phase::EndOfData, percent: Percent::try_from(20.0).unwrap() });
        let play = || {
            let mut model = ProviderModel::new(&provider, seed);
            let (mut now, mut open, mut decisions) = (Duration::ZERO, Vec::new(), Vec::new());
            for &(call, wait, which) in &calls {
                now += Duration::from_millis(wait);
                let connection = open.get(which).copied();
                let decision = match (call, connection) {
                    (1, Some(id)) => model.mail(now, id, "sender@example.org"),
                    (2, Some(id)) => model.end_of_data(now, id),
                    (3, Some(id)) => {
                        model.disconnect(id);
                        open.retain(|other| *other != id);
                        continue;
                    }
                    _ => {
                        let (id, decision) = model.connect(now, SOURCE);
                        if !decision.close {
                            open.push(id);
                        }
                        decision
                    }
                };
                decisions.push(decision);
            }
            assert_eq!(model.open_connections(), open.len());
            for id in open {
                model.disconnect(id);
            }
            assert_eq!(model.open_connections(), 0);
            decisions
        };
        prop_assert_eq!(play(), play());
    }
}
