//! The reconciler of DkimKeys: checks the private key, says which DNS record verifiers need, and whether it is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::runtime::controller::Action;
use kube::{Api, Resource as _, ResourceExt as _};
use relaypool_api::conditions::{ConditionStatus, ConditionType, DkimKeyReason, Readiness, find_condition, is_true};
use relaypool_api::dkim_key::{DnsRecord, SecretKeyRef};
use relaypool_api::message::SigningKeyRef;
use relaypool_api::names::signing_key_entry;
use relaypool_api::not_in_effect::{NotInEffect as _, notice};
use relaypool_api::validation::{Validate as _, summary};
use relaypool_api::{DkimKey, DkimKeyStatus};
use relaypool_message::dkim::{KeyError, SigningKey, matches_record};

use crate::conditions::Conditions;
use crate::context::{Context, SURROUNDINGS, now, sound_in_namespace};
use crate::dns::Dns;
use crate::error::Error;
use crate::events::Notice;
use crate::kind::Kind as _;
use crate::report::report;
use crate::requests::get;

/// How soon to look for a record that is not there.
const UNTIL_PUBLISHED: Duration = Duration::from_secs(60);
/// How soon to look again for one that is there.
const ONCE_PUBLISHED: Duration = Duration::from_secs(10 * 60);
/// Longest name of an entry in a Secret.
const MAX_ENTRY: usize = 253;

/// Looks at one key.
pub(crate) async fn reconcile(key: Arc<DkimKey>, context: Arc<Context>) -> Result<Action, Error> {
    let finding = examine(&key, &context).await?;
    let Finding::Loaded(signing) = &finding else {
        report(&context, key.as_ref(), &status(&key, &finding, None), Vec::new()).await?;
        return Ok(Action::requeue(UNTIL_PUBLISHED));
    };
    let lookup = match remembered(&key, signing, &context) {
        Some(lookup) => lookup,
        None => {
            report_readiness(&key, &finding, &context).await?;
            look_up(&key, signing, &context).await
        }
    };
    let status = status(&key, &finding, Some(&lookup.published));
    let notices = published_notice(&key, &status).into_iter().collect();
    report(&context, key.as_ref(), &status, notices).await?;
    Ok(Action::requeue(lookup.due_in()))
}

/// What is found out about a key.
enum Finding {
    /// It can sign.
    Loaded(Box<SigningKey>),
    /// Something is missing that may come.
    Wait(DkimKeyReason, String),
    /// A person must change something.
    Stall(DkimKeyReason, String),
}

/// Checks the object and reads the private key.
async fn examine(key: &DkimKey, context: &Context) -> Result<Finding, Error> {
    let source = match check(key, context) {
        Ok(source) => source,
        Err(finding) => return Ok(finding),
    };
    let namespace = key.namespace().unwrap_or_default();
    let secrets = Api::<Secret>::namespaced(context.client.clone(), &namespace);
    let secret = get(&secrets, &source.name).await?;
    Ok(load(key, source, secret))
}

/// Checks the object itself, and where its key lies. No client.
fn check<'a>(key: &'a DkimKey, context: &Context) -> Result<&'a SecretKeyRef, Finding> {
    let invalid = |message: String| Err(Finding::Stall(DkimKeyReason::InvalidSpec, message));
    let problems = key.problems();
    if !problems.is_empty() {
        return invalid(summary(&problems));
    }
    let widest = signing_key_entry(&reference(key, "0".repeat(16)));
    if widest.len() > MAX_ENTRY {
        return invalid(format!(
            "spec.selector and spec.domain are too long together by {} characters",
            widest.len() - MAX_ENTRY
        ));
    }
    if let Some(other) = older_namesake(key, context) {
        let message = format!("DkimKey {other} has the same domain and selector: delete one of the two");
        return Err(Finding::Stall(DkimKeyReason::DuplicateRecord, message));
    }
    let obstacles = key.spec.obstacles();
    match &key.spec.secret_ref {
        Some(source) if obstacles.is_empty() => Ok(source),
        _ => Err(Finding::Stall(DkimKeyReason::NotInThisVersion, summary(&obstacles))),
    }
}

