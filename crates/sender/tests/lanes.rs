//! What lanes learn: kept over an end and a kill, passed on with an IP, set aside in static mode, and told.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use relaypool_api::sending_ip::{Binds, LaneState, SiteStatus};
use relaypool_sender::{Engine, LaneChangeKind, PoolSettings, SenderReport};
use relaypool_simulator::Simulator;
use serde_json::{Value, json};
use support::{Bench, message, open_engine, policies, slice, source_ip, start, users, wait};

/// A switch of mode is in effect within this.
const SWITCH: Duration = Duration::from_secs(2);

fn provider(name: &str, behaviours: &Value) -> Value {
    json!({
        "name": name, "domains": [format!("{name}.example")],
        "mxHosts": [{ "name": format!("mx.{name}.example"), "priority": 10 }], "behaviours": behaviours,
    })
}

/// `tight` bears four connections; `shy` refuses all mail for its opinion of the sender; `good` takes everything.
fn world() -> Value {
    let tight = json!([{ "kind": "connectionLimit", "limit": 4 }, { "kind": "serviceTime", "time": "20ms" }]);
    let shy = json!([{ "kind": "refusals", "phase": "MailFrom", "reply": "450 4.7.1 your reputation is poor" }]);
    json!({ "providers": [provider("tight", &tight), provider("shy", &shy), provider("good", &json!([]))] })
}

fn find<'a>(report: &'a SenderReport, site: &str) -> Option<&'a SiteStatus> {
    let lane = report.lanes.iter().find(|lane| lane.site.site == site)?;
    Some(&lane.site)
}

