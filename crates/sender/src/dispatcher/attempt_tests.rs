//! What follows from attempts: when a message comes again, from where, and what it costs it.

use relaypool_api::message::OnBlock;
use relaypool_api::reply::Phase;
use serde_json::json;

use super::test_bed::{Bed, HOUR, MINUTE, SECOND, blocked, greylisted, refused, settings};
use super::*;
use crate::ledger::MessageStatus;

fn accepted() -> Attempt {
    Attempt::Accepted
}

fn sources(bed: &Bed) -> BTreeMap<MessageKey, String> {
    let of = |flight: &test_bed::Flight| (flight.key, flight.ip.clone());
    bed.flights().iter().map(of).collect()
}

/// One attempt of each message, all refused as greylisted.
async fn greylisted_slice(ips: &[&str], count: usize) -> (Bed, BTreeMap<MessageKey, String>) {
    let mut bed = Bed::new(ips);
    bed.accept("s", count, "grey.example", json!({})).await;
    let mut first = BTreeMap::new();
    while !bed.flights().is_empty() {
        first.extend(sources(&bed));
        bed.answer(|_| greylisted());
    }
    assert_eq!(bed.attempts("s"), vec![1; count]);
    (bed, first)
}

fn second_sources(bed: &mut Bed) -> BTreeMap<MessageKey, String> {
    let mut second = BTreeMap::new();
    for _ in 0..400 {
        bed.pass(SECOND);
        second.extend(sources(bed));
        bed.answer(|_| accepted());
    }
    second
}

#[tokio::test]
async fn a_message_that_was_put_off_comes_again_from_the_same_ip() {
    let (mut bed, first) = greylisted_slice(&["a", "b"], 40).await;
    bed.set_ips(&["a", "b", "c", "d"]);
    assert_eq!(second_sources(&mut bed), first, "other IPs that come do not matter");
    bed.accept("t", 40, "grey.example", json!({})).await;
    assert!(sources(&bed).values().any(|ip| ip == "c" || ip == "d"));
}

#[tokio::test]
async fn where_and_when_a_message_was_put_off_survives_a_restart() {
    let (bed, first) = greylisted_slice(&["a", "b"], 40).await;
    let known = |bed: &Bed| -> Vec<(u16, Option<Millis>)> {
        let of = |slot: &slice::Slot| (slot.attempts, slot.tried.as_ref().unwrap().first_refused);
        bed.slice("s").slots.iter().map(of).collect()
    };
    let before = known(&bed);
    assert!(
        before
            .iter()
            .all(|(attempts, refused)| *attempts == 1 && refused.is_some())
    );
    let mut bed = bed.restart().await;
    assert_eq!(known(&bed), before);
    bed.set_ips(&["a", "b", "c", "d"]);
    assert_eq!(second_sources(&mut bed), first);
    assert!(
        bed.slice("s").slots.iter().all(|slot| slot.tried.is_none()),
        "not kept beyond the end"
    );
}

#[tokio::test]
async fn messages_of_an_ip_that_is_gone_find_another() {
    let (mut bed, _) = greylisted_slice(&["a", "b"], 20).await;
    bed.set_ips(&["b"]);
    let second = second_sources(&mut bed);
    assert_eq!(second.len(), 20);
    assert!(second.values().all(|ip| ip == "b"));
}

#[tokio::test]
async fn messages_put_off_together_do_not_come_back_together() {
    let (mut bed, _) = greylisted_slice(&["a"], 200).await;
    let mut dues: Vec<Millis> = bed.slice("s").slots.iter().map(|slot| slot.due - bed.now).collect();
    dues.sort_unstable();
    assert!(
        dues[0] >= 30 * SECOND && dues[199] <= 5 * MINUTE + 31 * SECOND,
        "{dues:?}"
    );
    let scouts = dues.iter().filter(|due| **due < 5 * MINUTE).count();
    assert!((5..50).contains(&scouts), "a few try how long the wait is: {dues:?}");
    let busiest = (0..31).map(|second| {
        let from = 5 * MINUTE + second * SECOND;
        dues.iter().filter(|due| (from..from + SECOND).contains(due)).count()
    });
    assert!(busiest.max().unwrap() <= 25, "{dues:?}");
    bed.pass(10 * MINUTE);
}

