//! STARTTLS in every mode, and what may go wrong with it.

use std::sync::Arc;

use relaypool_api::reply::Phase;
use relaypool_smtp::client::{ClientConfig, RootCertStore, SessionError, TlsClient, TlsMode};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::support::*;

const STARTTLS: &str = "250-mx.example\r\n250-STARTTLS\r\n250 8BITMIME\r\n";

/// A self-signed certificate for `name`, and a host that has it.
fn certificate(name: &str) -> (CertificateDer<'static>, TlsAcceptor) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let certificate = made.cert.der().clone();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    (certificate, TlsAcceptor::from(Arc::new(config)))
}

/// A host that agrees to STARTTLS with `agreement`, and then offers PIPELINING only.
async fn agreeing(agreement: &'static str, acceptor: TlsAcceptor) -> (TcpStream, JoinHandle<Option<String>>) {
    connect(async move |mut host| {
        host.welcome(STARTTLS).await;
        host.answer("STARTTLS", agreement).await;
        let mut host: Host<TlsStream<TcpStream>> = Host::new(acceptor.accept(host.into_inner()).await.ok()?);
        host.answer("EHLO client.example", PIPELINING).await;
        host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
        host.answer("RCPT TO:<b@receiver.example>", "250 ok\r\n").await;
        host.answer("DATA", "354 go\r\n").await;
        let data = String::from_utf8(host.hear_data().await).unwrap();
        host.say("250 2.0.0 taken\r\n").await;
        host.answer("QUIT", "221 bye\r\n").await;
        Some(data)
    })
    .await
}

async fn delivers_under_tls(config: &ClientConfig, agreement: &'static str, acceptor: TlsAcceptor) {
    let (stream, host) = agreeing(agreement, acceptor).await;
    let mut session = open_with(stream, config).await.unwrap();
    assert!(session.is_encrypted());
    let offered = session.capabilities();
    assert!(
        offered.pipelining && !offered.starttls && !offered.eight_bit_mime,
        "{offered:?}"
    );
    let transaction = soon(session.send(&envelope(&["b"]), MESSAGE)).await.unwrap();
    assert_eq!(outcomes(&transaction), ["accepted EndOfData 250 2.0.0 taken"]);
    soon(session.quit()).await;
    let expected = [MESSAGE, b".\r\n"].concat();
    assert_eq!(soon(host).await.unwrap().unwrap().as_bytes(), expected);
}

#[tokio::test]
async fn mail_goes_under_tls_without_verification() {
    for mode in [TlsMode::Opportunistic, TlsMode::Required] {
        let (_, acceptor) = certificate("somebody-else.example");
        delivers_under_tls(&config(mode), "220 2.0.0 go\r\n", acceptor).await;
    }
}

#[tokio::test]
async fn what_came_before_the_handshake_is_forgotten() {
    let (_, acceptor) = certificate("mx.example");
    let injected = "220 go\r\n250-mx.example\r\n250-8BITMIME\r\n250 STARTTLS\r\n250 and one more\r\n";
    delivers_under_tls(&config(TlsMode::Opportunistic), injected, acceptor).await;
}

#[tokio::test]
async fn required_tls_can_verify_the_host() {
    let (trusted, acceptor) = certificate("mx.example");
    let mut roots = RootCertStore::empty();
    roots.add(trusted).unwrap();
    let verifying = ClientConfig {
        tls_client: TlsClient::verified(roots),
        ..config(TlsMode::Required)
    };
    delivers_under_tls(&verifying, "220 go\r\n", acceptor).await;

    for name in ["mx.example", "other.example"] {
        let (_, stranger) = certificate(name);
        let (stream, host) = agreeing("220 go\r\n", stranger).await;
        let error = open_with(stream, &verifying).await.unwrap_err();
        assert!(
            matches!(
                error,
                SessionError::Tls {
                    phase: Phase::StartTls,
                    ..
                }
            ),
            "{error:?}"
        );
        assert_eq!(soon(host).await.unwrap(), None);
    }

    // Opportunistic TLS has nothing to gain from verification.
    let (_, stranger) = certificate("other.example");
    let opportunistic = ClientConfig {
        tls: TlsMode::Opportunistic,
        ..verifying
    };
    delivers_under_tls(&opportunistic, "220 go\r\n", stranger).await;
}

