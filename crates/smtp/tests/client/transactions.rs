//! MAIL, RCPT, DATA and the message, one by one and pipelined.

use relaypool_smtp::client::{Envelope, SendError, Unsendable};

use super::support::*;

#[tokio::test]
async fn without_pipelining_one_command_waits_for_the_other() {
    let (mut session, host) = session(PLAIN, async |mut host| {
        for (command, reply) in [
            ("MAIL FROM:<a@sender.example>", "250 2.1.0 ok\r\n"),
            ("RCPT TO:<b@receiver.example>", "250 2.1.5 ok\r\n"),
            ("RCPT TO:<c@receiver.example>", "251 2.1.5 will forward\r\n"),
            ("DATA", "354 go\r\n"),
        ] {
            assert_eq!(host.hear().await, command);
            assert!(host.has_heard_all());
            host.say(reply).await;
        }
        let data = host.hear_data().await;
        host.say("250 2.0.0 queued as 1\r\n").await;
        data
    })
    .await;
    let transaction = soon(session.send(&envelope(&["b", "c"]), MESSAGE)).await.unwrap();
    assert_eq!(outcomes(&transaction), ["accepted EndOfData 250 2.0.0 queued as 1"; 2]);
    assert!(transaction.interruption.is_none());
    assert!(session.is_reusable());
    assert_eq!(soon(host).await.unwrap(), [MESSAGE, b".\r\n"].concat());
}

#[tokio::test]
async fn with_pipelining_the_commands_come_together() {
    let (mut session, host) = session(PIPELINING, async |mut host| {
        for command in [
            "MAIL FROM:<a@sender.example>",
            "RCPT TO:<b@receiver.example>",
            "RCPT TO:<c@receiver.example>",
            "DATA",
        ] {
            assert_eq!(host.hear().await, command);
        }
        assert!(host.has_heard_all());
        host.say("250 2.1.0 ok\r\n250-2.1.5 o\r\n250 2.1.5 k\r\n250 2.1.5 ok\r\n354 go\r\n")
            .await;
        let data = host.hear_data().await;
        host.say("250 2.0.0 queued as 1\r\n").await;
        data
    })
    .await;
    let transaction = soon(session.send(&envelope(&["b", "c"]), MESSAGE)).await.unwrap();
    assert_eq!(outcomes(&transaction), ["accepted EndOfData 250 2.0.0 queued as 1"; 2]);
    assert!(session.is_reusable());
    assert_eq!(soon(host).await.unwrap(), [MESSAGE, b".\r\n"].concat());
}

#[tokio::test]
async fn a_session_is_used_again() {
    for ehlo in BOTH_WAYS {
        let (mut session, host) = session(ehlo, async |mut host| {
            for _ in 0..3 {
                host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
                host.answer("RCPT TO:<b@receiver.example>", "250 ok\r\n").await;
                host.answer("DATA", "354 go\r\n").await;
                host.hear_data().await;
                host.say("250 taken\r\n").await;
            }
            host.answer("QUIT", "221 bye\r\n").await;
            host.hear_out().await
        })
        .await;
        // In a task of its own, as a lane works.
        let work = tokio::spawn(async move {
            for sent in 1..=3 {
                session.send(&envelope(&["b"]), MESSAGE).await.unwrap();
                assert_eq!(session.transactions(), sent);
                assert!(session.is_reusable());
            }
            session.quit().await;
        });
        soon(work).await.unwrap();
        assert_eq!(soon(host).await.unwrap(), b"");
    }
}

#[tokio::test]
async fn each_recipient_has_its_own_outcome() {
    for ehlo in BOTH_WAYS {
        let (mut session, host) = session(ehlo, async |mut host| {
            host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
            host.answer("RCPT TO:<b@receiver.example>", "550 5.1.1 unknown\r\n")
                .await;
            host.answer("RCPT TO:<c@receiver.example>", "250 ok\r\n").await;
            host.answer("RCPT TO:<d@receiver.example>", "452 4.2.2 full\r\n").await;
            host.answer("DATA", "354 go\r\n").await;
            host.hear_data().await;
            host.say("250 2.0.0 taken\r\n").await;
        })
        .await;
        let transaction = soon(session.send(&envelope(&["b", "c", "d"]), MESSAGE)).await.unwrap();
        assert_eq!(
            outcomes(&transaction),
            [
                "refused RcptTo 550 5.1.1 unknown",
                "accepted EndOfData 250 2.0.0 taken",
                "refused RcptTo 452 4.2.2 full"
            ]
        );
        assert!(session.is_reusable());
        soon(host).await.unwrap();
    }
}