/// Waits until a report fits.
async fn reported<T>(engine: &Engine, what: &str, fits: impl Fn(&SenderReport) -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let report = engine.report().await.unwrap();
        if let Some(found) = fits(&report) {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: {report:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn lane(engine: &Engine, site: &str) -> SiteStatus {
    reported(engine, site, |report| find(report, site).cloned()).await
}

async fn suspended(engine: &Engine, site: &str) -> SiteStatus {
    reported(engine, site, |report| {
        find(report, site)
            .filter(|site| site.state == LaneState::Suspended)
            .cloned()
    })
    .await
}

/// Lets one lane learn its limit and another be suspended; returns how both stand.
async fn learn(bench: &Bench) -> (SiteStatus, SiteStatus) {
    let message = message(json!({}));
    let (tight, shy) = (users(150, "tight.example"), users(20, "shy.example"));
    bench.engine.accept(slice("tight", &message, tight)).await.unwrap();
    bench.engine.accept(slice("shy", &message, shy)).await.unwrap();
    bench.finished("tight").await;
    (
        lane(&bench.engine, "tight.example").await,
        suspended(&bench.engine, "shy.example").await,
    )
}

/// An engine that was opened on what `learn` left goes on where the first stood.
async fn goes_on(engine: &Engine, simulator: &Simulator, tight: &SiteStatus, shy: &SiteStatus) {
    // What no message uses yet is shown all the same.
    let report = engine.report().await.unwrap();
    let (_, dormant) = report
        .dormant
        .iter()
        .find(|(ip, site)| ip == "first" && site.site == "tight.example")
        .expect("the lane is known");
    assert_eq!(dormant.reputation, tight.reputation);

    let after = suspended(engine, "shy.example").await;
    assert_eq!(after.suspended_until, shy.suspended_until);
    assert_eq!(after.last_refusal, shy.last_refusal);
    assert_eq!(after.reputation, shy.reputation);
    assert!(after.last_refusal.unwrap().reply.contains("your reputation is poor"));
    assert_eq!(engine.report().await.unwrap().ips["first"].suspended, 1);

    let refused = || simulator.books().read(|books| books.refusals(421));
    let before = refused();
    engine
        .accept(slice(
            "again",
            &message(json!({ "fingerprint": "f2" })),
            users(60, "tight.example"),
        ))
        .await
        .unwrap();
    let again = lane(engine, "tight.example").await;
    assert!(
        again.connection_limit <= tight.connection_limit.map(|limit| limit + 1),
        "{again:?} after {tight:?}"
    );
    wait(engine, "again", |counts| counts.sent == 60).await;
    assert!(refused() <= before + 2, "{} after {before}: it learned anew", refused());
    let accepted = |site: &SiteStatus| site.reputation.unwrap().accepted;
    assert_eq!(accepted(&lane(engine, "tight.example").await), accepted(tight) + 60);
    assert_eq!(simulator.books().duplicates(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_learned_survives_an_end() {
    let bench = start(world()).await;
    let (tight, shy) = learn(&bench).await;
    assert!(bench.engine.clone().drain(Duration::from_secs(20)).await);
    let engine = open_engine(bench.folder.path(), &bench.simulator, true).await;
    goes_on(&engine, &bench.simulator, &tight, &shy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_learned_survives_a_kill() {
    let bench = start(world()).await;
    let (tight, shy) = learn(&bench).await;
    // The suspension is written at once.
    let started = Instant::now();
    kept(&bench.engine, "lane/first/shy.example", 0).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    // The rest is written within ten seconds, in the order in which it changed: when what comes last is there, all is.
    let last = message(json!({ "fingerprint": "f3" }));
    bench
        .engine
        .accept(slice("last", &last, users(1, "good.example")))
        .await
        .unwrap();
    let finished = bench.finished("last").await.finished_at.unwrap().0.as_millisecond();
    kept(&bench.engine, "lane/first/good.example", finished).await;
    assert!(started.elapsed() < Duration::from_secs(11), "{:?}", started.elapsed());

    // What a killed process leaves: the files as they are, nothing tidied up.
    let image = tempfile::tempdir().unwrap();
    copy(&bench.folder.path().join("spool"), &image.path().join("spool"));
    // The one that goes on here in place of a killed one must not take up the provider's connections.
    assert!(bench.engine.clone().drain(Duration::from_secs(20)).await);
    let engine = open_engine(image.path(), &bench.simulator, true).await;
    goes_on(&engine, &bench.simulator, &tight, &shy).await;
}

/// Waits until a lane's note says that the lane was used at this moment or later.
async fn kept(engine: &Engine, name: &str, used_at: i64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let note = engine.note(name).unwrap();
        let at = note.map(|note| i64::from_be_bytes(note[1..9].try_into().unwrap()));
        if at.is_some_and(|at| at >= used_at) {
            return;
        }
        assert!(Instant::now() < deadline, "{name} is at {at:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_that_cannot_be_read_are_passed_over() {
    let bench = start(world()).await;
    for (name, bytes) in [("tight", vec![1, 0, 0]), ("shy", vec![99, 1, 2, 3])] {
        let name = format!("lane/first/{name}.example");
        bench.engine.set_note(&name, bytes).await.unwrap();
    }
    learn(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ip_that_moves_takes_along_what_is_shown() {
    let bench = start(world()).await;
    let until = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + 600).unwrap();
    let shown = json!({
        "site": "tight.example", "state": "Suspended", "binds": "Suspended", "connectionLimit": 3, "suspendedUntil": until,
    });
    let shown: SiteStatus = serde_json::from_value(shown).unwrap();
    bench
        .engine
        .lanes_shown(vec![("moved".to_owned(), vec![shown.clone()])])
        .await
        .unwrap();
    bench
        .engine
        .set_ips(vec![source_ip("moved", "127.0.0.1")])
        .await
        .unwrap();
    let dormant = bench.engine.report().await.unwrap().dormant;
    assert_eq!(dormant, [("moved".to_owned(), shown.clone())]);

    bench
        .engine
        .accept(slice("s", &message(json!({})), users(5, "tight.example")))
        .await
        .unwrap();
    let lane = suspended(&bench.engine, "tight.example").await;
    assert_eq!(lane.suspended_until, shown.suspended_until);
    assert_eq!(lane.connection_limit, Some(3));
    assert_eq!(bench.engine.report().await.unwrap().dormant, []);
    assert_eq!(bench.accepted().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn static_mode_sets_learning_aside_within_seconds_and_loses_nothing() {
    const MESSAGES: usize = 800;
    const POLICY: u32 = 12;
    let behaviours = json!([{ "kind": "connectionLimit", "limit": 3 }, { "kind": "serviceTime", "time": "30ms" }]);
    let bench = start(json!({ "providers": [provider("picky", &behaviours)] })).await;
    let rules = json!({
        "match": { "domains": ["*"] }, "limits": { "maxConnections": POLICY, "maxMessagesPerConnection": 20 },
        "retry": { "firstInterval": "1s", "maxInterval": "2s" },
    });
    bench.engine.set_policies(policies([("rules", rules)])).await.unwrap();
    let addresses = users(MESSAGES, "picky.example");
    bench
        .engine
        .accept(slice("s", &message(json!({})), addresses))
        .await
        .unwrap();
    let refusals = || bench.simulator.books().read(|books| books.refusals(421));
    let limit = async || lane(&bench.engine, "picky.example").await.connection_limit.unwrap();

    bench.wait("s", |counts| counts.sent > 100).await;
    let learned = limit().await;
    assert!(learned < 6, "{learned}");

    set_adaptive(&bench, false).await;
    let (switched, before) = (Instant::now(), refusals());
    assert_eq!(limit().await, POLICY, "the plain rule");
    // It is in force, not only said: connections over what was learned are tried.
    bench
        .simulator
        .books()
        .wait_until(|books| books.refusals(421) > before + 5)
        .await;
    assert!(switched.elapsed() < SWITCH, "{:?}", switched.elapsed());
    bench
        .simulator
        .books()
        .wait_until(|books| books.refusals(421) > before + 40)
        .await;
    assert_eq!(limit().await, POLICY, "nothing is learned");

    set_adaptive(&bench, true).await;
    let switched = Instant::now();
    let back = limit().await;
    assert!(back <= learned + 1, "{back} after {learned}: what was learned is kept");
    reported(&bench.engine, "connections to go", |report| {
        let site = find(report, "picky.example")?;
        (site.connections <= back + 1).then_some(())
    })
    .await;
    assert!(switched.elapsed() < SWITCH, "{:?}", switched.elapsed());

    let counts = support::counts(&bench.finished("s").await);
    assert_eq!(counts.sent, MESSAGES as u64);
    assert_eq!(bench.accepted().len(), MESSAGES);
    assert_eq!(bench.simulator.books().duplicates(), []);
}

async fn set_adaptive(bench: &Bench, adaptive: bool) {
    let settings = PoolSettings {
        pool: "pool".into(),
        smtp_port: bench.simulator.smtp_port(),
        max_connections: 1_000,
        adaptive,
        on_block: relaypool_api::message::OnBlock::Wait,
    };
    bench.engine.set_settings(settings).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_by_a_rule_is_told_and_kept_at_once() {
    let refusals = json!([{ "kind": "refusals", "phase": "MailFrom", "reply": "450 4.2.0 gone fishing" }]);
    let bench = start(json!({ "providers": [provider("calm", &refusals)] })).await;
    let rules = json!({
        "match": { "domains": ["*"] }, "replyRules": [{ "text": "gone fishing", "action": { "suspendFor": "45m" } }],
    });
    bench.engine.set_policies(policies([("rules", rules)])).await.unwrap();
    // A single message: no later outcome could bring the news.
    let one = slice("s", &message(json!({})), users(1, "calm.example"));
    bench.engine.accept(one).await.unwrap();
    let lane = suspended(&bench.engine, "calm.example").await;
    assert_eq!(lane.binds, Binds::Suspended);
    let changes = bench.engine.lane_changes().await.unwrap().told;
    let [change] = &changes[..] else {
        panic!("{changes:?}");
    };
    let until = u64::try_from(lane.suspended_until.as_ref().unwrap().0.as_millisecond()).unwrap();
    let why = "450 4.2.0 gone fishing".to_owned();
    assert_eq!(change.kind, LaneChangeKind::Suspended { until, why });
    assert!(until >= change.at + 44 * 60_000);

    let started = Instant::now();
    kept(&bench.engine, "lane/first/calm.example", 0).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}
