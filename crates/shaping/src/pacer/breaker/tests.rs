use relaypool_api::reply::{Phase, Reply, ReplyCode};
use relaypool_bounce::{Reading, classify};

use super::*;

const HALF: Duration = Duration::from_millis(500);

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How long the path is not used from `now` on.
fn pause(breaker: &mut Breaker, now: Duration) -> Duration {
    match breaker.may_open(now) {
        Grant::At(at) => at - now,
        Grant::Now => Duration::ZERO,
        Grant::No => panic!("the breaker always names a time"),
    }
}

/// The pauses when every probe ends in the same incident.
fn pauses(incident: Incident, number: usize) -> Vec<Duration> {
    let mut breaker = Breaker::default();
    let mut now = minutes(1);
    let mut pauses = Vec::new();
    for _ in 0..number {
        breaker.trip(now, incident, None);
        pauses.push(pause(&mut breaker, now));
        now += pauses[pauses.len() - 1];
        assert_eq!(breaker.may_open(now), Grant::Now);
        breaker.opened(now);
        breaker.sent(now);
    }
    pauses
}

#[test]
fn pauses_without_a_reason_double_while_they_are_short_and_then_triple() {
    let halves = [1, 2, 4, 8, 16, 32, 96, 288, 864, 2_592, 7_200, 7_200, 7_200];
    let refusing = pauses(Incident::Refusing, halves.len());
    assert_eq!(refusing, halves.map(|halves| HALF * halves));
    let dead = pauses(Incident::Dead, halves.len());
    assert_eq!(dead, halves.map(|halves| (HALF * halves).min(minutes(15))));
}

#[test]
fn suspensions_for_reputation_double_up_to_a_limit() {
    for (incident, first, longest) in [
        (Incident::Deferred, minutes(5), minutes(120)),
        (Incident::Blocked, minutes(15), minutes(240)),
    ] {
        let times = pauses(incident, 40);
        assert_eq!(
            (times[0], times[1], times[39]),
            (first, first * 2, longest),
            "{incident:?}"
        );
        assert!(times.is_sorted());
    }
}

#[test]
fn trouble_that_is_long_over_is_forgotten() {
    for (incident, closed_for, expected) in [
        (Incident::Deferred, minutes(59), minutes(10)),
        (Incident::Deferred, minutes(60), minutes(5)),
        (Incident::Blocked, minutes(59), minutes(30)),
        (Incident::Blocked, minutes(61), minutes(15)),
        // What has no reason is forgotten as soon as something gets through.
        (Incident::Refusing, seconds(0), HALF),
        (Incident::Dead, seconds(1), HALF),
    ] {
        let mut breaker = Breaker::default();
        breaker.trip(minutes(0), incident, None);
        let over = minutes(20);
        assert_eq!(breaker.may_open(over), Grant::Now);
        assert!(breaker.succeeded(over, over));
        breaker.trip(over + closed_for, incident, None);
        let again = pause(&mut breaker, over + closed_for);
        assert_eq!(again, expected, "{incident:?} after {closed_for:?}");
    }
}

#[test]
fn refusals_of_one_moment_are_one_incident() {
    let mut breaker = Breaker::default();
    for _ in 0..50 {
        breaker.trip(minutes(0), Incident::Refusing, None);
    }
    assert_eq!(pause(&mut breaker, minutes(0)), HALF);
}

#[test]
fn a_single_probe_at_a_time() {
    let mut breaker = Breaker::default();
    breaker.trip(minutes(0), Incident::Dead, None);
    let now = minutes(1);
    assert_eq!(breaker.may_open(now), Grant::Now);
    breaker.opened(now);
    assert!(matches!(breaker.may_open(now), Grant::At(_)));
    assert_eq!(
        breaker.may_send(now),
        Grant::Now,
        "on the connection that was opened for it"
    );
    breaker.sent(now);
    assert!(matches!(breaker.may_send(now), Grant::At(_)));
    assert!(breaker.succeeded(now, now));
    assert_eq!(breaker.may_send(now), Grant::Now);
}

