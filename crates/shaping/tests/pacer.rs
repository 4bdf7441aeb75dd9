//! What a pacer does, step by step.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use relaypool_api::reply::{Phase, Reply, ReplyCode};
use relaypool_api::sending_ip::{Binds, LaneState};
use relaypool_bounce::{Failure, Reading, Verdict, classify, classify_failure};
use relaypool_shaping::pacer::{AdaptiveLimits, Grant, Pacer, PacerLimits, Sending, Sent, Share, Snapshot};

fn at(seconds: u64) -> Duration {
    Duration::from_secs(1_000_000 + seconds)
}

fn limits(connections: u32) -> PacerLimits {
    PacerLimits {
        connections,
        messages_per_connection: 100,
        rate: None,
        share: None,
        adaptive: Some(AdaptiveLimits::default()),
    }
}

fn refusal(phase: Phase, code: u16, enhanced: &str, text: &str) -> Verdict {
    let reply = Reply {
        code: ReplyCode::try_from(code).unwrap(),
        enhanced: enhanced.parse().ok(),
        text: text.to_owned(),
    };
    classify(&Reading::new(phase, &reply))
}

fn busy() -> Verdict {
    refusal(Phase::Greeting, 421, "4.3.2", "try again later")
}

/// Opens as many connections as allowed.
fn open_all(pacer: &mut Pacer, now: Duration) -> u32 {
    let mut opened = 0;
    while pacer.may_open(now) == Grant::Now {
        pacer.opened(now);
        opened += 1;
    }
    opened
}

/// Opens a connection, has it refused, and closes it.
fn refuse_one(pacer: &mut Pacer, now: Duration, verdict: &Verdict) {
    pacer.opened(now);
    pacer.feedback(now, note(), verdict);
    pacer.closed(now);
}

#[test]
fn begins_with_a_few_connections_and_grows_to_the_limit() {
    let mut pacer = Pacer::new(limits(20));
    assert_eq!(open_all(&mut pacer, at(0)), 5);
    assert_eq!(pacer.binds(at(0)), Binds::LearnedConnections);
    for _ in 0..100 {
        pacer.accepted(at(1), note());
        open_all(&mut pacer, at(1));
    }
    assert_eq!(pacer.connection_limit(), 20);
    assert_eq!(pacer.may_open(at(2)), Grant::No);
    assert_eq!(pacer.binds(at(2)), Binds::PolicyConnections);
}

#[test]
fn static_mode_uses_the_limits_as_they_are() {
    let mut pacer = Pacer::new(PacerLimits {
        adaptive: None,
        ..limits(20)
    });
    assert_eq!(open_all(&mut pacer, at(0)), 20);
    for _ in 0..5 {
        pacer.feedback(at(0), note(), &busy());
        pacer.closed(at(0));
    }
    assert_eq!(pacer.connection_limit(), 20);
}

#[test]
fn the_least_of_policy_bounds_and_share_is_the_limit() {
    let share = |connections| {
        Some(Share {
            connections,
            rate: None,
        })
    };
    let bounds = |min, max| {
        Some(AdaptiveLimits {
            min_rate: None,
            min_connections: min,
            max_connections: max,
            max_rate: None,
        })
    };
    for (share, adaptive, limit, by) in [
        (share(3), bounds(None, None), 3, Binds::PoolShare),
        (share(0), bounds(None, None), 0, Binds::PoolShare),
        (share(30), bounds(None, Some(4)), 4, Binds::PolicyConnections),
        (share(2), bounds(Some(10), None), 2, Binds::PoolShare),
        (None, bounds(Some(10), None), 10, Binds::LearnedConnections),
        (None, bounds(Some(50), None), 20, Binds::PolicyConnections),
    ] {
        let mut pacer = Pacer::new(PacerLimits {
            share,
            adaptive,
            ..limits(20)
        });
        assert_eq!(open_all(&mut pacer, at(0)), limit);
        assert_eq!(pacer.binds(at(0)), by);
    }
}

#[test]
fn a_refusal_at_connect_takes_a_connection_away() {
    let mut pacer = Pacer::new(limits(20));
    open_all(&mut pacer, at(0));
    pacer.feedback(at(0), note(), &busy());
    pacer.closed(at(0));
    assert_eq!(pacer.connection_limit(), 4);
    assert_eq!(pacer.may_open(at(0)), Grant::No);
}

