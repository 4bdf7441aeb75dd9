//! A pool in static mode: the plain limits hold, and nothing that happens changes what was learned before.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use proptest::prelude::*;
use relaypool_api::reply::{Phase, Reply, ReplyCode};
use relaypool_bounce::{Reading, Verdict, classify};
use relaypool_shaping::pacer::{AdaptiveLimits, Grant, Pacer, PacerLimits, Sending};

const CONNECTIONS: u32 = 40;

fn limits(adaptive: bool) -> PacerLimits {
    PacerLimits {
        connections: CONNECTIONS,
        messages_per_connection: 100,
        rate: None,
        share: None,
        adaptive: adaptive.then(AdaptiveLimits::default),
    }
}

fn too_many() -> Verdict {
    let reply = Reply {
        code: ReplyCode::try_from(421).unwrap(),
        enhanced: "4.3.2".parse().ok(),
        text: "try again later".to_owned(),
    };
    classify(&Reading::new(Phase::Greeting, &reply))
}

/// Sends with a provider that bears `limit` connections for some seconds: opens all it may, each message takes a second.
fn send(pacer: &mut Pacer, start: Duration, seconds: u64, limit: u32) -> Duration {
    let too_many = too_many();
    let mut now = start;
    for _ in 0..seconds {
        let mut open = Vec::new();
        while pacer.may_open(now) == Grant::Now && pacer.may_send(now) == Grant::Now && open.len() < 100 {
            pacer.opened(now);
            let sending = Sending {
                new_connection: true,
                attempt: 1,
                first_refused: None,
            };
            open.push(pacer.sent(now, sending));
        }
        now += Duration::from_millis(50);
        let (taken, refused) = open.split_at(open.len().min(limit as usize));
        for sent in refused {
            pacer.feedback(now, *sent, &too_many);
            pacer.closed(now);
        }
        now += Duration::from_millis(950);
        for sent in taken {
            pacer.accepted(now, *sent);
            pacer.closed(now);
        }
    }
    now
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_was_learned_waits_while_the_mode_is_static(
        limit in 2_u32..20,
        other_limit in 1_u32..40,
        learning in 20_u64..120,
        seconds in 1_u64..60,
    ) {
        let mut pacer = Pacer::new(limits(true));
        let now = send(&mut pacer, Duration::from_secs(1_000), learning, limit);
        let learned = pacer.connection_limit();
        prop_assert!(learned < CONNECTIONS);

        pacer.limits_changed(now, limits(false));
        prop_assert_eq!(pacer.connection_limit(), CONNECTIONS, "the plain limit, at once");
        let now = send(&mut pacer, now, seconds, other_limit);
        prop_assert_eq!(pacer.connection_limit(), CONNECTIONS, "whatever is refused");

        pacer.limits_changed(now, limits(true));
        prop_assert_eq!(pacer.connection_limit(), learned, "what was learned before");
    }
}
