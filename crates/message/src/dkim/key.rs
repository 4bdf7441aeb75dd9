use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_auth::common::crypto::{DkimKey, Ed25519Key, RsaKey};
use relaypool_api::dkim_key::DkimAlgorithm;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

/// A private key that signs mail, and its public half.
pub struct SigningKey {
    private: DkimKey,
    algorithm: DkimAlgorithm,
    /// What the `p=` of a record holds in base64: a SubjectPublicKeyInfo for RSA (RFC 6376 section 3.6.1), the bare key
    /// for Ed25519 (RFC 8463 section 4).
    public: Vec<u8>,
}

/// Why a file holds no usable key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No private key in PEM. Encrypted ones count as none.
    #[error("no private key in PEM format without a passphrase (PKCS#8, or PKCS#1 for RSA)")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// A key of another algorithm than the DkimKey says.
    #[error("this is {found}, but the algorithm of the DkimKey is {wanted:?}")]
    OtherAlgorithm {
        /// What the file holds.
        found: &'static str,
        /// What the DkimKey says.
        wanted: DkimAlgorithm,
    },
    /// RSA below 2048 bits: verifiers do not count on less (RFC 8301 section 3.2), and the crypto library refuses it.
    #[error("the RSA key is too small: it needs at least 2048 bits")]
    TooSmall,
    /// RSA above 8192 bits, which verifiers need not accept.
    #[error("the RSA key is too large: it may have at most 8192 bits, and 2048 is the common size")]
    TooLarge,
    /// Anything else that is wrong with the key.
    #[error("the private key is damaged or of an unknown kind ({0})")]
    Rejected(#[source] KeyRejected),
    /// The crypto library failed.
    #[error("the crypto library failed on the key")]
    Library(#[source] Unspecified),
    /// The signing library refuses what the crypto library accepts.
    #[error("the key cannot sign mail")]
    Unusable(#[source] mail_auth::Error),
}

impl SigningKey {
    /// Reads a private key in PEM: PKCS#8 (RFC 5208), or PKCS#1 (RFC 8017) for RSA. Text around it is skipped.
    pub fn from_pem(file: &[u8], algorithm: DkimAlgorithm) -> Result<Self, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(file).map_err(KeyError::Pem)?;
        match algorithm {
            DkimAlgorithm::Rsa => Self::rsa(der),
            DkimAlgorithm::Ed25519 => Self::ed25519(der),
        }
    }

    fn rsa(der: PrivateKeyDer<'_>) -> Result<Self, KeyError> {
        let pair = match &der {
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            _ => return Err(other("an elliptic curve key", DkimAlgorithm::Rsa)),
        };
        let pair = pair.map_err(|error| match error.description_() {
            "TooSmall" => KeyError::TooSmall,
            "TooLarge" => KeyError::TooLarge,
            _ if read_ed25519(&der).is_ok() => other("an Ed25519 key", DkimAlgorithm::Rsa),
            _ => KeyError::Rejected(error),
        })?;
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(KeyError::Library)?;
        Ok(Self {
            public: public.as_ref().to_vec(),
            private: DkimKey::Rsa(RsaKey::from_key_der(der).map_err(KeyError::Unusable)?),
            algorithm: DkimAlgorithm::Rsa,
        })
    }

    fn ed25519(der: PrivateKeyDer<'_>) -> Result<Self, KeyError> {
        let PrivateKeyDer::Pkcs8(key) = &der else {
            let found = match der {
                PrivateKeyDer::Pkcs1(_) => "an RSA key",
                _ => "an elliptic curve key of another kind",
            };
            return Err(other(found, DkimAlgorithm::Ed25519));
        };
        let pair = read_ed25519(&der).map_err(|error| match RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()) {
            Ok(_) => other("an RSA key", DkimAlgorithm::Ed25519),
            Err(_) => KeyError::Rejected(error),
        })?;
        let private = Ed25519Key::from_pkcs8_maybe_unchecked_der(key.secret_pkcs8_der()).map_err(KeyError::Unusable)?;
        Ok(Self {
            public: pair.public_key().as_ref().to_vec(),
            private: DkimKey::Ed25519(private),
            algorithm: DkimAlgorithm::Ed25519,
        })
    }

    /// The algorithm.
    pub fn algorithm(&self) -> DkimAlgorithm {
        self.algorithm
    }

    /// Names this key among all others: the first 16 hexadecimal digits of SHA-256 over the public half as it is
    /// published.
    pub fn version(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.public);
        digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The text of the TXT record that verifiers need (RFC 6376 section 3.6.1).
    pub fn dns_record(&self) -> String {
        let kind = match self.algorithm {
            DkimAlgorithm::Rsa => "rsa",
            DkimAlgorithm::Ed25519 => "ed25519",
        };
        format!("v=DKIM1; k={kind}; p={}", STANDARD.encode(&self.public))
    }

    pub(super) fn private(&self) -> &DkimKey {
        &self.private
    }

    pub(super) fn public(&self) -> &[u8] {
        &self.public
    }
}

