//! What holds whatever happens.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::VecDeque;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use relaypool_api::Rate;
use relaypool_api::reply::{EnhancedCode, Phase, Reply, ReplyCode};
use relaypool_api::sending_ip::{Binds, LaneState};
use relaypool_bounce::{Failure, Reading, Verdict, classify, classify_failure};
use relaypool_shaping::pacer::{AdaptiveLimits, Grant, Pacer, PacerLimits, Sending, Sent, Share, Snapshot};
use relaypool_shaping::retry::{NextAttempt, RetrySchedule};

/// Something that happens to a lane.
#[derive(Debug, Clone)]
enum Event {
    Wait(Duration),
    /// The clock of the machine is set back.
    SetBack(Duration),
    /// A connection for a message: a stranger, or one that was refused some seconds ago.
    Open {
        attempt: u32,
        refused_before: u64,
    },
    /// Another message on an open connection.
    Send,
    /// The outcome of one of the messages on their way.
    Unused(usize),
    Accepted(usize),
    Refused(usize, Verdict),
    /// A connection goes, and with it what had no outcome.
    Lost,
    Suspend(Duration),
    Restart,
    LimitsChanged(PacerLimits),
}

fn verdict() -> impl Strategy<Value = Verdict> {
    let texts = [
        "try again later",
        "too many connections",
        "try again in 10 minutes",
        "on our block list",
        "greylisted",
        "no such user",
    ];
    let phases = [Phase::Greeting, Phase::MailFrom, Phase::RcptTo, Phase::EndOfData];
    let reply = (
        prop_oneof![Just(421_u16), 450_u16..455, 550_u16..555],
        0_u16..8,
        0_u16..30,
        0..texts.len(),
        0..phases.len(),
    );
    prop_oneof![
        3 => reply.prop_map(move |(code, subject, detail, text, phase)| {
            let class = if code < 500 { 4 } else { 5 };
            let reply = Reply {
                code: ReplyCode::try_from(code).unwrap(),
                enhanced: Some(EnhancedCode { class, subject, detail }),
                text: texts[text].to_owned(),
            };
            classify(&Reading::new(phases[phase], &reply))
        }),
        3 => Just(busy()),
        1 => Just(classify_failure(Failure::ConnectRefused)),
        1 => Just(classify_failure(Failure::ConnectionLost(Phase::RcptTo))),
        1 => Just(classify_failure(Failure::NullMx)),
    ]
}

fn busy() -> Verdict {
    let reply = Reply {
        code: ReplyCode::try_from(421).unwrap(),
        enhanced: "4.3.2".parse().ok(),
        text: "try again later".to_owned(),
    };
    classify(&Reading::new(Phase::Greeting, &reply))
}

fn event(limits: impl Strategy<Value = PacerLimits> + 'static) -> impl Strategy<Value = Event> {
    prop_oneof![
        30 => (0_u64..3_000).prop_map(|millis| Event::Wait(Duration::from_millis(millis))),
        8 => (0_u64..20_000).prop_map(|seconds| Event::Wait(Duration::from_secs(seconds))),
        1 => (0_u64..4_000).prop_map(|seconds| Event::SetBack(Duration::from_secs(seconds))),
        80 => (1_u32..4, 0_u64..4_000).prop_map(|(attempt, refused_before)| Event::Open { attempt, refused_before }),
        20 => Just(Event::Send),
        4 => (0_usize..20).prop_map(Event::Unused),
        60 => (0_usize..20).prop_map(Event::Accepted),
        40 => (0_usize..20, verdict()).prop_map(|(message, verdict)| Event::Refused(message, verdict)),
        4 => Just(Event::Lost),
        1 => (0_u64..100_000).prop_map(|seconds| Event::Suspend(Duration::from_secs(seconds))),
        3 => Just(Event::Restart),
        3 => limits.prop_map(Event::LimitsChanged),
    ]
}

fn rate() -> impl Strategy<Value = Option<Rate>> {
    proptest::option::of(
        (1_u64..200, 0_usize..3)
            .prop_map(|(messages, unit)| format!("{messages}/{}", ["s", "m", "h"][unit]).parse().unwrap()),
    )
}

fn some_connections() -> impl Strategy<Value = Option<u32>> {
    proptest::option::of(1_u32..40)
}

prop_compose! {
    fn limits()(
        connections in 1_u32..30,
        rate in rate(),
        share in proptest::option::of((1_u32..10, rate())),
        adaptive in proptest::option::weighted(0.8, (rate(), some_connections(), some_connections(), rate())),
    ) -> PacerLimits {
        PacerLimits {
            connections,
            messages_per_connection: 10,
            rate,
            share: share.map(|(connections, rate)| Share { connections, rate }),
            adaptive: adaptive.map(|(min_rate, min_connections, max_connections, max_rate)| {
                AdaptiveLimits { min_rate, min_connections, max_connections, max_rate }
            }),
        }
    }
}

