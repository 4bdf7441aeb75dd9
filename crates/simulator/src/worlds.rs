//! Ready-made worlds.

use relaypool_api::{Domain, Duration, Rate};

use crate::description::{
    Answer, ConnectionLimit, Greylisting, MailboxRule, MessagesPerConnection, MxHost, Percent, Provider, RateLimit,
    ServiceTime, World, Zone,
};

/// The world of the demo: a generous provider, one that limits the rate, and one with dead and full mailboxes that
/// greylists.
///
/// Its times are short: two thousand messages spread evenly are through within a minute when the sender retries within
/// a few seconds. Only the full mailboxes stay full to the end.
pub fn demo_world() -> World {
    World {
        providers: vec![generous(), strict(), village()],
        zones: vec![Zone::NullMx {
            name: domain("nomail.example"),
        }],
    }
}

fn generous() -> Provider {
    let mut provider = Provider::new("generous", &domain("generous.example"));
    provider.domains.push(domain("lavish.example"));
    provider.mx_hosts = vec![
        host("mx1.generous.example", 10),
        host("mx2.generous.example", 10),
        host("mx3.generous.example", 20),
    ];
    provider.with(MessagesPerConnection::new(100)).with(service_time(20))
}

/// Says no to the sixth connection, and to more than forty messages a second.
fn strict() -> Provider {
    let rate: Rate = "40/s".parse().expect("a rate");
    let mut provider = Provider::new("strict", &domain("strict.example"));
    provider.mx_hosts = vec![host("mx1.strict.example", 10), host("mx2.strict.example", 10)];
    provider
        .with(ConnectionLimit::new(5))
        .with(RateLimit::new(rate, 40))
        .with(service_time(50))
}

fn village() -> Provider {
    let percent = |share: f64| Percent::try_from(share).expect("a share");
    Provider::new("village", &domain("village.example"))
        .with_mailboxes(MailboxRule::share(
            percent(3.0),
            Answer::known("550 5.1.1 there is no mailbox of this name"),
        ))
        .with_mailboxes(MailboxRule::share(
            percent(2.0),
            Answer::known("452 4.2.2 the mailbox is full"),
        ))
        .with(Greylisting::new(Duration::from_secs(3)))
        .with(service_time(30))
}

fn service_time(milliseconds: u64) -> ServiceTime {
    ServiceTime {
        time: Duration::from_millis(milliseconds),
        jitter: Percent::try_from(30.0).expect("a share"),
    }
}

fn host(name: &str, priority: u16) -> MxHost {
    MxHost {
        name: domain(name),
        priority,
    }
}

fn domain(name: &str) -> Domain {
    name.parse().expect("a domain")
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::{BTreeMap, BinaryHeap};
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration as Time;

    use super::*;
    use crate::model::ProviderModel;

    #[test]
    fn the_demo_world_is_sound() {
        demo_world().check().unwrap();
    }

    /// Sends `messages` through four connections in virtual time; a refusal that is no 5xx is tried again after three
    /// seconds, a full mailbox is given up. When it was over, and how often each code came.
    fn send(provider: &Provider, messages: usize) -> (Time, BTreeMap<u16, usize>) {
        let mut model = ProviderModel::new(provider, 3);
        let mut connections: BinaryHeap<_> = (0..4).map(|_| Reverse(Time::ZERO)).collect();
        let mut waiting: BinaryHeap<_> = (0..messages).map(|number| Reverse((Time::ZERO, number))).collect();
        let (mut over, mut codes) = (Time::ZERO, BTreeMap::new());
        while let Some(Reverse((due, number))) = waiting.pop() {
            let Reverse(free) = connections.pop().unwrap();
            let now = free.max(due);
            let recipient = format!("user{number}@{}", provider.domains[number % provider.domains.len()]);
            let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let attempt = model.attempt(now, source, "sender@example.org", &recipient);
            model.disconnect(attempt.connection);
            let end = now + attempt.takes;
            connections.push(Reverse(end));
            over = over.max(end);
            let code = attempt.reply.unwrap().code();
            *codes.entry(code.get()).or_default() += 1;
            if code.is_transient() && code.get() != 452 {
                waiting.push(Reverse((end + Time::from_secs(3), number)));
            }
        }
        (over, codes)
    }

    #[test]
    fn two_thousand_messages_are_through_within_a_minute() {
        let world = demo_world();
        let [generous, strict, village] = [0, 1, 2].map(|position| send(&world.providers[position], 667));
        for (over, codes) in [&generous, &strict, &village] {
            assert!(*over < Time::from_secs(60), "{over:?}: {codes:?}");
        }
        assert_eq!(generous.1, BTreeMap::from([(250, 667)]));
        assert!(strict.1[&250] == 667 && strict.1[&451] > 50, "{strict:?}");
        let dead_or_full = village.1[&550] + village.1[&452];
        assert!(village.1[&550] > 5 && village.1[&452] > 5, "{village:?}");
        assert_eq!(village.1[&250] + dead_or_full, 667);
        assert!(village.1[&451] >= village.1[&250], "greylisted once each at least");
    }
}
