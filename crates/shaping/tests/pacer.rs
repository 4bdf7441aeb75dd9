//! What a pacer does, step by step.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::Duration;

use relaypool_api::reply::Phase;
use relaypool_api::sending_ip::{Binds, LaneState};
use relaypool_bounce::{Failure, classify_failure};
use relaypool_shaping::pacer::{AdaptiveLimits, Grant, Pacer, PacerLimits, Sending, Share, Snapshot};
use relaypool_shaping::retry::{NextAttempt, RetrySchedule};
use support::{FIRST, Lane, busy, limits, refusal};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn begins_with_a_few_connections_and_grows_to_the_limit() {
    let mut lane = Lane::new(limits(20));
    assert_eq!(lane.fill(), 5);
    assert_eq!(lane.pacer.binds(lane.now), Binds::LearnedConnections);
    lane.wait(seconds(1));
    (0..5).for_each(|_| lane.accept());
    lane.flow(10);
    assert_eq!(lane.pacer.connection_limit(), 20);
    for _ in 0..20 {
        lane.fill();
        lane.wait(Duration::from_millis(100));
    }
    assert_eq!(lane.sent.len(), 20);
    assert_eq!(lane.start(), Grant::No);
    assert_eq!(lane.pacer.binds(lane.now), Binds::PolicyConnections);
    assert_eq!(lane.pacer.cuts(), (0, 0));
}

#[test]
fn static_mode_uses_the_limits_as_they_are() {
    let mut lane = Lane::new(PacerLimits {
        adaptive: None,
        ..limits(20)
    });
    for _ in 0..10 {
        assert_eq!(lane.fill(), 20);
        while !lane.sent.is_empty() {
            lane.refuse(&busy());
        }
        assert_eq!((lane.pacer.connection_limit(), lane.pacer.learned_rate()), (20, None));
    }
    // But a site that blocks the sender is left alone here too.
    lane.fill();
    lane.refuse(&refusal(Phase::MailFrom, 554, "5.7.1", "your IP is on our block list"));
    assert_eq!(lane.pacer.state(lane.now), LaneState::Suspended);
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
            min_connections: min,
            max_connections: max,
            ..AdaptiveLimits::default()
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
        let mut lane = Lane::new(PacerLimits {
            share,
            adaptive,
            ..limits(20)
        });
        assert_eq!(lane.fill(), limit);
        assert_eq!(lane.pacer.binds(lane.now), by);
    }
}

#[test]
fn a_refusal_above_what_is_proven_takes_connections_away() {
    let mut lane = Lane::new(limits(20));
    assert_eq!(lane.fill(), 5);
    lane.wait(Duration::from_millis(50));
    lane.refuse(&busy());
    assert_eq!(lane.pacer.connection_limit(), 4);
    assert_eq!(lane.start(), Grant::No);
    // What was sent before the cut says nothing about what came after.
    (0..4).for_each(|_| {
        lane.refuse(&busy());
    });
    assert_eq!(lane.pacer.connection_limit(), 4);
}

#[test]
fn what_is_no_news_of_the_path_changes_nothing() {
    for verdict in [
        refusal(Phase::RcptTo, 550, "5.1.1", "no such user"),
        refusal(Phase::RcptTo, 451, "4.7.1", "greylisted, try again in 5 minutes"),
        refusal(Phase::RcptTo, 452, "4.2.2", "mailbox full"),
        refusal(Phase::EndOfData, 554, "5.7.1", "spam"),
        classify_failure(Failure::NullMx),
    ] {
        let mut lane = Lane::new(limits(5));
        for _ in 0..10 {
            assert_eq!(lane.fill(), 5, "{verdict:?}");
            lane.wait(Duration::from_millis(100));
            assert_eq!(lane.pacer.state(lane.now), LaneState::Sending, "{verdict:?}");
            while !lane.sent.is_empty() {
                lane.refuse(&verdict);
            }
        }
        assert_eq!(lane.pacer.cuts(), (0, 0), "{verdict:?}");
        assert_eq!(lane.pacer.learned_rate(), None, "{verdict:?}");
    }
}

