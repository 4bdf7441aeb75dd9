//! A certificate of the simulator's own.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// One self-signed certificate for all MX hosts of a world.
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) certificate: CertificateDer<'static>,
}

/// No certificate could be made or used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Making it failed.
    #[error("no self-signed certificate could be made")]
    Generate(#[from] rcgen::Error),
    /// The TLS library refused it.
    #[error("TLS could not be set up")]
    Configure(#[from] rustls::Error),
}

impl Tls {
    pub(crate) fn for_hosts(hosts: Vec<String>) -> Result<Self, TlsError> {
        let made = rcgen::generate_simple_self_signed(hosts)?;
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        // The provider is named: the process may have none, or another one, as its default.
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            certificate,
        })
    }
}