/// A key of the same record that came first.
fn older_namesake(key: &DkimKey, context: &Context) -> Option<String> {
    let age = |key: &DkimKey| (key.meta().creation_timestamp.clone(), key.name_any());
    let keys = sound_in_namespace(&context.stores.keys, &key.namespace().unwrap_or_default());
    keys.iter()
        .filter(|other| other.spec.domain == key.spec.domain && other.spec.selector == key.spec.selector)
        .filter(|other| age(other) < age(key))
        .map(|other| other.name_any())
        .min()
}

/// Reads the private key. Messages name the Secret, and never what is in it. No client.
fn load(key: &DkimKey, source: &SecretKeyRef, secret: Option<Secret>) -> Finding {
    let SecretKeyRef { name, key: entry } = source;
    let Some(secret) = secret else {
        return Finding::Wait(DkimKeyReason::SecretNotFound, format!("there is no Secret {name}"));
    };
    let Some(pem) = secret.data.and_then(|mut data| data.remove(entry)) else {
        return Finding::Wait(
            DkimKeyReason::EntryNotFound,
            format!("Secret {name} has no key {entry}"),
        );
    };
    match SigningKey::from_pem(&pem.0, key.spec.algorithm) {
        Ok(signing) => Finding::Loaded(Box::new(signing)),
        Err(problem) => {
            let reason = match problem {
                KeyError::OtherAlgorithm { .. } => DkimKeyReason::WrongAlgorithm,
                KeyError::TooSmall => DkimKeyReason::KeyTooShort,
                _ => DkimKeyReason::KeyUnreadable,
            };
            Finding::Stall(
                reason,
                format!("key {entry} of Secret {name} cannot be used: {problem}"),
            )
        }
    }
}

/// What DNS says about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Published {
    Yes,
    Missing,
    Differs(String),
    Unknown(String),
}

/// A lookup, and when it was made.
#[derive(Debug, Clone)]
pub(crate) struct Lookup {
    version: String,
    at: Instant,
    published: Published,
}

impl Lookup {
    /// When to look again.
    fn due_in(&self) -> Duration {
        let interval = if self.published == Published::Yes {
            ONCE_PUBLISHED
        } else {
            UNTIL_PUBLISHED
        };
        interval.saturating_sub(self.at.elapsed())
    }
}

/// The last lookup for this version of the key, while it is recent: not every look at the object asks DNS.
fn remembered(key: &DkimKey, signing: &SigningKey, context: &Context) -> Option<Lookup> {
    let uid = key.uid().unwrap_or_default();
    let last: Option<Lookup> = context.lookups.with(uid, Instant::now(), |last| last.clone());
    last.filter(|last| last.version == signing.version() && !last.due_in().is_zero())
}

async fn look_up(key: &DkimKey, signing: &SigningKey, context: &Context) -> Lookup {
    let lookup = Lookup {
        version: signing.version(),
        published: ask_dns(&context.dns, &record_name(key), signing).await,
        at: Instant::now(),
    };
    let uid = key.uid().unwrap_or_default();
    context
        .lookups
        .with(uid, Instant::now(), |last| *last = Some(lookup.clone()));
    lookup
}

async fn ask_dns(dns: &Dns, name: &str, signing: &SigningKey) -> Published {
    let records = match dns.txt_records(name).await {
        Ok(records) => records,
        Err(problem) => return Published::Unknown(problem.to_string()),
    };
    let Some(first) = records.first() else {
        return Published::Missing;
    };
    // Verifiers read one record; where there are several, which one is undefined (RFC 6376 section 3.6.2.2).
    if records.len() > 1 {
        return Published::Differs(format!(
            "there are {} TXT records, and there must be one",
            records.len()
        ));
    }
    match matches_record(first, signing) {
        Ok(()) => Published::Yes,
        Err(mismatch) => Published::Differs(mismatch.to_string()),
    }
}

