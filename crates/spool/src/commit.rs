//! The answer to a batch.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use crate::{CommitError, SliceNumber};

/// A batch that is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// What became of each [`add_slice`](crate::Batch::add_slice) of the batch, in their order.
    pub slices: Vec<AddedSlice>,
}

/// What became of a slice to take in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddedSlice {
    /// It was taken in under this number.
    Added(SliceNumber),
    /// A slice of the same id was there, under this number; nothing was changed.
    AlreadyThere(SliceNumber),
}

impl AddedSlice {
    /// The number of the slice, new or not.
    pub fn number(self) -> SliceNumber {
        match self {
            Self::Added(number) | Self::AlreadyThere(number) => number,
        }
    }
}

/// A batch on its way to the disk. Resolves when the batch is durable, or is known not to be.
///
/// Dropping it does not take the batch back.
#[derive(Debug)]
#[must_use = "a batch is durable only once this has resolved"]
pub struct Commit(State);

#[derive(Debug)]
enum State {
    Waiting(oneshot::Receiver<Result<Committed, CommitError>>),
    /// Decided without the committing thread; `None` once the answer has been taken.
    Decided(Option<CommitError>),
}

impl Commit {
    pub(crate) fn waiting(answer: oneshot::Receiver<Result<Committed, CommitError>>) -> Self {
        Self(State::Waiting(answer))
    }

    pub(crate) fn decided(error: CommitError) -> Self {
        Self(State::Decided(Some(error)))
    }
}

impl Future for Commit {
    type Output = Result<Committed, CommitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &mut self.0 {
            // The committing thread answers every batch it takes up; it drops unanswered those that came after a close.
            State::Waiting(answer) => ready!(Pin::new(answer).poll(context)).unwrap_or(Err(CommitError::Closed)),
            State::Decided(error) => Err(error.take().expect("a future is not polled after it has resolved")),
        };
        Poll::Ready(answer)
    }
}
