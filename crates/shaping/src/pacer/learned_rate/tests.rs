use super::*;

const START: Duration = Duration::from_secs(1_000);

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A site with a token bucket, and a lane that has always more to send. Replies come at once.
struct Site {
    learned: LearnedRate,
    now: Duration,
    rate: f64,
    burst: f64,
    tokens: f64,
    /// Share of the messages that is refused whatever the rate.
    noise: f64,
    chance: u64,
    taken: u64,
    accepted: u32,
    refused: u32,
}

impl Site {
    /// Refuses by a rate, met by a lane that begins at `guess`.
    fn new(rate: f64, burst: f64, guess: f64) -> Self {
        let mut learned = LearnedRate::default();
        learned.begin(START, guess);
        Self {
            learned,
            now: START,
            rate,
            burst,
            tokens: burst,
            noise: 0.0,
            chance: 1,
            taken: 0,
            accepted: 0,
            refused: 0,
        }
    }

    fn is_noise(&mut self) -> bool {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.chance >> 33) as f64 / (1_u64 << 31) as f64) < self.noise
    }

    /// A message, as soon as the lane lets it go. Without a learned rate, a hundred a second.
    fn send(&mut self) {
        let before = self.now;
        while let Some(at) = self.learned.next(self.now, None) {
            assert!(at > self.now);
            self.now = at;
        }
        if self.learned.rate().is_none() {
            self.now += seconds(0.01);
        }
        self.learned.take(self.now, None);
        self.tokens = (self.tokens + (self.now - before).as_secs_f64() * self.rate).min(self.burst);
        if self.tokens >= 1.0 && !self.is_noise() {
            self.tokens -= 1.0;
            self.taken += 1;
            self.accepted += 1;
            self.learned.accepted(self.now, self.noise);
        } else {
            self.refused += 1;
            self.learned.refused(self.now, self.now, self.taken, self.noise);
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        (self.accepted, self.refused) = (0, 0);
        while self.now < end {
            self.send();
        }
    }
}

/// A rate that is held and has held messages back.
fn held(rate: f64) -> LearnedRate {
    let mut learned = LearnedRate::default();
    learned.settle(START, rate / MARGIN);
    learned.cap.as_mut().unwrap().has_bound = true;
    learned
}

#[test]
fn messages_are_spread_over_the_time() {
    for rate in [0.1, 1.0, 7.0, 50.0] {
        let mut learned = LearnedRate::default();
        learned.begin(START, rate);
        let mut now = START;
        for _ in 0..100 {
            while let Some(at) = learned.next(now, None) {
                now = at;
            }
            learned.take(now, None);
        }
        let took = (now - START).as_secs_f64() * rate;
        assert!((96.0..=99.01).contains(&took), "{rate}: {took}");
    }
}

#[test]
fn a_rate_is_measured_from_one_refusal_to_the_next() {
    for (messages, time, expected) in [
        (100, seconds(10.0), Some(10.0)),
        (10, seconds(100.0), Some(0.1)),
        // Too few, too long, or no time at all.
        (9, seconds(1.0), None),
        (5_000, seconds(86_400.0), None),
        (100, Duration::ZERO, None),
    ] {
        let mut learned = LearnedRate::default();
        learned.mark(START, 1_000);
        let measured = learned.measure(START + time, 1_000 + messages);
        assert_eq!(measured, expected, "{messages} in {time:?}");
        learned.forget_mark();
        assert_eq!(learned.measure(START + time, 1_000 + messages), None);
    }
    let mut learned = LearnedRate::default();
    learned.mark(START, 1_000);
    assert_eq!(learned.measure(START - seconds(1.0), 1_100), None, "refused before");
    assert_eq!(learned.measure(START + seconds(1.0), 900), None, "counted anew");
}

#[test]
fn a_burst_that_was_allowed_before_does_not_count() {
    // 500 at once, 2/s in the long run: first a refusal when the burst is used up, then another.
    let mut learned = held(10.0);
    learned.mark(START, 500);
    learned.cap.as_mut().unwrap().borne = 0.1;
    learned.cap.as_mut().unwrap().excess = 100.0;
    let refused = learned.refused(START + seconds(30.0), START + seconds(30.0), 560, 0.0);
    assert_eq!(refused, Refused::Cut);
    let rate = learned.rate().unwrap();
    // A quarter of what it was at most, in one step.
    assert!((rate - 2.5).abs() < 0.01, "{rate}");
}

