//! TLS as a sending host uses it: encryption for everyone, verification for those who ask.

use std::io;
use std::sync::Arc;

use relaypool_api::Domain;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::TlsMode;

/// The TLS side of the client: which certificates it believes, and the session tickets it collected.
///
/// Share one among all sessions (cloning shares it), so that a host seen before costs a shorter handshake.
#[derive(Debug, Clone)]
pub struct TlsClient {
    unverified: Arc<rustls::ClientConfig>,
    verified: Option<Arc<rustls::ClientConfig>>,
}

impl TlsClient {
    /// Believes every certificate, in all modes: against eavesdroppers, not against an attacker who can redirect the
    /// connection (RFC 7435). This is what receiving hosts expect, as most of their certificates prove nothing.
    pub fn unverified() -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Arc::new(Unverified(Arc::clone(&provider)));
        let config = config_builder(provider)
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Self {
            unverified: Arc::new(config),
            verified: None,
        }
    }

    /// In [`TlsMode::Required`], believes only certificates that are issued under `roots` for the name of the host. In
    /// [`TlsMode::Opportunistic`] still every one: the alternative there is clear text, which is worse.
    pub fn verified(roots: RootCertStore) -> Self {
        let config = config_builder(Arc::new(aws_lc_rs::default_provider()))
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            verified: Some(Arc::new(config)),
            ..Self::unverified()
        }
    }

    /// The handshake. `host` goes into the server name indication and, where it is verified, must be in the certificate.
    pub(super) async fn handshake<S>(&self, stream: S, host: &Domain, mode: TlsMode) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = match (&self.verified, mode) {
            (Some(verified), TlsMode::Required) => verified,
            _ => &self.unverified,
        };
        let name = ServerName::try_from(host.as_str().to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        TlsConnector::from(Arc::clone(config)).connect(name, stream).await
    }
}

impl Default for TlsClient {
    fn default() -> Self {
        Self::unverified()
    }
}

fn config_builder(provider: Arc<CryptoProvider>) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier> {
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the aws-lc-rs provider supports the default protocol versions")
}

/// Accepts every certificate and every handshake signature.
///
/// The signature is not checked either: it would only prove possession of a key nobody vouches for, and the check fails
/// on the old or malformed certificates of hosts that would otherwise get clear text.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
