//! Processes die at bad moments, and the books of the receiving side say what that cost.
//!
//! Each test does it 20 times (`RELAYPOOL_TEST_KILLS` says otherwise), always with at least 50 transactions open. The
//! moments are drawn from a seed, which is printed, and which `RELAYPOOL_TEST_SEED` sets.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use futures::TryStreamExt as _;
use futures::future::join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, PostParams, WatchParams};
use kube::core::WatchEvent;
use kube::{Api, ResourceExt as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use relaypool_api::delivery::{Counts, DeliveryPhase};
use relaypool_api::names::{DELIVERY_LABEL, SENDER_LABEL};
use relaypool_api::{Delivery, DeliverySlice, DeliveryStatus};
use relaypool_simulator::{Books, World};
use relaypool_tests::deployment::{Deployment, PATIENCE, POOL};
use serde_json::json;

/// Transactions that are open when a process dies, at least.
const OPEN_TRANSACTIONS: u64 = 50;
/// Results on one connection that a sender may not have written down when it dies: of the message under way, and of the
/// one before.
const REPEATS_PER_CONNECTION: u64 = 2;
/// How long the API server is away.
const OUTAGE: Duration = Duration::from_secs(30);
/// Control planes whose API servers are away at the same time: waiting costs nothing.
const CONTROL_PLANES: u64 = 5;

// Tests begin in the order of their names: this one, which lasts longest, begins first.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_api_server_does_not_stop_the_mail() {
    let planes = CONTROL_PLANES.min(rounds());
    let rounds_of = |plane| (plane..rounds()).step_by(usize::try_from(planes).unwrap());
    join_all((0..planes).map(|plane| outages(rounds_of(plane)))).await;
}

