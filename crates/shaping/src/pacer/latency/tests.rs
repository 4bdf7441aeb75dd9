use super::*;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn usual(time: Duration) -> Latency {
    let mut latency = Latency::default();
    (0..ENOUGH).for_each(|_| latency.learn(time, true));
    latency
}

#[test]
fn far_longer_than_usual_is_slow() {
    for (usually, took, is_slow) in [
        (1_000, 1_000, false),
        (1_000, 2_400, false),
        (1_000, 2_600, true),
        // A hiccup of this machine.
        (10, 500, false),
        (10, 520, true),
        (0, 490, false),
    ] {
        let latency = usual(millis(usually));
        assert_eq!(
            latency.is_slow(millis(took), true),
            is_slow,
            "{took} ms, usually {usually}"
        );
    }
}

#[test]
fn nothing_is_slow_before_the_usual_time_is_known() {
    let mut latency = Latency::default();
    for _ in 1..ENOUGH {
        latency.learn(millis(10), true);
        assert!(!latency.is_slow(Duration::from_secs(600), true));
    }
    assert_eq!(Latency::default().usual(), None);
}

#[test]
fn the_first_message_on_a_connection_may_take_longer() {
    let mut latency = usual(millis(1_000));
    (0..ENOUGH).for_each(|_| latency.learn(millis(100), false));
    assert!(!latency.is_slow(millis(900), true));
    assert!(latency.is_slow(millis(900), false));
    assert_eq!(latency.usual(), Some(millis(1_000)));
}

#[test]
fn what_is_usual_follows_the_provider() {
    let mut latency = usual(millis(1_000));
    (0..200).for_each(|_| latency.learn(millis(2_000), true));
    let followed = latency.usual().unwrap();
    assert!(followed > millis(1_990) && followed <= millis(2_000), "{followed:?}");
    latency.forget();
    assert_eq!(latency.usual(), None);
}

#[test]
fn a_restart_keeps_what_can_be() {
    assert_eq!(usual(millis(500)).restored().usual(), Some(millis(500)));
    for mean in [f64::NAN, f64::INFINITY, -1.0] {
        let broken = Latency([Usual { samples: 9, mean }; 2]);
        assert_eq!(broken.restored().usual(), None, "{mean}");
    }
    let absurd = Latency(
        [Usual {
            samples: 9,
            mean: 1e300,
        }; 2],
    )
    .restored();
    assert!(absurd.usual().unwrap() <= Duration::from_secs(3_600));
}