prop_compose! {
    /// Only what is learned is in the way.
    fn learning_only()(min_rate in rate(), min_connections in some_connections()) -> PacerLimits {
        PacerLimits {
            connections: 40,
            messages_per_connection: 10,
            rate: None,
            share: None,
            adaptive: Some(AdaptiveLimits { min_rate, min_connections, ..AdaptiveLimits::default() }),
        }
    }
}

fn hard_connections(limits: &PacerLimits) -> u32 {
    let adaptive = limits.adaptive.as_ref().and_then(|adaptive| adaptive.max_connections);
    let share = limits.share.as_ref().map(|share| share.connections);
    limits
        .connections
        .min(adaptive.unwrap_or(u32::MAX))
        .min(share.unwrap_or(u32::MAX))
}

fn least_connections(limits: &PacerLimits) -> u32 {
    let least = limits.adaptive.as_ref().and_then(|adaptive| adaptive.min_connections);
    least.unwrap_or(1).min(hard_connections(limits))
}

fn rates(limits: &PacerLimits) -> impl Iterator<Item = Rate> {
    [
        limits.rate,
        limits.share.as_ref().and_then(|share| share.rate),
        limits.adaptive.as_ref().and_then(|adaptive| adaptive.max_rate),
    ]
    .into_iter()
    .flatten()
}

fn schedule() -> RetrySchedule {
    RetrySchedule::new(Duration::from_secs(60), Duration::from_secs(4 * 3_600))
}

/// A lane as its caller sees it: does only what the pacer grants.
struct Lane {
    pacer: Pacer,
    limits: PacerLimits,
    now: Duration,
    open: u32,
    on_their_way: Vec<Sent>,
    /// When messages were sent since the limits last changed.
    sent: Vec<Duration>,
}

impl Lane {
    fn new(limits: PacerLimits) -> Self {
        Self {
            pacer: Pacer::new(limits.clone()),
            limits,
            now: Duration::from_secs(1_800_000_000),
            open: 0,
            on_their_way: Vec::new(),
            sent: Vec::new(),
        }
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Wait(time) => self.now += time,
            Event::SetBack(time) => {
                self.now -= time;
                // Rates are those of the caller's clock.
                self.sent.clear();
            }
            Event::Open {
                attempt,
                refused_before,
            } if self.may(Pacer::may_open) && self.may(Pacer::may_send) => {
                self.pacer.opened(now);
                self.open += 1;
                self.send(Sending {
                    new_connection: true,
                    attempt,
                    first_refused: (attempt > 1).then(|| now - Duration::from_secs(refused_before)),
                });
            }
            Event::Send if self.on_their_way.len() < self.open as usize && self.may(Pacer::may_send) => {
                self.send(Sending {
                    new_connection: false,
                    attempt: 1,
                    first_refused: None,
                });
            }
            Event::Unused(message) => {
                if let Some(sent) = self.take(message) {
                    self.pacer.unused(sent);
                }
            }
            Event::Accepted(message) => {
                if let Some(sent) = self.take(message) {
                    self.pacer.accepted(now, sent);
                    self.close();
                }
            }
            Event::Refused(message, verdict) => {
                if let Some(sent) = self.take(message) {
                    self.refused(sent, &verdict);
                }
            }
            Event::Lost if self.open > 0 => {
                self.on_their_way.truncate(self.open as usize - 1);
                self.close();
            }
            Event::Suspend(time) => self.pacer.suspend(now, now + time),
            Event::Restart => {
                self.pacer = Pacer::restore(self.limits.clone(), self.kept(), now);
                self.open = 0;
                self.on_their_way.clear();
            }
            Event::LimitsChanged(limits) => {
                self.pacer.limits_changed(now, limits.clone());
                self.limits = limits;
                self.sent.clear();
            }
            _ => {}
        }
    }

    fn send(&mut self, sending: Sending) {
        self.on_their_way.push(self.pacer.sent(self.now, sending));
        self.sent.push(self.now);
    }

    fn take(&mut self, message: usize) -> Option<Sent> {
        let number = self.on_their_way.len();
        (number > 0).then(|| self.on_their_way.remove(message % number))
    }

    fn refused(&mut self, sent: Sent, verdict: &Verdict) {
        self.pacer.feedback(self.now, sent, verdict);
        if let NextAttempt::After(time) = self.pacer.next_attempt(self.now, sent, verdict, &schedule(), 3) {
            let longest = Duration::from_secs(86_400).mul_f64(1.1);
            assert!(
                time >= Duration::from_secs(1) && time <= longest,
                "{time:?}: {verdict:?}"
            );
        }
        self.close();
    }

    fn close(&mut self) {
        self.open -= 1;
        self.pacer.closed(self.now);
    }

    /// What a restart finds.
    fn kept(&self) -> Snapshot {
        let kept = serde_json::to_string(&self.pacer.snapshot()).unwrap();
        assert!(kept.len() < 2_048, "{} octets: {kept}", kept.len());
        serde_json::from_str(&kept).unwrap_or_else(|error| panic!("{error}: {kept}"))
    }

    fn may(&mut self, ask: impl Fn(&mut Pacer, Duration) -> Grant) -> bool {
        let grant = ask(&mut self.pacer, self.now);
        if let Grant::At(at) = grant {
            assert!(at > self.now, "a caller that asks again at {at:?} would spin");
        }
        grant == Grant::Now
    }

    /// Waits for permission as a caller does: until the moment it is told, if it is told one.
    fn wait_for(&mut self, ask: impl Fn(&mut Pacer, Duration) -> Grant) -> bool {
        for _ in 0..10 {
            match ask(&mut self.pacer, self.now) {
                Grant::Now => return true,
                Grant::At(at) => self.now = at,
                Grant::No => return false,
            }
        }
        false
    }

    /// Whether a message on a connection of its own may go.
    fn ask(&mut self) -> Grant {
        match self.pacer.may_open(self.now) {
            Grant::Now => self.pacer.may_send(self.now),
            held => held,
        }
    }

    fn close_all(&mut self) {
        while self.open > 0 {
            self.happen(Event::Lost);
        }
    }

    /// One message on a connection of its own, accepted at once. How long it had to wait, if it went at all.
    fn deliver(&mut self) -> Option<Duration> {
        let before = self.now;
        if !self.wait_for(Pacer::may_open) || !self.wait_for(Pacer::may_send) {
            return None;
        }
        self.happen(Event::Open {
            attempt: 1,
            refused_before: 0,
        });
        assert_eq!(self.on_their_way.len(), 1);
        self.happen(Event::Accepted(0));
        Some(self.now - before)
    }
}

