//! Sessions that end before they should, and those that go on all the same.

use relaypool_api::reply::Phase;
use relaypool_smtp::client::{ProtocolError, SessionError, TlsMode};

use super::support::*;

/// The replies of a host up to a 421, or up to hanging up, and what is expected of two recipients.
type Story = (&'static [&'static str], [&'static str; 2]);

#[tokio::test]
async fn a_421_ends_the_session_in_any_phase() {
    let stories: [Story; 5] = [
        (&["421 4.3.2 x\r\n"], ["refused MailFrom 421 4.3.2 x"; 2]),
        (&["250 ok\r\n", "421 4.3.2 x\r\n"], ["refused RcptTo 421 4.3.2 x"; 2]),
        (
            &["250 ok\r\n", "550 no\r\n", "421 4.3.2 x\r\n"],
            ["refused RcptTo 550 no", "refused RcptTo 421 4.3.2 x"],
        ),
        (
            &["250 ok\r\n", "250 ok\r\n", "550 no\r\n", "421 4.3.2 x\r\n"],
            ["refused Data 421 4.3.2 x", "refused RcptTo 550 no"],
        ),
        (
            &[
                "250 ok\r\n",
                "250 ok\r\n",
                "250 ok\r\n",
                "354 go\r\n",
                "421 4.3.2 x\r\n",
            ],
            ["refused EndOfData 421 4.3.2 x"; 2],
        ),
    ];
    for ehlo in BOTH_WAYS {
        for (replies, expected) in stories {
            let (mut session, host) = session(ehlo, async move |mut host| {
                for reply in replies {
                    if *reply == *replies.last().unwrap() && replies.contains(&"354 go\r\n") {
                        host.hear_data().await;
                    } else {
                        host.hear().await;
                    }
                    host.say(reply).await;
                }
                host.hear_out().await
            })
            .await;
            let transaction = soon(session.send(&envelope(&["b", "c"]), MESSAGE)).await.unwrap();
            assert_eq!(outcomes(&transaction), expected, "{replies:?}");
            assert!(transaction.interruption.is_none());
            assert!(!session.is_reusable());
            let again = session_error(soon(session.send(&envelope(&["b"]), MESSAGE)).await);
            assert!(matches!(again, SessionError::Ended), "{again:?}");
            soon(session.quit()).await;
            let unheard = String::from_utf8(soon(host).await.unwrap()).unwrap();
            assert!(!unheard.contains("QUIT"), "{unheard}");
        }
    }
}

#[tokio::test]
async fn a_lost_connection_is_reported_with_its_phase() {
    let stories: [(&[&str], Phase); 4] = [
        (&[], Phase::MailFrom),
        (&["250 ok\r\n"], Phase::RcptTo),
        (&["250 ok\r\n", "250 ok\r\n"], Phase::Data),
        (&["250 ok\r\n", "250 ok\r\n", "354 go\r\n"], Phase::EndOfData),
    ];
    for ehlo in BOTH_WAYS {
        for (replies, phase) in stories {
            let (mut session, host) = session(ehlo, async move |mut host| {
                for reply in replies {
                    host.hear().await;
                    host.say(reply).await;
                }
                if phase == Phase::EndOfData {
                    host.hear_data().await;
                } else {
                    host.hear().await;
                }
            })
            .await;
            let error = session_error(soon(session.send(&envelope(&["b"]), MESSAGE)).await);
            assert!(matches!(error, SessionError::Io { .. }), "{error:?}");
            assert_eq!(error.phase(), phase);
            assert!(!session.is_reusable());
            soon(host).await.unwrap();
        }
    }
}

#[tokio::test]
async fn refusals_before_the_loss_are_kept() {
    for ehlo in BOTH_WAYS {
        let (mut session, host) = session(ehlo, async |mut host| {
            host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
            host.answer("RCPT TO:<b@receiver.example>", "550 5.1.1 unknown\r\n")
                .await;
            host.answer("RCPT TO:<c@receiver.example>", "250 ok\r\n").await;
            host.answer("DATA", "354 go\r\n").await;
            host.hear_data().await;
        })
        .await;
        let transaction = soon(session.send(&envelope(&["b", "c"]), MESSAGE)).await.unwrap();
        assert_eq!(
            outcomes(&transaction),
            ["refused RcptTo 550 5.1.1 unknown", "undecided"]
        );
        let interruption = transaction.interruption.unwrap();
        assert!(matches!(
            interruption,
            SessionError::Io {
                phase: Phase::EndOfData,
                ..
            }
        ));
        assert!(!session.is_reusable());
        soon(host).await.unwrap();
    }
}

#[tokio::test]
async fn a_reset_that_fails_does_not_lose_the_outcomes() {
    let (mut session, host) = session(PLAIN, async |mut host| {
        host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
        host.answer("RCPT TO:<b@receiver.example>", "550 5.1.1 unknown\r\n")
            .await;
        host.answer("RSET", "421 4.3.2 closing\r\n").await;
    })
    .await;
    let transaction = soon(session.send(&envelope(&["b"]), MESSAGE)).await.unwrap();
    assert_eq!(outcomes(&transaction), ["refused RcptTo 550 5.1.1 unknown"]);
    assert_eq!(
        refused(&transaction.interruption.unwrap()),
        "MailFrom 421 4.3.2 closing"
    );
    assert!(!session.is_reusable());
    soon(host).await.unwrap();
}

#[tokio::test]
async fn a_leftover_reply_is_not_taken_for_the_next_answer() {
    for ehlo in BOTH_WAYS {
        // Two replies to DATA: the second must not pass for the answer to the final dot.
        let (mut session, host) = session(ehlo, async |mut host| {
            host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
            host.answer("RCPT TO:<b@receiver.example>", "250 ok\r\n").await;
            host.answer("DATA", "354 go\r\n250 2.0.0 taken\r\n").await;
            host.hear_out().await
        })
        .await;
        let error = session_error(soon(session.send(&envelope(&["b"]), MESSAGE)).await);
        assert!(
            matches!(
                error,
                SessionError::Protocol {
                    phase: Phase::EndOfData,
                    source: ProtocolError::Unsolicited
                }
            ),
            "{error:?}"
        );
        assert!(!session.is_reusable());
        drop(session);
        assert_eq!(soon(host).await.unwrap(), b"");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unasked_reply_is_not_made_good_by_the_next() {
    // The pipe holds the first two of the host's three replies; the third comes when it was read.
    let (client, server) = tokio::io::duplex("354 go\r\n250 stray\r\n".len());
    let host = tokio::spawn(async move {
        let mut host = Host::new(server);
        host.welcome(PLAIN).await;
        host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
        host.answer("RCPT TO:<b@receiver.example>", "250 ok\r\n").await;
        host.answer("DATA", "354 go\r\n250 stray\r\n550 stray\r\n").await;
        std::future::pending::<()>().await;
    });
    let mut session = open(client, TlsMode::Disabled).await.unwrap();
    let error = session_error(in_the_end(session.send(&envelope(&["b"]), MESSAGE)).await);
    assert_eq!(
        error.to_string(),
        "not SMTP at the end of data: the host answered before it was asked"
    );
    host.abort();
}

#[tokio::test]
async fn a_421_behind_another_reply_is_heard() {
    let (mut session, host) = session(PLAIN, async |mut host| {
        host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
        host.answer("RCPT TO:<b@receiver.example>", "250 ok\r\n").await;
        host.answer("DATA", "354 go\r\n421 4.3.2 no, closing\r\n").await;
        host.hear_out().await
    })
    .await;
    let transaction = soon(session.send(&envelope(&["b"]), MESSAGE)).await.unwrap();
    assert_eq!(outcomes(&transaction), ["refused EndOfData 421 4.3.2 no, closing"]);
    assert!(!session.is_reusable());
    drop(session);
    assert_eq!(soon(host).await.unwrap(), b"");
}

#[tokio::test]
async fn replies_out_of_place_are_errors() {
    let stories: [(&[&str], Phase); 4] = [
        (&["354 go\r\n"], Phase::MailFrom),
        (&["250 ok\r\n", "354 go\r\n"], Phase::RcptTo),
        (&["250 ok\r\n", "250 ok\r\n", "250 ok\r\n"], Phase::Data),
        (
            &["250 ok\r\n", "250 ok\r\n", "354 go\r\n", "354 go on\r\n"],
            Phase::EndOfData,
        ),
    ];
    for (replies, phase) in stories {
        let (mut session, host) = session(PLAIN, async move |mut host| {
            for reply in replies {
                if *reply == "354 go on\r\n" {
                    host.hear_data().await;
                } else {
                    host.hear().await;
                }
                host.say(reply).await;
            }
            host.hear_out().await
        })
        .await;
        let error = session_error(soon(session.send(&envelope(&["b"]), MESSAGE)).await);
        assert_eq!(error.phase(), phase);
        let said = error.reply().unwrap().to_string();
        assert_eq!(format!("{said}\r\n"), *replies.last().unwrap());
        assert!(!session.is_reusable());
        drop(session);
        assert_eq!(soon(host).await.unwrap(), b"");
    }
}

#[tokio::test]
async fn a_transaction_that_was_not_awaited_ends_the_session() {
    let (mut session, host) = session(PLAIN, async |mut host| {
        host.hear().await;
        host
    })
    .await;
    let one = envelope(&["b"]);
    let host = tokio::select! {
        biased;
        _ = session.send(&one, MESSAGE) => panic!("the host does not answer"),
        host = host => host.unwrap(),
    };
    assert!(!session.is_reusable());
    let again = session_error(soon(session.send(&envelope(&["b"]), MESSAGE)).await);
    assert!(matches!(again, SessionError::Ended), "{again:?}");
    assert!(matches!(session.rset().await, Err(SessionError::Ended)));
    assert!(matches!(session.idle().await, Err(SessionError::Ended)));
    soon(session.quit()).await;
    drop(host);
}

#[tokio::test]
async fn an_idle_session_notices_what_the_host_does() {
    for (word, expected) in [
        (
            "421 4.4.2 idle too long\r\n",
            "the host refused at MAIL: 421 4.4.2 idle too long",
        ),
        (
            "250 psst\r\n",
            "not SMTP at MAIL: the host answered before it was asked",
        ),
        ("", "connection lost at MAIL: closed by the host"),
    ] {
        let (mut session, host) = session(PLAIN, async move |mut host| host.say(word).await).await;
        assert_eq!(soon(session.idle()).await.unwrap_err().to_string(), expected);
        assert!(!session.is_reusable());
        soon(host).await.unwrap();
    }
}

#[tokio::test]
async fn idle_can_be_left_for_work() {
    let (mut session, host) = session(PLAIN, async |mut host| {
        host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
        host.answer("RCPT TO:<b@receiver.example>", "250 ok\r\n").await;
        host.answer("RSET", "250 ok\r\n").await;
    })
    .await;
    tokio::select! {
        biased;
        end = session.idle() => panic!("{end:?}"),
        () = tokio::task::yield_now() => {}
    }
    assert!(session.is_reusable());
    soon(session.probe(&envelope(&["b"]))).await.unwrap();
    assert!(session.is_reusable());
    soon(host).await.unwrap();
}

#[tokio::test]
async fn a_421_that_waited_is_read_instead_of_the_answer() {
    let (mut session, host) = session(PLAIN, async |mut host| {
        host.say("421 4.4.2 idle too long\r\n").await;
        drop(host);
    })
    .await;
    soon(host).await.unwrap();
    let transaction = soon(session.send(&envelope(&["b"]), MESSAGE)).await.unwrap();
    assert_eq!(outcomes(&transaction), ["refused MailFrom 421 4.4.2 idle too long"]);
    assert!(!session.is_reusable());
}

#[tokio::test]
async fn rset_by_hand() {
    let (mut session, host) = session(PLAIN, async |mut host| {
        host.answer("RSET", "250 2.0.0 ok\r\n").await;
        host.answer("RSET", "500 what?\r\n").await;
    })
    .await;
    soon(session.rset()).await.unwrap();
    assert!(session.is_reusable());
    let error = soon(session.rset()).await.unwrap_err();
    assert_eq!(refused(&error), "MailFrom 500 what?");
    assert!(!session.is_reusable());
    soon(host).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_host_that_reads_slowly_is_listened_to_meanwhile() {
    // Both directions hold 64 bytes: whoever only writes, waits forever.
    let (client, server) = tokio::io::duplex(64);
    let recipients: Vec<String> = (0..250).map(|number| format!("recipient-{number}")).collect();
    let names: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let everybody = envelope(&names);
    let host = tokio::spawn(async move {
        let mut host = Host::new(server);
        host.welcome(PIPELINING).await;
        host.answer("MAIL FROM:<a@sender.example>", "250 2.1.0 ok\r\n").await;
        for recipient in recipients {
            let reply = format!("250 2.1.5 {recipient} is a friend of mine\r\n");
            host.answer(&format!("RCPT TO:<{recipient}@receiver.example>"), &reply)
                .await;
        }
        host.answer("DATA", "354 go\r\n").await;
        let data = host.hear_data().await;
        host.say("250 taken\r\n").await;
        data.len()
    });
    let mut session = open(client, TlsMode::Disabled).await.unwrap();
    let message = b"0123456789\r\n".repeat(20_000);
    let transaction = in_the_end(session.send(&everybody, &message)).await.unwrap();
    assert_eq!(outcomes(&transaction), vec!["accepted EndOfData 250 taken"; 250]);
    assert_eq!(soon(host).await.unwrap(), message.len() + 3);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_within_the_message_is_heard() {
    let (client, server) = tokio::io::duplex(1024);
    let host = tokio::spawn(async move {
        let mut host = Host::new(server);
        host.welcome(PIPELINING).await;
        host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
        host.answer("RCPT TO:<b@receiver.example>", "250 ok\r\n").await;
        host.answer("DATA", "354 go\r\n").await;
        host.hear().await;
        host.say("552 5.3.4 enough\r\n").await;
    });
    let mut session = open(client, TlsMode::Disabled).await.unwrap();
    let message = b"0123456789\r\n".repeat(20_000);
    let transaction = in_the_end(session.send(&envelope(&["b"]), &message)).await.unwrap();
    assert_eq!(outcomes(&transaction), ["refused EndOfData 552 5.3.4 enough"]);
    assert!(!session.is_reusable());
    soon(host).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_host_that_has_said_its_last_gets_no_more() {
    let (client, server) = tokio::io::duplex(1024);
    let host = tokio::spawn(async move {
        let mut host = Host::new(server);
        host.welcome(PLAIN).await;
        host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
        host.answer("RCPT TO:<b@receiver.example>", "250 ok\r\n").await;
        host.answer("DATA", "354 go\r\n").await;
        host.hear().await;
        // Half closed: the client could go on writing, but there will be no answer.
        let mut server = host.into_unread();
        tokio::io::AsyncWriteExt::shutdown(&mut server).await.unwrap();
        std::future::pending::<()>().await;
    });
    let mut session = open(client, TlsMode::Disabled).await.unwrap();
    let message = b"0123456789\r\n".repeat(20_000);
    let error = session_error(in_the_end(session.send(&envelope(&["b"]), &message)).await);
    assert!(
        matches!(
            error,
            SessionError::Io {
                phase: Phase::EndOfData,
                ..
            }
        ),
        "{error:?}"
    );
    host.abort();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_not_read_was_not_accepted() {
    let (client, server) = tokio::io::duplex(1024);
    let host = tokio::spawn(async move {
        let mut host = Host::new(server);
        host.welcome(PIPELINING).await;
        host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
        host.answer("RCPT TO:<b@receiver.example>", "250 ok\r\n").await;
        host.answer("DATA", "354 go\r\n").await;
        host.hear().await;
        host.say("250 2.0.0 so they say\r\n").await;
    });
    let mut session = open(client, TlsMode::Disabled).await.unwrap();
    let message = b"0123456789\r\n".repeat(20_000);
    let error = session_error(in_the_end(session.send(&envelope(&["b"]), &message)).await);
    assert!(
        matches!(
            error,
            SessionError::Io {
                phase: Phase::EndOfData,
                ..
            }
        ),
        "{error:?}"
    );
    soon(host).await.unwrap();
}
