//! Buffered reading and writing, so that pipelined commands are read together and their replies sent together.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::description::Answer;

/// A stream with what was read ahead from it and what is still to be written to it.
pub(super) struct Wire<S> {
    stream: S,
    incoming: BytesMut,
    outgoing: Vec<u8>,
}

/// What stands where a command is expected.
pub(super) enum Line {
    /// One line, its line feed included.
    Complete(BytesMut),
    /// More than [`MAX_LINE`] octets without a line feed.
    TooLong,
    /// The client closed the connection.
    End,
}

/// The longest command line with its parameters.
const MAX_LINE: usize = 4_096;

const READ_SIZE: usize = 64 * 1_024;

/// Real time a client may be silent (RFC 5321 section 4.5.3.2.7), or not take what is sent to it.
const IDLE: Duration = Duration::from_secs(300);

/// Real time for a client to read the last reply and close.
const LINGER: Duration = Duration::from_secs(1);

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            incoming: BytesMut::new(),
            outgoing: Vec::new(),
        }
    }

    /// The stream alone; what was read ahead is dropped.
    pub(super) fn into_stream(self) -> S {
        self.stream
    }

    /// The next command line. Sends what is to be sent before it waits for more.
    pub(super) async fn line(&mut self) -> io::Result<Line> {
        let mut searched = 0;
        loop {
            if let Some(position) = self.incoming[searched..].iter().position(|byte| *byte == b'\n') {
                return Ok(Line::Complete(self.incoming.split_to(searched + position + 1)));
            }
            searched = self.incoming.len();
            if searched > MAX_LINE {
                return Ok(Line::TooLong);
            }
            if !self.fill().await? {
                return Ok(Line::End);
            }
        }
    }

    /// What was read and not taken yet.
    pub(super) fn unread(&self) -> &[u8] {
        &self.incoming
    }

    /// Takes `count` octets of [`unread`](Self::unread).
    pub(super) fn take(&mut self, count: usize) {
        self.incoming.advance(count);
    }

    /// Sends what is to be sent, then reads more; false at the end of the stream.
    pub(super) async fn fill(&mut self) -> io::Result<bool> {
        self.flush().await?;
        self.incoming.reserve(READ_SIZE);
        let read = timeout(IDLE, self.stream.read_buf(&mut self.incoming)).await??;
        Ok(read > 0)
    }

    /// Queues a reply.
    pub(super) fn push(&mut self, answer: &Answer) {
        answer.write_to(&mut self.outgoing);
    }

    /// Queues a reply that is written out, its last line end excepted.
    pub(super) fn push_text(&mut self, text: &str) {
        self.outgoing.extend_from_slice(text.as_bytes());
        self.outgoing.extend_from_slice(b"\r\n");
    }

    /// Writes all queued replies to the socket.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        let writing = async {
            self.stream.write_all(&self.outgoing).await?;
            self.stream.flush().await
        };
        timeout(IDLE, writing).await??;
        self.outgoing.clear();
        Ok(())
    }

    /// Sends what is to be sent and closes. Reads on for a moment: a socket that is closed with unread data in it is
    /// reset, and a reset may overtake the last reply.
    pub(super) async fn close(mut self) -> io::Result<()> {
        self.flush().await?;
        self.stream.shutdown().await?;
        let drain = async {
            loop {
                self.incoming.clear();
                self.incoming.reserve(READ_SIZE);
                if self.stream.read_buf(&mut self.incoming).await? == 0 {
                    return Ok(());
                }
            }
        };
        timeout(LINGER, drain).await.unwrap_or(Ok(()))
    }
}
