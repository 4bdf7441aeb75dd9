//! What receiving hosts write.

use std::net::Ipv4Addr;

use relaypool_api::delivery_slice::MessageDetail;
use relaypool_simulator::Simulator;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::support::{counts, message, slice, users};
use super::{good_provider, spoke_well};

/// A host for a domain of its own (by its address, RFC 5321 section 5.1) that answers as it is told: what is called
/// `greeting`, each command line, and `.` for a message.
async fn host(simulator: &Simulator, domain: &str, address: Ipv4Addr, answer: fn(&str) -> Vec<u8>) {
    simulator.add_address(domain, address).await.unwrap();
    let listener = TcpListener::bind((address, simulator.smtp_port())).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The client may be gone at any moment; the next connection is another matter.
            tokio::spawn(async move { drop(serve(stream, answer).await) });
        }
    });
}

async fn serve(stream: TcpStream, answer: fn(&str) -> Vec<u8>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(&answer("greeting")).await?;
    let (mut line, mut in_message) = (String::new(), false);
    while stream.read_line(&mut line).await? > 0 {
        let ends = in_message && line == ".\r\n";
        if ends || !in_message {
            let reply = answer(line.trim_end());
            in_message = reply.starts_with(b"354");
            stream.get_mut().write_all(&reply).await?;
        }
        line.clear();
    }
    Ok(())
}

/// The answers of a host without extensions.
fn plain_host(line: &str) -> Vec<u8> {
    match line.split([' ', ':']).next() {
        Some("greeting") => b"220 ready\r\n".to_vec(),
        Some("DATA") => b"354 go on\r\n".to_vec(),
        Some("QUIT") => b"221 bye\r\n".to_vec(),
        _ => b"250 ok\r\n".to_vec(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_outside_ascii_needs_a_host_that_takes_it() {
    let bench = good_provider().await;
    host(
        &bench.simulator,
        "plain.example",
        Ipv4Addr::new(127, 0, 9, 1),
        plain_host,
    )
    .await;
    let addresses = [
        "søren@good.example",
        "søren@plain.example",
        "soren@plain.example",
        "josé@plain.example",
    ];
    bench
        .engine
        .accept(slice("s", &message(json!({})), addresses))
        .await
        .unwrap();
    let status = bench.finished("s").await;

    let ranges = status.ranges.as_ref().unwrap();
    assert_eq!(
        (ranges.sent.as_str(), ranges.failed.as_str()),
        ("0,2", "1,3"),
        "{status:#?}"
    );
    let detail = status.details.iter().find(|detail| detail.position == 1).unwrap();
    assert!(detail.reply.as_ref().unwrap().contains("SMTPUTF8"), "{detail:?}");
    assert_eq!(bench.accepted(), ["søren@good.example"]);
    spoke_well(&bench);
}

fn garbage_greeting(_: &str) -> Vec<u8> {
    b"\x16\x03\x01 who are you?\r\n\xff\xfe\r\n".to_vec()
}

/// A megabyte without a line end.
fn endless_line(line: &str) -> Vec<u8> {
    match line.starts_with("RCPT") {
        true => [b"550 ", vec![b'x'; 1 << 20].as_slice()].concat(),
        false => plain_host(line),
    }
}

/// A megabyte of lines that are all to be continued.
fn endless_reply(line: &str) -> Vec<u8> {
    match line.starts_with("RCPT") {
        true => b"550-no\r\n".repeat((1 << 20) / 8),
        false => plain_host(line),
    }
}

/// A sound reply with words that would do harm on a terminal.
fn nasty_words(line: &str) -> Vec<u8> {
    match line.starts_with("RCPT") {
        true => b"550 5.1.1 \x1b[31mred\x07\0 \xff\xfe \xe2\x80\xae end\r\n".to_vec(),
        false => plain_host(line),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_talk_nonsense_harm_only_their_own_mail() {
    type Answer = fn(&str) -> Vec<u8>;
    let bench = good_provider().await;
    let hosts: [(&str, Answer); 4] = [
        ("greeting.example", garbage_greeting),
        ("line.example", endless_line),
        ("reply.example", endless_reply),
        ("words.example", nasty_words),
    ];
    for (number, (domain, answer)) in (1..).zip(hosts) {
        host(&bench.simulator, domain, Ipv4Addr::new(127, 0, 10, number), answer).await;
    }
    let message = message(json!({ "validity": "6s" }));
    let addresses = hosts
        .map(|(domain, _)| format!("ada@{domain}"))
        .into_iter()
        .chain(users(50, "good.example"));
    bench.engine.accept(slice("s", &message, addresses)).await.unwrap();
    bench.wait("s", |counts| counts.sent == 50).await;
    let status = bench.finished("s").await;

    assert_eq!((counts(&status).sent, counts(&status).failed), (50, 4), "{status:#?}");
    let detail = |position: u32| -> MessageDetail {
        let found = status.details.iter().find(|detail| detail.position == position);
        found
            .unwrap_or_else(|| panic!("no detail of {position}: {status:#?}"))
            .clone()
    };
    for position in 0..3 {
        assert!(detail(position).attempts > 1, "it may heal: {:?}", detail(position));
        assert!(detail(position).reply.unwrap().len() < 1_000);
    }
    let words = detail(3).reply.unwrap();
    assert!(words.starts_with("550 5.1.1 ") && words.ends_with("end"), "{words:?}");
    assert!(!words.chars().any(char::is_control), "{words:?}");
    assert_eq!(detail(3).reason.as_deref(), Some("User unknown"));
}
