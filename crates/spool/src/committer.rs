//! The one thread that writes.
//!
//! Batches come through a queue. The thread takes all that wait, applies them to a [`Stage`], writes the stage with one
//! `fdatasync`, and answers them; meanwhile the next ones gather.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};
use std::vec;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::stage::Stage;
use crate::statistics::Counters;
use crate::store::Store;
use crate::{Batch, CommitError, Committed, OpenError, Options, SpoolFailure};

/// How often the thread looks, when it has nothing to write, whether writing in the background has failed.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Changes of the database from which a group is written, whatever waits: removals are small in the queue, but touch every
/// message of a slice.
const GROUP_CHANGES: usize = 32_768;

/// What the handles of a spool and its committing thread have in common.
pub(crate) struct Shared {
    /// The database, until the spool is closed.
    pub(crate) store: RwLock<Option<Store>>,
    /// Room in the queue, in bytes. Closed when no more batches are taken.
    pub(crate) room: Arc<Semaphore>,
    pub(crate) failure: watch::Sender<Option<SpoolFailure>>,
    pub(crate) counters: Counters,
}

impl Shared {
    /// The error that now meets every batch, when no more are taken.
    pub(crate) fn refusal(&self) -> CommitError {
        match &*self.failure.borrow() {
            Some(failure) => failure.clone().into(),
            None => CommitError::Closed,
        }
    }

    /// Makes the failure known and takes no more batches.
    pub(crate) fn fail(&self, failure: SpoolFailure) {
        tracing::error!(error = &failure as &dyn std::error::Error, "the spool has failed");
        self.failure.send_replace(Some(failure));
        self.room.close();
    }
}

pub(crate) enum Message {
    Commit(Request),
    /// Close the spool, and say when its folder is released.
    Close(oneshot::Sender<()>),
}

/// A batch that waits, the room it takes up in the queue, and who waits for the answer.
pub(crate) struct Request {
    pub(crate) batch: Batch,
    pub(crate) room: Option<OwnedSemaphorePermit>,
    pub(crate) answer: oneshot::Sender<Result<Committed, CommitError>>,
}

/// Opens the spool on a thread of its own, which then commits what comes through the queue. The database is opened
/// there because it panics on some kinds of damage.
pub(crate) fn start(
    directory: PathBuf,
    options: Options,
    messages: Receiver<Message>,
) -> Result<Arc<Shared>, OpenError> {
    let (opened, result) = std::sync::mpsc::sync_channel(1);
    let damaged = OpenError::Damaged {
        path: directory.clone(),
    };
    thread::Builder::new()
        .name("spool".to_owned())
        .spawn(move || {
            let shared = match Store::open(&directory, &options) {
                Ok(store) => Arc::new(Shared {
                    store: RwLock::new(Some(store)),
                    room: Arc::new(Semaphore::new(options.queue_bytes)),
                    failure: watch::Sender::new(None),
                    counters: Counters::default(),
                }),
                Err(error) => {
                    // Whoever opens the spool waits for this answer.
                    let _ = opened.send(Err(error));
                    return;
                }
            };
            if opened.send(Ok(shared.clone())).is_ok() {
                commit_until_closed(shared, options, messages);
            }
        })
        .map_err(OpenError::Thread)?;
    result.recv().unwrap_or(Err(damaged))
}

fn commit_until_closed(shared: Arc<Shared>, options: Options, messages: Receiver<Message>) {
    let mut committer = Committer {
        shared,
        options,
        messages,
        pace: None,
    };
    let closing = catch_unwind(AssertUnwindSafe(|| committer.run())).unwrap_or_else(|_| {
        committer.shared.fail(SpoolFailure::thread());
        None
    });
    // Batches that came after the closing are dropped here, and find the spool closed.
    let Committer { shared, messages, .. } = committer;
    shared.room.close();
    drop(messages);
    let store = shared.store.write().unwrap_or_else(PoisonError::into_inner).take();
    drop(store);
    if let Some(closed) = closing {
        // Nobody may be waiting any more.
        let _ = closed.send(());
    }
}

