//! One connection to a receiving host, from the first message that is sent on it to the last.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use relaypool_api::mx_policy;
use relaypool_api::reply::Phase;
use relaypool_api::{Domain, EmailAddress};
use relaypool_bounce::Failure;
use relaypool_message::{Identity, IdentityError};
use relaypool_shaping::policy::EffectivePolicy;
use relaypool_smtp::client::{
    ClientConfig, Envelope, RecipientOutcome, SendError, Session, SessionError, Timeouts, TlsClient, TlsMode,
    Unsendable,
};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::connect::connect;
use crate::dispatcher::{Assignment, Attempt, AttemptReport, RunContent, SessionId, SessionStart};
use crate::driver::Event;
use crate::ledger::Millis;

/// Opens a connection for the first message, sends what the dispatcher gives, and closes it.
pub(crate) async fn run(start: SessionStart, tls: TlsClient, events: mpsc::UnboundedSender<Event>) {
    let id = start.id;
    let worker = Worker {
        id,
        tls,
        events: events.clone(),
    };
    worker.work(start).await;
    // The dispatcher ends only after all sessions have.
    let _ = events.send(Event::Closed(id));
}

struct Worker {
    id: SessionId,
    tls: TlsClient,
    events: mpsc::UnboundedSender<Event>,
}

/// A message as it goes out.
struct Outgoing {
    envelope: Envelope,
    bytes: Vec<u8>,
}

impl Worker {
    async fn work(&self, start: SessionStart) {
        let began = Instant::now();
        match self.open(&start).await {
            Ok(session) => {
                let limit = start.settings.policy.transaction_timeout.value;
                self.send_all(session, start.first, limit).await;
            }
            Err(attempt) => self.report(&start.first, attempt, began.elapsed(), None),
        }
    }

    /// Tries the hosts in order. Only when none could be connected to, the last failure counts; a host that answers with
    /// a refusal has spoken for the site.
    async fn open(&self, start: &SessionStart) -> Result<Session<TcpStream>, Attempt> {
        let connect_timeout = start.settings.policy.connect_timeout.value;
        let mut failure = Attempt::Failed {
            failure: Failure::Unreachable,
            detail: "no host has an address of the sending IP's family".to_owned(),
        };
        for (host, address) in &start.hosts {
            let stream = match connect(start.settings.source, *address, connect_timeout).await {
                Ok(stream) => stream,
                Err(error) => {
                    failure = not_connected(host, *address, &error);
                    continue;
                }
            };
            match self.greet(start, stream, host, *address).await {
                Ok(session) => return Ok(session),
                Err(error) if error.reply().is_some() => return Err(session_failed(error)),
                Err(error) => failure = session_failed(error),
            }
        }
        Err(failure)
    }

    /// Greeting, EHLO and STARTTLS. Where TLS is opportunistic and the handshake fails, once more in clear text.
    async fn greet(
        &self,
        start: &SessionStart,
        stream: TcpStream,
        host: &Domain,
        address: SocketAddr,
    ) -> Result<Session<TcpStream>, SessionError> {
        let policy = &start.settings.policy;
        let mut config = ClientConfig::new(start.settings.ehlo_name.clone());
        config.tls = tls_mode(policy.tls.value);
        config.tls_client = self.tls.clone();
        config.timeouts = timeouts(policy);
        match Session::open(stream, &config, host).await {
            Err(error) if error.is_tls_failure() && config.tls == TlsMode::Opportunistic => {
                config.tls = TlsMode::Disabled;
                let stream = connect(start.settings.source, address, policy.connect_timeout.value)
                    .await
                    .map_err(|source| SessionError::Io {
                        phase: Phase::Connect,
                        source,
                    })?;
                Session::open(stream, &config, host).await
            }
            other => other,
        }
    }