async fn outages(rounds: impl Iterator<Item = u64>) {
    let mut relaypool = start("1500ms", 1, 64).await.unwrap();
    for number in rounds {
        let mut round = Round::begin(&relaypool, 3, number);
        // About 43 a second: some mailings end while the API server is away, some go on.
        let mailing = Mailing::new("outage", number, 1_500);
        mailing.create(&relaypool).await.unwrap();
        let after = round.chance.random_range(0..=400);
        let control_plane = &mut relaypool.control_plane;
        let scene = round.strike(after, || control_plane.stop_api_server()).await.unwrap();
        let mut accepted = scene.accepted;
        for _ in 0..3 {
            tokio::time::sleep(OUTAGE / 3).await;
            let now = round.accepted();
            assert!(
                now > accepted || now == mailing.rows,
                "nothing was sent after {accepted}"
            );
            accepted = now;
        }
        control_plane.start_api_server().await.unwrap();

        let back = Instant::now();
        let status = mailing.completed(&relaypool).await.unwrap();
        let waited = back.elapsed();
        mailing.check(&status, &round.account().await);
        assert_eq!(round.books.duplicates(), []);
        println!(
            "{round}: API server stopped at {scene:?}, {accepted} accepted when it came back, end shown after {waited:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sender_loses_nothing_and_repeats_little() {
    let mut relaypool = start("300ms", 1, 64).await.unwrap();
    let mut repeats_of_all_rounds = 0;
    for number in 0..rounds() {
        let mut round = Round::begin(&relaypool, 1, number);
        let mailing = Mailing::new("sender", number, 600);
        mailing.create(&relaypool).await.unwrap();
        let after = round.chance.random_range(0..=400);
        let sender = &mut relaypool.senders[0];
        let scene = round.strike(after, || sender.kill9()).await.unwrap();
        sender.restart().unwrap();

        let status = mailing.completed(&relaypool).await.unwrap();
        let account = round.account().await;
        mailing.check(&status, &account);
        let (repeats, most) = (account.repeats(), account.most_repeats_on_one_connection());
        println!("{round}: sender killed at {scene:?}, {repeats} repeats, {most} at most on one connection");
        assert!(
            repeats <= REPEATS_PER_CONNECTION * scene.connections,
            "{repeats} repeats"
        );
        assert!(most <= REPEATS_PER_CONNECTION, "{most} repeats on one connection");
        repeats_of_all_rounds += repeats;
        let duplicates = round.books.duplicates().len() as u64;
        assert_eq!(duplicates, repeats_of_all_rounds, "a repeat keeps its Message-ID");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_controller_is_not_missed() {
    let senders = 4;
    let mut relaypool = start("400ms", senders, 20).await.unwrap();
    let mut interrupted_plans = 0;
    for number in 0..rounds() {
        let mut round = Round::begin(&relaypool, 2, number);
        let first = Mailing::new("first", number, 700);
        let second = Mailing::new("second", number, 200);
        first.create(&relaypool).await.unwrap();
        if number % 2 == 0 {
            // While the second is planned: one slice for each sender, then the message slice.
            let (after, slices) = (
                round.chance.random_range(0..=100),
                round.chance.random_range(0..=senders),
            );
            round.reached(after).await;
            second.create_until_planned(&relaypool, slices).await.unwrap();
            let controller = &mut relaypool.controller;
            let scene = round.strike(0, || controller.kill9()).await.unwrap();
            let (written, is_complete) = second.written_slices(&relaypool).await.unwrap();
            println!(
                "{round}: controller killed at {scene:?} with {written} of {senders} slices, plan complete: {is_complete}"
            );
            interrupted_plans += u64::from(!is_complete);
        } else {
            let (after, away) = (round.chance.random_range(0..=300), round.chance.random_range(0..=100));
            second.create(&relaypool).await.unwrap();
            let controller = &mut relaypool.controller;
            let scene = round.strike(after, || controller.kill9()).await.unwrap();
            println!("{round}: controller killed at {scene:?}, away for {away} messages");
            round.reached(scene.accepted + away).await;
        }
        relaypool.controller.restart().unwrap();

        for mailing in [first, second] {
            let status = mailing.completed(&relaypool).await.unwrap();
            mailing.check(&status, &round.account().await);
        }
        assert_eq!(round.books.duplicates(), [], "nothing is planned twice");
    }
    // With fewer rounds it may happen that every plan was complete already.
    assert!(
        interrupted_plans > 0 || rounds() < 20,
        "no kill came while a plan was being written"
    );
}

/// How often each process dies.
fn rounds() -> u64 {
    let rounds = std::env::var("RELAYPOOL_TEST_KILLS").map(|rounds| rounds.parse().unwrap());
    rounds.unwrap_or(20)
}

fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| match std::env::var("RELAYPOOL_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
    })
}

/// A pool whose senders open all their connections at once, to one provider that takes its time.
async fn start(service_time: &str, senders: usize, connections: u32) -> Result<Deployment> {
    let world: World = serde_json::from_value(json!({ "providers": [{
        "name": "slow", "domains": ["slow.example"], "mxHosts": [{ "name": "mx.slow.example" }],
        "behaviours": [{ "kind": "serviceTime", "time": service_time, "jitter": 50 }],
        "mailboxes": [{ "localPart": "dead*", "reply": "550 5.1.1 nobody here" }],
    }] }))?;
    let relaypool = Deployment::start(world, senders).await?;
    relaypool.apply_pool().await?;
    let policy = json!({
        "apiVersion": "relaypool.dev/v1alpha1", "kind": "MxPolicy", "metadata": { "name": "everyone" },
        "spec": {
            "match": { "domains": ["*"] },
            "limits": { "maxConnections": connections, "maxMessagesPerConnection": 1_000 },
            "adaptive": { "min": { "connections": connections } },
        },
    });
    relaypool.apply(&policy.to_string()).await?;
    Ok(relaypool)
}

/// One mailing and one death.
struct Round {
    number: u64,
    /// Decides everything that is left to chance.
    chance: StdRng,
    books: Books,
    /// Recipients accepted in the rounds before.
    before: usize,
}

/// What the books showed when a process died.
#[derive(Debug)]
struct Scene {
    transactions: u64,
    connections: u64,
    /// Recipients in this round.
    accepted: usize,
}

impl Round {
    fn begin(relaypool: &Deployment, test: u64, number: u64) -> Self {
        let books = relaypool.simulator.books().clone();
        Self {
            number,
            chance: StdRng::seed_from_u64(seed().wrapping_add(test << 48 | number << 32)),
            before: books.read(|books| books.accepted().len()),
            books,
        }
    }

    /// Does the deed at the first moment at which so many recipients are accepted and enough transactions are open. The
    /// books are held shut meanwhile, so that this is the moment.
    async fn strike<T>(&self, accepted: usize, deed: impl FnOnce() -> Result<T>) -> Result<Scene> {
        let mut deed = Some(deed);
        let mut struck = None;
        let moment = self.books.wait_until(|books| {
            let scene = Scene {
                transactions: books.transactions_open(),
                connections: books.open_connections(),
                accepted: books.accepted().len() - self.before,
            };
            let is_now = scene.accepted >= accepted && scene.transactions >= OPEN_TRANSACTIONS;
            if is_now && let Some(deed) = deed.take() {
                struck = Some((deed(), scene));
            }
            is_now
        });
        let in_time = tokio::time::timeout(PATIENCE, moment).await;
        in_time.with_context(|| format!("{self}: no moment with {OPEN_TRANSACTIONS} open after {accepted}"))?;
        let (done, scene) = struck.context("the moment comes once")?;
        done.map(|_| scene)
    }

    async fn reached(&self, accepted: usize) {
        let wanted = self.before + accepted;
        let reached = self.books.wait_until(|books| books.accepted().len() >= wanted);
        let in_time = tokio::time::timeout(PATIENCE, reached).await;
        in_time.unwrap_or_else(|_| panic!("{self}: {} of {accepted} accepted", self.accepted()));
    }

    fn accepted(&self) -> usize {
        self.books.read(|books| books.accepted().len()) - self.before
    }

    /// What was accepted. Waits for what is under way: a transaction whose client is dead may still be accepted.
    async fn account(&self) -> Account {
        let quiet = self.books.wait_until(|books| books.transactions_open() == 0);
        tokio::time::timeout(PATIENCE, quiet).await.unwrap();
        let mut recipients: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        self.books.read(|books| {
            for entry in &books.accepted()[self.before..] {
                recipients
                    .entry(entry.recipient.clone())
                    .or_default()
                    .push(entry.connection);
            }
        });
        Account(recipients)
    }
}

impl fmt::Display for Round {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "round {} of seed {}", self.number, seed())
    }
}

