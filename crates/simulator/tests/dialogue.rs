//! SMTP dialogues over real sockets.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::net::Ipv4Addr;
use std::time::Duration;

use relaypool_api::reply::Phase;
use relaypool_simulator::books::ViolationKind;
use relaypool_simulator::description::{
    ConnectionLimit, Disconnects, MailboxRule, MessagesPerConnection, Percent, Refusals, ServiceTime,
};
use relaypool_simulator::{Keep, Options};
use support::{Client, mx, provider, start, start_with};

const ADA: &str = "ada@one.example";

fn keeping(keep: Keep) -> Options {
    Options {
        keep,
        ..Options::default()
    }
}

#[tokio::test]
async fn a_message_is_taken_as_it_was_sent() {
    let simulator = start_with(provider(), keeping(Keep::Messages)).await;
    let mut client = Client::connect_from(Ipv4Addr::new(127, 0, 0, 5), mx(&simulator)).await;
    let greeting = client.reply().await;
    assert_eq!(greeting.code, 220);
    assert!(greeting.lines[0].starts_with("mx1.one.example "), "{greeting:?}");
    let hello = client.say("EHLO client.example").await;
    assert_eq!(
        hello.lines,
        [
            "mx1.one.example",
            "PIPELINING",
            "SIZE 52428800",
            "8BITMIME",
            "SMTPUTF8",
            "STARTTLS",
            "ENHANCEDSTATUSCODES"
        ]
    );
    let mail = client
        .say("MAIL FROM:<bounce+1@example.org> SIZE=200 BODY=8BITMIME")
        .await;
    assert_eq!((mail.code, mail.lines), (250, vec!["2.1.0 sender ok".to_owned()]));
    assert_eq!(client.say(&format!("RCPT TO:<{ADA}>")).await.code, 250);
    assert_eq!(client.say("RCPT TO:<bob@one.example>").await.code, 250);
    assert_eq!(client.say("DATA").await.code, 354);
    simulator.books().read(|entries| {
        assert_eq!((entries.transactions_open(), entries.accepted().len()), (1, 0));
    });
    let accepted = client
        .say("Message-ID: <1@example.org>\r\nSubject: dots\r\n\r\n..one\r\ntwo é\r\n.")
        .await;
    assert_eq!(accepted.lines, ["2.0.0 message accepted"]);
    simulator
        .books()
        .wait_until(|entries| entries.recipients_accepted() == 2)
        .await;

    let accepted = simulator.books().accepted();
    assert_eq!(accepted[0].recipient, ADA);
    assert_eq!(accepted[1].recipient, "bob@one.example");
    for entry in &accepted {
        assert_eq!(&*entry.return_path, "bounce+1@example.org");
        assert_eq!(entry.message_id.as_deref(), Some("1@example.org"));
        assert_eq!(entry.source, Ipv4Addr::new(127, 0, 0, 5));
        assert_eq!((&*entry.provider, &*entry.mx_host), ("one", "mx1.one.example"));
        assert_eq!(
            std::str::from_utf8(entry.content.as_ref().unwrap()).unwrap(),
            "Message-ID: <1@example.org>\r\nSubject: dots\r\n\r\n.one\r\ntwo é\r\n"
        );
    }
    simulator.books().read(|entries| {
        assert_eq!(entries.messages_accepted(), 1);
        assert_eq!(entries.transactions_open(), 0);
        assert_eq!(entries.violations(), []);
    });
    assert_eq!(client.say("QUIT").await.code, 221);
    assert!(client.is_closed().await);
    simulator.shutdown().await;
}