struct Committer {
    shared: Arc<Shared>,
    options: Options,
    messages: Receiver<Message>,
    /// Until when to let batches gather, while several callers commit at once.
    pace: Option<Instant>,
}

/// How a spool ends: closed by a caller that wants to know, or by the last handle being dropped.
type Closing = Option<oneshot::Sender<()>>;

impl Committer {
    /// Commits until the spool is closed and all that came before is answered.
    fn run(&mut self) -> Closing {
        loop {
            match self.messages.recv_timeout(CHECK_INTERVAL) {
                Ok(Message::Commit(first)) => {
                    self.let_batches_gather();
                    let (group, closing) = self.take_group(first);
                    self.commit(group);
                    if let Some(closing) = closing {
                        return Some(closing);
                    }
                }
                Ok(Message::Close(closed)) => return Some(closed),
                Err(RecvTimeoutError::Timeout) => self.check(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn let_batches_gather(&mut self) {
        if let Some(until) = self.pace.take() {
            thread::sleep(until.saturating_duration_since(Instant::now()));
        }
    }

    /// All batches that wait, up to the size of a group.
    fn take_group(&self, first: Request) -> (Vec<Request>, Closing) {
        let mut bytes = first.batch.bytes();
        let mut group = vec![first];
        while bytes < self.options.group_bytes {
            match self.messages.try_recv() {
                Ok(Message::Commit(request)) => {
                    bytes += request.batch.bytes();
                    group.push(request);
                }
                Ok(Message::Close(closed)) => return (group, Some(closed)),
                Err(_) => break,
            }
        }
        (group, None)
    }

    /// Commits a group and answers its batches.
    fn commit(&mut self, group: Vec<Request>) {
        if group.len() > 1 {
            self.pace = Some(Instant::now() + self.options.group_interval);
        }
        let mut waiting = group.into_iter();
        while waiting.len() > 0 && !self.has_failed() {
            self.write(&mut waiting);
        }
        for request in waiting {
            let _ = request.answer.send(Err(self.shared.refusal()));
        }
    }

    /// Writes as many batches as make a set of changes that fits in memory, with one `fdatasync`.
    fn write(&self, waiting: &mut vec::IntoIter<Request>) {
        let store = self.shared.store.read().unwrap_or_else(PoisonError::into_inner);
        let store = store.as_ref().expect("the store is there until this thread ends");
        let counters = &self.shared.counters;

        let mut stage = Stage::new(store);
        let mut applied = Vec::with_capacity(waiting.len());
        while stage.len() < GROUP_CHANGES
            && let Some(request) = waiting.next()
        {
            let bytes = request.batch.bytes();
            match stage.apply(request.batch) {
                Ok(committed) => applied.push((request.answer, committed, bytes, request.room)),
                Err(error) => {
                    counters.refusals.fetch_add(1, Relaxed);
                    // Whoever submitted it need not wait for the answer; the same below.
                    let _ = request.answer.send(Err(error));
                }
            }
        }
        let changes = stage.into_changes();
        let result = if changes.is_empty() {
            Ok(())
        } else {
            counters.groups.fetch_add(1, Relaxed);
            store.wait_for_room().and_then(|()| store.write(changes.into_iter()))
        };
        match result {
            Ok(()) => {
                for (answer, committed, bytes, _room) in applied {
                    counters.commits.fetch_add(1, Relaxed);
                    counters.bytes.fetch_add(bytes as u64, Relaxed);
                    let _ = answer.send(Ok(committed));
                }
            }
            Err(error) => {
                let failure = SpoolFailure::write(error);
                self.shared.fail(failure.clone());
                for (answer, ..) in applied {
                    let _ = answer.send(Err(failure.clone().into()));
                }
            }
        }
    }

    fn has_failed(&self) -> bool {
        self.shared.failure.borrow().is_some()
    }

    /// Notices a failure in the background when no batch comes to meet it.
    fn check(&self) {
        if self.has_failed() {
            return;
        }
        let store = self.shared.store.read().unwrap_or_else(PoisonError::into_inner);
        let store = store.as_ref().expect("the store is there until this thread ends");
        if let Err(error) = store.check() {
            self.shared.fail(SpoolFailure::write(error));
        }
    }
}