/// A Delivery with addresses of its own: `rows` that are accepted, some that are refused, two that are ignored.
struct Mailing {
    name: String,
    rows: usize,
}

const DEAD_ROWS: usize = 20;
const IGNORED_ROWS: usize = 2;

impl Mailing {
    fn new(kind: &str, round: u64, rows: usize) -> Self {
        Self {
            name: format!("{kind}-{round}"),
            rows,
        }
    }

    fn recipients(&self) -> BTreeSet<String> {
        (0..self.rows)
            .map(|row| format!("{}.{row}@slow.example", self.name))
            .collect()
    }

    async fn create(&self, relaypool: &Deployment) -> Result<()> {
        let client = relaypool.client().await?;
        let good = self.recipients();
        let mut rows: Vec<String> = good.iter().cloned().collect();
        for row in 0..DEAD_ROWS {
            // Spread over the list.
            let address = format!("dead.{}.{row}@slow.example", self.name);
            rows.insert(row * rows.len() / DEAD_ROWS, address);
        }
        rows.extend(["nobody".to_owned(), rows[0].clone()]);
        let list: ConfigMap = serde_json::from_value(json!({
            "metadata": { "name": self.name },
            "data": { "list.csv": format!("email\n{}\n", rows.join("\n")) },
        }))?;
        let lists: Api<ConfigMap> = Api::namespaced(client.clone(), &relaypool.namespace);
        lists.create(&PostParams::default(), &list).await?;
        let delivery: Delivery = serde_json::from_value(json!({
            "apiVersion": "relaypool.dev/v1alpha1", "kind": "Delivery", "metadata": { "name": self.name },
            "spec": {
                "pool": POOL,
                "sender": { "address": "news@shop.example" },
                "message": { "subject": "Hello", "text": "Hello {{ address }}" },
                "recipients": { "configMapKeyRef": { "name": self.name, "key": "list.csv" } },
            },
        }))?;
        let deliveries: Api<Delivery> = Api::namespaced(client, &relaypool.namespace);
        deliveries.create(&PostParams::default(), &delivery).await?;
        Ok(())
    }