#[tokio::test]
async fn a_refused_mail_is_everyones_refusal() {
    let (mut one_by_one, host) = session(PLAIN, async |mut host| {
        host.answer("MAIL FROM:<a@sender.example>", "451 4.7.1 later\r\n").await;
        host.answer("QUIT", "221 bye\r\n").await;
    })
    .await;
    let transaction = soon(one_by_one.send(&envelope(&["b", "c"]), MESSAGE)).await.unwrap();
    assert_eq!(outcomes(&transaction), ["refused MailFrom 451 4.7.1 later"; 2]);
    assert!(one_by_one.is_reusable());
    soon(one_by_one.quit()).await;
    soon(host).await.unwrap();

    let (mut pipelined, host) = session(PIPELINING, async |mut host| {
        host.answer("MAIL FROM:<a@sender.example>", "451 4.7.1 later\r\n").await;
        host.answer("RCPT TO:<b@receiver.example>", "503 5.5.1 MAIL first\r\n")
            .await;
        host.answer("RCPT TO:<c@receiver.example>", "503 5.5.1 MAIL first\r\n")
            .await;
        host.answer("DATA", "503 5.5.1 RCPT first\r\n").await;
        host.answer("QUIT", "221 bye\r\n").await;
    })
    .await;
    let transaction = soon(pipelined.send(&envelope(&["b", "c"]), MESSAGE)).await.unwrap();
    assert_eq!(outcomes(&transaction), ["refused MailFrom 451 4.7.1 later"; 2]);
    assert!(pipelined.is_reusable());
    soon(pipelined.quit()).await;
    soon(host).await.unwrap();
}

#[tokio::test]
async fn without_recipients_the_transaction_is_reset() {
    let (mut one_by_one, host) = session(PLAIN, async |mut host| {
        host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
        host.answer("RCPT TO:<b@receiver.example>", "550 5.1.1 unknown\r\n")
            .await;
        host.answer("RSET", "250 ok\r\n").await;
    })
    .await;
    let transaction = soon(one_by_one.send(&envelope(&["b"]), MESSAGE)).await.unwrap();
    assert_eq!(outcomes(&transaction), ["refused RcptTo 550 5.1.1 unknown"]);
    assert!(one_by_one.is_reusable());
    soon(host).await.unwrap();

    let (mut pipelined, host) = session(PIPELINING, async |mut host| {
        host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
        host.answer("RCPT TO:<b@receiver.example>", "550 5.1.1 unknown\r\n")
            .await;
        host.answer("DATA", "554 5.5.1 no recipients\r\n").await;
        host.answer("RSET", "250 ok\r\n").await;
    })
    .await;
    let transaction = soon(pipelined.send(&envelope(&["b"]), MESSAGE)).await.unwrap();
    assert_eq!(outcomes(&transaction), ["refused RcptTo 550 5.1.1 unknown"]);
    assert!(pipelined.is_reusable());
    soon(host).await.unwrap();
}

#[tokio::test]
async fn data_granted_to_nobody_is_ended_empty() {
    for (mail, rcpt, expected) in [
        (
            "250 ok\r\n",
            "550 5.1.1 unknown\r\n",
            "refused RcptTo 550 5.1.1 unknown",
        ),
        ("550 5.7.1 no\r\n", "250 whatever\r\n", "refused MailFrom 550 5.7.1 no"),
    ] {
        let (mut session, host) = session(PIPELINING, async move |mut host| {
            host.answer("MAIL FROM:<a@sender.example>", mail).await;
            host.answer("RCPT TO:<b@receiver.example>", rcpt).await;
            host.answer("DATA", "354 go\r\n").await;
            assert_eq!(host.hear_data().await, b".\r\n");
            host.say("554 5.5.1 no recipients\r\n").await;
            host.answer("QUIT", "221 bye\r\n").await;
        })
        .await;
        let transaction = soon(session.send(&envelope(&["b"]), MESSAGE)).await.unwrap();
        assert_eq!(outcomes(&transaction), [expected]);
        assert!(session.is_reusable());
        soon(session.quit()).await;
        soon(host).await.unwrap();
    }
}

