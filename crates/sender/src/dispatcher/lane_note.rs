//! What is kept of a lane in the spool: what its pacer learned and what has happened on it.
//!
//! ```text
//! name:   lane/<SendingIp>/<lane>
//! value:  version (1 byte) │ when the lane was last used (8 bytes, big-endian) │ LaneNote in CBOR
//! ```
//!
//! CBOR names its fields, unlike the encoding of messages: the pacer may learn more one day, and an older note still says
//! what it says. Unlike JSON it has a form for every float. The moment in front is read without the rest when old notes
//! are looked for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::time::Duration;

use relaypool_bounce::Category;
use relaypool_shaping::pacer::Snapshot;
use relaypool_spool::{Batch, CommitError, MAX_NAME_BYTES, ReadError, Spool};
use serde::{Deserialize, Serialize};

use super::lane::{Lane, LastRefusal};
use super::lane_history::LaneHistory;
use super::path_state::Trouble;
use crate::ledger::Millis;

/// The version that is written, and the newest that can be read.
const VERSION: u8 = 1;

/// Bytes before the CBOR.
const HEADER: usize = 1 + size_of::<Millis>();

/// How the names of all these notes begin.
pub(crate) const PREFIX: &str = "lane/";

/// Longest reply that is kept, in characters.
const MAX_REPLY: usize = 500;

/// A lane that was not used for so long is forgotten: what was learned then says little about the provider of now.
pub(crate) const FORGOTTEN_AFTER: Millis = 7 * 86_400_000;

/// Most lanes that are kept; of more, those used last.
pub(crate) const MOST_KEPT: usize = 100_000;

/// Notes that are removed in one go.
const REMOVED_AT_ONCE: usize = 1_000;

/// What a lane knows and should know after a restart too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LaneNote {
    pub(crate) ip: String,
    pub(crate) site: String,
    pub(crate) pacer: Snapshot,
    pub(crate) history: LaneHistory,
    #[serde(default)]
    last_refusal: Option<KeptRefusal>,
    #[serde(default)]
    pub(crate) trouble: Option<Trouble>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeptRefusal {
    at: Millis,
    reply: String,
    category: Category,
    retry_after: Option<Duration>,
}

/// Why a note cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoteError {
    /// It was written by a newer program.
    #[error("it has version {0}, newer than this program's {VERSION}")]
    Newer(u8),
    /// It is not what was written.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

impl LaneNote {
    pub(crate) fn of(lane: &Lane) -> Self {
        Self {
            ip: lane.ip.clone(),
            site: lane.site.clone(),
            pacer: lane.pacer.snapshot(),
            history: lane.history.clone(),
            last_refusal: lane.last_refusal.as_ref().and_then(KeptRefusal::of),
            trouble: lane.trouble,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.history.used_at.to_be_bytes());
        ciborium::into_writer(self, &mut bytes).expect("a record of plain fields always serialises into memory");
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, NoteError> {
        used_at(bytes)?;
        ciborium::from_reader(&bytes[HEADER..]).map_err(|error| NoteError::Damaged(error.to_string()))
    }

    pub(crate) fn last_refusal(&self) -> Option<LastRefusal> {
        let kept = self.last_refusal.as_ref()?;
        Some(LastRefusal {
            at: kept.at,
            reply: kept.reply.clone(),
            category: kept.category.as_str(),
            retry_after: kept.retry_after,
        })
    }
}

impl KeptRefusal {
    fn of(refusal: &LastRefusal) -> Option<Self> {
        Some(Self {
            at: refusal.at,
            reply: refusal.reply.chars().take(MAX_REPLY).collect(),
            category: refusal.category.parse().ok()?,
            retry_after: refusal.retry_after,
        })
    }
}

/// The name of a lane's note. Names of objects have no slash, so no two lanes have the same; a long one ends in a digest.
pub(crate) fn name(ip: &str, site: &str) -> String {
    let mut name = format!("{PREFIX}{ip}/{site}");
    if name.len() > MAX_NAME_BYTES {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, site.as_bytes());
        name.truncate(name.floor_char_boundary(MAX_NAME_BYTES - 2 * digest.as_ref().len() - 1));
        name.push('#');
        for byte in digest.as_ref() {
            write!(name, "{byte:02x}").expect("writing to a string does not fail");
        }
    }
    name
}

fn used_at(bytes: &[u8]) -> Result<Millis, NoteError> {
    match bytes.split_first_chunk::<HEADER>() {
        Some((&[VERSION, ref at @ ..], _)) => Ok(Millis::from_be_bytes(*at)),
        _ => Err(match bytes.first() {
            Some(version) if *version > VERSION => NoteError::Newer(*version),
            _ => NoteError::Damaged("its beginning is not that of a note".to_owned()),
        }),
    }
}

/// Whether a lane that was last used at that moment is still known.
fn is_remembered(used_at: Millis, now: Millis) -> bool {
    used_at.saturating_add(FORGOTTEN_AFTER) > now
}