#[tokio::test]
async fn starttls_leads_to_a_session_that_begins_anew() {
    let simulator = start(provider()).await;
    let client = Client::introduced(mx(&simulator)).await;
    let mut client = client.start_tls(&simulator, "mx1.one.example").await;
    assert_eq!(client.say("MAIL FROM:<>").await.code, 503, "EHLO is forgotten");
    let hello = client.say("EHLO client.example").await;
    assert!(!hello.lines.iter().any(|line| line == "STARTTLS"), "{hello:?}");
    assert_eq!(client.say("STARTTLS").await.code, 502);
    assert_eq!(client.send(ADA, "Subject: secret\r\n\r\nx").await, 250);
    simulator
        .books()
        .wait_until(|entries| entries.accepted().len() == 1)
        .await;
    assert!(simulator.books().accepted()[0].tls);
    assert_eq!(simulator.books().summary().providers[0].tls, 1);
    assert_eq!(client.say("QUIT").await.code, 221);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn what_was_pipelined_past_starttls_is_dropped() {
    let simulator = start(provider()).await;
    let mut client = Client::introduced(mx(&simulator)).await;
    client.write("STARTTLS\r\nMAIL FROM:<eve@example.org>\r\n").await;
    assert_eq!(client.reply().await.code, 220);
    let mut client = client.shake_hands(&simulator, "mx1.one.example").await;
    assert_eq!(
        client.say("NOOP").await.code,
        250,
        "the first reply belongs to the first command over TLS"
    );
    simulator.books().read(|entries| {
        assert_eq!(entries.violations()[0].kind, ViolationKind::PipelinedPastStartTls);
        assert_eq!(entries.violations().len(), 1);
    });
}

#[tokio::test]
async fn a_provider_without_tls_does_not_offer_it() {
    let mut provider = provider();
    provider.start_tls = false;
    let simulator = start(provider).await;
    let mut client = Client::introduced(mx(&simulator)).await;
    let hello = client.say("EHLO client.example").await;
    assert!(!hello.lines.iter().any(|line| line == "STARTTLS"), "{hello:?}");
    assert_eq!(client.say("STARTTLS").await.code, 502);
}

/// Two transactions, one recipient refused, in as few or as many writes as may be.
#[tokio::test]
async fn pipelined_commands_are_answered_in_order() {
    let refused = MailboxRule::matching("dead*".parse().unwrap(), "550 5.1.1 unknown user".parse().unwrap());
    let simulator = start(provider().with_mailboxes(refused)).await;
    let envelope = "MAIL FROM:<a@example.org>\r\nRCPT TO:<dead1@one.example>\r\nRCPT TO:<ada@one.example>\r\nDATA\r\n";
    let body = "Message-ID: <1@example.org>\r\n\r\nfirst\r\n.\r\n";
    let behind = "MAIL FROM:<b@example.org>\r\nRCPT TO:<dead2@one.example>\r\nDATA\r\nRSET\r\nNOOP\r\nQUIT\r\n";
    for size in [1, 7, 1_000] {
        let mut client = Client::introduced(mx(&simulator)).await;
        for piece in envelope.as_bytes().chunks(size) {
            client.write(piece).await;
        }
        assert_eq!(client.codes(4).await, [250, 550, 250, 354]);
        for piece in format!("{body}{behind}").as_bytes().chunks(size) {
            client.write(piece).await;
        }
        assert_eq!(client.codes(7).await, [250, 250, 550, 554, 250, 250, 221]);
        assert!(client.is_closed().await);
    }
    simulator.books().read(|entries| {
        assert_eq!(entries.accepted().len(), 3);
        assert_eq!(entries.refusals(550), 6);
        assert_eq!(entries.duplicates().len(), 2);
        assert_eq!(entries.violations(), []);
        assert_eq!(entries.transactions_open(), 0);
    });
}

#[tokio::test]
async fn a_connection_too_many_is_refused_and_a_closed_one_makes_room_at_once() {
    let simulator = start(provider().with(ConnectionLimit::new(1))).await;
    for _ in 0..50 {
        let mut client = Client::introduced(mx(&simulator)).await;
        let mut refused = Client::connect(mx(&simulator)).await;
        assert_eq!(refused.reply().await.code, 421);
        assert!(refused.is_closed().await);
        assert_eq!(client.say("QUIT").await.code, 221);
    }
    let source = Ipv4Addr::LOCALHOST.into();
    simulator.books().read(|entries| {
        assert_eq!(entries.highest_open("one", source), 1);
        assert_eq!(entries.refusals_at(Phase::Greeting), 50);
    });
    let mut elsewhere = Client::connect_from(Ipv4Addr::new(127, 0, 0, 9), mx(&simulator)).await;
    assert_eq!(elsewhere.reply().await.code, 220);
}

/// The reply must not be lost to a reset when there is unread input behind the command that was refused.
#[tokio::test]
async fn the_last_reply_arrives_whatever_was_pipelined_behind() {
    let refusal = Refusals::all(Phase::MailFrom, "421 4.7.0 go\naway".parse().unwrap());
    let simulator = start(provider().with(refusal)).await;
    for _ in 0..50 {
        let mut client = Client::introduced(mx(&simulator)).await;
        let behind = "RCPT TO:<ada@one.example>\r\n".repeat(100);
        client.write(format!("MAIL FROM:<>\r\n{behind}")).await;
        let reply = client.reply().await;
        assert_eq!(
            (reply.code, reply.lines),
            (421, vec!["4.7.0 go".into(), "4.7.0 away".into()])
        );
        assert!(client.is_closed().await);
    }
}

#[tokio::test]
async fn broken_rules_are_in_the_books() {
    use ViolationKind::*;
    let simulator = start(provider()).await;
    let mut client = Client::connect(mx(&simulator)).await;
    assert_eq!(client.reply().await.code, 220);
    for (said, code, kind) in [
        ("MAIL FROM:<a@example.org>\r\n", 503, BadSequence),
        ("FROB\r\n", 500, BadCommand),
        ("AUTH PLAIN\r\n", 502, BadCommand),
        ("EHLO client.example\n", 250, BareLineFeed),
        ("RCPT TO:<ada@one.example>\r\n", 503, BadSequence),
        ("DATA\r\n", 503, BadSequence),
        ("MAIL FROM:<é@example.org>\r\n", 553, UndeclaredUtf8),
        ("MAIL FROM:<a@example.org> FROB=1\r\n", 555, BadCommand),
        ("MAIL FROM:a@example.org\r\n", 501, BadCommand),
        ("NOOP\r\r\n", 250, BareCarriageReturn),
    ] {
        client.write(said).await;
        assert_eq!(client.reply().await.code, code, "{said:?}");
        let last = simulator
            .books()
            .read(|entries| entries.violations().last().map(|last| last.kind));
        assert_eq!(last, Some(kind), "{said:?}");
    }
    client
        .write("MAIL FROM:<>\r\nRCPT TO:<ada@one.example>\r\nDATA\r\nearly\nbird\r\n.\r\n")
        .await;
    assert_eq!(client.codes(4).await, [250, 250, 354, 250]);
    simulator.books().read(|entries| {
        let kinds: Vec<_> = entries
            .violations()
            .iter()
            .rev()
            .take(2)
            .map(|last| last.kind)
            .collect();
        assert_eq!(kinds, [BareLineFeed, PipelinedPastData]);
    });
    client.write(vec![b'x'; 5_000]).await;
    assert_eq!(client.reply().await.code, 500);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_message_too_large_is_refused_announced_or_not() {
    let mut small = provider();
    small.max_message_size = 1_000;
    let simulator = start(small).await;
    let mut client = Client::introduced(mx(&simulator)).await;
    assert_eq!(client.say("MAIL FROM:<> SIZE=1001").await.code, 552);
    assert_eq!(client.send(ADA, &"0123456789\r\n".repeat(100)).await, 552);
    assert_eq!(client.send(ADA, "small").await, 250);
    simulator
        .books()
        .wait_until(|entries| entries.accepted().len() == 1)
        .await;
    assert_eq!(simulator.books().read(|entries| entries.refusals(552)), 2);
}

#[tokio::test]
async fn a_lost_reply_is_no_acceptance() {
    let lost = Disconnects {
        phase: Phase::EndOfData,
        percent: Percent::ALL,
    };
    let simulator = start(provider().with(lost)).await;
    let mut client = Client::introduced(mx(&simulator)).await;
    assert_eq!(client.send(ADA, "x").await, 0);
    simulator
        .books()
        .wait_until(|entries| entries.open_connections() == 0)
        .await;
    simulator.books().read(|entries| {
        assert_eq!((entries.messages_accepted(), entries.transactions_open()), (0, 0));
    });
}

#[tokio::test]
async fn a_connection_ends_without_a_word_after_its_share() {
    let limit = MessagesPerConnection {
        silently: true,
        ..MessagesPerConnection::new(2)
    };
    let simulator = start(provider().with(limit)).await;
    let mut client = Client::introduced(mx(&simulator)).await;
    assert_eq!(client.send(ADA, "1").await, 250);
    assert_eq!(client.send(ADA, "2").await, 250);
    assert!(client.is_closed().await);
    simulator
        .books()
        .wait_until(|entries| entries.accepted().len() == 2)
        .await;
}

#[tokio::test]
async fn virtual_time_runs_faster() {
    let service = ServiceTime {
        time: relaypool_api::Duration::from_secs(60),
        jitter: Percent::NONE,
    };
    let options = Options {
        time_scale: 600.0,
        ..Options::default()
    };
    let simulator = start_with(provider().with(service), options).await;
    let mut client = Client::introduced(mx(&simulator)).await;
    let before = simulator.now();
    assert_eq!(client.send(ADA, "x").await, 250);
    assert!(simulator.now() - before >= Duration::from_secs(60));
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_nothing_open() {
    let simulator = start(provider()).await;
    let mut client = Client::introduced(mx(&simulator)).await;
    client
        .write("MAIL FROM:<>\r\nRCPT TO:<ada@one.example>\r\nDATA\r\n")
        .await;
    assert_eq!(client.codes(3).await, [250, 250, 354]);
    client.write("half a mess").await;
    assert_eq!(simulator.books().read(|entries| entries.transactions_open()), 1);
    drop(client);
    simulator
        .books()
        .wait_until(|entries| entries.open_connections() == 0 && entries.transactions_open() == 0)
        .await;
    assert_eq!(simulator.books().read(|entries| entries.messages_accepted()), 0);
}

#[tokio::test]
async fn counts_only_keeps_no_entries() {
    let simulator = start_with(provider(), keeping(Keep::Counts)).await;
    let mut client = Client::introduced(mx(&simulator)).await;
    assert_eq!(client.send(ADA, "Message-ID: <1@example.org>\r\n\r\nx").await, 250);
    simulator
        .books()
        .wait_until(|entries| entries.messages_accepted() == 1)
        .await;
    assert_eq!(simulator.books().accepted(), []);
    let summary = serde_json::to_value(simulator.books().summary()).unwrap();
    assert_eq!(summary["providers"][0]["octets"], 34);
    assert_eq!(summary["providers"][0]["sources"]["127.0.0.1"]["messagesAccepted"], 1);
}

#[tokio::test]
async fn shutdown_closes_everything() {
    let simulator = start(provider()).await;
    let (address, books) = (mx(&simulator), simulator.books().clone());
    let mut client = Client::introduced(address).await;
    simulator.shutdown().await;
    assert!(client.is_closed().await);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    assert_eq!(books.read(|entries| entries.open_connections()), 0);
}