#[test]
fn a_rate_is_obeyed_and_named() {
    let mut lane = Lane::new(PacerLimits {
        rate: "60/m".parse().ok(),
        ..limits(20)
    });
    assert_eq!(lane.start(), Grant::Now);
    assert_eq!(lane.start(), Grant::At(lane.now + seconds(1)));
    assert_eq!(lane.pacer.binds(lane.now), Binds::PolicyRate);
    lane.wait(seconds(1));
    assert_eq!(lane.start(), Grant::Now);
}

#[test]
fn a_message_that_did_not_leave_is_no_probe() {
    let mut pacer = Pacer::new(limits(20));
    pacer.suspend(seconds(0), seconds(10));
    assert_eq!(pacer.may_open(seconds(10)), Grant::Now);
    pacer.opened(seconds(10));
    let sent = pacer.sent(seconds(10), FIRST);
    assert_ne!(pacer.may_send(seconds(10)), Grant::Now);
    pacer.unused(sent);
    assert_eq!(pacer.may_send(seconds(10)), Grant::Now);
}

#[test]
fn a_slower_share_binds_before_the_policy() {
    let mut lane = Lane::new(PacerLimits {
        rate: "100/s".parse().ok(),
        share: Some(Share {
            connections: 5,
            rate: "1/m".parse().ok(),
        }),
        ..limits(20)
    });
    assert_eq!(lane.start(), Grant::Now);
    assert_eq!(lane.start(), Grant::At(lane.now + seconds(60)));
    assert_eq!(lane.pacer.binds(lane.now), Binds::PoolShare);
}

#[test]
fn a_block_suspends_the_lane_until_a_probe_is_accepted() {
    let block = refusal(Phase::MailFrom, 554, "5.7.1", "your IP is on our block list");
    let mut lane = Lane::new(limits(20));
    lane.fill();
    lane.wait(seconds(1));
    lane.refuse(&block);
    let until = lane.pacer.suspended_until(lane.now).unwrap();
    assert_eq!(lane.pacer.may_send(lane.now), Grant::At(until));
    assert_eq!(lane.pacer.may_open(lane.now), Grant::At(until));
    lane.wait(seconds(1));
    assert_eq!(
        (lane.pacer.state(lane.now), lane.pacer.binds(lane.now)),
        (LaneState::Suspended, Binds::Suspended)
    );
    // What was on its way changes nothing.
    lane.accept();
    lane.refuse(&block);
    assert_eq!(lane.pacer.suspended_until(lane.now), Some(until));
    let late = lane.sent.pop_front().unwrap();

    lane.now = until;
    assert_eq!(lane.fill(), 1, "a single probe");
    lane.pacer.accepted(lane.now, late);
    assert!(
        matches!(lane.start(), Grant::At(_)),
        "an outcome from before is no answer to the probe"
    );
    lane.wait(seconds(1));
    let probe = lane.sent.pop_back().unwrap();
    lane.pacer.accepted(lane.now, probe);
    assert_eq!(lane.pacer.state(lane.now), LaneState::Sending);
    assert_eq!(lane.pacer.suspended_until(lane.now), None);
    assert!(lane.start_within(seconds(10)));
}

#[test]
fn any_answer_for_a_recipient_is_good_news_for_a_probe() {
    let mut lane = Lane::new(limits(20));
    lane.fill();
    lane.refuse(&refusal(Phase::Greeting, 554, "", "no"));
    lane.now = lane.pacer.suspended_until(lane.now).unwrap();
    assert_eq!(lane.fill(), 1);
    lane.refuse(&refusal(Phase::RcptTo, 550, "5.1.1", "no such user"));
    assert!(lane.start_within(seconds(10)));
    assert_eq!(lane.pacer.suspended_until(lane.now), None);
}