#[test]
fn the_rate_of_a_site_is_found_and_held_with_few_refusals() {
    for (rate, burst) in [(0.5, 1.0), (0.5, 30.0), (10.0, 20.0), (10.0, 200.0), (80.0, 5.0)] {
        for guess in [rate / 5.0, rate * 3.0] {
            let mut site = Site::new(rate, burst, guess);
            site.run(seconds(1_800.0));
            site.run(seconds(7_200.0));
            let case = format!("{rate}/s burst {burst} guessed {guess}: {:?}", site.learned);
            let used = f64::from(site.accepted) / (7_200.0 * rate);
            assert!(used > 0.8, "{used} used: {case}");
            let refused = f64::from(site.refused) / f64::from(site.refused + site.accepted);
            assert!(refused < 0.02, "{refused} refused: {case}");
        }
    }
}

#[test]
fn noise_costs_little() {
    for noise in [0.02, 0.1, 0.3] {
        let mut site = Site::new(10.0, 20.0, 5.0);
        site.noise = noise;
        site.run(seconds(1_800.0));
        site.run(seconds(7_200.0));
        let used = f64::from(site.accepted) / (7_200.0 * 10.0);
        assert!(used > 0.7, "{noise}: {used} used: {:?}", site.learned);
    }
}

#[test]
fn a_quota_is_spread_over_an_hour_and_not_over_a_day() {
    // An hour's quota behaves like a bucket that is filled slowly: its rate is learned.
    let mut hourly = Site::new(600.0 / 3_600.0, 100.0, 1.0);
    hourly.run(seconds(7_200.0));
    let rate = hourly.learned.rate().unwrap();
    assert!((0.1..0.2).contains(&rate), "{rate}");
    // Between the refusals of two days nothing is measured.
    let mut daily = held(4.0);
    daily.mark(START, 5_000);
    let next_day = START + seconds(86_400.0);
    assert_eq!(daily.measure(next_day, 10_000), None);
}

#[test]
fn the_rate_stays_a_little_below_what_is_borne() {
    for (measured, borne, now, expected) in [
        (10.0, 1.0, 12.0, 10.0 * MARGIN),
        // A measurement over a pause is too low, and is not believed.
        (1.0, 10.0, 12.0, 10.0 * LEAST_OF_BORNE),
        // One that is above the rate in force cannot be.
        (20.0, 12.0, 12.0, 12.0 * MARGIN),
    ] {
        let mut learned = held(now);
        learned.mark(START, 0);
        let cap = learned.cap.as_mut().unwrap();
        (cap.borne, cap.excess) = (borne, 100.0);
        let at = START + seconds(100.0);
        assert_eq!(learned.refused(at, at, (measured * 100.0) as u64, 0.0), Refused::Cut);
        let rate = learned.rate().unwrap();
        assert!((rate - expected).abs() < 0.02, "{measured}, {borne}: {rate}");
    }
}

#[test]
fn refusals_that_the_rate_is_not_about_change_nothing() {
    let mut learned = LearnedRate::default();
    assert_eq!(learned.refused(START, START, 0, 0.0), Refused::NotMine);
    learned.begin(START, 10.0);
    assert_eq!(
        learned.refused(START, START, 0, 0.0),
        Refused::NotMine,
        "it held nothing back"
    );
    let mut learned = held(10.0);
    assert_eq!(
        learned.refused(START, START, 0, 0.0),
        Refused::Accident,
        "one is chance"
    );
    assert_eq!(learned.refused(START, START, 0, 0.0), Refused::Cut, "two are not");
    let mut learned = held(10.0);
    assert_eq!(learned.refused(START, START, 0, 0.0), Refused::Accident);
    (0..200).for_each(|_| learned.accepted(START, 0.0));
    learned.cap.as_mut().unwrap().has_bound = true;
    learned.cap.as_mut().unwrap().course = Course::Hold;
    assert_eq!(learned.refused(START, START, 0, 0.0), Refused::Accident, "long after");
}

