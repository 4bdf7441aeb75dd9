use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use relaypool_api::dkim_key::DkimAlgorithm;

use super::SigningKey;

/// Why verifiers that read a record would not accept a key's signatures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordMismatch {
    /// Not a DKIM record at all.
    #[error("the record is no DKIM record: it must be tags such as v=DKIM1; k=rsa; p=…")]
    NotDkim,
    /// The key was revoked: an empty `p=`.
    #[error("the record says that the key is revoked (p= is empty)")]
    Revoked,
    /// A key of another algorithm.
    #[error("the record is for the algorithm '{0}'")]
    OtherAlgorithm(String),
    /// Another key.
    #[error("the record holds another key")]
    OtherKey,
    /// An `h=` without `sha256`.
    #[error("the record does not allow sha256 (h={0})")]
    Hash(String),
    /// An `s=` without `*` and `email`.
    #[error("the record is not for mail (s={0})")]
    Service(String),
}

/// Whether a published TXT record, its strings joined, lets verifiers accept signatures of `key` (RFC 6376 section
/// 3.6.1).
pub fn matches_record(record: &str, key: &SigningKey) -> Result<(), RecordMismatch> {
    let tags = tags(record).ok_or(RecordMismatch::NotDkim)?;
    let tag = |name: &str| {
        tags.iter()
            .find(|(tag, _)| *tag == name)
            .map(|(_, value)| value.as_str())
    };
    // v= may be left out, but if it is there it comes first.
    if tag("v").is_some_and(|version| version != "DKIM1" || tags[0].0 != "v") {
        return Err(RecordMismatch::NotDkim);
    }
    let published = tag("p").ok_or(RecordMismatch::NotDkim)?;
    if published.is_empty() {
        return Err(RecordMismatch::Revoked);
    }
    let algorithm = tag("k").unwrap_or("rsa");
    let own = match key.algorithm() {
        DkimAlgorithm::Rsa => "rsa",
        DkimAlgorithm::Ed25519 => "ed25519",
    };
    if !algorithm.eq_ignore_ascii_case(own) {
        return Err(RecordMismatch::OtherAlgorithm(algorithm.to_owned()));
    }
    if !is_same_key(published, key) {
        return Err(RecordMismatch::OtherKey);
    }
    let lists = |list: &str, item: &str| list.split(':').any(|listed| listed.eq_ignore_ascii_case(item));
    if let Some(hashes) = tag("h").filter(|hashes| !lists(hashes, "sha256")) {
        return Err(RecordMismatch::Hash(hashes.to_owned()));
    }
    if let Some(services) = tag("s").filter(|services| !lists(services, "*") && !lists(services, "email")) {
        return Err(RecordMismatch::Service(services.to_owned()));
    }
    Ok(())
}

/// RFC 6376 section 3.2 `tag-list`, without the white space in values: no tag that matters here has any.
fn tags(record: &str) -> Option<Vec<(&str, String)>> {
    let record = record.trim();
    let record = record.strip_suffix(';').unwrap_or(record);
    record
        .split(';')
        .map(|tag| {
            let (name, value) = tag.split_once('=')?;
            Some((name.trim(), value.split_ascii_whitespace().collect()))
        })
        .collect()
}

/// An RSA key may be published as SubjectPublicKeyInfo, as common tools do, or as the bare RSAPublicKey that the text of
/// RFC 6376 asks for; that is what the former ends with.
fn is_same_key(published: &str, key: &SigningKey) -> bool {
    const SPKI_HEADER_OF_RSA: usize = 24;
    STANDARD.decode(published).is_ok_and(|published| {
        published == key.public()
            || key.algorithm() == DkimAlgorithm::Rsa && key.public().get(SPKI_HEADER_OF_RSA..) == Some(&published)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dkim::generate;

    fn key(algorithm: DkimAlgorithm) -> SigningKey {
        SigningKey::from_pem(generate(algorithm).unwrap().as_bytes(), algorithm).unwrap()
    }

    #[test]
    fn a_record_of_the_key_matches() {
        for algorithm in [DkimAlgorithm::Rsa, DkimAlgorithm::Ed25519] {
            let key = key(algorithm);
            let record = key.dns_record();
            let (head, p) = record.split_once("p=").unwrap();
            let folded = format!("{} \t{}", &p[..20], &p[20..]);
            for fine in [
                record.clone(),
                format!("{record};"),
                format!(" {record} ; "),
                format!("{head}t=y; n=a note; p={p}"),
                format!("{head}h=sha1:SHA256; s=email; p = {folded}"),
                format!("{head}s=*; p={p}"),
            ] {
                assert_eq!(matches_record(&fine, &key), Ok(()), "{fine}");
            }
        }
    }

    #[test]
    fn rsa_records_have_defaults_and_an_older_form() {
        let key = key(DkimAlgorithm::Rsa);
        let record = key.dns_record();
        let p = record.split_once("p=").unwrap().1;
        assert_eq!(matches_record(&format!("p={p}"), &key), Ok(()));
        let bare = STANDARD.encode(&key.public()[24..]);
        assert!(bare.starts_with("MIIBCgKCAQEA"), "{bare}");
        assert_eq!(matches_record(&format!("v=DKIM1; p={bare}"), &key), Ok(()));
    }

    #[test]
    fn tells_why_a_record_does_not_match() {
        let (rsa, ed25519) = (key(DkimAlgorithm::Rsa), key(DkimAlgorithm::Ed25519));
        let p = rsa.dns_record().split_once("p=").unwrap().1.to_owned();
        for (record, expected) in [
            (String::new(), RecordMismatch::NotDkim),
            ("hello".to_owned(), RecordMismatch::NotDkim),
            ("v=spf1 -all".to_owned(), RecordMismatch::NotDkim),
            (format!("v=DKIM2; p={p}"), RecordMismatch::NotDkim),
            (format!("p={p}; v=DKIM1"), RecordMismatch::NotDkim),
            ("v=DKIM1; k=rsa".to_owned(), RecordMismatch::NotDkim),
            ("v=DKIM1; k=rsa; p=".to_owned(), RecordMismatch::Revoked),
            (
                ed25519.dns_record(),
                RecordMismatch::OtherAlgorithm("ed25519".to_owned()),
            ),
            (key(DkimAlgorithm::Rsa).dns_record(), RecordMismatch::OtherKey),
            ("v=DKIM1; p=!".to_owned(), RecordMismatch::OtherKey),
            (format!("h=sha1; p={p}"), RecordMismatch::Hash("sha1".to_owned())),
            (format!("s=tls; p={p}"), RecordMismatch::Service("tls".to_owned())),
        ] {
            assert_eq!(matches_record(&record, &rsa), Err(expected), "{record}");
        }
    }
}
