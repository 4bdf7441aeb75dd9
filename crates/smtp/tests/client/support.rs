//! A receiving host under the test's control, and short ways to say what a test needs.

use std::future::Future;
use std::time::Duration;

use relaypool_api::reply::{Phase, Reply};
use relaypool_smtp::client::{
    ClientConfig, Envelope, RecipientOutcome, SendError, Session, SessionError, TlsMode, Transaction,
};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A message without anything special.
pub const MESSAGE: &[u8] = b"Subject: hello\r\n\r\nGood morning\r\n";

/// The EHLO reply of a host that offers PIPELINING.
pub const PIPELINING: &str = "250-mx.example\r\n250 PIPELINING\r\n";
/// The EHLO reply of a host that offers nothing.
pub const PLAIN: &str = "250 mx.example\r\n";

/// The two ways to talk, by the EHLO reply that leads to them.
pub const BOTH_WAYS: [&str; 2] = [PLAIN, PIPELINING];

/// The host's end of a connection.
pub struct Host<S> {
    stream: BufReader<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Host<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// Sends the text in one write.
    pub async fn say(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next line, without its end; empty when the client has closed.
    pub async fn hear(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        if !line.is_empty() {
            assert!(line.ends_with("\r\n"), "{line:?}");
        }
        line.trim_end().to_owned()
    }

    /// Hears exactly this line and answers.
    pub async fn answer(&mut self, line: &str, reply: &str) {
        assert_eq!(self.hear().await, line);
        self.say(reply).await;
    }

    /// Greets, and answers EHLO with these lines.
    pub async fn welcome(&mut self, ehlo: &str) {
        self.say("220 mx.example ESMTP\r\n").await;
        self.answer("EHLO client.example", ehlo).await;
    }

    /// What the client sends after 354, up to and with the final dot.
    pub async fn hear_data(&mut self) -> Vec<u8> {
        let mut data = b"\r\n".to_vec();
        while !data.ends_with(b"\r\n.\r\n") {
            let read = self.stream.read_until(b'\n', &mut data).await.unwrap();
            assert_ne!(read, 0, "closed within the data");
        }
        data.split_off(2)
    }

    /// True when the client has sent nothing that was not heard yet.
    pub fn has_heard_all(&self) -> bool {
        self.stream.buffer().is_empty()
    }

    /// Hears everything until the client closes.
    pub async fn hear_out(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.unwrap();
        rest
    }

    /// The stream, for another protocol.
    pub fn into_inner(self) -> S {
        assert!(self.has_heard_all());
        self.stream.into_inner()
    }

    /// The stream, whatever the client has sent.
    pub fn into_unread(self) -> S {
        self.stream.into_inner()
    }
}

/// Connects to a host on a real socket that follows `script`.
pub async fn connect<F, T>(script: impl FnOnce(Host<TcpStream>) -> F) -> (TcpStream, JoinHandle<T>)
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    accepted.set_nodelay(true).unwrap();
    (stream, tokio::spawn(script(Host::new(accepted))))
}

/// A session with a host that follows `script` from the first command on; it has greeted and answered EHLO with `ehlo`.
pub async fn session<F, T>(
    ehlo: &'static str,
    script: impl FnOnce(Host<TcpStream>) -> F + Send + 'static,
) -> (Session<TcpStream>, JoinHandle<T>)
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let (stream, host) = connect(async move |mut host| {
        host.welcome(ehlo).await;
        host
    })
    .await;
    let session = open(stream, TlsMode::Disabled).await.unwrap();
    let host = soon(host).await.unwrap();
    (session, tokio::spawn(script(host)))
}

pub async fn open<S>(stream: S, tls: TlsMode) -> Result<Session<S>, SessionError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    open_with(stream, &config(tls)).await
}

pub async fn open_with<S>(stream: S, config: &ClientConfig) -> Result<Session<S>, SessionError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    in_the_end(Session::open(stream, config, &"mx.example".parse().unwrap())).await
}

pub fn config(tls: TlsMode) -> ClientConfig {
    ClientConfig {
        tls,
        ..ClientConfig::new("client.example".parse().unwrap())
    }
}

/// Fails a test that would hang, in real time.
pub async fn soon<F: Future>(future: F) -> F::Output {
    within(Duration::from_secs(30), future).await
}

/// Fails a test that would hang, in virtual time: longer than all waits of a session together.
pub async fn in_the_end<F: Future>(future: F) -> F::Output {
    within(Duration::from_secs(3600), future).await
}

async fn within<F: Future>(limit: Duration, future: F) -> F::Output {
    tokio::time::timeout(limit, future)
        .await
        .expect("the operation ends by itself")
}

/// From a@sender.example to `recipients` at receiver.example.
pub fn envelope(recipients: &[&str]) -> Envelope {
    let recipients = recipients
        .iter()
        .map(|name| format!("{name}@receiver.example").parse().unwrap())
        .collect();
    Envelope::new(Some("a@sender.example".parse().unwrap()), recipients)
}

/// `accepted EndOfData 250 2.0.0 Ok`, one line for each recipient.
pub fn outcomes(transaction: &Transaction) -> Vec<String> {
    let words = |outcome: &RecipientOutcome| match outcome {
        RecipientOutcome::Accepted { phase, reply } => format!("accepted {phase:?} {reply}"),
        RecipientOutcome::Refused { phase, reply } => format!("refused {phase:?} {reply}"),
        RecipientOutcome::Undecided => "undecided".to_owned(),
    };
    transaction.recipients.iter().map(words).collect()
}

pub fn session_error(result: Result<Transaction, SendError>) -> SessionError {
    match result {
        Err(SendError::Session(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// `Greeting 554 5.7.1 no`, of an error made by a reply.
pub fn refused(error: &SessionError) -> String {
    let (phase, reply): (Phase, &Reply) = (error.phase(), error.reply().expect("a reply made the error"));
    format!("{phase:?} {reply}")
}