#[test]
fn what_is_no_news_of_the_path_changes_nothing() {
    let mut pacer = Pacer::new(limits(20));
    open_all(&mut pacer, at(0));
    for verdict in [
        refusal(Phase::RcptTo, 550, "5.1.1", "no such user"),
        refusal(Phase::RcptTo, 451, "4.7.1", "greylisted, try again in 5 minutes"),
        refusal(Phase::RcptTo, 452, "4.2.2", "mailbox full"),
        refusal(Phase::EndOfData, 554, "5.7.1", "spam"),
        classify_failure(Failure::NullMx),
    ] {
        for _ in 0..50 {
            pacer.feedback(at(0), note(), &verdict);
        }
        assert_eq!(pacer.connection_limit(), 5, "{verdict:?}");
        assert_eq!(pacer.state(at(0)), LaneState::Sending, "{verdict:?}");
    }
}

#[test]
fn a_rate_is_obeyed_and_named() {
    let mut pacer = Pacer::new(PacerLimits {
        rate: "60/m".parse().ok(),
        ..limits(20)
    });
    assert_eq!(pacer.may_send(at(0)), Grant::Now);
    pacer.sent(at(0), FIRST);
    assert_eq!(pacer.may_send(at(0)), Grant::At(at(1)));
    assert_eq!(pacer.binds(at(0)), Binds::PolicyRate);
    assert_eq!(pacer.may_send(at(1)), Grant::Now);
}

#[test]
fn a_message_that_did_not_leave_is_no_probe() {
    let mut pacer = Pacer::new(limits(20));
    pacer.suspend(at(0), at(10));
    assert_eq!(open_all(&mut pacer, at(10)), 1);
    pacer.sent(at(10), FIRST);
    assert_ne!(pacer.may_send(at(10)), Grant::Now);
    pacer.unused(note());
    assert_eq!(pacer.may_send(at(10)), Grant::Now);
}

#[test]
fn a_slower_share_binds_before_the_policy() {
    let mut pacer = Pacer::new(PacerLimits {
        rate: "100/s".parse().ok(),
        share: Some(Share {
            connections: 5,
            rate: "1/m".parse().ok(),
        }),
        ..limits(20)
    });
    pacer.sent(at(0), FIRST);
    assert_eq!(pacer.may_send(at(0)), Grant::At(at(60)));
    assert_eq!(pacer.binds(at(0)), Binds::PoolShare);
}

#[test]
fn a_block_suspends_the_lane_until_a_probe_is_accepted() {
    let mut pacer = Pacer::new(limits(20));
    open_all(&mut pacer, at(0));
    pacer.feedback(
        at(0),
        note(),
        &refusal(Phase::MailFrom, 554, "5.7.1", "your IP is on our block list"),
    );
    let until = pacer.suspended_until(at(0)).unwrap();
    assert_eq!(pacer.may_send(at(0)), Grant::At(until));
    assert_eq!(pacer.may_open(at(0)), Grant::At(until));
    assert_eq!(
        (pacer.state(at(1)), pacer.binds(at(1))),
        (LaneState::Suspended, Binds::Suspended)
    );
    // What was on its way changes nothing.
    pacer.accepted(at(1), note());
    pacer.feedback(
        at(1),
        note(),
        &refusal(Phase::MailFrom, 554, "5.7.1", "your IP is on our block list"),
    );
    assert_eq!(pacer.suspended_until(at(1)), Some(until));
    (0..5).for_each(|_| pacer.closed(at(2)));

    assert_eq!(open_all(&mut pacer, until), 1, "a single probe");
    assert_eq!(pacer.may_send(until), Grant::Now);
    pacer.sent(until, FIRST);
    assert!(matches!(pacer.may_send(until), Grant::At(_)));
    pacer.accepted(until, note());
    assert_eq!(pacer.state(until), LaneState::Sending);
    assert!(open_all(&mut pacer, until) >= 1);
}

#[test]
fn any_answer_for_a_recipient_is_good_news_for_a_probe() {
    let mut pacer = Pacer::new(limits(20));
    refuse_one(&mut pacer, at(0), &refusal(Phase::Greeting, 554, "", "no"));
    let until = pacer.suspended_until(at(0)).unwrap();
    assert_eq!(open_all(&mut pacer, until), 1);
    pacer.sent(until, FIRST);
    pacer.feedback(until, note(), &refusal(Phase::RcptTo, 550, "5.1.1", "no such user"));
    assert_eq!(pacer.may_send(until), Grant::Now);
}