#[tokio::test]
async fn time_under_suspension_uses_up_no_attempt() {
    let mut bed = Bed::new(&["a"]);
    bed.accept("s", 3, "block.example", json!({})).await;
    for _ in 0..5 {
        bed.answer_all(|_| blocked());
        bed.pass(5 * HOUR);
    }
    assert_eq!(bed.attempts("s"), [0, 0, 0]);
    bed.answer_all(|_| accepted());
    assert_eq!(bed.attempts("s"), [1, 1, 1]);
    assert_eq!(bed.slice("s").unfinished, 0);
}

#[tokio::test]
async fn a_wait_that_the_host_asks_for_is_obeyed() {
    let mut bed = Bed::new(&["a"]);
    bed.accept("s", 1, "asks.example", json!({})).await;
    bed.answer(|_| refused(Phase::RcptTo, "452 4.2.2 mailbox full, retry in 7200 seconds"));
    let due = bed.slice("s").slots[0].due - bed.now;
    assert!((2 * HOUR..2 * HOUR + 13 * MINUTE).contains(&due), "{due}");
}

/// Both IPs of the bed send to one site; those of `a` are refused as blocked.
async fn with_one_ip_blocked(default: OnBlock, changes: serde_json::Value) -> Bed {
    let mut bed = Bed::new(&["a", "b"]);
    bed.dispatcher.set_settings(
        PoolSettings {
            on_block: default,
            ..settings()
        },
        bed.now,
    );
    bed.accept("s", 60, "site.example", changes).await;
    bed.answer_all(|flight| if flight.ip == "a" { blocked() } else { accepted() });
    bed
}

fn waiting(bed: &Bed) -> usize {
    bed.slice("s")
        .slots
        .iter()
        .filter(|slot| slot.status == MessageStatus::Waiting)
        .count()
}

#[tokio::test]
async fn messages_of_a_blocked_ip_wait_unless_they_may_move() {
    for (default, changes, moves) in [
        (OnBlock::Wait, json!({}), false),
        (OnBlock::Move, json!({}), true),
        (OnBlock::Wait, json!({ "onBlock": "Move" }), true),
        (OnBlock::Move, json!({ "onBlock": "Wait" }), false),
    ] {
        let bed = with_one_ip_blocked(default, changes.clone()).await;
        let left = waiting(&bed);
        assert_eq!(left == 0, moves, "{default:?} {changes}: {left} wait");
        let attempts = bed.attempts("s");
        let expected = |slot: &slice::Slot| u16::from(slot.status == MessageStatus::Sent);
        let counted: Vec<u16> = bed.slice("s").slots.iter().map(expected).collect();
        assert_eq!(attempts, counted, "moving costs no attempt, and waiting neither");
    }
}

#[tokio::test]
async fn new_messages_pass_over_a_blocked_ip_and_come_back_when_it_is_good() {
    let mut bed = with_one_ip_blocked(OnBlock::Wait, json!({})).await;
    let left = waiting(&bed);
    bed.accept("t", 40, "site.example", json!({})).await;
    while !bed.flights().is_empty() {
        assert!(sources(&bed).values().all(|ip| ip == "b"));
        bed.answer(|_| accepted());
    }
    assert_eq!((bed.slice("t").unfinished, waiting(&bed)), (0, left));
    bed.pass(HOUR);
    assert_eq!(sources(&bed).len(), 1, "a single message tries the path again");
    bed.answer_all(|_| accepted());
    assert_eq!(waiting(&bed), 0);
    bed.accept("u", 40, "site.example", json!({})).await;
    assert!(sources(&bed).values().any(|ip| ip == "a"));
}

#[tokio::test]
async fn a_blocked_ip_whose_messages_have_moved_is_tried_with_a_new_one() {
    let mut bed = with_one_ip_blocked(OnBlock::Move, json!({})).await;
    bed.pass(HOUR);
    bed.accept("t", 60, "site.example", json!({})).await;
    let from_a = sources(&bed).values().filter(|ip| *ip == "a").count();
    assert_eq!(
        from_a, 1,
        "one message tries the path, the others keep away until it is decided"
    );
    bed.answer_all(|flight| if flight.ip == "a" { blocked() } else { accepted() });
    assert_eq!(bed.slice("t").unfinished, 0, "and it moves as well");
}

#[tokio::test]
async fn waiting_messages_move_as_soon_as_they_may() {
    let mut bed = with_one_ip_blocked(OnBlock::Wait, json!({})).await;
    assert!(waiting(&bed) > 0);
    let settings = PoolSettings {
        on_block: OnBlock::Move,
        ..settings()
    };
    bed.dispatcher.set_settings(settings, bed.now);
    bed.settle();
    bed.answer_all(|flight| if flight.ip == "a" { blocked() } else { accepted() });
    assert_eq!(waiting(&bed), 0);
}

