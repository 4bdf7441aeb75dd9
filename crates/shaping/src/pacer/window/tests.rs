use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A site that lets in `limit` connections, each message a second, and a lane that has always more.
struct Site {
    window: Window,
    now: Duration,
    limit: u32,
    /// When each attempt began, and as which of how many; oldest first.
    open: Vec<(Duration, u32, bool)>,
    accepted: u32,
    refused: u32,
    probes: Vec<Duration>,
}

impl Site {
    fn new(limit: u32) -> Self {
        Self {
            window: Window::default(),
            now: SECOND * 1_000,
            limit,
            open: Vec::new(),
            accepted: 0,
            refused: 0,
            probes: Vec::new(),
        }
    }

    /// A hundredth of a second: ends what is over, opens what may be opened.
    fn step(&mut self) {
        self.now += SECOND / 100;
        while self.open.first().is_some_and(|(began, ..)| self.now - *began >= SECOND) {
            let (_, connections, is_probe) = self.open.remove(0);
            self.window.open_now(self.open.len() as u32);
            if is_probe {
                self.window.probe_ended();
            }
            self.window.accepted(self.now, connections);
            self.accepted += 1;
        }
        while self.window.may_open(self.now, self.open.len() as u32).is_ok() {
            let connections = self.open.len() as u32 + 1;
            let is_probe = self.window.opened(self.now, connections, Some(SECOND));
            if is_probe {
                self.probes.push(self.now);
            }
            if connections <= self.limit {
                self.open.push((self.now, connections, is_probe));
                continue;
            }
            if is_probe {
                self.window.probe_ended();
            }
            self.window.failed(self.now, connections, 1);
            self.refused += 1;
        }
    }

    fn run(&mut self, seconds: u32) {
        (0..seconds * 100).for_each(|_| self.step());
    }
}

/// A window of this size, all of it proven.
fn proven(size: u32) -> Window {
    Window {
        size,
        proven: size,
        target: size + INITIAL,
        ..Window::default()
    }
}

#[test]
fn nothing_is_probed_before_the_first_size_is_proven() {
    let mut window = Window::default();
    for open in 0..INITIAL {
        assert_eq!(window.may_open(SECOND, open), Ok(()));
        assert!(!window.opened(SECOND, open + 1, None));
    }
    assert_eq!(window.may_open(SECOND, INITIAL), Err(None));
    for open in 1..INITIAL {
        window.accepted(SECOND, open);
        assert_eq!(window.may_open(SECOND, INITIAL), Err(None), "{open} are proven");
    }
    window.accepted(SECOND, INITIAL);
    assert_eq!(window.may_open(SECOND, INITIAL), Ok(()));
    assert!(window.opened(SECOND, INITIAL + 1, None));
}

#[test]
fn what_is_accepted_proves_the_connections_it_was_sent_with() {
    for (accepted, failed, expected) in [
        (0, 5, Failed::Cut),
        (4, 5, Failed::Cut),
        (5, 5, Failed::Proven),
        (5, 3, Failed::Proven),
        (5, 6, Failed::Cut),
        // A single connection is never one too many.
        (0, 1, Failed::Proven),
    ] {
        let mut window = Window::default();
        window.accepted(SECOND, accepted);
        assert_eq!(window.failed(SECOND, failed, 1), expected, "{failed} after {accepted}");
    }
}

#[test]
fn in_noise_it_takes_several_failures_in_a_row() {
    let mut window = proven(8);
    for certain in [2, 3] {
        for _ in 1..certain {
            assert_eq!(window.failed(SECOND, 9, certain), Failed::Perhaps);
        }
        window.accepted(SECOND, 9 + certain);
        assert_eq!(
            window.failed(SECOND, 20, certain),
            Failed::Perhaps,
            "an acceptance ended the row"
        );
        window = proven(8);
    }
    assert_eq!(window.failed(SECOND, 9, 2), Failed::Perhaps);
    assert_eq!(window.failed(SECOND, 9, 2), Failed::Cut);
    assert_eq!(window.size(), 8);
}

#[test]
fn probes_are_spread_over_the_time_of_a_message() {
    let mut window = proven(10);
    let mut now = SECOND * 100;
    let mut times = Vec::new();
    for open in 10..10 + window.step {
        while let Err(Some(at)) = window.may_open(now, open) {
            assert!(at > now);
            now = at;
        }
        assert_eq!(window.may_open(now, open), Ok(()));
        assert!(window.opened(now, open + 1, Some(SECOND)));
        times.push(now);
    }
    let took = times[times.len() - 1] - times[0];
    assert!(took >= SECOND / 2 && took <= SECOND, "{took:?}");
    assert_eq!(
        window.may_open(now + SECOND, window.limit()),
        Err(None),
        "no more than the step"
    );
}

#[test]
fn steps_double_as_long_as_they_are_borne() {
    let mut window = proven(INITIAL);
    let mut limits = vec![window.limit()];
    for open in INITIAL + 1..1_000 {
        window.accepted(SECOND, open);
        assert!(window.size() == open && window.step <= open, "{window:?}");
        if window.size() == limits[limits.len() - 1] {
            limits.push(window.limit());
        }
    }
    let doubled: Vec<u32> = (1..=8).map(|power| INITIAL << power).collect();
    assert!(limits.starts_with(&[10, 20, 40]), "{limits:?}");
    assert_eq!(limits[..doubled.len()], doubled[..]);
}

