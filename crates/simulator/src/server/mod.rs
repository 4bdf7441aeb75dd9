//! A provider's MX hosts as SMTP servers on loopback, driven by its model.

mod address;
mod commands;
mod incoming;
mod session;
mod tls;
mod wire;

pub use address::BindError;
pub(crate) use address::bind;
pub(crate) use tls::Tls;
pub use tls::TlsError;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::books::{Books, Keep};
use crate::clock::Clock;
use crate::model::ProviderModel;

/// What all MX hosts of one provider share.
pub(crate) struct ProviderServer {
    /// The provider's position in its world, and in the books.
    pub(crate) position: usize,
    pub(crate) name: Arc<str>,
    pub(crate) model: Mutex<ProviderModel>,
    pub(crate) books: Books,
    pub(crate) clock: Clock,
    pub(crate) keep: Keep,
    /// None when STARTTLS is not offered.
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) max_message_size: u64,
}

/// The tasks of a simulator, and the word for them to end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    pub(crate) tracker: TaskTracker,
    pub(crate) ending: CancellationToken,
}

/// How long to wait when no connection could be taken, for want of file descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl ProviderServer {
    fn model(&self) -> MutexGuard<'_, ProviderModel> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves `listener` as the MX host of that name until the tasks are told to end.
    pub(crate) fn serve(self: &Arc<Self>, host: Arc<str>, listener: TcpListener, tasks: &Tasks) {
        let (server, tasks) = (self.clone(), tasks.clone());
        tasks.tracker.clone().spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = tasks.ending.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok((stream, peer)) => server.clone().converse(host.clone(), stream, peer, &tasks),
                    Err(error) => {
                        tracing::warn!(%host, %error, "no connection could be taken");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
    }

    fn converse(self: Arc<Self>, host: Arc<str>, stream: TcpStream, peer: SocketAddr, tasks: &Tasks) {
        let ending = tasks.ending.clone();
        tasks.tracker.spawn(async move {
            let outcome: io::Result<()> = tokio::select! {
                () = ending.cancelled() => Ok(()),
                outcome = session::serve(self, host.clone(), stream, peer.ip()) => outcome,
            };
            if let Err(error) = outcome {
                tracing::debug!(%host, %peer, %error, "the connection broke");
            }
        });
    }
}