#[test]
fn a_dead_path_is_left_alone_and_found_again() {
    let refused = classify_failure(Failure::ConnectRefused);
    let mut lane = Lane::new(limits(20));
    let (begin, mut attempts) = (lane.now, 0);
    while lane.now - begin < seconds(3 * 3_600) {
        assert!(lane.start_within(seconds(900)), "it is never left alone for longer");
        attempts += 1;
        lane.wait(Duration::from_millis(50));
        lane.refuse(&refused);
    }
    assert!(attempts < 40, "a dead path was tried {attempts} times");
    assert_eq!(lane.pacer.state(lane.now), LaneState::Suspended);

    let back = lane.now;
    let mut delivered = 0;
    while delivered < 500 {
        assert!(lane.start_within(seconds(900)));
        while lane.start() == Grant::Now {}
        lane.wait(seconds(1));
        while !lane.sent.is_empty() {
            lane.accept();
            delivered += 1;
        }
    }
    assert!(lane.now - back < seconds(900 + 300), "{:?}", lane.now - back);
}

#[test]
fn a_dead_path_is_left_alone_whatever_the_least_number_of_connections() {
    let refused = classify_failure(Failure::ConnectRefused);
    for least in [1, 4, 8, 20] {
        let adaptive = Some(AdaptiveLimits {
            min_connections: Some(least),
            ..AdaptiveLimits::default()
        });
        let mut lane = Lane::new(PacerLimits { adaptive, ..limits(20) });
        let (begin, mut attempts) = (lane.now, 0);
        while lane.now - begin < seconds(3_600) && attempts < 1_000 {
            assert!(lane.start_within(seconds(900)));
            attempts += 1 + lane.fill();
            lane.wait(Duration::from_millis(50));
            while !lane.sent.is_empty() {
                lane.refuse(&refused);
            }
        }
        assert!(attempts < 80, "at least {least}: tried {attempts} times in an hour");
    }
}

#[test]
fn a_site_that_has_become_slower_is_not_too_much_for_ever() {
    for least in [None, Some(8)] {
        let adaptive = Some(AdaptiveLimits {
            min_connections: least,
            ..AdaptiveLimits::default()
        });
        let mut lane = Lane::new(PacerLimits { adaptive, ..limits(20) });
        for _ in 0..20 {
            assert!(lane.start_within(seconds(10)));
            lane.wait(Duration::from_millis(10));
            lane.accept();
        }
        let begin = lane.now;
        while lane.sent.len() < 20 {
            lane.flow(1);
            for _ in 0..50 {
                lane.fill();
                lane.wait(Duration::from_millis(20));
            }
            assert!(lane.now - begin < seconds(3_600), "{least:?}: {:?}", lane.pacer);
            if lane.sent.len() < 20 {
                (0..lane.sent.len()).for_each(|_| lane.accept());
            }
        }
    }
}

#[test]
fn one_broken_host_among_several_is_noise() {
    let refused = classify_failure(Failure::ConnectRefused);
    let mut lane = Lane::new(limits(20));
    lane.flow(5);
    let (begin, mut delivered) = (lane.now, 0_u32);
    for message in 0_u32.. {
        if lane.now - begin > seconds(3_600) {
            break;
        }
        assert!(lane.start_within(seconds(900)));
        lane.wait(Duration::from_millis(100));
        // Without a pattern that could be taken for one.
        if message.wrapping_mul(0x9e37_79b9) >> 29 < 2 {
            lane.refuse(&refused);
        } else {
            lane.accept();
            delivered += 1;
        }
    }
    // At most 9 a second, three of four of which go through.
    let share = f64::from(delivered) / (3_600.0 * 10.0 * 0.75);
    assert!(share > 0.9, "{share}");
    let (cuts, undone) = lane.pacer.cuts();
    assert!(undone > 0 && cuts <= undone + 2, "{undone} of {cuts}");
}

