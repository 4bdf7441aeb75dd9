use super::*;

/// Attempts of which every `of`th fails, until there is an alarm. How many there were, if it comes within `most`.
fn until_alarm(evidence: &mut Evidence, of: u32, most: u32) -> Option<u32> {
    (1..=most).find(|attempt| {
        evidence.begun();
        if attempt % of == 0 {
            evidence.failed();
        } else {
            evidence.went_well();
        }
        evidence.is_alarm()
    })
}

fn tested(noise: f64) -> Evidence {
    let mut evidence = Evidence::default();
    evidence.noise_is(noise);
    evidence
}

/// A number in [0, 1) that depends on the message alone.
fn chance(message: u64) -> f64 {
    let mixed = message.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed ^ (mixed >> 32)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[test]
fn without_noise_two_failures_close_to_one_another_are_an_alarm() {
    for (apart, is_alarm) in [(1, true), (3, true), (10, false), (50, false)] {
        let mut evidence = Evidence::default();
        (0..100).for_each(|_| evidence.begun());
        evidence.begun();
        evidence.failed();
        assert!(!evidence.is_alarm(), "one is chance");
        (0..apart).for_each(|_| evidence.begun());
        evidence.failed();
        assert_eq!(evidence.is_alarm(), is_alarm, "{apart} apart");
    }
}

#[test]
fn what_is_known_to_be_noise_is_no_alarm() {
    for noise in [0.05, 0.1, 0.25, 0.5] {
        let mut alarms = 0;
        let mut evidence = tested(noise);
        for message in 0..20_000 {
            evidence.begun();
            if chance(message) < noise {
                evidence.failed();
            } else {
                evidence.went_well();
            }
            if evidence.is_alarm() {
                alarms += 1;
                evidence.alarm_is_over();
            }
        }
        assert!(alarms <= 10, "{noise}: {alarms} alarms");
        assert!(
            (evidence.noise() - noise).abs() < 0.15 + noise * 0.1,
            "{noise}: {evidence:?}"
        );
    }
}

#[test]
fn much_more_than_noise_is_an_alarm() {
    for noise in [0.0, 0.05, 0.1, 0.25, 0.5] {
        let found = until_alarm(&mut tested(noise), 1, 100);
        assert!(found.is_some_and(|attempts| attempts <= 80), "{noise}: {found:?}");
    }
    assert!(until_alarm(&mut tested(0.05), 2, 200).is_some());
    assert_eq!(
        until_alarm(&mut tested(0.95), 1, 200),
        None,
        "nothing can be told there"
    );
}

#[test]
fn noise_is_learned_only_a_little_without_a_test() {
    let mut untested = Evidence::default();
    (0..10_000).for_each(|_| untested.failed_by_accident());
    assert!(untested.noise() <= MOST_NOISE_UNTESTED, "{untested:?}");
    let mut tested = tested(0.3);
    (0..10_000).for_each(|_| tested.failed_by_accident());
    assert!((0.3..=0.3 + ABOVE_TESTED).contains(&tested.noise()), "{tested:?}");
}

#[test]
fn noise_that_is_over_is_forgotten() {
    let mut evidence = tested(0.4);
    (0..3_000).for_each(|_| evidence.begun());
    assert!(evidence.noise() < 0.01, "{evidence:?}");
    // What nearly always failed and now goes through is forgotten sooner.
    let mut evidence = tested(0.95);
    (0..60).for_each(|_| {
        evidence.begun();
        evidence.went_well();
    });
    assert!(evidence.noise() < MOSTLY, "{evidence:?}");
}

#[test]
fn the_more_noise_the_more_failures_in_a_row_are_certain() {
    let certain = |noise| tested(noise).certain_failures();
    assert_eq!(certain(0.0), 1);
    let grown: Vec<u32> = [0.0, 0.1, 0.3, 0.5, 0.8].into_iter().map(certain).collect();
    assert!(grown.is_sorted() && grown[4] > grown[1], "{grown:?}");
    for noise in [0.05_f64, 0.1, 0.3, 0.5, 0.8] {
        let by_chance = noise.powi(certain(noise) as i32);
        assert!(by_chance < SMALL_CHANCE * 1.01, "{noise}: {by_chance}");
    }
    assert_eq!(certain(0.95), u32::MAX);
}

#[test]
fn the_share_that_fails_is_that_since_there_was_reason_to_ask() {
    let mut evidence = Evidence::default();
    (0..1_000).for_each(|_| evidence.begun());
    for _ in 0..2 {
        evidence.begun();
        evidence.failed();
    }
    assert!(evidence.is_alarm());
    assert!(evidence.share() > 0.9, "{evidence:?}");
    evidence.alarm_is_over();
    assert!(evidence.share().abs() < f64::EPSILON && !evidence.is_alarm());
}

#[test]
fn a_restart_keeps_what_can_be() {
    let known = tested(0.25).restored();
    assert!((known.noise() - 0.25).abs() < 1e-9);
    for broken in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        let mut evidence = Evidence {
            noise: broken,
            tested: broken,
            excess: broken,
            attempts: broken,
            failures: broken,
        }
        .restored();
        for _ in 0..100 {
            evidence.begun();
            evidence.failed();
            let numbers = [evidence.noise(), evidence.share(), evidence.excess];
            assert!(
                numbers.iter().all(|number| number.is_finite() && *number >= 0.0),
                "{evidence:?}"
            );
        }
    }
}