#[test]
fn a_lost_probe_does_not_stop_the_lane_for_ever() {
    let mut breaker = Breaker::default();
    breaker.trip(minutes(0), Incident::Dead, None);
    assert_eq!(breaker.may_open(minutes(1)), Grant::Now);
    breaker.opened(minutes(1));
    let Grant::At(at) = breaker.may_open(minutes(1)) else {
        panic!("a second probe");
    };
    assert_eq!(breaker.may_open(at), Grant::Now);

    breaker.opened(at);
    breaker.unresolved(at);
    let soon = pause(&mut breaker, at);
    assert!(soon > Duration::ZERO && soon < minutes(1), "{soon:?}");
    assert_eq!(breaker.may_open(at + soon), Grant::Now);
}

#[test]
fn a_host_may_ask_for_more_but_not_for_ever() {
    let mut breaker = Breaker::default();
    breaker.trip(minutes(0), Incident::Dead, Some(minutes(60)));
    assert_eq!(pause(&mut breaker, minutes(0)), minutes(60));
    breaker.trip(minutes(0), Incident::Dead, Some(minutes(1)));
    assert_eq!(
        pause(&mut breaker, minutes(0)),
        minutes(60),
        "a shorter wish changes nothing"
    );
    breaker.suspend(minutes(0), minutes(1_000_000));
    assert_eq!(pause(&mut breaker, minutes(0)), LONGEST);
}

#[test]
fn what_was_on_its_way_does_not_end_a_suspension() {
    let mut breaker = Breaker::default();
    breaker.trip(minutes(2), Incident::Blocked, None);
    assert!(!breaker.succeeded(minutes(3), minutes(1)), "while it lasts");
    assert!(breaker.is_of_before(minutes(1)) && !breaker.is_of_before(minutes(2)));
    let over = minutes(20);
    assert_eq!(breaker.may_open(over), Grant::Now);
    breaker.opened(over);
    breaker.sent(over);
    assert!(
        !breaker.succeeded(over, minutes(1)),
        "nor while the probe is on its way"
    );
    assert!(breaker.succeeded(over, over));
}

#[test]
fn only_a_long_pause_is_a_suspension() {
    for (time, is_suspension) in [(seconds(9), false), (seconds(10), true), (minutes(5), true)] {
        let mut breaker = Breaker::default();
        breaker.suspend(minutes(0), time);
        assert_eq!(breaker.suspended_until(minutes(0)), is_suspension.then_some(time));
        assert_eq!(breaker.was_suspended(), is_suspension);
        assert_eq!(breaker.suspended_until(time), None, "it is over");
    }
}

#[test]
fn a_restart_keeps_the_pause_and_drops_the_probe() {
    let mut breaker = Breaker::default();
    breaker.trip(minutes(10), Incident::Blocked, None);
    let mut kept = breaker.clone().restored(minutes(11));
    assert_eq!(pause(&mut kept, minutes(11)), minutes(14));
    let mut after_the_clock_was_set_back = breaker.clone().restored(minutes(0));
    assert!(pause(&mut after_the_clock_was_set_back, minutes(0)) <= LONGEST);

    let over = minutes(25);
    assert_eq!(breaker.may_open(over), Grant::Now);
    breaker.opened(over);
    assert_eq!(breaker.restored(over).may_open(over), Grant::Now);
}

#[test]
fn only_what_holds_the_path_is_an_incident_by_itself() {
    for (code, enhanced, text, incident) in [
        (554, "5.7.1", "your IP is on our block list", Some(Incident::Blocked)),
        (
            421,
            "4.7.0",
            "deferred due to poor reputation of your IP",
            Some(Incident::Deferred),
        ),
        (421, "4.3.2", "try again later", None),
        (550, "5.1.1", "no such user", None),
    ] {
        let reply = Reply {
            code: ReplyCode::try_from(code).unwrap(),
            enhanced: enhanced.parse().ok(),
            text: text.to_owned(),
        };
        let verdict = classify(&Reading::new(Phase::MailFrom, &reply));
        assert_eq!(Incident::of(&verdict), incident, "{verdict:?}");
    }
}
