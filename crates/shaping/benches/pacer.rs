//! What a lane costs one sender that has a hundred thousand of them: memory, and time for each decision.
//!
//! The memory is what the process gains (the resident set of Linux), so everything that a pacer allocates is in it.

#![allow(missing_docs)] // criterion's macros make public functions
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use relaypool_api::reply::{Phase, Reply, ReplyCode};
use relaypool_bounce::{Reading, Verdict, classify};
use relaypool_shaping::pacer::{AdaptiveLimits, Grant, Pacer, PacerLimits, Sending};

const LANES: usize = 100_000;

const FIRST: Sending = Sending {
    new_connection: true,
    attempt: 1,
    first_refused: None,
};

fn limits() -> PacerLimits {
    PacerLimits {
        connections: 20,
        messages_per_connection: 100,
        rate: "1000/s".parse().ok(),
        share: None,
        adaptive: Some(AdaptiveLimits::default()),
    }
}

fn busy() -> Verdict {
    let reply = Reply {
        code: ReplyCode::try_from(421).unwrap(),
        enhanced: "4.3.2".parse().ok(),
        text: "try again later".to_owned(),
    };
    classify(&Reading::new(Phase::Greeting, &reply))
}

/// Octets of the process that are in memory.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: usize = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1_024)
}

/// As many lanes, each made by `lane`, and what one of them takes.
fn lanes(kind: &str, lane: impl Fn() -> Pacer) -> Vec<Pacer> {
    let before = resident();
    let mut lanes = Vec::with_capacity(LANES);
    lanes.resize_with(LANES, lane);
    if let (Some(before), Some(after)) = (before, resident()) {
        let each = after.saturating_sub(before) / LANES;
        println!(
            "a lane that {kind}: {each} octets, {} of them the pacer itself",
            size_of::<Pacer>()
        );
    }
    lanes
}

/// A message from the first question to its outcome, a millisecond after the one before. True when it went.
fn message(pacer: &mut Pacer, now: Duration, refused: Option<&Verdict>) -> bool {
    if pacer.may_open(now) != Grant::Now || pacer.may_send(now) != Grant::Now {
        return false;
    }
    pacer.opened(now);
    let sent = pacer.sent(now, FIRST);
    let now = now + Duration::from_micros(500);
    match refused {
        Some(verdict) => pacer.feedback(now, sent, verdict),
        None => pacer.accepted(now, sent),
    }
    pacer.closed(now);
    true
}

/// A lane after an alarm: it remembers how things were before.
fn alarmed() -> Pacer {
    let mut pacer = Pacer::new(limits());
    let busy = busy();
    let mut now = Duration::from_secs(1_000);
    for number in 0..40 {
        now += Duration::from_secs(1);
        message(&mut pacer, now, (number >= 38).then_some(&busy));
    }
    pacer
}

fn decisions(criterion: &mut Criterion) {
    drop(lanes("is in trouble", alarmed));
    let mut lanes = lanes("is idle", || Pacer::new(limits()));
    let busy = busy();
    let mut random = StdRng::seed_from_u64(1);
    let mut now = Duration::from_secs(10_000);
    let mut group = criterion.benchmark_group("a message's decisions");
    group.throughput(Throughput::Elements(1));
    for percent_refused in [0, 1, 20] {
        let id = BenchmarkId::new("percent refused", percent_refused);
        group.bench_with_input(id, &percent_refused, |bencher, percent| {
            bencher.iter(|| {
                now += Duration::from_millis(1);
                let lane = random.random_range(0..LANES);
                let refused = (random.random_range(0..100) < *percent).then_some(&busy);
                black_box(message(&mut lanes[lane], now, refused))
            });
        });
    }
    group.finish();

    // Without misses of the cache: what the decisions themselves cost.
    let mut pacer = Pacer::new(limits());
    criterion.bench_function("a message's decisions on one lane", |bencher| {
        bencher.iter(|| {
            now += Duration::from_millis(10);
            black_box(message(&mut pacer, now, None))
        });
    });
    criterion.bench_function("a refusal to open", |bencher| {
        bencher.iter(|| {
            let mut held = 0;
            while pacer.may_open(now) == Grant::Now && held < 20 {
                pacer.opened(now);
                held += 1;
            }
            black_box(pacer.may_open(now))
        });
    });
}

criterion_group!(benches, decisions);
criterion_main!(benches);
