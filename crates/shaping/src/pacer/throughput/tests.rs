use super::*;

#[test]
fn the_rate_is_that_of_the_last_seconds() {
    for (per_second, seconds) in [(1.0, 60.0), (10.0, 3.0), (100.0, 1.0), (0.5, 100.0)] {
        let mut throughput = Throughput::default();
        let messages = (per_second * seconds) as u32;
        let mut now = Duration::from_secs(1_000);
        for _ in 0..messages {
            throughput.count(now);
            now += Duration::from_secs_f64(1.0 / per_second);
        }
        let rate = throughput.rate(now) / per_second;
        assert!((0.8..1.25).contains(&rate), "{per_second}/s for {seconds} s: {rate}");
        let later = throughput.rate(now + Duration::from_secs(120));
        assert!(later < per_second / 1_000.0, "{later} two minutes later");
    }
}

#[test]
fn nothing_is_no_rate() {
    assert!(Throughput::default().rate(Duration::from_secs(9)).abs() < f64::EPSILON);
}

#[test]
fn a_clock_that_is_set_back_does_no_harm() {
    let mut throughput = Throughput::default();
    (0..100).for_each(|second| throughput.count(Duration::from_secs(1_000 - second)));
    for second in [0, 900, 1_000, 2_000] {
        assert!(throughput.rate(Duration::from_secs(second)).is_finite());
    }
}