#[test]
fn a_dead_path_is_suspended_and_a_lost_connection_is_not() {
    let refused = classify_failure(Failure::ConnectRefused);
    let mut pacer = Pacer::new(limits(20));
    for _ in 0..9 {
        refuse_one(&mut pacer, at(0), &refused);
    }
    assert_eq!(pacer.state(at(0)), LaneState::Idle);
    refuse_one(&mut pacer, at(0), &refused);
    assert_eq!(pacer.state(at(0)), LaneState::Suspended);

    // One broken host among several: as long as mail is accepted, no number of failures makes the path dead.
    let mut pacer = Pacer::new(limits(20));
    for second in 0..100 {
        pacer.accepted(at(second), note());
        for _ in 0..20 {
            refuse_one(&mut pacer, at(second), &refused);
        }
        assert_ne!(pacer.state(at(second)), LaneState::Suspended);
    }
}

#[test]
fn a_wish_to_wait_is_obeyed() {
    let mut pacer = Pacer::new(limits(20));
    let verdict = refusal(Phase::Greeting, 421, "", "too many connections, try again in 3 minutes");
    refuse_one(&mut pacer, at(0), &verdict);
    assert_eq!(pacer.suspended_until(at(0)), Some(at(180)));
}

#[test]
fn a_person_may_suspend_a_lane() {
    let mut pacer = Pacer::new(limits(20));
    pacer.suspend(at(0), at(600));
    assert_eq!(pacer.may_open(at(1)), Grant::At(at(600)));
    pacer.suspend(at(0), at(60));
    assert_eq!(pacer.may_open(at(1)), Grant::At(at(600)), "the longer one stays");
}

#[test]
fn new_limits_hold_at_once() {
    let mut pacer = Pacer::new(PacerLimits {
        rate: "10/s".parse().ok(),
        ..limits(20)
    });
    assert_eq!(open_all(&mut pacer, at(0)), 5);
    pacer.sent(at(0), FIRST);
    let lower = PacerLimits {
        rate: "1/h".parse().ok(),
        ..limits(2)
    };
    pacer.limits_changed(at(0), lower);
    assert_eq!((pacer.connection_limit(), pacer.may_open(at(0))), (2, Grant::No));
    pacer.limits_changed(at(0), limits(20));
    assert_eq!(pacer.may_send(at(0)), Grant::Now);
}

#[test]
fn an_idle_lane_says_so() {
    let mut pacer = Pacer::new(limits(1));
    assert_eq!(
        (pacer.state(at(0)), pacer.binds(at(0))),
        (LaneState::Idle, Binds::NoDemand)
    );
    open_all(&mut pacer, at(0));
    assert_eq!(
        (pacer.state(at(999)), pacer.binds(at(999))),
        (LaneState::Sending, Binds::PolicyConnections)
    );
    pacer.closed(at(999));
    assert_eq!(
        (pacer.state(at(1_100)), pacer.binds(at(1_100))),
        (LaneState::Idle, Binds::NoDemand)
    );
}

#[test]
fn what_is_known_survives_a_restart() {
    let mut pacer = Pacer::new(PacerLimits {
        rate: "1/h".parse().ok(),
        ..limits(20)
    });
    open_all(&mut pacer, at(0));
    pacer.sent(at(0), FIRST);
    pacer.feedback(at(0), note(), &busy());
    pacer.suspend(at(0), at(600));
    let kept = serde_json::to_string(&pacer.snapshot()).unwrap();

    let restore = |now| {
        let snapshot: Snapshot = serde_json::from_str(&kept).unwrap();
        let limits = PacerLimits {
            rate: "1/h".parse().ok(),
            ..limits(20)
        };
        Pacer::restore(limits, snapshot, now)
    };
    let mut later = restore(at(10));
    assert_eq!(later.connection_limit(), 4);
    assert_eq!(later.may_open(at(10)), Grant::At(at(600)));
    assert_eq!(open_all(&mut later, at(600)), 1);
    assert_eq!(later.may_send(at(601)), Grant::At(at(3_600)));

    // A clock that was far ahead when the state was kept does not silence the lane.
    let mut earlier = restore(Duration::from_secs(1_000));
    assert!(earlier.suspended_until(Duration::from_secs(1_000)).unwrap() <= Duration::from_secs(1_000 + 86_400));
    let day_later = Duration::from_secs(1_000 + 86_400 + 7_200);
    assert_eq!(
        (earlier.may_open(day_later), earlier.may_send(day_later)),
        (Grant::Now, Grant::Now)
    );
}

#[test]
fn an_idle_lane_is_small() {
    assert!(size_of::<Pacer>() < 1_024, "{}", size_of::<Pacer>());
}

const FIRST: Sending = Sending {
    new_connection: true,
    attempt: 1,
    first_refused: None,
};

fn note() -> Sent {
    let limits = PacerLimits {
        connections: 1,
        messages_per_connection: 1,
        rate: None,
        share: None,
        adaptive: None,
    };
    Pacer::new(limits).sent(Duration::ZERO, FIRST)
}