#[tokio::test]
async fn data_and_the_message_can_be_refused() {
    for ehlo in BOTH_WAYS {
        let (mut session, host) = session(ehlo, async |mut host| {
            host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
            host.answer("RCPT TO:<b@receiver.example>", "250 ok\r\n").await;
            host.answer("DATA", "451 4.3.0 not now\r\n").await;
            host.answer("RSET", "250 ok\r\n").await;

            host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
            host.answer("RCPT TO:<b@receiver.example>", "250 ok\r\n").await;
            host.answer("RCPT TO:<c@receiver.example>", "550 5.1.1 unknown\r\n")
                .await;
            host.answer("DATA", "354 go\r\n").await;
            host.hear_data().await;
            host.say("550-5.7.1 looks\r\n550 5.7.1 like spam\r\n").await;
            host.answer("QUIT", "221 bye\r\n").await;
        })
        .await;
        let transaction = soon(session.send(&envelope(&["b"]), MESSAGE)).await.unwrap();
        assert_eq!(outcomes(&transaction), ["refused Data 451 4.3.0 not now"]);
        let transaction = soon(session.send(&envelope(&["b", "c"]), MESSAGE)).await.unwrap();
        assert_eq!(
            outcomes(&transaction),
            [
                "refused EndOfData 550 5.7.1 looks like spam",
                "refused RcptTo 550 5.1.1 unknown"
            ]
        );
        assert!(session.is_reusable());
        soon(session.quit()).await;
        soon(host).await.unwrap();
    }
}

#[tokio::test]
async fn mail_has_the_parameters_the_host_offers() {
    let all = "250-mx.example\r\n250-SIZE 10000\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n";
    let plain = Envelope::new(None, envelope(&["b"]).recipients);
    let eight_bit = Envelope {
        is_8bit: true,
        ..envelope(&["b"])
    };
    let utf8_header = Envelope {
        has_utf8_header: true,
        is_8bit: true,
        ..envelope(&["b"])
    };
    for (ehlo, envelope, message, mail, rcpt) in [
        (PLAIN, plain, MESSAGE, "MAIL FROM:<>", "RCPT TO:<b@receiver.example>"),
        (
            all,
            envelope(&["b"]),
            b"no last line end",
            "MAIL FROM:<a@sender.example> SIZE=18",
            "RCPT TO:<b@receiver.example>",
        ),
        (
            all,
            eight_bit,
            b"caf\xc3\xa9\r\n",
            "MAIL FROM:<a@sender.example> SIZE=7 BODY=8BITMIME",
            "RCPT TO:<b@receiver.example>",
        ),
        (
            all,
            utf8_header,
            b".\r\n",
            "MAIL FROM:<a@sender.example> SIZE=3 BODY=8BITMIME SMTPUTF8",
            "RCPT TO:<b@receiver.example>",
        ),
        (
            all,
            envelope(&["用户"]),
            b"x\r\n",
            "MAIL FROM:<a@sender.example> SIZE=3 SMTPUTF8",
            "RCPT TO:<用户@receiver.example>",
        ),
    ] {
        let (mut session, host) = session(ehlo, async move |mut host| {
            host.answer(mail, "250 ok\r\n").await;
            host.answer(rcpt, "250 ok\r\n").await;
            host.answer("DATA", "354 go\r\n").await;
            host.hear_data().await;
            host.say("250 ok\r\n").await;
        })
        .await;
        soon(session.send(&envelope, message)).await.unwrap();
        soon(host).await.unwrap();
    }
}