    /// Sends one message after the other. Each transaction has `limit` as a whole, whatever its phases are granted.
    async fn send_all(&self, mut session: Session<TcpStream>, first: Assignment, limit: Duration) {
        let mut assignment = first;
        loop {
            let began = Instant::now();
            let attempt = self.send(&mut session, &assignment, limit).await;
            if !session.is_reusable() {
                self.report(&assignment, attempt, began.elapsed(), None);
                return;
            }
            let (next, waiting) = oneshot::channel();
            self.report(&assignment, attempt, began.elapsed(), Some(next));
            // The result before this one must be on disk before another message leaves: after a crash, at most this
            // message and the next are repeated.
            if let Some(recording) = assignment.recording.take()
                && recording.await.is_err()
            {
                return;
            }
            match wait_for_next(&mut session, waiting).await {
                Some(next) => assignment = next,
                None => break,
            }
        }
        session.quit().await;
    }

    async fn send(&self, session: &mut Session<TcpStream>, assignment: &Assignment, limit: Duration) -> Attempt {
        let test_mode = assignment.content.snapshot.test_mode;
        let outgoing = match compose(assignment) {
            Ok(outgoing) => outgoing,
            Err(attempt) => return attempt,
        };
        let transaction = async {
            if test_mode {
                session.probe(&outgoing.envelope).await
            } else {
                session.send(&outgoing.envelope, &outgoing.bytes).await
            }
        };
        let Ok(sent) = tokio::time::timeout(limit, transaction).await else {
            let detail = format!("the transaction took longer than {limit:?}");
            return Attempt::Failed {
                failure: Failure::Timeout(Phase::EndOfData),
                detail,
            };
        };
        match sent {
            Ok(mut transaction) => match transaction.recipients.pop() {
                Some(RecipientOutcome::Accepted { .. }) => Attempt::Accepted,
                Some(RecipientOutcome::Refused { phase, reply }) => Attempt::Refused { phase, reply },
                Some(RecipientOutcome::Undecided) | None => transaction.interruption.map_or_else(
                    || Attempt::Failed {
                        failure: Failure::ConnectionLost(Phase::EndOfData),
                        detail: "the host gave no answer".to_owned(),
                    },
                    session_failed,
                ),
            },
            Err(SendError::Session(error)) => session_failed(error),
            Err(SendError::Unsendable(reason)) => unfit(reason),
        }
    }

    fn report(
        &self,
        assignment: &Assignment,
        attempt: Attempt,
        took: Duration,
        next: Option<oneshot::Sender<Option<Assignment>>>,
    ) {
        let report = AttemptReport {
            session: self.id,
            key: assignment.key,
            attempt,
            took,
            next,
        };
        // The dispatcher ends only after all sessions have.
        let _ = self.events.send(Event::Attempted(report));
    }
}

fn tls_mode(mode: mx_policy::TlsMode) -> TlsMode {
    match mode {
        mx_policy::TlsMode::Disabled => TlsMode::Disabled,
        mx_policy::TlsMode::Opportunistic => TlsMode::Opportunistic,
        mx_policy::TlsMode::Required => TlsMode::Required,
    }
}

fn timeouts(policy: &EffectivePolicy) -> Timeouts {
    let command = policy.command_timeout.value;
    Timeouts {
        greeting: command,
        ehlo: command,
        mail: command,
        rcpt: command,
        data: policy.data_timeout.value,
        data_block: policy.data_timeout.value,
        end_of_data: policy.end_of_data_timeout.value,
        idle: policy.idle_timeout.value,
        ..Timeouts::default()
    }
}

/// The next message, or none: the dispatcher has no more for this session, the host hung up, or it was idle too long.
async fn wait_for_next(
    session: &mut Session<TcpStream>,
    mut waiting: oneshot::Receiver<Option<Assignment>>,
) -> Option<Assignment> {
    tokio::select! {
        biased;
        next = &mut waiting => return next.ok().flatten(),
        _ = session.idle() => {}
    }
    // A message may have been given in this very moment; closing first means that none can come later.
    waiting.close();
    waiting.try_recv().ok().flatten()
}

