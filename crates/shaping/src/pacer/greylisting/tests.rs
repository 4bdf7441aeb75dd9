use super::*;

const INTERVAL: Duration = Duration::from_secs(300);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// When messages that were just refused are tried again, sooner than the schedule says.
fn early(greylisting: &mut Greylisting, messages: u64) -> Vec<Duration> {
    (0..messages)
        .map(|seed| greylisting.interval(INTERVAL, Duration::ZERO, seed))
        .filter(|interval| *interval < INTERVAL)
        .collect()
}

#[test]
fn scouts_are_few_and_spread() {
    let mut greylisting = Greylisting::default();
    greylisting.put_off(Duration::ZERO);
    let scouts = early(&mut greylisting, 800);
    assert!((60..140).contains(&scouts.len()), "one in {SCOUTS}: {}", scouts.len());
    for part in [seconds(60), seconds(120), seconds(240)] {
        assert!(scouts.iter().any(|interval| *interval < part), "none before {part:?}");
        assert!(scouts.iter().any(|interval| *interval >= part), "none after {part:?}");
    }
    assert!(scouts.iter().all(|interval| *interval >= seconds(1)));
    // However large the queue.
    assert!(scouts.len() + early(&mut greylisting, 100_000).len() <= MOST_SCOUTS as usize);
}

#[test]
fn the_shortest_wait_that_was_enough_is_learned() {
    let mut greylisting = Greylisting::default();
    greylisting.put_off(Duration::ZERO);
    for (waited, wait) in [
        (200, Some(200)),
        (150, Some(150)),
        (180, Some(150)),
        // Too short for greylisting: it was refused for something else.
        (5, Some(150)),
    ] {
        greylisting.passed(seconds(waited));
        assert_eq!(greylisting.wait, wait.map(seconds), "after {waited} s");
    }
    // The others go a little later than that, and what waited long enough goes now.
    for seed in 0..100 {
        let again = greylisting.interval(INTERVAL, seconds(50), seed);
        assert!((seconds(101)..=seconds(105)).contains(&again), "{again:?}");
        assert_eq!(
            greylisting.interval(INTERVAL, seconds(400), seed),
            INTERVAL,
            "it did not help this one"
        );
    }
    let nearly = greylisting.interval(INTERVAL, Duration::from_millis(151_499), 1);
    assert!(nearly >= SOONEST, "{nearly:?}: no message goes round in a tight loop");
    assert_eq!(greylisting.released(seconds(1_000)), Some(seconds(850)));
    assert_eq!(greylisting.released(seconds(100)), None);
}

#[test]
fn a_wait_that_is_no_longer_enough_is_learned_anew() {
    let mut greylisting = Greylisting::default();
    greylisting.put_off(Duration::ZERO);
    greylisting.passed(seconds(100));
    greylisting.put_off(seconds(105));
    assert_eq!(greylisting.wait, Some(seconds(100)), "within a tenth it may be chance");
    greylisting.put_off(seconds(120));
    assert_eq!(greylisting.wait, None);
    assert!(!early(&mut greylisting, 100).is_empty(), "scouts go again");
}

#[test]
fn silent_greylisting_refuses_strangers_and_takes_who_comes_again() {
    for (refused_of_ten, passes_later, is_silent) in [(10, true, true), (10, false, false), (7, true, false)] {
        let mut greylisting = Greylisting::default();
        for message in 0..200 {
            greylisting.stranger(message % 10 < refused_of_ten);
        }
        assert_eq!(greylisting.refuses_strangers(), refused_of_ten == 10);
        if passes_later {
            greylisting.passed(seconds(300));
        }
        assert_eq!(
            greylisting.is_silent(),
            is_silent,
            "{refused_of_ten} of ten refused, later taken: {passes_later}"
        );
        assert_eq!(greylisting.released(seconds(1_000)).is_some(), is_silent);
    }
}

#[test]
fn greylisting_that_says_so_is_not_silent() {
    let mut greylisting = Greylisting::default();
    greylisting.put_off(Duration::ZERO);
    (0..200).for_each(|_| greylisting.stranger(true));
    greylisting.passed(seconds(300));
    assert!(greylisting.refuses_strangers() && !greylisting.is_silent());
    assert_eq!(greylisting.wait, Some(seconds(300)));
}

#[test]
fn silent_greylisting_that_is_over_is_forgotten() {
    let mut greylisting = Greylisting::default();
    (0..200).for_each(|_| greylisting.stranger(true));
    greylisting.passed(seconds(300));
    assert!(greylisting.is_silent());
    (0..30).for_each(|_| greylisting.stranger(false));
    assert!(!greylisting.is_silent() && !greylisting.refuses_strangers());
    assert_eq!(greylisting.released(seconds(1_000)), None);
}

#[test]
fn a_restart_keeps_what_can_be() {
    let mut greylisting = Greylisting::default();
    greylisting.put_off(Duration::ZERO);
    greylisting.passed(seconds(100));
    assert_eq!(greylisting.clone().restored().wait, Some(seconds(100)));
    greylisting.wait = Some(Duration::MAX);
    greylisting.strangers_refused = f64::NAN;
    let mut restored = greylisting.restored();
    restored.put_off(seconds(1_000));
    assert!(restored.interval(INTERVAL, Duration::ZERO, 1) <= INTERVAL);
    assert!(restored.strangers_refused.is_finite());
}