#[tokio::test]
async fn what_the_host_cannot_have_is_not_begun() {
    let eight_bit = Envelope {
        is_8bit: true,
        ..envelope(&["b"])
    };
    let utf8_header = Envelope {
        has_utf8_header: true,
        ..envelope(&["b"])
    };
    for (ehlo, envelope, message, expected) in [
        (
            "250-mx.example\r\n250 SIZE 10\r\n",
            envelope(&["b"]),
            &b"123456789"[..],
            Unsendable::TooLarge { size: 11, limit: 10 },
        ),
        (PLAIN, eight_bit, b"caf\xc3\xa9\r\n", Unsendable::Needs8BitMime),
        (PLAIN, utf8_header, MESSAGE, Unsendable::NeedsSmtpUtf8),
        (PLAIN, envelope(&["用户"]), MESSAGE, Unsendable::NeedsSmtpUtf8),
        (
            PLAIN,
            envelope(&["b"]),
            b"a\r\n\n.\r\nMAIL FROM:<eve@evil.example>\r\n",
            Unsendable::BareLineEnd { offset: 3 },
        ),
        (
            PLAIN,
            envelope(&["b"]),
            b"a\rb\r\n",
            Unsendable::BareLineEnd { offset: 1 },
        ),
    ] {
        let (mut session, host) = session(ehlo, async |mut host| host.answer("QUIT", "221 bye\r\n").await).await;
        let unsent = soon(session.send(&envelope, message)).await.unwrap_err();
        assert!(
            matches!(unsent, SendError::Unsendable(seen) if seen == expected),
            "{unsent:?}"
        );
        assert!(session.is_reusable());
        assert_eq!(session.transactions(), 0);
        soon(session.quit()).await;
        soon(host).await.unwrap();
    }
}

#[tokio::test]
async fn an_envelope_without_recipients_says_nothing() {
    let (mut session, host) = session(PLAIN, async |mut host| host.answer("QUIT", "221 bye\r\n").await).await;
    let transaction = soon(session.send(&envelope(&[]), MESSAGE)).await.unwrap();
    assert!(transaction.recipients.is_empty());
    soon(session.quit()).await;
    soon(host).await.unwrap();
}

#[tokio::test]
async fn dots_are_stuffed_on_the_wire() {
    let (mut session, host) = session(PIPELINING, async |mut host| {
        host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
        host.answer("RCPT TO:<b@receiver.example>", "250 ok\r\n").await;
        host.answer("DATA", "354 go\r\n").await;
        let data = host.hear_data().await;
        host.say("250 ok\r\n").await;
        data
    })
    .await;
    soon(session.send(&envelope(&["b"]), b".a\r\n.\r\nQUIT\r\n.."))
        .await
        .unwrap();
    assert_eq!(soon(host).await.unwrap(), b"..a\r\n..\r\nQUIT\r\n...\r\n.\r\n");
}

#[tokio::test]
async fn a_probe_stops_before_the_message() {
    for ehlo in BOTH_WAYS {
        let (mut session, host) = session(ehlo, async |mut host| {
            host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
            host.answer("RCPT TO:<b@receiver.example>", "250 2.1.5 fine\r\n").await;
            host.answer("RCPT TO:<c@receiver.example>", "550 5.1.1 unknown\r\n")
                .await;
            host.answer("RSET", "250 ok\r\n").await;
            host.answer("QUIT", "221 bye\r\n").await;
        })
        .await;
        let transaction = soon(session.probe(&envelope(&["b", "c"]))).await.unwrap();
        assert_eq!(
            outcomes(&transaction),
            ["accepted RcptTo 250 2.1.5 fine", "refused RcptTo 550 5.1.1 unknown"]
        );
        assert_eq!(session.transactions(), 1);
        assert!(session.is_reusable());
        soon(session.quit()).await;
        soon(host).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_probe_learnt_outlives_the_session() {
    for (last, expected) in [("421 4.3.2 x\r\n", "refused RcptTo 421 4.3.2 x"), ("", "undecided")] {
        let (mut session, host) = session(PLAIN, async move |mut host| {
            host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
            host.answer("RCPT TO:<b@receiver.example>", "250 fine\r\n").await;
            host.answer("RCPT TO:<c@receiver.example>", last).await;
        })
        .await;
        let transaction = soon(session.probe(&envelope(&["b", "c"]))).await.unwrap();
        assert_eq!(outcomes(&transaction), ["accepted RcptTo 250 fine", expected]);
        assert!(!session.is_reusable());
        soon(host).await.unwrap();
    }
}