#[tokio::test]
async fn where_every_ip_is_blocked_messages_stay_and_move_when_one_recovers() {
    let mut bed = Bed::new(&["a", "b"]);
    bed.dispatcher.set_settings(
        PoolSettings {
            on_block: OnBlock::Move,
            ..settings()
        },
        bed.now,
    );
    bed.accept("s", 60, "site.example", json!({})).await;
    bed.answer_all(|_| blocked());
    assert_eq!(waiting(&bed), 60);
    for _ in 0..200 {
        bed.pass(5 * MINUTE);
        bed.answer_all(|flight| if flight.ip == "a" { blocked() } else { accepted() });
    }
    assert_eq!(waiting(&bed), 0);
    assert_eq!(bed.attempts("s"), vec![1; 60]);
}

#[tokio::test]
async fn deferred_messages_are_released_in_the_order_of_their_first_refusal() {
    let mut bed = Bed::new(&["a"]);
    for id in ["early", "late"] {
        bed.accept(id, 10, "grey.example", json!({})).await;
        while !bed.flights().is_empty() {
            bed.answer(|_| greylisted());
        }
        bed.pass(MINUTE);
    }
    let lane = bed.lane("a", "grey.example");
    let late = &bed.slice("late").slots;
    let first_late = late
        .iter()
        .filter_map(|slot| slot.tried.as_ref()?.first_refused)
        .min()
        .unwrap();
    let between = lane::pacer_time(first_late - 1);
    // Those that try early how long the wait is.
    while !bed.flights().is_empty() {
        bed.answer(|_| greylisted());
    }
    bed.dispatcher.release_until(lane, between);
    bed.settle();
    let early: Vec<MessageKey> = bed.flights().iter().map(|flight| flight.key).collect();
    assert!(!early.is_empty());
    let number = bed.dispatcher.slice_ids["early"];
    assert!(early.iter().all(|key| key.slice == number), "{early:?}");
}

#[tokio::test]
async fn routing_of_a_large_delivery_does_not_hold_up_another() {
    let mut bed = Bed::new(&["a"]);
    bed.accept("known", 1, "site.example", json!({})).await;
    bed.answer(|_| accepted());
    bed.take_in("large", 5_000, "site.example", json!({})).await;
    bed.take_in("small", 10, "site.example", json!({})).await;
    bed.take_in("urgent", 10, "site.example", json!({ "priority": "High" }))
        .await;
    bed.dispatcher.tick(bed.now);
    for id in ["small", "urgent"] {
        let slots = &bed.slice(id).slots;
        assert!(slots.iter().all(|slot| slot.place != Place::Unrouted), "{id}");
    }
    let routed = bed
        .slice("large")
        .slots
        .iter()
        .filter(|slot| slot.place != Place::Unrouted);
    assert_eq!(routed.count(), ROUTED_AT_ONCE - 20);
}

#[tokio::test]
async fn a_path_that_is_dead_is_passed_over_and_keeps_its_messages() {
    let mut bed = Bed::new(&["a", "b"]);
    bed.dispatcher.set_settings(
        PoolSettings {
            on_block: OnBlock::Move,
            ..settings()
        },
        bed.now,
    );
    bed.accept("s", 60, "site.example", json!({})).await;
    let dead = || Attempt::Failed {
        failure: relaypool_bounce::Failure::ConnectTimeout,
        detail: "no answer".into(),
    };
    while bed.dispatcher.path_state("a", &bed.site("site.example"), bed.now) == path_state::PathState::Open {
        bed.answer(|flight| if flight.ip == "a" { dead() } else { accepted() });
        bed.pass(SECOND);
    }
    let queued = bed.dispatcher.lanes[bed.lane("a", "site.example").0 as usize]
        .queue
        .len();
    assert!(queued > 0, "what waits for it stays: it is not blocked");
    bed.answer(|_| accepted());
    bed.accept("t", 40, "site.example", json!({})).await;
    assert!(bed.slice("t").slots.iter().any(|slot| slot.place == Place::Flying));
    bed.answer_all(|flight| if flight.ip == "a" { dead() } else { accepted() });
    assert_eq!(bed.slice("t").unfinished, 0);
}
