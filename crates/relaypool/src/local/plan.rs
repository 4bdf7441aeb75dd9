//! Planning without an API server. A plan is kept in the state folder, so that a second run continues the first.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use relaypool_api::conditions::{DkimKeyReason, Readiness};
use relaypool_api::delivery::Recipients;
use relaypool_api::names::{sender_name, signing_key_entry};
use relaypool_api::{Delivery, DeliverySlice, DkimKey, DkimKeyStatus, RelayPool, SendingIp};
use relaypool_controller::planning::{
    KeyChoice, PlanInput, RecipientList, SourceKind, SourceRef, choose_keys, plan, signing_key,
};
use relaypool_message::check_template;
use relaypool_message::dkim::SigningKey;
use relaypool_sender::KeyRing;
use serde::{Deserialize, Serialize};

use super::Objects;

/// A planned run.
#[derive(Clone, Serialize, Deserialize)]
pub struct PlannedRun {
    /// The message of the run.
    pub message_slice: DeliverySlice,
    /// Its recipients.
    pub slices: Vec<DeliverySlice>,
}

/// Gives a Delivery the identity that the API server would: the same at every run of the same name and `runId`.
pub fn with_identity(delivery: &Delivery) -> Delivery {
    let mut delivery = delivery.clone();
    let run = delivery.spec.run_id.clone().unwrap_or_default();
    // A name has no slash, so two runs never share an identity.
    delivery.metadata.uid = Some(format!("local/{}/{run}", delivery.name_any()));
    delivery.metadata.generation = Some(1);
    delivery.metadata.namespace.get_or_insert_with(|| "default".to_owned());
    delivery
}

/// The SendingIps, all owned by the one sender that there is of each pool.
pub fn owned_ips(objects: &Objects) -> Vec<SendingIp> {
    objects
        .ips
        .values()
        .map(|ip| {
            let mut ip = ip.clone();
            ip.status.get_or_insert_default().sender = Some(sender_name(&ip.spec.pool, 0));
            ip
        })
        .collect()
}

/// The DkimKeys with the status that a controller would give them, and the keys themselves.
pub fn signing_keys(objects: &Objects) -> anyhow::Result<(Vec<DkimKey>, KeyRing)> {
    let mut keys = Vec::new();
    let mut ring = KeyRing::new();
    for key in objects.keys.values() {
        let name = key.name_any();
        let reference = key.spec.secret_ref.as_ref();
        let reference = reference.with_context(|| format!("DkimKey {name}: spec.secretRef is missing"))?;
        let source = SourceRef::secret(&reference.name, &reference.key);
        let pem = content(objects, &source).with_context(|| format!("DkimKey {name}"))?;
        let signing = SigningKey::from_pem(&pem, key.spec.algorithm)
            .with_context(|| format!("DkimKey {name}: Secret {}, key {}", reference.name, reference.key))?;
        let mut key = key.clone();
        let mut status = DkimKeyStatus {
            key_version: Some(signing.version()),
            ..DkimKeyStatus::default()
        };
        status.observed_generation = key.metadata.generation;
        Readiness::Ready.write(
            &mut status.conditions,
            DkimKeyReason::KeyLoaded,
            "",
            None,
            Time(Timestamp::UNIX_EPOCH),
        );
        key.status = Some(status);
        if let Some(reference) = signing_key(&key) {
            ring.insert(signing_key_entry(&reference), std::sync::Arc::new(signing));
        }
        keys.push(key);
    }
    Ok((keys, ring))
}

/// The plan of a Delivery: the one in the state folder, or a new one that is put there.
pub fn planned(
    delivery: &Delivery,
    objects: &Objects,
    ips: &[SendingIp],
    keys: &[DkimKey],
    folder: &Path,
) -> anyhow::Result<PlannedRun> {
    let pool = objects.pools.get(&delivery.spec.pool).with_context(|| {
        format!(
            "Delivery {}: there is no RelayPool {}",
            delivery.name_any(),
            delivery.spec.pool
        )
    })?;
    let file = folder.join(file_name(&delivery.uid().unwrap_or_default()));
    if file.exists() {
        let text = std::fs::read(&file).with_context(|| format!("cannot read the plan {}", file.display()))?;
        return serde_json::from_slice(&text).with_context(|| format!("the plan {} is damaged", file.display()));
    }
    let run =
        new_plan(delivery, pool, objects, ips, keys).with_context(|| format!("Delivery {}", delivery.name_any()))?;
    write_whole(&file, &serde_json::to_vec(&run)?)?;
    Ok(run)
}

