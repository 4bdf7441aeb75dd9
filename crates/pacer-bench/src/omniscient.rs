//! A sender that knows the provider: what it delivers is the capacity that others are measured by.
//!
//! It keeps within every limit it can keep within, to the moment; what is chance (a broken backend, a content filter) it
//! bears by trying again at once. It runs in the same runner as everybody else, so its figure has the same losses: what is
//! under way at the end of the run, or the jitter of the service time.

use std::time::Duration;

use relaypool_bounce::{Action, Verdict};
use relaypool_shaping::pacer::Grant;
use relaypool_simulator::description::{
    Behaviour, ConnectionLimit, DailyQuota, Percent, Provider, RateLimit, Refusals, Slowdown,
};

use crate::controller::{Controller, Message, Retry, Ticket, View};

/// Its name in the tables.
pub const NAME: &str = "omniscient";

/// Replies to an attempt that is accepted: greeting, EHLO, MAIL, RCPT, DATA, the final dot.
const REPLIES: u32 = 6;

/// Keeps to what `provider` bears.
#[derive(Debug)]
pub struct Omniscient {
    provider: Provider,
    window_cap: u32,
    open: u32,
    buckets: Vec<Bucket>,
    quotas: Vec<Quota>,
}

impl Omniscient {
    /// A sender to `provider` that may open `window_cap` connections.
    pub fn new(provider: &Provider, window_cap: u32) -> Self {
        let (mut buckets, mut quotas) = (Vec::new(), Vec::new());
        for behaviour in &provider.behaviours {
            match behaviour {
                Behaviour::RateLimit(limit) => buckets.push(Bucket::new(limit)),
                Behaviour::DailyQuota(quota) => quotas.push(Quota::new(quota)),
                _ => {}
            }
        }
        Self {
            provider: provider.clone(),
            window_cap,
            open: 0,
            buckets,
            quotas,
        }
    }

    /// The number of connections, among those that are not refused at `now`, that carries most.
    fn best_window(&self, now: Duration) -> u32 {
        let most = self.connection_limits().fold(self.window_cap, |most, limit| {
            let changes = limit.changes.iter().filter(|change| change.at.get() <= now);
            let holds = changes
                .max_by_key(|change| change.at)
                .map_or(limit.limit, |change| change.limit);
            most.min(holds)
        });
        let thresholds = self.slowdowns().map(|slowdown| slowdown.beyond_connections.min(most));
        let speed = |window: u32| f64::from(window) / self.seconds_with(window);
        thresholds
            .chain([most])
            .max_by(|one, other| speed(*one).total_cmp(&speed(*other)).then(one.cmp(other)))
            .unwrap_or(most)
    }

    /// Mean seconds of an accepted attempt while `window` connections are open.
    fn seconds_with(&self, window: u32) -> f64 {
        let service = self.provider.behaviours.iter().map(|behaviour| match behaviour {
            Behaviour::ServiceTime(service) => service.time.get().as_secs_f64(),
            _ => 0.0,
        });
        let reply = self.provider.latency.reply.get().as_secs_f64();
        let unhindered = service.sum::<f64>() + reply * f64::from(REPLIES);
        let slowed = self
            .slowdowns()
            .filter(|slowdown| window > slowdown.beyond_connections)
            .fold((unhindered, 0.0), |(time, extra), slowdown| {
                let more = slowdown.extra.get().as_secs_f64() * f64::from(REPLIES);
                (time * slowdown.factor, extra + more)
            });
        (slowed.0 + slowed.1).max(1e-6)
    }

    fn connection_limits(&self) -> impl Iterator<Item = &ConnectionLimit> {
        self.provider.behaviours.iter().filter_map(|behaviour| match behaviour {
            Behaviour::ConnectionLimit(limit) => Some(limit),
            _ => None,
        })
    }

    fn slowdowns(&self) -> impl Iterator<Item = &Slowdown> {
        self.provider.behaviours.iter().filter_map(|behaviour| match behaviour {
            Behaviour::Slowdown(slowdown) => Some(slowdown),
            _ => None,
        })
    }

    /// The end of an outage that lasts at `now`; the last one, if there are several.
    fn outage_until(&self, now: Duration) -> Option<Duration> {
        let outages = self.provider.behaviours.iter().filter_map(|behaviour| match behaviour {
            Behaviour::Refusals(Refusals {
                percent, from, until, ..
            }) if *percent == Percent::ALL && from.get() <= now => {
                let until = until.map_or(Duration::MAX, |until| until.get());
                (now < until).then_some(until)
            }
            _ => None,
        });
        outages.max()
    }

