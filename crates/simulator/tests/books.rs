//! The books say what the clients saw.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use relaypool_api::Duration as Span;
use relaypool_api::reply::Phase;
use relaypool_simulator::description::{
    BrokenBackends, ConnectionLimit, Disconnects, Greylisting, MailboxRule, MessagesPerConnection, RateLimit, Refusals,
    Slowdown,
};
use relaypool_simulator::{Keep, Options, Provider, Simulator};
use support::{Client, mx, provider, start_with};

const CLIENTS: u8 = 20;
const MESSAGES: usize = 30;

/// A provider that does a little of everything.
fn moody() -> Provider {
    let percent = |share: f64| share.try_into().unwrap();
    provider()
        .with_mailboxes(MailboxRule::share(
            percent(20.0),
            "550 5.1.1 unknown user".parse().unwrap(),
        ))
        .with(ConnectionLimit::new(3))
        .with(BrokenBackends::one_of(5))
        .with(MessagesPerConnection::new(7))
        .with(RateLimit::new("200/s".parse().unwrap(), 20))
        .with(Greylisting::new(Span::from_millis(20)))
        .with(Refusals {
            percent: percent(10.0),
            ..Refusals::all(Phase::EndOfData, "554 5.7.1 no spam, please".parse().unwrap())
        })
        .with(Disconnects {
            phase: Phase::EndOfData,
            percent: percent(3.0),
        })
        .with(Slowdown {
            beyond_connections: 2,
            factor: 1.0,
            extra: Span::from_millis(1),
            scope: Default::default(),
        })
}

/// What one client was told.
#[derive(Default)]
struct Told {
    accepted: Vec<(String, String)>,
    refusals: BTreeMap<u16, u64>,
    greeted: u64,
}

/// Sends its messages one after the other, each as often as it takes to get an answer that is no 4xx, up to a limit.
async fn send_all(number: u8, address: SocketAddr) -> Told {
    let source = Ipv4Addr::new(127, 0, 1, number % 4 + 1);
    let mut told = Told::default();
    let mut client = None;
    for message in 0..MESSAGES {
        let recipient = format!("user{number}-{message}@one.example");
        let id = format!("{number}.{message}@example.org");
        for _ in 0..40 {
            let (code, connection) = attempt(&mut told, client.take(), source, address, &recipient, &id).await;
            client = connection;
            match code {
                250 => told.accepted.push((id.clone(), recipient.clone())),
                0 => (),
                _ => *told.refusals.entry(code).or_default() += 1,
            }
            if code == 250 || code >= 500 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    told
}

/// One attempt in the connection there is, or a new one; gives the connection back when it can be used again.
async fn attempt(
    told: &mut Told,
    connection: Option<Client>,
    source: Ipv4Addr,
    address: SocketAddr,
    recipient: &str,
    id: &str,
) -> (u16, Option<Client>) {
    let mut client = match connection {
        Some(client) => client,
        None => {
            let mut client = Client::connect_from(source, address).await;
            let greeting = client.reply().await.code;
            if greeting != 220 {
                return (greeting, None);
            }
            told.greeted += 1;
            client.say("EHLO client.example").await;
            client
        }
    };
    let code = client.send(recipient, &format!("Message-ID: <{id}>\r\n\r\ntext")).await;
    if code == 0 || code == 421 {
        return (code, None);
    }
    assert_eq!(client.say("RSET").await.code, 250);
    (code, Some(client))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_books_equal_what_the_clients_saw() {
    let simulator = start_with(moody(), Options::default()).await;
    let address = mx(&simulator);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(send_all(number, address)))
        .collect();
    let mut seen = Vec::new();
    for client in clients {
        seen.push(client.await.unwrap());
    }
    let books = simulator.books();
    books.wait_until(|entries| entries.open_connections() == 0).await;

    let mut told: Vec<_> = seen.iter().flat_map(|told| told.accepted.clone()).collect();
    let mut entered: Vec<_> = books
        .accepted()
        .into_iter()
        .map(|entry| (entry.message_id.unwrap().to_string(), entry.recipient))
        .collect();
    told.sort();
    entered.sort();
    assert_eq!(told, entered);
    assert!(told.len() > 100, "{} accepted", told.len());
    assert_eq!(books.duplicates(), []);

    let summary = books.summary();
    let counts = &summary.providers[0];
    let mut refusals: BTreeMap<u16, u64> = BTreeMap::new();
    for refusal in &counts.refusals {
        *refusals.entry(refusal.code).or_default() += refusal.count;
    }
    let mut heard: BTreeMap<u16, u64> = BTreeMap::new();
    for (code, count) in seen.iter().flat_map(|told| &told.refusals) {
        *heard.entry(*code).or_default() += count;
    }
    assert_eq!(refusals, heard);
    for code in [421, 451, 550, 554] {
        assert!(heard.contains_key(&code), "{code} never occurred: {heard:?}");
    }
    assert_eq!(counts.connections, seen.iter().map(|told| told.greeted).sum::<u64>());
    assert_eq!(counts.sources.len(), 4);
    for source in counts.sources.values() {
        assert!((1..=3).contains(&source.highest_open_connections), "{source:?}");
    }
    assert_eq!((counts.transactions_open, counts.violations.len()), (0, 0));
}

/// The sink must not be the bound of a benchmark. Meant for a release build; a debug build is much slower.
#[test]
#[ignore = "measures speed; run it with --release"]
fn a_sink_takes_more_than_five_thousand_messages_a_second_on_one_core() {
    const PER_CONNECTION: u64 = 2_000;
    let server = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let simulator: Simulator = server.block_on(start_with(
        provider(),
        Options {
            keep: Keep::Counts,
            ..Options::default()
        },
    ));
    let address = mx(&simulator);
    let sender = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let clients: Vec<_> = (0..10).map(|_| tokio::spawn(pour(address, PER_CONNECTION))).collect();
            for client in clients {
                client.await.unwrap();
            }
        });
    });
    let started = std::time::Instant::now();
    let total = 10 * PER_CONNECTION;
    server.block_on(
        simulator
            .books()
            .wait_until(|entries| entries.messages_accepted() == total),
    );
    let per_second = total as f64 / started.elapsed().as_secs_f64();
    sender.join().unwrap();
    assert!(per_second > 5_000.0, "{per_second:.0} messages a second");
}

/// Sends messages of 20 KB through one connection, each envelope in one write.
async fn pour(address: SocketAddr, messages: u64) {
    let mut client = Client::introduced(address).await;
    let line = format!("{}\r\n", "x".repeat(76));
    let body = format!("Subject: sink\r\n\r\n{}.\r\n", line.repeat(20_000 / line.len()));
    for _ in 0..messages {
        client
            .write("MAIL FROM:<a@example.org>\r\nRCPT TO:<ada@one.example>\r\nDATA\r\n")
            .await;
        assert_eq!(client.codes(3).await, [250, 250, 354]);
        client.write(&body).await;
        assert_eq!(client.codes(1).await, [250]);
    }
}