/// Name of the file with the plan of a run: different for different runs, whatever a `runId` is made of.
fn file_name(uid: &str) -> String {
    let mut name = String::new();
    for character in uid.chars() {
        match character {
            'a'..='z' | '0'..='9' | '-' | '.' => name.push(character),
            '/' => name.push('_'),
            other => name.push_str(&format!("={:x}=", u32::from(other))),
        }
    }
    name + ".json"
}

fn new_plan(
    delivery: &Delivery,
    pool: &RelayPool,
    objects: &Objects,
    ips: &[SendingIp],
    keys: &[DkimKey],
) -> anyhow::Result<PlannedRun> {
    let spec = &delivery.spec;
    let message = spec.message.as_ref().context("spec.message is missing")?;
    check_template(&spec.sender, message)?;
    let recipients = recipients(spec.recipients.as_ref().context("spec.recipients is missing")?, objects)?;
    if recipients.rows.is_empty() {
        bail!(nobody(&recipients));
    }
    let mut attachments = BTreeMap::new();
    for source in message.attachments.iter().filter_map(SourceRef::of_attachment) {
        let bytes = content(objects, &source)?;
        attachments.insert(source, bytes);
    }
    let keys = match choose_keys(spec.sender.address.domain(), keys) {
        KeyChoice::Sign(keys) => keys,
        KeyChoice::NoKey => Vec::new(),
        KeyChoice::Wait { key, message } => bail!("DkimKey {key} cannot be used: {message}"),
    };
    let input = PlanInput {
        delivery,
        pool,
        recipients: &recipients,
        attachments: &attachments,
        ips,
        keys: &keys,
    };
    let plan = plan(input)?;
    let identified = |slice: DeliverySlice| {
        let mut slice = slice;
        slice.metadata.uid = Some(slice.name_any());
        slice
    };
    Ok(PlannedRun {
        message_slice: identified(plan.message_slice),
        slices: plan.slices.into_iter().map(identified).collect(),
    })
}

fn recipients(recipients: &Recipients, objects: &Objects) -> anyhow::Result<RecipientList> {
    if let Some(inline) = &recipients.inline {
        return Ok(RecipientList::from_inline(inline));
    }
    let list = recipients
        .config_map_key_ref
        .as_ref()
        .or(recipients.secret_key_ref.as_ref());
    match (SourceRef::of_recipients(recipients), list) {
        (Some(source), Some(list)) => {
            RecipientList::parse(&content(objects, &source)?, list.format).with_context(|| source.to_string())
        }
        _ => bail!("spec.recipients is empty"),
    }
}

/// Why a list is of no use.
fn nobody(list: &RecipientList) -> String {
    let reasons: Vec<String> = list
        .ignored
        .iter()
        .map(|(reason, count)| format!("{count} × {reason}"))
        .collect();
    match list.ignored_rows.first() {
        Some(first) => format!(
            "none of the {} rows of the list can get the mail: {}; {}",
            list.total,
            reasons.join(", "),
            first.reason
        ),
        None => "the list of recipients has no rows".to_owned(),
    }
}

/// One key of a ConfigMap or a Secret among the files.
fn content(objects: &Objects, source: &SourceRef) -> anyhow::Result<Vec<u8>> {
    let found = match source.kind {
        SourceKind::ConfigMap => objects.config_maps.get(&source.name).and_then(|map| {
            let text = map
                .data
                .as_ref()
                .and_then(|data| data.get(&source.key))
                .map(|text| text.clone().into_bytes());
            text.or_else(|| map.binary_data.as_ref()?.get(&source.key).map(|bytes| bytes.0.clone()))
        }),
        SourceKind::Secret => objects
            .secrets
            .get(&source.name)
            .and_then(|secret| secret.data.as_ref()?.get(&source.key).map(|bytes| bytes.0.clone())),
    };
    found.with_context(|| format!("{source} is missing"))
}

/// Writes a file whole or not at all: a plan is either fixed or not there.
fn write_whole(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = file.parent().context("a plan lies in a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut temporary, bytes)?;
    temporary.as_file().sync_all()?;
    temporary
        .persist(file)
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_run_has_a_plan_of_its_own() {
        let runs = ["a", "a/b", "a_b", "a=2f=b", "", "..", "A", "é"];
        let files: HashSet<String> = runs
            .iter()
            .map(|run| file_name(&format!("local/news/{run}")))
            .chain([file_name("local/news.a/"), file_name("local/news/.a")])
            .collect();
        assert_eq!(files.len(), runs.len() + 2, "{files:?}");
        assert!(files.iter().all(|file| file.is_ascii() && !file.contains('/')));
    }
}
