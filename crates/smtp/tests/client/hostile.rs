//! Hosts that mean harm, or are broken: every session comes to an end, in bounded memory, and without a panic.

use proptest::prelude::*;
use relaypool_api::reply::Phase;
use relaypool_smtp::client::{ProtocolError, RecipientOutcome, SessionError, TlsMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy, duplex, sink, split};

use super::support::*;

/// Says `text` over and over, whatever it hears.
fn endless(first: &'static str, text: &'static str) -> DuplexStream {
    let (client, server) = duplex(4096);
    tokio::spawn(async move {
        let (mut reader, mut writer) = split(server);
        let heard = tokio::spawn(async move { copy(&mut reader, &mut sink()).await });
        writer.write_all(first.as_bytes()).await?;
        while writer.write_all(text.as_bytes()).await.is_ok() {}
        heard.abort();
        std::io::Result::Ok(())
    });
    client
}

#[tokio::test]
async fn endless_replies_are_cut_short() {
    for (first, text) in [
        ("220 ", "x"),
        ("220-", "x"),
        ("", "220-x\r\n"),
        ("", "220-\r\n"),
        ("", "2"),
    ] {
        let error = open(endless(first, text), TlsMode::Disabled).await.unwrap_err();
        assert!(
            matches!(
                error,
                SessionError::Protocol {
                    phase: Phase::Greeting,
                    source: ProtocolError::TooLong
                }
            ),
            "{error:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn babble_within_the_message_is_not_hoarded() {
    let (client, server) = duplex(4096);
    let host = tokio::spawn(async move {
        let mut host = Host::new(server);
        host.welcome(PLAIN).await;
        host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
        host.answer("RCPT TO:<b@receiver.example>", "250 ok\r\n").await;
        host.answer("DATA", "354 go\r\n").await;
        host.hear().await;
        let mut server = host.into_unread();
        let mut said = 0;
        while said < 1_000_000
            && let Ok(bytes) = server.write(b"250 ok\r\n").await
        {
            said += bytes;
        }
        said
    });
    let mut session = open(client, TlsMode::Disabled).await.unwrap();
    let message = b"0123456789\r\n".repeat(50_000);
    let error = session_error(in_the_end(session.send(&envelope(&["b"]), &message)).await);
    assert!(
        matches!(
            error,
            SessionError::Timeout {
                phase: Phase::EndOfData,
                ..
            }
        ),
        "{error:?}"
    );
    drop(session);
    let said = soon(host).await.unwrap();
    assert!((64 * 1024..80 * 1024).contains(&said), "{said}");
}

#[tokio::test]
async fn the_text_of_a_reply_is_clean_and_short() {
    let (mut session, host) = session(PLAIN, async |mut host| {
        host.hear().await;
        let text = [
            b"550 5.7.1 \x1b]0;\xff\xfe\x00\t".as_slice(),
            &b"spam ".repeat(1000),
            b"\r\n",
        ]
        .concat();
        host.say(text).await;
    })
    .await;
    let transaction = soon(session.send(&envelope(&["b"]), MESSAGE)).await.unwrap();
    let RecipientOutcome::Refused { reply, .. } = &transaction.recipients[0] else {
        panic!("{transaction:?}")
    };
    assert_eq!(reply.enhanced, "5.7.1".parse().ok());
    assert!(
        reply.text.starts_with("]0;\u{fffd}\u{fffd} spam spam"),
        "{}",
        reply.text
    );
    assert!(reply.text.len() <= 1024);
    soon(host).await.unwrap();
}

/// A host that does everything right, for two messages.
async fn good_host(stream: DuplexStream) {
    let (mut reader, mut writer) = split(stream);
    let mut heard = Vec::new();
    let _ = writer.write_all(b"220-mx.example\r\n220 ESMTP\r\n").await;
    let mut within_data = false;
    loop {
        let end: &[u8] = if within_data { b"\r\n.\r\n" } else { b"\r\n" };
        while let Some(at) = heard.windows(end.len()).position(|window| window == end) {
            let line: Vec<u8> = heard.drain(..at + end.len()).collect();
            let reply: &[u8] = match line.get(..4) {
                _ if within_data => b"250 2.0.0 taken\r\n",
                Some(b"EHLO") => b"250-mx.example\r\n250-8BITMIME\r\n250 PIPELINING\r\n",
                Some(b"DATA") => b"354 go\r\n",
                Some(b"QUIT") => b"221 bye\r\n",
                _ => b"250 2.1.0 ok\r\n",
            };
            within_data = line == b"DATA\r\n";
            let _ = writer.write_all(reply).await;
            if within_data {
                break;
            }
        }
        match reader.read_buf(&mut heard).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// A good host whose connection breaks after `length` bytes of its replies.
fn breaks_after(length: u64) -> DuplexStream {
    let (client, near) = duplex(4096);
    let (far, server) = duplex(4096);
    tokio::spawn(good_host(server));
    tokio::spawn(async move {
        let (mut from_client, mut to_client) = split(near);
        let (from_host, mut to_host) = split(far);
        let mut allowed = from_host.take(length);
        tokio::select! {
            _ = copy(&mut allowed, &mut to_client) => {}
            _ = copy(&mut from_client, &mut to_host) => {}
        }
    });
    client
}

/// How many messages were accepted before the connection broke, and where it did.
async fn two_messages(stream: DuplexStream) -> (usize, Option<SessionError>) {
    let mut session = match open(stream, TlsMode::Opportunistic).await {
        Ok(session) => session,
        Err(error) => return (0, Some(error)),
    };
    for sent in 0..2 {
        match soon(session.send(&envelope(&["b", "c"]), MESSAGE)).await {
            Ok(transaction) => {
                assert!(transaction.interruption.is_none());
                assert_eq!(outcomes(&transaction), ["accepted EndOfData 250 2.0.0 taken"; 2]);
            }
            error => {
                assert!(!session.is_reusable());
                return (sent, Some(session_error(error)));
            }
        }
    }
    soon(session.quit()).await;
    (2, None)
}

#[tokio::test]
async fn a_connection_may_break_at_every_byte() {
    let opening = "220-mx.example\r\n220 ESMTP\r\n250-mx.example\r\n250-8BITMIME\r\n250 PIPELINING\r\n".len();
    let message = "250 2.1.0 ok\r\n250 2.1.0 ok\r\n250 2.1.0 ok\r\n354 go\r\n250 2.0.0 taken\r\n".len();
    let mut last_phase = (0, Phase::Greeting);
    for length in 0..=opening + 2 * message {
        let (sent, error) = two_messages(breaks_after(length as u64)).await;
        assert_eq!(sent, length.saturating_sub(opening) / message, "after {length} bytes");
        match error {
            None => assert_eq!(sent, 2),
            Some(error) => {
                assert!(
                    matches!(error, SessionError::Io { .. }),
                    "after {length} bytes: {error:?}"
                );
                assert!((sent, error.phase()) >= last_phase, "after {length} bytes: {error:?}");
                last_phase = (sent, error.phase());
            }
        }
    }
    assert_eq!(last_phase, (1, Phase::EndOfData));
}

/// Pieces of replies, in and out of place.
fn replies() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => prop_oneof![
            Just(b"220 hi\r\n".to_vec()),
            Just(b"250 ok\r\n".to_vec()),
            Just(b"250-mx\r\n250-STARTTLS\r\n250 PIPELINING\r\n".to_vec()),
            Just(b"354 go\r\n".to_vec()),
            Just(b"550 5.1.1 no\r\n".to_vec()),
            Just(b"421 closing\r\n".to_vec()),
        ],
        1 => prop_oneof![Just(b"250-".to_vec()), Just(b"\r\n".to_vec()), Just(b"\n".to_vec()), Just(b"2".to_vec())],
        1 => proptest::collection::vec(any::<u8>(), 0..20),
        1 => Just(vec![b'x'; 9000]),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Whatever a host says, and however it cuts it, the session ends, and accepts no message without a positive reply.
    #[test]
    fn no_babble_hangs_or_panics(said in replies(), cut in 1_usize..50, hangs_up in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let has_250 = said.windows(4).any(|window| window == b"250 ");
            let (client, server) = duplex(4096);
            tokio::spawn(async move {
                let (mut reader, mut writer) = split(server);
                tokio::spawn(async move { copy(&mut reader, &mut sink()).await });
                for segment in said.chunks(cut) {
                    let _ = writer.write_all(segment).await;
                    tokio::task::yield_now().await;
                }
                if !hangs_up {
                    std::future::pending::<()>().await;
                }
                let _ = writer.shutdown().await;
            });
            if let Ok(mut session) = open(client, TlsMode::Opportunistic).await {
                if let Ok(transaction) = in_the_end(session.send(&envelope(&["b"]), MESSAGE)).await
                    && matches!(transaction.recipients[0], RecipientOutcome::Accepted { .. })
                {
                    assert!(has_250);
                }
                in_the_end(session.quit()).await;
            }
        });
    }
}