/// The note of a lane. One that cannot be used is logged, and as good as none; so is one that is to be forgotten.
pub(crate) fn read(spool: &Spool, ip: &str, site: &str, now: Millis) -> Option<LaneNote> {
    let unusable = |error: &(dyn std::error::Error + 'static)| {
        tracing::warn!(
            ip,
            site,
            error,
            "what was learned of a lane cannot be read: it is learned anew"
        );
    };
    let bytes = spool.note(&name(ip, site)).unwrap_or_else(|error| {
        unusable(&error);
        None
    })?;
    match LaneNote::decode(&bytes) {
        Ok(note) => is_remembered(note.history.used_at, now).then_some(note),
        Err(error) => {
            unusable(&error);
            None
        }
    }
}

/// The notes of an IP's lanes, at most so many: those used last. Such as cannot be used are left out.
pub(crate) fn latest(spool: &Spool, ip: &str, most: usize, now: Millis) -> Vec<LaneNote> {
    latest_values(spool, ip, most, now).unwrap_or_else(|error| {
        tracing::warn!(
            ip,
            error = &error as &dyn std::error::Error,
            "what was learned of its sites cannot be read"
        );
        Vec::new()
    })
}

fn latest_values(spool: &Spool, ip: &str, most: usize, now: Millis) -> Result<Vec<LaneNote>, ReadError> {
    let mut latest = BinaryHeap::new();
    for entry in spool.notes(&name(ip, ""))? {
        let (_, value) = entry?;
        if let Ok(at) = used_at(&value)
            && is_remembered(at, now)
        {
            latest.push(Reverse((at, value)));
            if latest.len() > most {
                latest.pop();
            }
        }
    }
    Ok(latest
        .into_iter()
        .filter_map(|Reverse((_, value))| LaneNote::decode(&value).ok())
        .collect())
}

/// Writes notes, durably.
pub(crate) async fn write(spool: &Spool, notes: &[LaneNote]) {
    let mut batch = Batch::new();
    for note in notes {
        batch.set_note(name(&note.ip, &note.site), note.encode());
    }
    if let Err(error) = spool.commit(batch).await {
        // A spool that has failed ends the process; what was learned since the last write is learned again.
        tracing::warn!(
            lanes = notes.len(),
            error = &error as &dyn std::error::Error,
            "what was learned was not kept"
        );
    }
}

/// Why old notes could not be removed.
#[derive(Debug, thiserror::Error)]
enum PruneError {
    #[error("the notes cannot be read")]
    Read(#[from] ReadError),
    #[error("the notes cannot be removed")]
    Commit(#[from] CommitError),
}

/// Removes the notes of lanes that are to be forgotten.
pub(crate) async fn prune(spool: &Spool, now: Millis) {
    match remove_forgotten(spool, now, MOST_KEPT).await {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "lanes not used for long are forgotten"),
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "lanes not used for long are still kept"
        ),
    }
}

async fn remove_forgotten(spool: &Spool, now: Millis, most: usize) -> Result<usize, PruneError> {
    let reader = spool.clone();
    let names = tokio::task::spawn_blocking(move || forgotten(&reader, now, most))
        .await
        .expect("looking through notes does not panic and is not aborted")?;
    for some in names.chunks(REMOVED_AT_ONCE) {
        let mut batch = Batch::new();
        for name in some {
            batch.remove_note(name);
        }
        spool.commit(batch).await?;
    }
    Ok(names.len())
}

/// Names of the notes that are damaged, too old, or more than `most`. Those of a newer program are for that to judge.
fn forgotten(spool: &Spool, now: Millis, most: usize) -> Result<Vec<String>, ReadError> {
    let mut forgotten = Vec::new();
    let mut kept = Vec::new();
    for entry in spool.notes(PREFIX)? {
        let (name, value) = entry?;
        match used_at(&value) {
            Ok(at) if is_remembered(at, now) => kept.push((at, name)),
            Err(NoteError::Newer(_)) => {}
            Ok(_) | Err(NoteError::Damaged(_)) => forgotten.push(name),
        }
    }
    if kept.len() > most {
        let excess = kept.len() - most;
        kept.select_nth_unstable(excess);
        forgotten.extend(kept.drain(..excess).map(|(_, name)| name));
    }
    Ok(forgotten)
}

#[cfg(test)]
mod tests {
    use relaypool_shaping::pacer::{AdaptiveLimits, Pacer, PacerLimits, Shown};
    use relaypool_spool::Options;

    use super::*;

    fn limits() -> PacerLimits {
        PacerLimits {
            connections: 100,
            messages_per_connection: 10,
            rate: None,
            share: None,
            adaptive: Some(AdaptiveLimits::default()),
        }
    }

