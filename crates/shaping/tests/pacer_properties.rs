//! What holds whatever happens.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use proptest::prelude::*;
use relaypool_api::Rate;
use relaypool_api::reply::{EnhancedCode, Phase, Reply, ReplyCode};
use relaypool_api::sending_ip::{Binds, LaneState};
use relaypool_bounce::{Failure, Reading, Verdict, classify, classify_failure};
use relaypool_shaping::pacer::{AdaptiveLimits, Grant, Pacer, PacerLimits, Sending, Sent, Share};

/// Something that happens to a lane.
#[derive(Debug, Clone)]
enum Event {
    Wait(Duration),
    Open,
    Send,
    Unused,
    Accepted,
    Refused(Verdict),
    Closed,
    Suspend(Duration),
    Restart,
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
        reply.prop_map(move |(code, subject, detail, text, phase)| {
            let class = if code < 500 { 4 } else { 5 };
            let reply = Reply {
                code: ReplyCode::try_from(code).unwrap(),
                enhanced: Some(EnhancedCode { class, subject, detail }),
                text: texts[text].to_owned(),
            };
            classify(&Reading::new(phases[phase], &reply))
        }),
        Just(classify_failure(Failure::ConnectRefused)),
        Just(classify_failure(Failure::ConnectionLost(Phase::RcptTo))),
        Just(classify_failure(Failure::NullMx)),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0_u64..20_000).prop_map(|millis| Event::Wait(Duration::from_millis(millis))),
        1 => (0_u64..20_000).prop_map(|seconds| Event::Wait(Duration::from_secs(seconds))),
        6 => Just(Event::Open),
        8 => Just(Event::Send),
        1 => Just(Event::Unused),
        4 => Just(Event::Accepted),
        4 => verdict().prop_map(Event::Refused),
        4 => Just(Event::Closed),
        1 => (0_u64..100_000).prop_map(|seconds| Event::Suspend(Duration::from_secs(seconds))),
        1 => Just(Event::Restart),
    ]
}

fn rate() -> impl Strategy<Value = Option<Rate>> {
    proptest::option::of(
        (1_u64..200, 0_usize..3)
            .prop_map(|(messages, unit)| format!("{messages}/{}", ["s", "m", "h"][unit]).parse().unwrap()),
    )
}

prop_compose! {
    fn limits()(
        connections in 1_u32..30,
        rate in rate(),
        share in proptest::option::of((1_u32..10, rate())),
        adaptive in proptest::option::of((proptest::option::of(1_u32..40), proptest::option::of(1_u32..40), rate())),
    ) -> PacerLimits {
        PacerLimits {
            connections,
            messages_per_connection: 10,
            rate,
            share: share.map(|(connections, rate)| Share { connections, rate }),
            adaptive: adaptive.map(|(min_connections, max_connections, max_rate)| AdaptiveLimits { min_rate: None, min_connections, max_connections, max_rate }),
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

fn rates(limits: &PacerLimits) -> impl Iterator<Item = Rate> {
    [
        limits.rate,
        limits.share.as_ref().and_then(|share| share.rate),
        limits.adaptive.as_ref().and_then(|adaptive| adaptive.max_rate),
    ]
    .into_iter()
    .flatten()
}

/// A lane as its caller sees it: does only what the pacer grants.
struct Lane {
    pacer: Pacer,
    limits: PacerLimits,
    now: Duration,
    open: u32,
    on_their_way: u32,
    sent: Vec<Duration>,
}

impl Lane {
    fn new(limits: PacerLimits) -> Self {
        Self {
            pacer: Pacer::new(limits.clone()),
            limits,
            now: Duration::from_secs(1_800_000_000),
            open: 0,
            on_their_way: 0,
            sent: Vec::new(),
        }
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Wait(time) => self.now += time,
            Event::Open if self.may(Pacer::may_open) => {
                self.pacer.opened(now);
                self.open += 1;
            }
            Event::Send if self.on_their_way < self.open && self.may(Pacer::may_send) => {
                self.pacer.sent(now, FIRST);
                self.sent.push(now);
                self.on_their_way += 1;
            }
            Event::Unused if self.on_their_way > 0 => {
                self.pacer.unused(note());
                self.on_their_way -= 1;
            }
            Event::Accepted if self.on_their_way > 0 => {
                self.pacer.accepted(now, note());
                self.on_their_way -= 1;
            }
            Event::Refused(verdict) if self.open > 0 => {
                self.pacer.feedback(now, note(), &verdict);
                self.on_their_way = self.on_their_way.saturating_sub(1);
            }
            Event::Closed if self.open > 0 => {
                self.open -= 1;
                self.on_their_way = self.on_their_way.min(self.open);
                self.pacer.closed(now);
            }
            Event::Suspend(time) => self.pacer.suspend(now, now + time),
            Event::Restart => {
                self.pacer = Pacer::restore(self.limits.clone(), self.pacer.snapshot(), now);
                (self.open, self.on_their_way) = (0, 0);
            }
            _ => {}
        }
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
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hard_limits_are_never_exceeded(limits in limits(), events in proptest::collection::vec(event(), 1..400)) {
        let most = hard_connections(&limits);
        let mut lane = Lane::new(limits);
        for event in events {
            lane.happen(event);
            prop_assert!(lane.open <= most);
            prop_assert!(lane.pacer.connection_limit() <= most);
        }
        for rate in rates(&lane.limits) {
            let unit = Duration::from_secs(rate.unit().seconds());
            for (number, at) in lane.sent.iter().enumerate() {
                let within = lane.sent[number..].iter().take_while(|later| **later - *at < unit).count();
                prop_assert!(within as u64 <= rate.messages(), "{} in a span of {}", within, rate);
            }
        }
    }

    #[test]
    fn a_lane_whose_probes_are_accepted_sends_again(limits in limits(), events in proptest::collection::vec(event(), 1..200)) {
        let mut lane = Lane::new(limits);
        for event in events {
            lane.happen(event);
        }
        while lane.open > 0 {
            lane.happen(Event::Closed);
        }
        for _ in 0..20 {
            prop_assert!(lane.wait_for(Pacer::may_open), "no connection: {:?}", lane.pacer);
            lane.happen(Event::Open);
            prop_assert!(lane.wait_for(Pacer::may_send), "no message: {:?}", lane.pacer);
            lane.happen(Event::Send);
            lane.happen(Event::Accepted);
            lane.happen(Event::Closed);
        }
        prop_assert_eq!(lane.pacer.suspended_until(lane.now), None);
        prop_assert!(lane.pacer.state(lane.now) != LaneState::Suspended);
        prop_assert!(lane.pacer.binds(lane.now) != Binds::Suspended);
    }

    #[test]
    fn what_binds_fits_the_state(limits in limits(), events in proptest::collection::vec(event(), 1..200)) {
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
}

const FIRST: Sending = Sending {
    new_connection: true,
    attempt: 1,
    first_refused: None,
};

fn note() -> Sent {
    let limits = PacerLimits {
        connections: 1,
        messages_per_connection: 1,
        rate: None,
        share: None,
        adaptive: None,
    };
    Pacer::new(limits).sent(Duration::ZERO, FIRST)
}
