//! The handle of a spool.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, mpsc};

use fjall::UserValue;
use tokio::sync::oneshot;

use crate::committer::{self, Message, Request, Shared};
use crate::keys::{self, Table};
use crate::record::StoredSlice;
use crate::store::Store;
use crate::{
    Batch, Commit, CommitError, Committed, ContentId, MessageKey, Messages, Notes, OpenError, Options, ReadError,
    SliceNumber, SliceRecord, SpoolFailure, Statistics,
};

/// A handle of an open spool. Clones are handles of the same spool.
///
/// Reading shows what is on disk: a batch is not seen before it is durable. Reads may wait for the disk; in a task, go
/// through many messages on a thread where waiting is allowed.
///
/// When the last handle is dropped, what has been submitted is still committed, and the folder is released soon after.
/// [`Spool::close`] waits for that.
#[derive(Clone)]
pub struct Spool {
    messages: mpsc::Sender<Message>,
    shared: Arc<Shared>,
    directory: PathBuf,
    queue_bytes: usize,
}

impl Spool {
    /// Opens the spool in a folder, or creates both. Waits for the disk, after a crash until the log has been read
    /// again; call it where waiting is allowed.
    pub fn open(directory: &Path, options: Options) -> Result<Self, OpenError> {
        let (messages, queue) = mpsc::channel();
        let queue_bytes = options.queue_bytes;
        let shared = committer::start(directory.to_owned(), options, queue)?;
        Ok(Self {
            messages,
            shared,
            directory: directory.to_owned(),
            queue_bytes,
        })
    }

    /// Commits a batch: `Ok` means that all of it is on disk.
    ///
    /// When the future is dropped early, the batch may or may not be committed.
    pub async fn commit(&self, batch: Batch) -> Result<Committed, CommitError> {
        self.submit(batch).await.await
    }

    /// Hands over a batch and returns as soon as there is room for it in the queue; the [`Commit`] resolves when it is
    /// on disk. Batches that one task submits one after another are applied in that order.
    pub async fn submit(&self, batch: Batch) -> Commit {
        let bytes = batch.bytes().clamp(1, self.queue_bytes);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(room) = self.shared.room.clone().acquire_many_owned(permits).await else {
            return Commit::decided(self.shared.refusal());
        };
        let (answer, commit) = oneshot::channel();
        self.send(
            Request {
                batch,
                room: Some(room),
                answer,
            },
            commit,
        )
    }

    /// Hands over a batch at once, whether there is room in the queue or not, after all that was submitted before. For
    /// batches whose number is bounded by something else, such as one result for each open connection.
    pub fn submit_now(&self, batch: Batch) -> Commit {
        if self.shared.room.is_closed() {
            return Commit::decided(self.shared.refusal());
        }
        let (answer, commit) = oneshot::channel();
        self.send(
            Request {
                batch,
                room: None,
                answer,
            },
            commit,
        )
    }

    fn send(&self, request: Request, commit: oneshot::Receiver<Result<Committed, CommitError>>) -> Commit {
        match self.messages.send(Message::Commit(request)) {
            Ok(()) => Commit::waiting(commit),
            Err(_) => Commit::decided(self.shared.refusal()),
        }
    }

    /// Resolves once the spool has failed, with the reason; never, when it does not. Failures of writing in the
    /// background are noticed within a second or with the next commit.
    pub async fn failed(&self) -> SpoolFailure {
        let mut failure = self.shared.failure.subscribe();
        let failed = failure.wait_for(Option::is_some).await;
        failed
            .ok()
            .and_then(|failure| failure.clone())
            .expect("the sender of this channel lives in the handle, and the wait is for a failure")
    }

    /// All slices, in the order of their numbers.
    pub fn slices(&self) -> Result<Vec<SliceRecord>, ReadError> {
        let entries = self.read(|store| Ok(store.scan(Table::Index, &keys::slices())))?;
        let slices: Result<Vec<_>, ReadError> = entries
            .map(|entry| {
                let (key, value) = entry.into_inner()?;
                let number = keys::parse_slice(&key).ok_or(ReadError::Damaged("the key of a slice"))?;
                slice_record(number, &value)
            })
            .collect();
        let mut slices = slices?;
        slices.sort_unstable_by_key(|slice| slice.number);
        Ok(slices)
    }

    /// The slice of this number.
    pub fn slice(&self, number: SliceNumber) -> Result<Option<SliceRecord>, ReadError> {
        let stored = self.read(|store| Ok(store.get(Table::Index, &keys::slice(number))?))?;
        stored.map(|value| slice_record(number, &value)).transpose()
    }

    /// The bytes of a content. It is there as long as a slice refers to it.
    pub fn content(&self, id: &ContentId) -> Result<Option<Vec<u8>>, ReadError> {
        self.value(Table::Contents, keys::content(id))
    }

    /// The row of a message.
    pub fn row(&self, key: MessageKey) -> Result<Option<Vec<u8>>, ReadError> {
        self.value(Table::Rows, keys::message(key))
    }

    /// All rows of a slice; none when it is not there.
    pub fn rows(&self, slice: SliceNumber) -> Result<Messages, ReadError> {
        self.messages_of(Table::Rows, slice)
    }

    /// The state of a message; `None` as well when it was never set.
    pub fn state(&self, key: MessageKey) -> Result<Option<Vec<u8>>, ReadError> {
        self.value(Table::States, keys::message(key))
    }