impl fmt::Debug for SigningKey {
    /// Names the key, and shows nothing of its private half.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SigningKey")
            .field("algorithm", &self.algorithm)
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

fn other(found: &'static str, wanted: DkimAlgorithm) -> KeyError {
    KeyError::OtherAlgorithm { found, wanted }
}

/// Reads an Ed25519 key with or without its public half: common tools write it without.
fn read_ed25519(der: &PrivateKeyDer<'_>) -> Result<Ed25519KeyPair, KeyRejected> {
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_der())
}

/// Makes a new private key, 2048 bits for RSA, as PKCS#8 in PEM.
pub fn generate(algorithm: DkimAlgorithm) -> Result<String, KeyError> {
    let der: Pkcs8V1Der<'_> = match algorithm {
        DkimAlgorithm::Rsa => RsaKeyPair::generate(KeySize::Rsa2048).and_then(|pair| pair.as_der()),
        DkimAlgorithm::Ed25519 => Ed25519KeyPair::generate().and_then(|pair| pair.as_der()),
    }
    .map_err(KeyError::Library)?;
    Ok(pem("PRIVATE KEY", der.as_ref()))
}

/// Bytes as a PEM file (RFC 7468).
fn pem(label: &str, bytes: &[u8]) -> String {
    let encoded = STANDARD.encode(bytes);
    let mut file = format!("-----BEGIN {label}-----\n");
    for (index, character) in encoded.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            file.push('\n');
        }
        file.push(character);
    }
    file.push_str(&format!("\n-----END {label}-----\n"));
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 8463 appendix A.2.
    const RFC_8463: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
        -----END PRIVATE KEY-----\n";

    /// A key of 1024 bits, made for this test.
    const SMALL: &str = "-----BEGIN RSA PRIVATE KEY-----\n\
        MIICXAIBAAKBgQCzV5woM+CisfHJEsVngWWAETFUYtFcCu4fby5ygvGHVOvtginZ\n\
        xGfvTKcZRV7BZ9RxDopIEWGxDhgqHf5+/K6nanO1pTCMpiIzAMaycNi6W9MxhHJN\n\
        LHZCag8dlSPY8DdbWEGs8VRiQiLYQNRps99EqziF7/hK2xTyQIdMr1dSbQIDAQAB\n\
        AoGBAIY27KCRom1fqkkGiUFa7zEWrMowYen2LBrOQ/5izIqxHRdUMCnO+NF3lh4t\n\
        cipfn/c0IHyqtWeh2qe6Zrl2NOXI6C8ym56SToUHlI6L+DbrEgqTg34nUtoh80Gi\n\
        tqx5dJylQqBN6xIjtjwlbB9wIKWgmA4Z1hth3nL4oUpshKCBAkEA1whQpMUd2IV/\n\
        8dVcRXIujwSGwv2XV/SDJdQhf7y6iM8GzCMzzZ+TK4+jSa1OJsO1IpgeQvKM5D+y\n\
        xu6ytoRUXQJBANWClwBM8btT0QoHLLkmdJDu/75Ni1FH9Wu5mopB4u5mvjP0GlP4\n\
        SZkqzi7dgcU1FfPZW4Z1ggseATBv3L3xFVECQFv5soTHy3xRnehS2qTZshB6XyoI\n\
        TjPQ4kfL9IgusZrS8pVeeUn6d3iqd62L82GhVFj3t/nqxVjb5hww/UAUWgECQGCu\n\
        HYo5TUyyC3oq/YlpbGckkhGuM2O+3dbF2MC6TPP++im0YyeayljdFTgLfXO7MhGV\n\
        Xuhn1VcLYyZ3wNERlcECQC/7uOFkF/KrNDuPGIIJbi/LUx/qAw+YAw6i+VzbXc5p\n\
        p2dZKZVfi9qUKkZzwMY5ZbwrgFA3aZ7RUrfz2BUExFw=\n\
        -----END RSA PRIVATE KEY-----\n";

    const EC: &str = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----\n";

    #[test]
    fn reads_a_key_as_common_tools_write_it() {
        let key = SigningKey::from_pem(RFC_8463.as_bytes(), DkimAlgorithm::Ed25519).unwrap();
        assert_eq!(
            key.dns_record(),
            "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
        );
        assert_eq!(key.version(), "21fe31dfa154a261");
    }

    #[test]
    fn generated_keys_can_be_read_and_differ() {
        for (algorithm, record) in [
            (DkimAlgorithm::Rsa, "v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A"),
            (DkimAlgorithm::Ed25519, "v=DKIM1; k=ed25519; p="),
        ] {
            let [one, other] = [(); 2].map(|()| {
                let pem = generate(algorithm).unwrap();
                assert!(pem.lines().all(|line| line.len() <= 64));
                SigningKey::from_pem(pem.as_bytes(), algorithm).unwrap()
            });
            assert!(one.dns_record().starts_with(record), "{}", one.dns_record());
            assert_eq!(one.algorithm(), algorithm);
            assert_ne!(one.version(), other.version());
            assert_eq!(one.version().len(), 16);
        }
    }

    #[test]
    fn reads_rsa_keys_of_the_older_format() {
        let pkcs8 = generate(DkimAlgorithm::Rsa).unwrap();
        let PrivateKeyDer::Pkcs8(der) = PrivateKeyDer::from_pem_slice(pkcs8.as_bytes()).unwrap() else {
            panic!("another format");
        };
        // PKCS#8 wraps PKCS#1 in a header of constant length.
        let pkcs1 = pem("RSA PRIVATE KEY", &der.secret_pkcs8_der()[26..]);
        let read = |pem: &str| {
            SigningKey::from_pem(pem.as_bytes(), DkimAlgorithm::Rsa)
                .unwrap()
                .version()
        };
        assert_eq!(read(&pkcs1), read(&pkcs8));
        assert_eq!(
            read(&format!("a note\n\n{}", pkcs8.replace('\n', "\r\n"))),
            read(&pkcs8)
        );
    }

    #[test]
    fn small_rsa_keys_are_refused() {
        let error = SigningKey::from_pem(SMALL.as_bytes(), DkimAlgorithm::Rsa).unwrap_err();
        assert!(matches!(error, KeyError::TooSmall), "{error:?}");
    }

    #[test]
    fn debug_shows_nothing_private() {
        let key = SigningKey::from_pem(RFC_8463.as_bytes(), DkimAlgorithm::Ed25519).unwrap();
        assert_eq!(
            format!("{key:?}"),
            "SigningKey { algorithm: Ed25519, version: \"21fe31dfa154a261\", .. }"
        );
    }

    #[test]
    fn a_key_of_the_other_algorithm_is_named() {
        let rsa = generate(DkimAlgorithm::Rsa).unwrap();
        let ed25519 = generate(DkimAlgorithm::Ed25519).unwrap();
        let read = |pem: &str, algorithm| SigningKey::from_pem(pem.as_bytes(), algorithm).unwrap_err().to_string();
        assert_eq!(
            read(&ed25519, DkimAlgorithm::Rsa),
            "this is an Ed25519 key, but the algorithm of the DkimKey is Rsa"
        );
        assert_eq!(
            read(&rsa, DkimAlgorithm::Ed25519),
            "this is an RSA key, but the algorithm of the DkimKey is Ed25519"
        );
        assert_eq!(
            read(EC, DkimAlgorithm::Rsa),
            "this is an elliptic curve key, but the algorithm of the DkimKey is Rsa"
        );
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMC4C\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let cut = RFC_8463.replace("RK9J", "");
        for algorithm in [DkimAlgorithm::Rsa, DkimAlgorithm::Ed25519] {
            for bad in [
                "",
                "no key",
                encrypted,
                "-----BEGIN PRIVATE KEY-----\n*\n-----END PRIVATE KEY-----\n",
            ] {
                let error = SigningKey::from_pem(bad.as_bytes(), algorithm).unwrap_err();
                assert!(matches!(error, KeyError::Pem(_)), "{error:?}");
            }
            let error = SigningKey::from_pem(cut.as_bytes(), algorithm).unwrap_err();
            assert!(matches!(error, KeyError::Rejected(_) | KeyError::Pem(_)), "{error:?}");
        }
    }
}
