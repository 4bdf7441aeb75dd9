//! Greeting, EHLO and HELO.

use relaypool_api::reply::Phase;
use relaypool_smtp::client::{Capabilities, ProtocolError, SessionError, TlsMode};

use super::support::*;

#[tokio::test]
async fn a_session_knows_what_the_host_offers() {
    let (session, host) = session(
        "250-mx.example at your service\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250 PIPELINING\r\n",
        async |mut host| host.answer("QUIT", "221 bye\r\n").await,
    )
    .await;
    let expected = Capabilities {
        pipelining: true,
        size: true,
        size_limit: Some(1000),
        eight_bit_mime: true,
        ..Capabilities::default()
    };
    assert_eq!(*session.capabilities(), expected);
    assert!(session.is_reusable() && !session.is_encrypted());
    assert_eq!(session.transactions(), 0);
    soon(session.quit()).await;
    soon(host).await.unwrap();
}

#[tokio::test]
async fn replies_may_come_in_any_segments() {
    let (client, server) = tokio::io::duplex(1);
    let host = tokio::spawn(async move {
        let mut host = Host::new(server);
        host.say("220-mx.example\r\n220-\r\n220 ESMTP\r\n").await;
        host.answer(
            "EHLO client.example",
            "250-mx.example\r\n250-SIZE 77\r\n250 STARTTLS\r\n",
        )
        .await;
    });
    let session = open(client, TlsMode::Disabled).await.unwrap();
    assert_eq!(session.capabilities().size_limit, Some(77));
    assert!(session.capabilities().starttls);
    soon(host).await.unwrap();
}

#[tokio::test]
async fn a_refusing_greeting_is_kept_and_answered_with_quit() {
    for (greeting, expected) in [
        ("554-5.7.1 go\r\n554 5.7.1 away\r\n", "Greeting 554 5.7.1 go away"),
        ("450 4.3.2 later\r\n", "Greeting 450 4.3.2 later"),
    ] {
        let (stream, host) = connect(async move |mut host| {
            host.say(greeting).await;
            host.answer("QUIT", "221 bye\r\n").await;
        })
        .await;
        let error = open(stream, TlsMode::Disabled).await.unwrap_err();
        assert!(matches!(error, SessionError::Refused { .. }), "{error:?}");
        assert_eq!(refused(&error), expected);
        assert!(!error.is_tls_failure());
        soon(host).await.unwrap();
    }
}

#[tokio::test]
async fn after_421_nothing_more_is_said() {
    let (stream, host) = connect(async |mut host| {
        host.say("421 4.3.2 closing\r\n").await;
        host.hear_out().await
    })
    .await;
    let error = open(stream, TlsMode::Disabled).await.unwrap_err();
    assert_eq!(refused(&error), "Greeting 421 4.3.2 closing");
    assert_eq!(soon(host).await.unwrap(), b"");

    let (stream, host) = connect(async |mut host| {
        host.welcome("421 4.3.2 closing\r\n").await;
        host.hear_out().await
    })
    .await;
    let error = open(stream, TlsMode::Disabled).await.unwrap_err();
    assert_eq!(refused(&error), "Ehlo 421 4.3.2 closing");
    assert_eq!(soon(host).await.unwrap(), b"");
}

#[tokio::test]
async fn a_host_without_ehlo_gets_helo() {
    for unknown in ["500 what?\r\n", "502 5.5.1 not implemented\r\n"] {
        let (stream, host) = connect(async move |mut host| {
            host.welcome(unknown).await;
            host.answer("HELO client.example", "250 mx.example\r\n").await;
        })
        .await;
        let session = open(stream, TlsMode::Opportunistic).await.unwrap();
        assert_eq!(*session.capabilities(), Capabilities::default());
        soon(host).await.unwrap();
    }
}

#[tokio::test]
async fn ehlo_and_helo_can_be_refused() {
    let (stream, host) = connect(async |mut host| {
        host.welcome("550 5.7.1 not you\r\n").await;
        host.answer("QUIT", "221 bye\r\n").await;
    })
    .await;
    let error = open(stream, TlsMode::Disabled).await.unwrap_err();
    assert_eq!(refused(&error), "Ehlo 550 5.7.1 not you");
    soon(host).await.unwrap();

    let (stream, host) = connect(async |mut host| {
        host.welcome("500 what?\r\n").await;
        host.answer("HELO client.example", "450 4.7.1 wait\r\n").await;
        host.answer("QUIT", "221 bye\r\n").await;
    })
    .await;
    let error = open(stream, TlsMode::Disabled).await.unwrap_err();
    assert_eq!(refused(&error), "Ehlo 450 4.7.1 wait");
    soon(host).await.unwrap();
}

#[tokio::test]
async fn what_is_not_smtp_is_told_apart() {
    for (greeting, expected) in [
        (
            "SSH-2.0-OpenSSH_9.2\r\n",
            "not SMTP at the greeting: 'SSH-2.0-OpenSSH_9.2' is no reply line",
        ),
        (
            "250 too eager\r\n",
            "not SMTP at the greeting: '250 too eager' is no answer to the command",
        ),
        (
            "220-yes\r\n550 no\r\n",
            "not SMTP at the greeting: one reply has lines of code 220 and of code 550",
        ),
    ] {
        let (stream, host) = connect(async move |mut host| {
            host.say(greeting).await;
            host.hear_out().await
        })
        .await;
        let error = open(stream, TlsMode::Disabled).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.phase(), Phase::Greeting);
        assert_eq!(soon(host).await.unwrap(), b"");
    }
}

#[tokio::test]
async fn a_reply_before_the_command_is_not_taken_for_its_answer() {
    let (stream, host) = connect(async |mut host| {
        host.say("220 hello\r\n250-eager\r\n250 PIPELINING\r\n").await;
        host.hear_out().await
    })
    .await;
    let error = open(stream, TlsMode::Disabled).await.unwrap_err();
    assert!(
        matches!(
            error,
            SessionError::Protocol {
                phase: Phase::Ehlo,
                source: ProtocolError::Unsolicited
            }
        ),
        "{error:?}"
    );
    assert_eq!(soon(host).await.unwrap(), b"");
}

#[tokio::test]
async fn a_host_that_hangs_up_is_named_with_the_phase() {
    let (stream, host) = connect(async |host| drop(host)).await;
    let error = open(stream, TlsMode::Disabled).await.unwrap_err();
    assert!(
        matches!(
            error,
            SessionError::Io {
                phase: Phase::Greeting,
                ..
            }
        ),
        "{error:?}"
    );
    soon(host).await.unwrap();

    let (stream, host) = connect(async |mut host| {
        host.say("220 hello\r\n").await;
        host.hear().await;
    })
    .await;
    let error = open(stream, TlsMode::Disabled).await.unwrap_err();
    assert!(
        matches!(error, SessionError::Io { phase: Phase::Ehlo, .. }),
        "{error:?}"
    );
    soon(host).await.unwrap();
}
