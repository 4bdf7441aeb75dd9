use super::*;

/// Counts attempts of a stage of which `failed` fail and `slow` are slow. What the last of them shows.
fn stage(recovery: &mut Recovery, failed: u32, slow: u32) -> Finding {
    let mut finding = Finding::Pending;
    for attempt in 0..STAGE {
        assert_eq!(finding, Finding::Pending, "nothing is known before the end of a stage");
        let outcome = if attempt < failed {
            Outcome::Failed
        } else if attempt < failed + slow {
            Outcome::Slow
        } else {
            Outcome::Good
        };
        finding = recovery.count(outcome);
    }
    finding
}

#[test]
fn what_helps_at_once_helps() {
    for (before, noise, failed) in [(1.0, 0.0, 0), (1.0, 0.0, 1), (0.5, 0.0, 1), (0.8, 0.2, 2)] {
        let mut recovery = Recovery::new(before, noise);
        let finding = stage(&mut recovery, failed, 0);
        assert_eq!(finding, Finding::Helped, "{before} before, {failed} of {STAGE} left");
    }
}

#[test]
fn what_does_not_help_is_tried_slower_and_is_noise_then() {
    for (before, failed) in [(0.3, 3), (0.5, 5), (0.5, 6)] {
        let mut recovery = Recovery::new(before, 0.0);
        assert_eq!(stage(&mut recovery, failed, 0), Finding::Slower);
        let Finding::Noise { failing, slow } = stage(&mut recovery, failed, 0) else {
            panic!("{failed} of {STAGE} at any speed is noise");
        };
        assert!((failing - f64::from(failed) / f64::from(STAGE)).abs() < 1e-9);
        assert!(slow.abs() < 1e-9);
    }
}

#[test]
fn a_slower_stage_that_goes_well_helps() {
    let mut recovery = Recovery::new(1.0, 0.0);
    assert_eq!(stage(&mut recovery, 3, 0), Finding::Slower);
    assert_eq!(stage(&mut recovery, 0, 0), Finding::Helped);
}

#[test]
fn a_limit_far_below_is_looked_for_in_a_few_stages() {
    let mut recovery = Recovery::new(1.0, 0.0);
    for number in 1..STAGES {
        assert_eq!(stage(&mut recovery, 10, 0), Finding::Slower, "stage {number}");
    }
    assert!(matches!(stage(&mut recovery, 10, 0), Finding::Noise { .. }));
    // Not where the host knows the recipient before it refuses.
    let mut recovery = Recovery::new(1.0, 0.0);
    recovery.failed_at(true);
    assert_eq!(stage(&mut recovery, 10, 0), Finding::Slower);
    assert!(matches!(stage(&mut recovery, 10, 0), Finding::Noise { .. }));
}

#[test]
fn what_is_slow_at_any_speed_is_no_reason_either() {
    let mut recovery = Recovery::new(1.0, 0.0);
    assert_eq!(stage(&mut recovery, 0, STAGE), Finding::Slower);
    let mut finding = stage(&mut recovery, 0, STAGE);
    while finding == Finding::Slower {
        finding = stage(&mut recovery, 0, STAGE);
    }
    let Finding::Noise { failing, slow } = finding else {
        panic!("{finding:?}");
    };
    assert!(failing.abs() < 1e-9 && (slow - 1.0).abs() < 1e-9);
}

#[test]
fn three_failures_in_a_row_are_hopeless() {
    let mut recovery = Recovery::new(1.0, 0.0);
    for (outcome, is_hopeless) in [
        (Outcome::Failed, false),
        (Outcome::Failed, false),
        (Outcome::Good, false),
        (Outcome::Failed, false),
        (Outcome::Failed, false),
        (Outcome::Failed, true),
        (Outcome::Slow, false),
    ] {
        recovery.count(outcome);
        assert_eq!(recovery.is_hopeless(), is_hopeless);
    }
}