#[tokio::test]
async fn opportunistic_goes_on_in_clear_text_when_refused() {
    for refusal in ["454 4.7.0 not now\r\n", "502 5.5.1 not at all\r\n"] {
        let (stream, host) = connect(async move |mut host| {
            host.welcome(STARTTLS).await;
            host.answer("STARTTLS", refusal).await;
            host.answer("MAIL FROM:<a@sender.example>", "250 ok\r\n").await;
            host.answer("RCPT TO:<b@receiver.example>", "250 ok\r\n").await;
            host.answer("RSET", "250 ok\r\n").await;
        })
        .await;
        let mut session = open(stream, TlsMode::Opportunistic).await.unwrap();
        assert!(!session.is_encrypted() && session.capabilities().eight_bit_mime);
        soon(session.probe(&envelope(&["b"]))).await.unwrap();
        soon(host).await.unwrap();
    }
}

#[tokio::test]
async fn a_host_that_offers_no_tls() {
    let (stream, host) = connect(async |mut host| host.welcome(PLAIN).await).await;
    let session = open(stream, TlsMode::Opportunistic).await.unwrap();
    assert!(!session.is_encrypted());
    soon(host).await.unwrap();

    let (stream, host) = connect(async |mut host| {
        host.welcome(PLAIN).await;
        host.answer("QUIT", "221 bye\r\n").await;
    })
    .await;
    let error = open(stream, TlsMode::Required).await.unwrap_err();
    assert!(matches!(error, SessionError::TlsNotOffered), "{error:?}");
    assert_eq!(error.phase(), Phase::StartTls);
    assert!(!error.is_tls_failure());
    soon(host).await.unwrap();
}

#[tokio::test]
async fn disabled_tls_is_not_asked_for() {
    let (stream, host) = connect(async |mut host| {
        host.welcome(STARTTLS).await;
        host.answer("QUIT", "221 bye\r\n").await;
    })
    .await;
    let session = open(stream, TlsMode::Disabled).await.unwrap();
    assert!(!session.is_encrypted());
    soon(session.quit()).await;
    soon(host).await.unwrap();
}

#[tokio::test]
async fn required_tls_takes_no_refusal() {
    let (stream, host) = connect(async |mut host| {
        host.welcome(STARTTLS).await;
        host.answer("STARTTLS", "454 4.7.0 not now\r\n").await;
        host.answer("QUIT", "221 bye\r\n").await;
    })
    .await;
    let error = open(stream, TlsMode::Required).await.unwrap_err();
    assert_eq!(refused(&error), "StartTls 454 4.7.0 not now");
    assert!(!error.is_tls_failure());
    soon(host).await.unwrap();
}

#[tokio::test]
async fn a_421_to_starttls_ends_the_session() {
    let (stream, host) = connect(async |mut host| {
        host.welcome(STARTTLS).await;
        host.answer("STARTTLS", "421 4.3.2 closing\r\n").await;
        host.hear_out().await
    })
    .await;
    let error = open(stream, TlsMode::Opportunistic).await.unwrap_err();
    assert_eq!(refused(&error), "StartTls 421 4.3.2 closing");
    assert_eq!(soon(host).await.unwrap(), b"");
}

#[tokio::test]
async fn a_failed_handshake_is_told_apart() {
    for instead_of_a_handshake in ["", "250 what handshake?\r\n"] {
        let (stream, host) = connect(async move |mut host| {
            host.welcome(STARTTLS).await;
            host.answer("STARTTLS", "220 go\r\n").await;
            host.say(instead_of_a_handshake).await;
        })
        .await;
        let error = open(stream, TlsMode::Opportunistic).await.unwrap_err();
        assert!(
            matches!(
                error,
                SessionError::Tls {
                    phase: Phase::StartTls,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(error.is_tls_failure());
        soon(host).await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_lost_at_starttls_counts_as_a_tls_failure() {
    let (stream, host) = connect(async |mut host| {
        host.welcome(STARTTLS).await;
        host.hear().await;
    })
    .await;
    let error = open(stream, TlsMode::Opportunistic).await.unwrap_err();
    assert!(
        matches!(
            error,
            SessionError::Io {
                phase: Phase::StartTls,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.is_tls_failure());
    soon(host).await.unwrap();
}

#[tokio::test]
async fn a_broken_tls_layer_is_named_later_too() {
    let (_, acceptor) = certificate("mx.example");
    let (stream, host) = connect(async move |mut host| {
        host.welcome(STARTTLS).await;
        host.answer("STARTTLS", "220 go\r\n").await;
        let tls = acceptor.accept(host.into_inner()).await.unwrap();
        let (clear, _) = tls.into_inner();
        Host::new(clear).say("250 mx.example\r\n250 in clear text\r\n").await;
    })
    .await;
    let error = open(stream, TlsMode::Opportunistic).await.unwrap_err();
    assert!(
        matches!(error, SessionError::Tls { phase: Phase::Ehlo, .. }),
        "{error:?}"
    );
    assert!(error.is_tls_failure());
    soon(host).await.unwrap();
}