#[test]
fn a_rate_that_is_raised_is_found() {
    let mut site = Site::new(5.0, 20.0, 2.0);
    site.run(seconds(1_800.0));
    (site.rate, site.burst) = (40.0, 100.0);
    site.run(seconds(3_600.0));
    site.run(seconds(1_800.0));
    let used = f64::from(site.accepted) / (1_800.0 * 40.0);
    assert!(used > 0.85, "{used}: {:?}", site.learned);
}

#[test]
fn a_rate_that_is_lowered_is_found() {
    let mut site = Site::new(40.0, 20.0, 20.0);
    site.run(seconds(1_800.0));
    site.rate = 2.0;
    site.run(seconds(300.0));
    site.run(seconds(1_800.0));
    let refused = f64::from(site.refused) / f64::from(site.refused + site.accepted);
    assert!(refused < 0.03, "{refused}: {:?}", site.learned);
    let used = f64::from(site.accepted) / (1_800.0 * 2.0);
    assert!(used > 0.85, "{used}: {:?}", site.learned);
}

#[test]
fn a_rate_that_holds_nothing_back_is_forgotten() {
    let mut learned = LearnedRate::default();
    learned.begin(START, 10.0);
    for message in 0..RAMP_RUN {
        let now = START + seconds(f64::from(message));
        assert_eq!(learned.next(now, None), None);
        learned.take(now, None);
        learned.accepted(now, 0.0);
    }
    assert_eq!(learned.rate(), None);
}

#[test]
fn the_least_rate_is_kept() {
    let wait = |learned: &mut LearnedRate, now| learned.next(now, Some(2.0)).map(|at| at - now);
    let mut learned = LearnedRate::default();
    learned.begin(START, 0.01);
    let mut now = START;
    for _ in 0..10 {
        now += wait(&mut learned, now).unwrap_or_default();
        learned.take(now, Some(2.0));
        assert!(wait(&mut learned, now).unwrap_or_default() <= seconds(0.5));
    }
    // Nor is there a long pause after a cut.
    let mut learned = held(0.01);
    learned.cap.as_mut().unwrap().excess = 100.0;
    assert_eq!(learned.refused(START, START, 0, 0.0), Refused::Cut);
    assert!(learned.next(START, None).unwrap() > START + seconds(30.0));
    let paused = wait(&mut learned, START).unwrap_or_default();
    assert!(paused <= seconds(1.5), "{paused:?}");
}

#[test]
fn no_rate_is_out_of_bounds() {
    for rate in [0.0, 1e-300, -1.0, 1e300, f64::INFINITY] {
        let mut learned = LearnedRate::default();
        learned.begin(START, rate);
        let learned_rate = learned.rate().unwrap();
        assert!((LEAST..=MOST).contains(&learned_rate), "{rate}");
        learned.settle(START, rate);
        assert!((LEAST..=MOST).contains(&learned.rate().unwrap()), "{rate}");
    }
    let mut learned = held(LEAST);
    for _ in 0..100 {
        let cap = learned.cap.as_mut().unwrap();
        (cap.has_bound, cap.excess) = (true, 100.0);
        learned.refused(START, START, 0, 0.0);
        assert!(learned.rate().unwrap() >= LEAST);
    }
}

#[test]
fn a_restart_keeps_the_rate_and_measures_anew() {
    let mut learned = held(10.0);
    learned.mark(START, 100);
    learned.cap.as_mut().unwrap().due = Duration::MAX;
    let mut kept = learned.restored(START);
    assert_eq!(kept.rate(), Some(10.0));
    assert_eq!(kept.measure(START + seconds(10.0), 200), None);
    assert!(kept.next(START, None).is_none_or(|at| at <= START + seconds(0.1)));

    let mut guess = LearnedRate::default();
    guess.begin(START, 0.03);
    let guess = guess.restored(START);
    assert_eq!(guess.cap.unwrap().course, Course::Ramp, "a first guess is left quickly");

    for rate in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
        let mut broken = held(10.0);
        broken.cap.as_mut().unwrap().rate = rate;
        assert_eq!(broken.restored(START).rate(), None, "{rate}");
    }
}