/// Renders and signs the message for one recipient.
fn compose(assignment: &Assignment) -> Result<Outgoing, Attempt> {
    let content = &assignment.content;
    let identity = identity(content, assignment).map_err(|error| Attempt::Ignored {
        reason: error.to_string(),
    })?;
    let variables = assignment.row.variables().map_err(|error| Attempt::Ignored {
        reason: error.to_string(),
    })?;
    let composed = content
        .composer
        .compose(&assignment.to, &variables, &identity)
        .map_err(|error| Attempt::Ignored {
            reason: error.to_string(),
        })?;
    let mut envelope = Envelope::new(
        Some(return_path(content, assignment.row.index)),
        vec![assignment.to.clone()],
    );
    envelope.has_utf8_header = composed.needs_smtputf8;
    let bytes = match &assignment.signer {
        Some(signer) => {
            let mut signed = signer
                .sign(&composed.bytes, Timestamp::now())
                .map_err(|error| Attempt::Ignored {
                    reason: format!("Cannot be signed: {error}"),
                })?;
            signed.extend_from_slice(&composed.bytes);
            signed
        }
        None => composed.bytes,
    };
    Ok(Outgoing { envelope, bytes })
}

/// What makes this message this message, at every attempt the same.
fn identity(content: &RunContent, assignment: &Assignment) -> Result<Identity, IdentityError> {
    let snapshot = &content.snapshot;
    let domain = snapshot
        .return_path_domain
        .as_ref()
        .unwrap_or_else(|| snapshot.sender.address.domain());
    let message_id = format!("{}.{}@{domain}", snapshot.fingerprint, assignment.row.index);
    Identity::new(message_id, timestamp(assignment.accepted_at))
}

/// Where bounces of a message go: an address of its own below the pool's return path domain, else the sender's.
fn return_path(content: &RunContent, index: u64) -> EmailAddress {
    let snapshot = &content.snapshot;
    snapshot
        .return_path_domain
        .as_ref()
        .and_then(|domain| format!("b-{}-{index}@{domain}", snapshot.fingerprint).parse().ok())
        .unwrap_or_else(|| snapshot.sender.address.clone())
}

fn timestamp(at: Millis) -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(at).unwrap_or(i64::MAX)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn unfit(reason: Unsendable) -> Attempt {
    let failure = match reason {
        Unsendable::TooLarge { .. } => Failure::MessageTooLarge,
        Unsendable::BareLineEnd { .. } | Unsendable::NeedsSmtpUtf8 | Unsendable::Needs8BitMime => {
            Failure::ExtensionMissing
        }
    };
    Attempt::Failed {
        failure,
        detail: reason.to_string(),
    }
}

fn not_connected(host: &Domain, address: SocketAddr, error: &std::io::Error) -> Attempt {
    let failure = match error.kind() {
        std::io::ErrorKind::TimedOut => Failure::ConnectTimeout,
        std::io::ErrorKind::ConnectionRefused => Failure::ConnectRefused,
        std::io::ErrorKind::AddrNotAvailable | std::io::ErrorKind::AddrInUse | std::io::ErrorKind::PermissionDenied => {
            Failure::EgressFailed
        }
        _ => Failure::Unreachable,
    };
    Attempt::Failed {
        failure,
        detail: format!("cannot connect to {host} [{}]: {error}", address.ip()),
    }
}

fn session_failed(error: SessionError) -> Attempt {
    if let SessionError::Refused { phase, reply } = error {
        return Attempt::Refused { phase, reply };
    }
    let failure = match &error {
        SessionError::Timeout { phase, .. } => Failure::Timeout(*phase),
        SessionError::Tls { .. } => Failure::TlsFailed,
        SessionError::TlsNotOffered => Failure::TlsNotOffered,
        SessionError::Protocol { phase, .. } => Failure::BadReply(*phase),
        SessionError::Refused { .. } | SessionError::Io { .. } | SessionError::Ended => {
            Failure::ConnectionLost(error.phase())
        }
    };
    Attempt::Failed {
        failure,
        detail: error.to_string(),
    }
}