/// Numbers of a snapshot replaced by others, as a broken disk or another version might.
fn broken(snapshot: &Snapshot, which: usize, value: f64) -> Option<Snapshot> {
    fn numbers<'a>(json: &'a mut serde_json::Value, found: &mut Vec<&'a mut serde_json::Value>) {
        match json {
            serde_json::Value::Number(_) => found.push(json),
            serde_json::Value::Array(values) => values.iter_mut().for_each(|value| numbers(value, found)),
            serde_json::Value::Object(fields) => fields.values_mut().for_each(|value| numbers(value, found)),
            _ => {}
        }
    }
    let mut json = serde_json::to_value(snapshot).unwrap();
    let mut found = Vec::new();
    numbers(&mut json, &mut found);
    let which = which % found.len();
    *found[which] = if value.fract() == 0.0 && value >= 0.0 {
        serde_json::json!(value as u64)
    } else {
        serde_json::json!(value)
    };
    serde_json::from_value(json).ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hard_limits_are_never_exceeded(limits in limits(), events in vec(event(limits()), 1..400)) {
        let mut lane = Lane::new(limits);
        for event in events {
            let open = lane.open;
            lane.happen(event);
            let most = hard_connections(&lane.limits);
            prop_assert!(lane.open <= open.max(most), "one was opened above {}", most);
            prop_assert!(lane.pacer.connection_limit() <= most);
            for rate in rates(&lane.limits) {
                let unit = Duration::from_secs(rate.unit().seconds());
                let within = lane.sent.iter().rev().take_while(|earlier| lane.now.saturating_sub(**earlier) < unit).count();
                prop_assert!(within as u64 <= rate.messages(), "{} in a span of {}", within, rate);
            }
        }
    }

    #[test]
    fn what_is_learned_stays_within_bounds(limits in limits(), events in vec(event(limits()), 1..400)) {
        let mut lane = Lane::new(limits);
        for event in events {
            lane.happen(event);
            if let Some(rate) = lane.pacer.learned_rate() {
                prop_assert!(rate.is_finite() && rate > 0.0, "{}", rate);
            }
            let least = least_connections(&lane.limits);
            prop_assert!(lane.pacer.connection_limit() >= least);
            if !lane.may(Pacer::may_open) && lane.pacer.binds(lane.now) == Binds::LearnedConnections {
                prop_assert!(lane.open >= least, "held back at {} by what was learned", lane.open);
            }
            let (cuts, undone) = lane.pacer.cuts();
            prop_assert!(undone <= cuts);
            lane.kept();
        }
    }

    #[test]
    fn a_lane_whose_probes_are_accepted_sends_again(limits in limits(), events in vec(event(limits()), 1..400)) {
        let mut lane = Lane::new(limits);
        for event in events {
            lane.happen(event);
        }
        lane.close_all();
        for _ in 0..20 {
            prop_assert!(lane.deliver().is_some(), "nothing goes: {:?}", lane.pacer);
        }
        prop_assert_eq!(lane.pacer.suspended_until(lane.now), None);
        prop_assert!(lane.pacer.state(lane.now) != LaneState::Suspended);
        prop_assert!(lane.pacer.binds(lane.now) != Binds::Suspended);
    }

    /// Not even right after: what was refused yesterday makes no message wait today.
    #[test]
    fn a_least_rate_is_kept(limits in learning_only(), events in vec(event(learning_only()), 1..400)) {
        let mut lane = Lane::new(limits);
        // A clock that is set back only makes it later.
        for event in events.into_iter().filter(|event| !matches!(event, Event::SetBack(_))) {
            lane.happen(event);
        }
        lane.close_all();
        // If there was a suspension, it is over then.
        prop_assert!(lane.deliver().is_some());
        let least = lane.limits.adaptive.as_ref().and_then(|adaptive| adaptive.min_rate);
        let longest = Duration::from_secs_f64(least.map_or(600.0, |least| 1.0 / least.per_second()));
        for _ in 0..20 {
            let waited = lane.deliver().unwrap();
            prop_assert!(waited <= longest + Duration::from_millis(1), "{:?} at a least rate of {:?}", waited, least);
        }
    }

    #[test]
    fn what_binds_fits_the_state(limits in limits(), events in vec(event(limits()), 1..200)) {
        let mut lane = Lane::new(limits);
        for event in events {
            lane.happen(event);
            let suspended = lane.pacer.suspended_until(lane.now).is_some();
            prop_assert_eq!(lane.pacer.state(lane.now) == LaneState::Suspended, suspended);
            if suspended {
                prop_assert_eq!(lane.pacer.binds(lane.now), Binds::Suspended);
                prop_assert!(!lane.may(Pacer::may_open) && !lane.may(Pacer::may_send));
            }
        }
    }

    #[test]
    fn a_broken_snapshot_does_no_harm(
        limits in limits(),
        events in vec(event(limits()), 1..200),
        which in 0_usize..1_000,
        value in prop_oneof![Just(0.0), Just(-1.0), Just(1e300), Just(1e18), Just(255.0), Just(4_294_967_295.0), Just(0.3), Just(1e-300)],
        later in vec(event(limits()), 1..200),
    ) {
        let mut lane = Lane::new(limits);
        for event in events {
            lane.happen(event);
        }
        if let Some(snapshot) = broken(&lane.pacer.snapshot(), which, value) {
            lane.pacer = Pacer::restore(lane.limits.clone(), snapshot, lane.now);
            lane.open = 0;
            lane.on_their_way.clear();
        }
        for event in later {
            lane.happen(event);
        }
        lane.close_all();
        for _ in 0..5 {
            prop_assert!(lane.deliver().is_some(), "nothing goes: {:?}", lane.pacer);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happened before, a lane that is always accepted reaches its limit. Learning goes by messages, not by time.
    #[test]
    fn a_lane_grows_to_its_limit(limits in learning_only(), events in vec(event(learning_only()), 1..400)) {
        let mut lane = Lane::new(limits);
        // A clock that is set back only makes it later.
        for event in events.into_iter().filter(|event| !matches!(event, Event::SetBack(_))) {
            // No transaction takes longer.
            if matches!(event, Event::Wait(time) if time > Duration::from_secs(600)) {
                lane.close_all();
            }
            lane.happen(event);
        }
        lane.close_all();
        prop_assert!(lane.deliver().is_some());
        let mut messages = 0;
        // A message takes a second.
        let mut ends = VecDeque::new();
        while lane.open < 40 {
            prop_assert!(messages < 20_000, "{} open: {:?}", lane.open, lane.pacer);
            let end = ends.front().copied().unwrap_or(Duration::MAX);
            match lane.ask() {
                Grant::Now => {
                    lane.happen(Event::Open { attempt: 1, refused_before: 0 });
                    ends.push_back(lane.now + Duration::from_secs(1));
                }
                Grant::At(at) if at < end => lane.now = at,
                Grant::At(_) | Grant::No => {
                    prop_assert!(end < Duration::MAX, "it stands still: {:?}", lane.pacer);
                    lane.now = end;
                    ends.pop_front();
                    lane.happen(Event::Accepted(0));
                    messages += 1;
                }
            }
        }
    }
}