#[test]
fn a_lane_without_a_limit_grows_as_fast_as_its_messages_end() {
    let mut site = Site::new(u32::MAX);
    let mut sizes = Vec::new();
    for _ in 0..60 {
        site.run(1);
        sizes.push(site.window.size());
    }
    assert!(sizes.is_sorted() && sizes[59] >= INITIAL + 55, "{sizes:?}");
    assert_eq!(site.refused, 0);
}

#[test]
fn a_limit_is_held_at_the_cost_of_a_small_share() {
    for limit in [1, 2, 3, 5, 8, 13, 40, 100] {
        let mut site = Site::new(limit);
        site.run(3_600);
        let (accepted, refused) = (f64::from(site.accepted), f64::from(site.refused));
        assert!(
            refused / (accepted + refused) < 0.01,
            "{limit}: {refused} of {accepted}"
        );
        assert!(
            accepted > f64::from(limit) * 3_600.0 * 0.9,
            "{limit}: {accepted} got through"
        );
        assert!(site.open.len() as u32 <= limit);
    }
}

#[test]
fn a_limit_that_is_raised_is_found() {
    for limit in [1, 3, 20] {
        let mut site = Site::new(limit);
        site.run(600);
        site.limit = 200;
        site.run(1_800);
        assert!(
            site.open.len() >= 190,
            "from {limit} to {} in half an hour",
            site.open.len()
        );
    }
}

#[test]
fn a_refused_probe_ends_probing_for_a_number_of_messages_and_a_time() {
    for (messages, seconds, is_over) in [
        (HOLDS[0].0, HOLDS[0].1, true),
        (HOLDS[0].0 - 1, HOLDS[0].1 + 100, false),
        (HOLDS[0].0 * 10, HOLDS[0].1 - 1, false),
        (0, LONGEST_HOLD.as_secs(), true),
    ] {
        let mut window = proven(10);
        assert_eq!(window.failed(SECOND, 11, 1), Failed::Cut);
        assert_eq!((window.size(), window.limit()), (10, 10));
        let now = SECOND + Duration::from_secs(seconds);
        (0..messages).for_each(|_| window.accepted(now, 10));
        let may = window.may_open(now, 10).is_ok();
        assert_eq!(may, is_over, "after {messages} messages and {seconds} s");
        if may {
            assert_eq!(window.limit(), 11, "a single probe");
        }
    }
}

#[test]
fn holds_become_longer_with_each_refusal() {
    let mut site = Site::new(8);
    site.run(600);
    let late = site.probes.iter().filter(|at| **at > SECOND * 1_060).count();
    let gaps: Vec<Duration> = site.probes.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps[gaps.len() - 1] >= SECOND * 60, "{gaps:?}");
    assert!(late < 12, "{late} probes in nine minutes");
}

#[test]
fn nothing_is_proven_in_doubt_and_all_is_after_an_undo() {
    let mut window = proven(30);
    let before = window.clone();
    assert!(window.opened(SECOND, 31, Some(SECOND)));
    window.doubt(SECOND);
    assert_eq!((window.size(), window.limit()), (30, 30));
    assert_eq!(window.failed(SECOND * 2, 20, 1), Failed::Cut);
    assert_eq!(window.size(), 19);

    window.undo(&before);
    assert_eq!((window.size(), window.proven, window.step), (30, 30, before.step));
    assert_eq!(window.probing, 1, "what is under way still is");
    window.probe_ended();
    assert_eq!(window.may_open(SECOND * 3, 30), Ok(()));
}

#[test]
fn connections_of_before_a_cut_do_not_stop_it_from_growing() {
    let mut window = proven(10);
    window.failed(SECOND, 11, 1);
    // They are still there when the site has more room, and carry a message each.
    window.size = 6;
    window.accepted(SECOND * 2, 10);
    let later = SECOND * 2 + LONGEST_HOLD;
    for open in 6..40 {
        while let Err(Some(_)) = window.may_open(later, open) {
            window.probe_at = later;
        }
        assert_eq!(window.may_open(later, open), Ok(()), "{open} open: {window:?}");
        if window.opened(later, open + 1, None) {
            window.probe_ended();
        }
        window.accepted(later, open + 1);
    }
}

#[test]
fn a_least_size_is_no_probe_and_never_cut() {
    let mut window = Window::default();
    window.at_least(12);
    assert_eq!(window.may_open(SECOND, 11), Ok(()));
    assert!(!window.opened(SECOND, 12, None));
    assert_eq!(window.failed(SECOND, 12, 1), Failed::Proven);
    assert_eq!(window.failed(SECOND, 13, 1), Failed::Cut);
    assert_eq!(window.size(), 12);
    window.undo(&Window::default());
    assert_eq!(window.size(), 12);
}

#[test]
fn a_restart_keeps_what_is_known_within_bounds() {
    let mut window = proven(10);
    window.failed(SECOND, 11, 1);
    let mut kept = window.clone().restored(SECOND * 2);
    assert_eq!((kept.size, kept.proven, kept.limit()), (10, 10, 10));
    assert_eq!(kept.may_open(SECOND * 2, 10), Err(None), "the hold goes on");

    let broken = Window {
        size: 0,
        proven: u32::MAX,
        step: u32::MAX,
        probing: 99,
        probe_at: Duration::MAX,
        target: 0,
        holds: u8::MAX,
        ..Window::default()
    };
    let mut restored = broken.restored(SECOND);
    assert!(restored.size >= 1 && restored.limit() <= 2 * LARGEST);
    assert_eq!(restored.may_open(SECOND, restored.size), Ok(()));
    restored.failed(SECOND, u32::MAX, 1);
}
