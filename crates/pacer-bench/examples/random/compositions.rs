//! Providers put together by chance from what the simulator can do.

use std::fmt::Write;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What is put together.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Seconds that a run lasts.
    pub seconds: u64,
    /// From this second on the provider limits nothing any more; what is broken stays broken.
    pub unlimited_from: Option<u64>,
    /// Some have broken hosts, which refuse at any speed.
    pub with_broken: bool,
    /// Messages a second that the provider could serve at most, for the sake of the time a run takes.
    pub busiest: f64,
}

/// The scenario of this number, in YAML.
pub fn composition(number: u64, kind: Kind) -> String {
    let mut random = StdRng::seed_from_u64(number);
    let mut behaviours = Vec::new();
    let neutral = random.random_bool(0.5);
    let reply = if neutral {
        ", reply: 421 4.3.2 try again later"
    } else {
        ""
    };

    let has_connection_limit = random.random_bool(0.5);
    let window_cap = random.random_range(5..=60_u32);
    if has_connection_limit {
        behaviours.push(connection_limit(&mut random, kind, reply));
    }
    // A rate, a quota of an hour, or neither; often both a limit of connections and one of these.
    match random.random_range(0..10) {
        0..5 => behaviours.push(rate_limit(&mut random, kind, reply)),
        5..6 => behaviours.push(hourly_quota(&mut random, kind, reply)),
        _ => {}
    }
    let is_broken = random.random_bool(0.3) && kind.with_broken;
    if is_broken {
        let broken = random.random_range(1..=8_u32);
        let refused = format!("{{ kind: brokenBackends, backends: 20, broken: {broken}{reply} }}");
        behaviours.push(refused);
    }
    let is_greylisting = kind.unlimited_from.is_none() && !is_broken && random.random_bool(0.2);
    if is_greylisting {
        let delay = random.random_range(60..=600);
        behaviours.push(format!("{{ kind: greylisting, delay: {delay}s{reply} }}"));
    }
    // Either would lock out the most careful sender.
    if !is_broken && !is_greylisting && random.random_bool(0.4) {
        let refusals = random.random_range(10..=50);
        let within = random.random_range(30..=120);
        let period = random.random_range(120..=900);
        behaviours.push(format!(
            "{{ kind: blockAfterRefusals, refusals: {refusals}, within: {within}s, period: {period}s{reply} }}"
        ));
    }
    if random.random_bool(0.25) {
        let beyond = random.random_range(2..=30);
        let factor = 2.0 * 10_f64.powf(random.random::<f64>());
        behaviours.push(format!(
            "{{ kind: slowdown, beyondConnections: {beyond}, factor: {factor:.1} }}"
        ));
    }
    let millis = spread(&mut random, 50.0, 8_000.0).max(f64::from(window_cap) / kind.busiest * 1_000.0);
    behaviours.push(format!("{{ kind: serviceTime, time: {millis:.0}ms, jitter: 10 }}"));

    let mut yaml = format!("name: random {number}\nprovider:\n  behaviours:\n");
    for behaviour in behaviours {
        let _ = writeln!(yaml, "    - {behaviour}");
    }
    let seconds = kind.seconds;
    let _ = write!(
        yaml,
        "windowCap: {window_cap}\ndemand: saturating\nduration: {seconds}s\n"
    );
    yaml
}

/// Even over the orders of magnitude.
fn spread(random: &mut StdRng, from: f64, to: f64) -> f64 {
    from * (to / from).powf(random.random())
}

/// Up to two times at which something changes.
fn times(random: &mut StdRng, kind: Kind) -> Vec<u64> {
    let end = kind.unlimited_from.unwrap_or(kind.seconds);
    let number = random.random_range(0..=2_usize);
    let mut times: Vec<u64> = (0..number)
        .map(|_| random.random_range(end / 10..end * 9 / 10))
        .collect();
    times.sort_unstable();
    times
}

fn connection_limit(random: &mut StdRng, kind: Kind, reply: &str) -> String {
    let limit = |random: &mut StdRng| spread(random, 1.0, 60.99) as u32;
    let mut changes: Vec<String> = times(random, kind)
        .into_iter()
        .map(|at| format!("{{ at: {at}s, limit: {} }}", limit(random)))
        .collect();
    changes.extend(kind.unlimited_from.map(|at| format!("{{ at: {at}s, limit: 100000 }}")));
    let limit = limit(random);
    let changes = changes.join(", ");
    format!("{{ kind: connectionLimit, limit: {limit}, changes: [{changes}]{reply} }}")
}

fn rate_limit(random: &mut StdRng, kind: Kind, reply: &str) -> String {
    let rate = |random: &mut StdRng| {
        let per_minute = spread(random, 30.0, 4_800.0);
        let burst = spread(random, 1.0, 200.99);
        format!("rate: {per_minute:.0}/m, burst: {burst:.0}")
    };
    let mut changes: Vec<String> = times(random, kind)
        .into_iter()
        .map(|at| format!("{{ at: {at}s, {} }}", rate(random)))
        .collect();
    changes.extend(
        kind.unlimited_from
            .map(|at| format!("{{ at: {at}s, rate: 100000/s, burst: 100000 }}")),
    );
    let rate = rate(random);
    let changes = changes.join(", ");
    format!("{{ kind: rateLimit, {rate}, changes: [{changes}]{reply} }}")
}

fn hourly_quota(random: &mut StdRng, kind: Kind, reply: &str) -> String {
    let messages = spread(random, 200.0, 20_000.0);
    let changes = kind.unlimited_from.map_or_else(String::new, |at| {
        format!("{{ at: {at}s, rate: 100000/s, burst: 100000 }}")
    });
    format!("{{ kind: rateLimit, rate: {messages:.0}/h, burst: {messages:.0}, changes: [{changes}]{reply} }}")
}