#[test]
fn a_lane_with_little_mail_is_not_held_for_hours_by_two_failures() {
    let mut lane = Lane::new(limits(20));
    for _ in 0..60 {
        assert_eq!(lane.start(), Grant::Now);
        lane.wait(seconds(1));
        lane.accept();
        lane.wait(seconds(59));
    }
    for _ in 0..2 {
        assert!(lane.start_within(seconds(60)));
        lane.refuse(&busy());
        lane.wait(seconds(59));
    }
    // A message comes each minute: how long does it wait?
    let mut longest = Duration::ZERO;
    for _ in 0..60 {
        let came = lane.now;
        assert!(lane.start_within(seconds(3_600)));
        longest = longest.max(lane.now - came);
        lane.wait(seconds(1));
        lane.accept();
        lane.now = lane.now.max(came + seconds(60));
    }
    assert!(longest < seconds(60), "{longest:?}: {:?}", lane.pacer);
}

#[test]
fn a_hidden_limit_of_connections_is_found_and_held() {
    let mut lane = Lane::new(limits(20));
    let (mut delivered, mut refused) = (0_u32, 0_u32);
    let begin = lane.now;
    // Eight connections, 0.8 s for a message; a tenth of a second is a step.
    let mut ends: std::collections::VecDeque<Duration> = std::collections::VecDeque::new();
    while lane.now - begin < seconds(1_800) {
        while ends.front().is_some_and(|end| *end <= lane.now) {
            ends.pop_front();
            lane.accept();
            delivered += 1;
        }
        while lane.start() == Grant::Now {
            if ends.len() < 8 {
                ends.push_back(lane.now + Duration::from_millis(800));
            } else {
                lane.refuse(&busy());
                refused += 1;
            }
        }
        lane.wait(Duration::from_millis(100));
    }
    let share = f64::from(refused) / f64::from(refused + delivered);
    assert!(share < 0.01, "{refused} refused of {delivered}");
    assert!(f64::from(delivered) > 0.95 * 10.0 * 1_800.0, "{delivered}");
}

#[test]
fn a_wish_to_wait_is_obeyed() {
    let mut lane = Lane::new(limits(20));
    lane.fill();
    let verdict = refusal(Phase::Greeting, 421, "", "too many connections, try again in 3 minutes");
    lane.refuse(&verdict);
    assert_eq!(lane.pacer.suspended_until(lane.now), Some(lane.now + seconds(180)));
}

#[test]
fn a_person_may_suspend_a_lane() {
    let mut lane = Lane::new(limits(20));
    let until = lane.now + seconds(600);
    lane.pacer.suspend(lane.now, until);
    lane.wait(seconds(1));
    assert_eq!(lane.start(), Grant::At(until));
    lane.pacer.suspend(lane.now, lane.now + seconds(60));
    assert_eq!(lane.start(), Grant::At(until), "the longer one stays");
}

#[test]
fn new_limits_hold_at_once() {
    let mut lane = Lane::new(PacerLimits {
        rate: "10/s".parse().ok(),
        ..limits(20)
    });
    assert_eq!(lane.start(), Grant::Now);
    lane.pacer.limits_changed(
        lane.now,
        PacerLimits {
            rate: "1/h".parse().ok(),
            ..limits(1)
        },
    );
    assert_eq!((lane.pacer.connection_limit(), lane.start()), (1, Grant::No));
    lane.pacer.limits_changed(lane.now, limits(20));
    assert_eq!(lane.start(), Grant::Now);
}

#[test]
fn an_idle_lane_says_so() {
    let mut lane = Lane::new(limits(1));
    let stands = |lane: &Lane| (lane.pacer.state(lane.now), lane.pacer.binds(lane.now));
    assert_eq!(stands(&lane), (LaneState::Idle, Binds::NoDemand));
    lane.fill();
    lane.wait(seconds(999));
    assert_eq!(stands(&lane), (LaneState::Sending, Binds::PolicyConnections));
    lane.accept();
    lane.wait(seconds(100));
    assert_eq!(stands(&lane), (LaneState::Idle, Binds::NoDemand));
}

