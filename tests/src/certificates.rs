//! The certificates and keys of one control plane.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// Paths of PEM files that an API server and its administrator need.
#[derive(Debug)]
pub(crate) struct Certificates {
    /// Signs the two certificates below.
    pub(crate) authority: PathBuf,
    pub(crate) server_certificate: PathBuf,
    pub(crate) server_key: PathBuf,
    /// A member of `system:masters`, who may do everything.
    pub(crate) admin_certificate: PathBuf,
    pub(crate) admin_key: PathBuf,
    /// Signs the tokens of service accounts.
    pub(crate) service_account_key: PathBuf,
    /// Checks them: a key file of its own, because the API server does not take it from the private key's format.
    pub(crate) service_account_public_key: PathBuf,
}

impl Certificates {
    /// Makes fresh keys and certificates and writes them into `folder`.
    pub(crate) fn create_in(folder: &Path) -> Result<Self> {
        let authority_key = KeyPair::generate()?;
        let mut authority = named("relaypool-test-authority", Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority_pem = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);

        let mut server = named("kube-apiserver", vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (server_certificate, server_key) = signed(server, &issuer)?;

        let mut admin = named("relaypool-test-admin", Vec::new())?;
        admin
            .distinguished_name
            .push(DnType::OrganizationName, "system:masters");
        admin.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (admin_certificate, admin_key) = signed(admin, &issuer)?;

        let service_accounts = KeyPair::generate()?;

        let write = |name: &str, pem: String| -> Result<PathBuf> {
            let path = folder.join(name);
            fs::write(&path, pem).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        };
        Ok(Self {
            authority: write("ca.crt", authority_pem)?,
            server_certificate: write("server.crt", server_certificate)?,
            server_key: write("server.key", server_key)?,
            admin_certificate: write("admin.crt", admin_certificate)?,
            admin_key: write("admin.key", admin_key)?,
            service_account_key: write("service-account.key", service_accounts.serialize_pem())?,
            service_account_public_key: write("service-account.pub", service_accounts.public_key_pem())?,
        })
    }
}

fn named(common_name: &str, alternative_names: Vec<String>) -> Result<CertificateParams> {
    let mut parameters = CertificateParams::new(alternative_names)?;
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    Ok(parameters)
}

/// A certificate and its key, both as PEM.
fn signed(mut parameters: CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Result<(String, String)> {
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    let certificate = parameters.signed_by(&key, issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