    /// When a greylisting provider, if it is one, takes what it first saw at `first`.
    fn let_in_at(&self, first: Duration) -> Option<Duration> {
        let delays = self.provider.behaviours.iter().filter_map(|behaviour| match behaviour {
            Behaviour::Greylisting(greylisting) => Some(greylisting.delay.get()),
            _ => None,
        });
        delays.max().map(|delay| first + delay)
    }
}

impl Controller for Omniscient {
    fn name(&self) -> &'static str {
        NAME
    }

    fn may_start(&mut self, now: Duration) -> Grant {
        if let Some(until) = self.outage_until(now) {
            return Grant::At(until);
        }
        let waits = self.buckets.iter_mut().filter_map(|bucket| bucket.wait_until(now));
        let waits = waits.chain(self.quotas.iter_mut().filter_map(|quota| quota.wait_until(now)));
        if let Some(until) = waits.max() {
            return Grant::At(until);
        }
        if self.open < self.best_window(now) {
            Grant::Now
        } else {
            Grant::No
        }
    }

    fn started(&mut self, now: Duration, message: Message) -> Ticket {
        self.open += 1;
        for bucket in &mut self.buckets {
            bucket.credit = bucket.credit.saturating_sub(TOKEN);
        }
        for quota in &mut self.quotas {
            quota.used += 1;
        }
        Ticket {
            started: now,
            message,
            sent: None,
        }
    }

    fn accepted(&mut self, _now: Duration, _ticket: Ticket) {
        self.open -= 1;
    }

    fn refused(&mut self, now: Duration, ticket: Ticket, verdict: &Verdict) -> Retry {
        self.open -= 1;
        if verdict.action == Action::Fail {
            return Retry::Never;
        }
        match self.let_in_at(ticket.started) {
            Some(at) if ticket.message.first_refused.is_none() => Retry::At(at.max(now)),
            _ => Retry::WithLane,
        }
    }

    fn view(&self, now: Duration) -> View {
        View {
            window: f64::from(self.best_window(now)),
            rate: None,
            is_suspended: false,
            cuts: 0,
            cuts_undone: 0,
        }
    }
}

/// One token. At a rate of n per day, n of these parts are earned in a nanosecond.
const TOKEN: u128 = 86_400 * 1_000_000_000;

/// The provider's token bucket, kept in step with it.
#[derive(Debug)]
struct Bucket {
    terms: Vec<Term>,
    credit: u128,
    at: Duration,
}

/// What holds from some time on.
#[derive(Debug, Clone, Copy)]
struct Term {
    from: Duration,
    /// Parts of a token.
    per_nanosecond: u128,
    full: u128,
}

impl Bucket {
    fn new(limit: &RateLimit) -> Self {
        let changes = limit
            .changes
            .iter()
            .map(|change| (change.at.get(), change.rate, change.burst));
        let mut terms: Vec<Term> = [(Duration::ZERO, limit.rate, limit.burst)]
            .into_iter()
            .chain(changes)
            .map(|(from, rate, burst)| Term {
                from,
                per_nanosecond: u128::from(rate.messages()) * u128::from(86_400 / rate.unit().seconds()),
                full: u128::from(burst) * TOKEN,
            })
            .collect();
        terms.sort_by_key(|term| term.from);
        Self {
            terms,
            credit: u128::MAX,
            at: Duration::ZERO,
        }
    }

    /// When there is a token, if there is none now; or when the rate changes, if that is sooner.
    fn wait_until(&mut self, now: Duration) -> Option<Duration> {
        let mut next_wait = None;
        for (position, term) in self.terms.iter().enumerate() {
            let next = self.terms.get(position + 1).map_or(Duration::MAX, |next| next.from);
            let end = next.min(now);
            if end < self.at || end < term.from {
                continue;
            }
            let earned = (end - self.at).as_nanos().saturating_mul(term.per_nanosecond);
            self.credit = self.credit.saturating_add(earned).min(term.full);
            self.at = end;
            if self.credit < TOKEN {
                let nanoseconds = (TOKEN - self.credit).div_ceil(term.per_nanosecond);
                let full = now + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
                next_wait = Some(full.min(next));
            } else {
                next_wait = None;
            }
        }
        next_wait
    }
}

/// The provider's daily quota, kept in step with it.
#[derive(Debug)]
struct Quota {
    description: DailyQuota,
    day: i64,
    used: u64,
}

impl Quota {
    fn new(description: &DailyQuota) -> Self {
        Self {
            description: description.clone(),
            day: i64::MIN,
            used: 0,
        }
    }

    /// The next midnight, if today's messages are used up.
    fn wait_until(&mut self, now: Duration) -> Option<Duration> {
        let days = crate::days::Days::of(&self.description);
        let today = days.number(now);
        if today != self.day {
            self.day = today;
            self.used = 0;
        }
        (self.used >= self.description.messages).then(|| days.next_midnight(now))
    }
}