#[test]
fn what_is_known_survives_a_restart() {
    let limits = || PacerLimits {
        rate: "1/h".parse().ok(),
        ..limits(20)
    };
    let mut lane = Lane::new(limits());
    let begin = lane.now;
    for _ in 0..5 {
        lane.pacer.opened(lane.now);
    }
    let sent = lane.pacer.sent(lane.now, FIRST);
    lane.pacer.feedback(lane.now, sent, &busy());
    lane.pacer.suspend(lane.now, begin + seconds(600));
    let kept = serde_json::to_string(&lane.pacer.snapshot()).unwrap();

    let restore = |now| {
        let snapshot: Snapshot = serde_json::from_str(&kept).unwrap();
        Lane {
            pacer: Pacer::restore(limits(), snapshot, now),
            now,
            ..Lane::new(limits())
        }
    };
    let mut later = restore(begin + seconds(10));
    assert_eq!(later.pacer.connection_limit(), 4);
    assert_eq!(later.start(), Grant::At(begin + seconds(600)));
    later.now = begin + seconds(600);
    assert_eq!(later.start(), Grant::At(begin + seconds(3_600)));

    // A clock that was far ahead when the state was kept does not silence the lane.
    let mut earlier = restore(seconds(1_000));
    assert!(earlier.pacer.suspended_until(earlier.now).unwrap() <= seconds(1_000 + 86_400));
    earlier.wait(seconds(86_400 + 7_200));
    assert_eq!(earlier.start(), Grant::Now);
}

#[test]
fn what_was_refused_for_its_speed_comes_back_soon() {
    let schedule = RetrySchedule::new(seconds(60), seconds(3_600));
    let after = |lane: &mut Lane, attempt, verdict: &_| {
        let sending = Sending { attempt, ..FIRST };
        assert_eq!(lane.start_with(sending), Grant::Now);
        let sent = lane.refuse(verdict);
        lane.pacer.next_attempt(lane.now, sent, verdict, &schedule, 7)
    };
    let within = |next: NextAttempt, from: f64, to: f64| match next {
        NextAttempt::After(time) => assert!((from..to).contains(&time.as_secs_f64()), "{time:?}"),
        other => panic!("{other:?}"),
    };
    for (attempt, from, to) in [(1, 1.5, 2.5), (2, 6.0, 10.0), (3, 22.5, 37.5), (4, 400.0, 600.0)] {
        within(after(&mut Lane::new(limits(20)), attempt, &busy()), from, to);
    }
    let no_learning = PacerLimits {
        adaptive: None,
        ..limits(20)
    };
    within(after(&mut Lane::new(no_learning), 1, &busy()), 57.0, 66.0);
    let lane = || Lane::new(limits(20));
    let full = refusal(Phase::RcptTo, 452, "4.2.2", "mailbox full");
    within(after(&mut lane(), 1, &full), 3_000.0, 4_000.0);
    let asked = refusal(Phase::Greeting, 421, "", "too many connections, try again in 3 minutes");
    within(after(&mut lane(), 1, &asked), 180.0, 200.0);
    let block = refusal(Phase::MailFrom, 554, "5.7.1", "your IP is on our block list");
    assert_eq!(after(&mut lane(), 1, &block), NextAttempt::WithLane);
    let nobody = refusal(Phase::RcptTo, 550, "5.1.1", "no such user");
    assert_eq!(after(&mut lane(), 1, &nobody), NextAttempt::Never);
}

#[test]
fn an_idle_lane_is_small() {
    assert!(size_of::<Pacer>() < 1_024, "{}", size_of::<Pacer>());
}
