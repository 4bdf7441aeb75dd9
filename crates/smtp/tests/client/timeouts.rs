//! Hosts that fall silent, in virtual time.

use std::time::Duration;

use relaypool_api::reply::Phase;
use relaypool_smtp::client::{SessionError, Timeouts, TlsMode};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::support::*;

/// A host that says `replies`, one for each line it hears, and then nothing more. It holds the connection.
fn silent_after(replies: &'static [&'static str]) -> (DuplexStream, JoinHandle<()>) {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let host = tokio::spawn(async move {
        let mut host = Host::new(server);
        for (index, reply) in replies.iter().enumerate() {
            if index > 0 {
                host.hear().await;
            }
            host.say(reply).await;
        }
        std::future::pending().await
    });
    (client, host)
}

fn assert_timeout(error: &SessionError, phase: Phase, after: Duration, started: Instant) {
    match error {
        SessionError::Timeout {
            phase: seen,
            after: waited,
        } => assert_eq!((*seen, *waited), (phase, after)),
        other => panic!("{other:?}"),
    }
    assert_eq!(started.elapsed().as_secs(), after.as_secs(), "{phase:?}");
}

#[tokio::test(start_paused = true)]
async fn opening_has_limits() {
    let limits = Timeouts::default();
    let cases: [(&[&str], Phase, Duration); 5] = [
        (&[], Phase::Greeting, limits.greeting),
        (&["220 hello\r\n"], Phase::Ehlo, limits.ehlo),
        (&["220 hello\r\n", "500 what?\r\n"], Phase::Ehlo, limits.ehlo),
        (
            &["220 hello\r\n", "250-mx\r\n250 STARTTLS\r\n"],
            Phase::StartTls,
            limits.ehlo,
        ),
        (
            &["220 hello\r\n", "250-mx\r\n250 STARTTLS\r\n", "220 go\r\n"],
            Phase::StartTls,
            limits.tls_handshake,
        ),
    ];
    for (replies, phase, after) in cases {
        let (client, host) = silent_after(replies);
        let started = Instant::now();
        let error = open(client, TlsMode::Opportunistic).await.unwrap_err();
        assert_timeout(&error, phase, after, started);
        assert_eq!(error.is_tls_failure(), phase == Phase::StartTls);
        host.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_has_limits() {
    let limits = Timeouts::default();
    let plain: [(&[&str], Phase, Duration); 4] = [
        (&["220 hi\r\n", "250 mx\r\n"], Phase::MailFrom, limits.mail),
        (&["220 hi\r\n", "250 mx\r\n", "250 ok\r\n"], Phase::RcptTo, limits.rcpt),
        (
            &["220 hi\r\n", "250 mx\r\n", "250 ok\r\n", "250 ok\r\n"],
            Phase::Data,
            limits.data,
        ),
        (
            &["220 hi\r\n", "250 mx\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"],
            Phase::EndOfData,
            limits.end_of_data,
        ),
    ];
    let pipelined: [(&[&str], Phase, Duration); 4] = [
        (&["220 hi\r\n", PIPELINING], Phase::MailFrom, limits.mail),
        (&["220 hi\r\n", PIPELINING, "250 ok\r\n"], Phase::RcptTo, limits.rcpt),
        (
            &["220 hi\r\n", PIPELINING, "250 ok\r\n", "250 ok\r\n"],
            Phase::Data,
            limits.data,
        ),
        (
            &["220 hi\r\n", PIPELINING, "250 ok\r\n", "250 ok\r\n", "354 go\r\n"],
            Phase::EndOfData,
            limits.end_of_data,
        ),
    ];
    for (replies, phase, after) in plain.into_iter().chain(pipelined) {
        let (client, host) = silent_after(replies);
        let mut session = open(client, TlsMode::Disabled).await.unwrap();
        let started = Instant::now();
        let error = session_error(in_the_end(session.send(&envelope(&["b"]), MESSAGE)).await);
        assert_timeout(&error, phase, after, started);
        assert!(!session.is_reusable());
        host.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_read_the_message_is_given_up() {
    let (client, server) = tokio::io::duplex(1024);
    let host = tokio::spawn(async move {
        let mut host = Host::new(server);
        host.welcome(PLAIN).await;
        host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
        host.answer("RCPT TO:<b@receiver.example>", "250 ok\r\n").await;
        host.answer("DATA", "354 go\r\n").await;
        std::future::pending::<()>().await;
    });
    let mut session = open(client, TlsMode::Disabled).await.unwrap();
    let message = b"0123456789\r\n".repeat(1000);
    let started = Instant::now();
    let error = session_error(in_the_end(session.send(&envelope(&["b"]), &message)).await);
    assert_timeout(&error, Phase::EndOfData, Timeouts::default().data_block, started);
    assert!(!session.is_reusable());
    host.abort();
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_for_the_reply_and_not_for_each_byte() {
    let (client, server) = tokio::io::duplex(1024);
    let host = tokio::spawn(async move {
        let mut host = Host::new(server);
        loop {
            host.say("2").await;
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    });
    let started = Instant::now();
    let error = open(client, TlsMode::Disabled).await.unwrap_err();
    assert_timeout(&error, Phase::Greeting, Timeouts::default().greeting, started);
    host.abort();
}

#[tokio::test(start_paused = true)]
async fn quit_never_hangs() {
    let limit = Timeouts::default().quit;
    let (client, host) = silent_after(&["220 hi\r\n", "250 mx\r\n"]);
    let session = open(client, TlsMode::Disabled).await.unwrap();
    let started = Instant::now();
    session.quit().await;
    assert_eq!(started.elapsed().as_secs(), limit.as_secs());
    host.abort();

    // A host that does not even read: the pipe has no room for a QUIT.
    let (client, server) = tokio::io::duplex(5);
    let host = tokio::spawn(async move {
        let mut host = Host::new(server);
        host.welcome(PLAIN).await;
        std::future::pending::<()>().await;
    });
    let session = open(client, TlsMode::Disabled).await.unwrap();
    let started = Instant::now();
    session.quit().await;
    assert_eq!(started.elapsed().as_secs(), limit.as_secs());
    host.abort();
}

#[tokio::test(start_paused = true)]
async fn a_silent_host_cannot_hold_a_refused_session_or_transaction() {
    let limits = Timeouts::default();
    let (client, host) = silent_after(&["554 no\r\n"]);
    let started = Instant::now();
    assert_eq!(
        refused(&open(client, TlsMode::Disabled).await.unwrap_err()),
        "Greeting 554 no"
    );
    assert_eq!(started.elapsed().as_secs(), limits.quit.as_secs());
    host.abort();

    let (client, host) = silent_after(&["220 hi\r\n", "250 mx\r\n", "250 ok\r\n", "550 5.1.1 unknown\r\n"]);
    let mut session = open(client, TlsMode::Disabled).await.unwrap();
    let started = Instant::now();
    let transaction = in_the_end(session.send(&envelope(&["b"]), MESSAGE)).await.unwrap();
    assert_eq!(outcomes(&transaction), ["refused RcptTo 550 5.1.1 unknown"]);
    assert_timeout(
        &transaction.interruption.unwrap(),
        Phase::MailFrom,
        limits.rset,
        started,
    );
    assert!(!session.is_reusable());
    host.abort();
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_is_good_when_the_time_is_over() {
    let (client, host) = silent_after(&["220 hi\r\n", "250 mx\r\n"]);
    let mut session = open(client, TlsMode::Disabled).await.unwrap();
    let started = Instant::now();
    session.idle().await.unwrap();
    assert_eq!(started.elapsed().as_secs(), Timeouts::default().idle.as_secs());
    assert!(session.is_reusable());
    host.abort();
}