/// Writes at once what a lookup cannot change, when it has changed: a slow DNS server must not hold back mail.
async fn report_readiness(key: &DkimKey, finding: &Finding, context: &Context) -> Result<(), Error> {
    let early = status(key, finding, None);
    let previous = key.status.as_ref();
    let same_version = previous.and_then(|status| status.key_version.as_ref()) == early.key_version.as_ref();
    let was_ready = previous.is_some_and(|status| {
        is_true(&status.conditions, ConditionType::Ready) && status.observed_generation == key.meta().generation
    });
    if !same_version || !was_ready {
        report(context, key, &early, Vec::new()).await?;
    }
    Ok(())
}

/// What the key answers. `published` is none while DNS was not asked. No client.
fn status(key: &DkimKey, finding: &Finding, published: Option<&Published>) -> DkimKeyStatus {
    let previous = key
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    let generation = key.meta().generation;
    let mut conditions = Conditions::new(previous, &DkimKey::own_conditions(), generation, now());
    let name = record_name(key);
    match finding {
        Finding::Loaded(_) => {
            conditions.readiness(
                Readiness::Ready,
                DkimKeyReason::KeyLoaded,
                "the key is there and can sign",
            );
        }
        Finding::Wait(reason, message) => conditions.readiness(Readiness::Reconciling, *reason, message),
        Finding::Stall(reason, message) => conditions.readiness(Readiness::Stalled, *reason, message),
    }
    let (status, reason, message) = match published {
        Some(Published::Yes) => (
            ConditionStatus::True,
            DkimKeyReason::RecordFound,
            format!("{name} is published"),
        ),
        Some(Published::Missing) => (
            ConditionStatus::False,
            DkimKeyReason::RecordMissing,
            format!("{name} has no TXT record: publish the one in status.dnsRecord"),
        ),
        Some(Published::Differs(how)) => (
            ConditionStatus::False,
            DkimKeyReason::RecordDiffers,
            format!("{name} is not the record in status.dnsRecord: {how}"),
        ),
        Some(Published::Unknown(why)) => (
            ConditionStatus::Unknown,
            DkimKeyReason::LookupFailed,
            format!("{name} could not be looked up: {why}"),
        ),
        None => (
            ConditionStatus::Unknown,
            DkimKeyReason::Pending,
            format!("{name} was not looked up yet"),
        ),
    };
    conditions.set(ConditionType::Published, status, reason, message);
    let fields = key.spec.fields_not_in_effect(SURROUNDINGS);
    let not_in_effect = (!fields.is_empty()).then(|| notice(&fields));
    conditions.set_or_remove(
        ConditionType::NotInEffect,
        DkimKeyReason::FieldsNotInEffect,
        not_in_effect,
    );

    let loaded = match finding {
        Finding::Loaded(signing) => Some(signing),
        Finding::Wait(..) | Finding::Stall(..) => None,
    };
    DkimKeyStatus {
        observed_generation: generation,
        conditions: conditions.finish(),
        dns_record: loaded.map(|signing| DnsRecord {
            name,
            record_type: "TXT".to_owned(),
            value: signing.dns_record(),
        }),
        active_selector: loaded.map(|_| key.spec.selector.to_string()),
        key_version: loaded.map(|signing| signing.version()),
    }
}

/// Says that the record has appeared, or has gone.
fn published_notice(key: &DkimKey, status: &DkimKeyStatus) -> Option<Notice> {
    let published = find_condition(&status.conditions, ConditionType::Published)?;
    let before = key.status.as_ref();
    let was = before.is_some_and(|before| is_true(&before.conditions, ConditionType::Published));
    match (was, published.status.as_str()) {
        (false, "True") => Some(Notice::normal("KeyPublished", "LookUp", published.message.clone())),
        (true, "False") => Some(Notice::warning("KeyUnpublished", "LookUp", published.message.clone())),
        _ => None,
    }
}

/// RFC 6376 section 3.6.2.1.
fn record_name(key: &DkimKey) -> String {
    format!("{}._domainkey.{}", key.spec.selector, key.spec.domain)
}

fn reference(key: &DkimKey, version: String) -> SigningKeyRef {
    SigningKeyRef {
        domain: key.spec.domain.clone(),
        selector: key.spec.selector.clone(),
        algorithm: key.spec.algorithm,
        version,
    }
}