    /// Creates it, and returns as soon as the API server has so many of its slices.
    async fn create_until_planned(&self, relaypool: &Deployment, slices: usize) -> Result<()> {
        let api: Api<DeliverySlice> = Api::namespaced(relaypool.client().await?, &relaypool.namespace);
        let parameters = WatchParams::default().labels(&self.label());
        let mut events = pin!(api.watch_metadata(&parameters, "0").await?);
        self.create(relaypool).await?;
        let mut seen = 0;
        while seen < slices {
            let event = tokio::time::timeout(PATIENCE, events.try_next()).await??;
            if let WatchEvent::Added(_) = event.context("the watch ended")? {
                seen += 1;
            }
        }
        Ok(())
    }

    /// How many slices of recipients there are, and whether the message slice is there too.
    async fn written_slices(&self, relaypool: &Deployment) -> Result<(usize, bool)> {
        let api: Api<DeliverySlice> = Api::namespaced(relaypool.client().await?, &relaypool.namespace);
        let written = api.list_metadata(&ListParams::default().labels(&self.label())).await?;
        let of_recipients = written.iter().filter(|slice| slice.labels().contains_key(SENDER_LABEL));
        let of_recipients = of_recipients.count();
        Ok((of_recipients, written.items.len() > of_recipients))
    }

    fn label(&self) -> String {
        format!("{DELIVERY_LABEL}={}", self.name)
    }

    async fn completed(&self, relaypool: &Deployment) -> Result<DeliveryStatus> {
        let is_completed = |status: &DeliveryStatus| status.phase == Some(DeliveryPhase::Completed);
        relaypool.wait_for_status("completion", &self.name, is_completed).await
    }

    /// The status and the receiving side say the same, and that is what was asked for.
    fn check(&self, status: &DeliveryStatus, account: &Account) {
        let (got, wanted) = (account.accepted_of(self), self.recipients());
        let differences: Vec<_> = got.symmetric_difference(&wanted).collect();
        assert!(
            differences.is_empty(),
            "not as asked for: {differences:?}, {:#?}",
            status.reasons
        );
        let expected = Counts {
            total: (self.rows + DEAD_ROWS + IGNORED_ROWS) as u64,
            sent: self.rows as u64,
            failed: DEAD_ROWS as u64,
            ignored: IGNORED_ROWS as u64,
            ..Counts::default()
        };
        assert_eq!(status.counts, Some(expected), "{}", self.name);
    }
}

/// What the receiving side accepted in one round: by recipient, the connections it came on.
struct Account(BTreeMap<String, Vec<u64>>);

impl Account {
    fn accepted_of(&self, mailing: &Mailing) -> BTreeSet<String> {
        let start = format!("{}.", mailing.name);
        self.0
            .keys()
            .filter(|recipient| recipient.starts_with(&start))
            .cloned()
            .collect()
    }

    fn repeats(&self) -> u64 {
        self.0.values().map(|connections| connections.len() as u64 - 1).sum()
    }

    /// Connections are numbered, so the lowest number of a recipient is the connection that was cut.
    fn most_repeats_on_one_connection(&self) -> u64 {
        let mut by_connection: BTreeMap<u64, u64> = BTreeMap::new();
        for connections in self.0.values().filter(|connections| connections.len() > 1) {
            let first = connections.iter().min().copied().unwrap_or_default();
            *by_connection.entry(first).or_default() += connections.len() as u64 - 1;
        }
        by_connection.into_values().max().unwrap_or(0)
    }
}
