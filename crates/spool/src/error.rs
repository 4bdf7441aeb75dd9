//! What can go wrong.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::{ContentId, MessageKey, SliceNumber};

/// Why a spool could not be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another [`Spool`](crate::Spool) of this one, has it open.
    #[error("the spool '{}' is in use: its lock is held by another sender", directory.display())]
    Locked {
        /// The folder of the spool.
        directory: PathBuf,
    },
    /// It was written by a newer program.
    #[error(
        "the spool '{}' has format {found}; this program knows formats up to {supported}: run the newer version that \
         wrote it",
        directory.display()
    )]
    NewerFormat {
        /// The folder of the spool.
        directory: PathBuf,
        /// The format of the spool.
        found: u32,
        /// The newest format this program can read.
        supported: u32,
    },
    /// The file that says the format does not.
    #[error("'{}' does not say the format of a spool", file.display())]
    UnreadableFormat {
        /// The file.
        file: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {action} '{}'", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The database could not be opened or recovered.
    #[error("cannot open the database in '{}'", path.display())]
    Database {
        /// The folder of the database.
        path: PathBuf,
        /// The cause.
        source: fjall::Error,
    },
    /// The database stopped in the middle of recovery, which it does on files that contradict each other.
    #[error("the database in '{}' is damaged; the log has the place", path.display())]
    Damaged {
        /// The folder of the database.
        path: PathBuf,
    },
    /// The committing thread could not be started.
    #[error("cannot start the spool's committing thread")]
    Thread(#[source] io::Error),
}

/// Why a batch was not committed. In every case but [`Failed`](CommitError::Failed) nothing of it was applied.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The batch asks for something that cannot be; the spool is as it was before and goes on.
    #[error("the batch is refused")]
    Refused(#[from] Refusal),
    /// What the batch depends on could not be read; the spool is as it was before and goes on.
    #[error("cannot read what the batch depends on")]
    Read(#[from] ReadError),
    /// The spool has failed, now or earlier. A batch caught by the failure may or may not be there, whole, when the
    /// spool is opened again.
    #[error("the batch is not durable")]
    Failed(#[from] SpoolFailure),
    /// The spool is closed.
    #[error("the spool is closed")]
    Closed,
}

/// What is wrong with a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No slice has this number.
    #[error("there is no slice {0}")]
    UnknownSlice(SliceNumber),
    /// The slice has fewer rows.
    #[error("there is no message {0}: the slice has {1} rows")]
    UnknownMessage(MessageKey, u32),
    /// A slice refers to a content that is neither stored nor in the batch.
    #[error("slice '{slice}' refers to content {content}, which is neither there nor added by the batch")]
    UnknownContent {
        /// The id of the slice.
        slice: String,
        /// The content it refers to.
        content: ContentId,
    },
    /// The batch makes more changes than [`MAX_BATCH_CHANGES`](crate::MAX_BATCH_CHANGES).
    #[error("a batch makes more than {limit} changes", limit = crate::MAX_BATCH_CHANGES)]
    TooManyChanges,
    /// The name of a slice or note is longer than [`MAX_NAME_BYTES`](crate::MAX_NAME_BYTES).
    #[error("a name of {0} bytes is longer than {limit}", limit = crate::MAX_NAME_BYTES)]
    NameTooLong(usize),
    /// The batch is larger than [`MAX_BATCH_BYTES`](crate::MAX_BATCH_BYTES).
    #[error("a batch of {0} bytes is larger than {limit}", limit = crate::MAX_BATCH_BYTES)]
    TooLarge(usize),
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database reports an error.
    #[error("the spool's database cannot be read")]
    Database(#[from] fjall::Error),
    /// A key or value is not what was written there.
    #[error("{0} in the spool is damaged")]
    Damaged(&'static str),
    /// The spool is closed.
    #[error("the spool is closed")]
    Closed,
}

/// Why a spool has failed. From then on it takes no more batches, and the process must stop.
#[derive(Debug, Clone)]
pub struct SpoolFailure(Cause);

#[derive(Debug, Clone)]
enum Cause {
    Write(Arc<fjall::Error>),
    Thread,
}

impl SpoolFailure {
    /// A write or `fsync` failed.
    pub(crate) fn write(error: fjall::Error) -> Self {
        Self(Cause::Write(Arc::new(error)))
    }

    /// The committing thread ended by a panic.
    pub(crate) fn thread() -> Self {
        Self(Cause::Thread)
    }

    /// True when the disk is full, as far as the error says so. Errors of writing in the background are in the log only.
    pub fn is_storage_full(&self) -> bool {
        let full =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match &self.0 {
            Cause::Write(error) => match &**error {
                fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => full(error),
                _ => false,
            },
            Cause::Thread => false,
        }
    }
}

impl fmt::Display for SpoolFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cause::Write(error) if matches!(**error, fjall::Error::Poisoned) => {
                formatter.write_str("the spool has failed: writing in the background failed, the log has the cause")
            }
            Cause::Write(_) => formatter.write_str("the spool has failed: a write or fsync failed"),
            Cause::Thread => formatter.write_str("the spool has failed: its committing thread ended by a panic"),
        }
    }
}

impl std::error::Error for SpoolFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Cause::Write(error) => Some(&**error),
            Cause::Thread => None,
        }
    }
}