    /// The states that have been set in a slice; none when it is not there.
    pub fn states(&self, slice: SliceNumber) -> Result<Messages, ReadError> {
        self.messages_of(Table::States, slice)
    }

    /// The note of this name.
    pub fn note(&self, name: &str) -> Result<Option<Vec<u8>>, ReadError> {
        self.value(Table::Index, keys::note(name))
    }

    /// All notes whose name begins with `prefix`.
    pub fn notes(&self, prefix: &str) -> Result<Notes, ReadError> {
        self.read(|store| Ok(Notes::new(store.scan(Table::Index, &keys::note(prefix)))))
    }

    /// Bytes free for this process on the file system that holds the spool.
    pub fn free_space(&self) -> io::Result<u64> {
        let status = rustix::fs::statvfs(&self.directory)?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }

    /// What the committing thread has done so far.
    pub fn statistics(&self) -> Statistics {
        self.shared.counters.read()
    }

    /// Commits what has been submitted, closes the database and releases the folder. Other handles of the spool then
    /// answer that it is closed. The error is that of a spool that has failed before.
    pub async fn close(self) -> Result<(), SpoolFailure> {
        let (closed, released) = oneshot::channel();
        if self.messages.send(Message::Close(closed)).is_ok() {
            // Dropped unanswered when another handle has closed the spool at the same moment.
            let _ = released.await;
        }
        match &*self.shared.failure.borrow() {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    fn value(&self, table: Table, key: fjall::UserKey) -> Result<Option<Vec<u8>>, ReadError> {
        let value = self.read(|store| Ok(store.get(table, &key)?))?;
        Ok(value.map(|value: UserValue| value.to_vec()))
    }

    fn messages_of(&self, table: Table, slice: SliceNumber) -> Result<Messages, ReadError> {
        self.read(|store| Ok(Messages::new(store.scan(table, &keys::messages(slice)))))
    }

    fn read<T>(&self, read: impl FnOnce(&Store) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let store = self.shared.store.read().unwrap_or_else(PoisonError::into_inner);
        read(store.as_ref().ok_or(ReadError::Closed)?)
    }
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Spool")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

fn slice_record(number: SliceNumber, value: &[u8]) -> Result<SliceRecord, ReadError> {
    let stored = StoredSlice::decode(value).map_err(|_| ReadError::Damaged("the record of a slice"))?;
    Ok(stored.into_record(number))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::RwLock;
    use std::task::Poll;

    use tokio::sync::{Semaphore, watch};

    use super::*;
    use crate::statistics::Counters;

    const QUEUE_BYTES: usize = 1_000;

    /// A spool whose committing thread is the test.
    fn without_thread() -> (Spool, mpsc::Receiver<Message>) {
        let (messages, queue) = mpsc::channel();
        let shared = Shared {
            store: RwLock::new(None),
            room: Arc::new(Semaphore::new(QUEUE_BYTES)),
            failure: watch::Sender::new(None),
            counters: Counters::default(),
        };
        let spool = Spool {
            messages,
            shared: Arc::new(shared),
            directory: PathBuf::new(),
            queue_bytes: QUEUE_BYTES,
        };
        (spool, queue)
    }

    fn note(bytes: usize) -> Batch {
        let mut batch = Batch::new();
        batch.set_note("n", vec![0; bytes]);
        batch
    }

    async fn is_waiting<T>(future: &mut std::pin::Pin<&mut impl Future<Output = T>>) -> bool {
        poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
    }

    #[tokio::test]
    async fn a_full_queue_makes_callers_wait_in_turn() {
        let (spool, queue) = without_thread();
        let first = spool.submit(note(800)).await;
        let mut second = pin!(spool.submit(note(800)));
        let mut third = pin!(spool.submit(note(1)));
        assert!(is_waiting(&mut second).await);
        assert!(is_waiting(&mut third).await, "a small batch must not overtake");

        let Ok(Message::Commit(request)) = queue.try_recv() else {
            panic!("the first batch is not in the queue");
        };
        assert!(queue.try_recv().is_err());
        assert!(is_waiting(&mut second).await);
        let _ = request.answer.send(Ok(Committed::default()));
        drop(request.room);
        let _second = second.await;
        let _third = third.await;
        assert_eq!(queue.try_iter().count(), 2);
        first.await.unwrap();
    }

    #[tokio::test]
    async fn a_batch_larger_than_the_queue_goes_alone() {
        let (spool, queue) = without_thread();
        let _large = spool.submit(note(10 * QUEUE_BYTES)).await;
        let mut next = pin!(spool.submit(note(1)));
        assert!(is_waiting(&mut next).await);
        drop(queue.try_recv());
        let _next = next.await;
    }

    #[tokio::test]
    async fn callers_that_wait_learn_of_a_failure() {
        let (spool, queue) = without_thread();
        let _first = spool.submit(note(QUEUE_BYTES)).await;
        let mut waiting = pin!(spool.commit(note(1)));
        let mut failed = pin!(spool.failed());
        assert!(is_waiting(&mut waiting).await);
        assert!(is_waiting(&mut failed).await);
        spool.shared.fail(SpoolFailure::thread());
        assert!(matches!(waiting.await, Err(CommitError::Failed(_))));
        assert!(failed.await.to_string().contains("panic"));
        assert!(matches!(spool.commit(note(1)).await, Err(CommitError::Failed(_))));
        drop(queue);
    }
}