    fn note(site: &str, used_at: Millis) -> LaneNote {
        let shown = Shown {
            rate: None,
            connections: Some(7),
            suspended_until: Some(Duration::from_millis(used_at) + Duration::from_secs(60)),
        };
        let mut history = LaneHistory::new(used_at);
        history.reputation.accepted(used_at);
        LaneNote {
            ip: "ip".to_owned(),
            site: site.to_owned(),
            pacer: Snapshot::from_shown(Duration::from_millis(used_at), shown),
            history,
            last_refusal: Some(KeptRefusal {
                at: used_at,
                reply: "421 4.7.0 später".to_owned(),
                category: Category::RateLimited,
                retry_after: Some(Duration::from_secs(90)),
            }),
            trouble: Some(Trouble::Block),
        }
    }

    #[test]
    fn notes_are_read_as_they_were_written() {
        let written = note("mx.example", 1_000_000);
        let read = LaneNote::decode(&written.encode()).unwrap();
        assert_eq!((read.ip.as_str(), read.site.as_str()), ("ip", "mx.example"));
        assert_eq!((&read.history, read.trouble), (&written.history, Some(Trouble::Block)));
        let refusal = read.last_refusal().unwrap();
        assert_eq!(
            (refusal.reply.as_str(), refusal.category),
            ("421 4.7.0 später", Category::RateLimited.as_str())
        );
        let now = Duration::from_secs(1_000);
        let pacer = Pacer::restore(limits(), read.pacer, now);
        assert_eq!(pacer.connection_limit(), 7);
        assert_eq!(pacer.suspended_until(now), Some(Duration::from_secs(1_060)));
    }

    #[test]
    fn a_pacer_that_knows_nothing_can_be_kept_too() {
        let mut fresh = note("mx.example", 5);
        fresh.pacer = Pacer::new(limits()).snapshot();
        let read = LaneNote::decode(&fresh.encode()).unwrap();
        let pacer = Pacer::restore(limits(), read.pacer, Duration::from_secs(1));
        assert_eq!(pacer.connection_limit(), Pacer::new(limits()).connection_limit());
    }

    #[test]
    fn newer_and_damaged_notes_are_errors() {
        let bytes = note("mx.example", 1_000_000).encode();
        let mut newer = bytes.clone();
        newer[0] = 2;
        assert!(matches!(LaneNote::decode(&newer), Err(NoteError::Newer(2))));
        for cut in 0..bytes.len() {
            assert!(
                matches!(LaneNote::decode(&bytes[..cut]), Err(NoteError::Damaged(_))),
                "{cut}"
            );
        }
        for position in HEADER..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 0xff;
            // Some changes make another sound note; none may do worse.
            drop(LaneNote::decode(&changed));
        }
    }

    #[test]
    fn names_differ_and_fit() {
        assert_eq!(name("ip", "mx.example"), "lane/ip/mx.example");
        let (one, two) = ("é".repeat(2_000), format!("{}x", "é".repeat(2_000)));
        assert_ne!(name("ip", &one), name("ip", &two));
        assert!(name("ip", &one).len() <= MAX_NAME_BYTES);
        assert_eq!(name("ip", &one), name("ip", &one));
    }

    #[tokio::test]
    async fn old_lanes_are_forgotten_and_the_rest_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), Options::default()).unwrap();
        let now = 10 * FORGOTTEN_AFTER;
        let notes: Vec<LaneNote> = (0..20)
            .map(|age| note(&format!("site{age:02}"), now - age * FORGOTTEN_AFTER / 10))
            .collect();
        write(&spool, &notes).await;
        let mut batch = Batch::new();
        batch.set_note("lane/ip/damaged", vec![1, 2]);
        batch.set_note("lane/ip/newer", vec![9]);
        batch.set_note("configuration", vec![1, 2]);
        spool.commit(batch).await.unwrap();
        let kept = || -> Vec<String> { spool.notes("").unwrap().map(|note| note.unwrap().0).collect() };

        assert_eq!(remove_forgotten(&spool, now, 1_000).await.unwrap(), 11);
        assert_eq!(kept().len(), 10 + 2);
        assert_eq!(remove_forgotten(&spool, now, 3).await.unwrap(), 7);
        assert_eq!(
            kept(),
            [
                "configuration",
                "lane/ip/newer",
                "lane/ip/site00",
                "lane/ip/site01",
                "lane/ip/site02"
            ]
        );
        assert!(read(&spool, "ip", "site01", now).is_some());
        // Time goes on before anybody removes them.
        let later = now + FORGOTTEN_AFTER;
        assert!(read(&spool, "ip", "site01", later).is_none());
        assert_eq!(latest(&spool, "ip", 9, later).len(), 0);
        let sites = |ip: &str, most: usize| {
            let mut sites: Vec<_> = latest(&spool, ip, most, now)
                .into_iter()
                .map(|note| note.site)
                .collect();
            sites.sort();
            sites
        };
        assert_eq!(sites("ip", 2), ["site00", "site01"]);
        assert_eq!(sites("i", 2), [""; 0], "another IP");
        for unusable in ["newer", "site09"] {
            assert!(read(&spool, "ip", unusable, now).is_none());
        }
        assert_eq!(remove_forgotten(&spool, now, 3).await.unwrap(), 0);
    }
}
