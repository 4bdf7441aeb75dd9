//! A raw SMTP client that says exactly what it is told, and worlds to say it to.

#![allow(dead_code)] // Each test file uses its part.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use relaypool_api::Domain;
use relaypool_simulator::{Options, Provider, Simulator, World};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One connection.
pub struct Client(BufReader<Box<dyn Stream>>);

/// One reply: its code and the text of its lines, enhanced codes included.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    pub lines: Vec<String>,
}

pub fn domain(name: &str) -> Domain {
    name.parse().unwrap()
}

/// A provider for one.example at mx1.one.example.
pub fn provider() -> Provider {
    Provider::new("one", &domain("one.example"))
}

pub async fn start(provider: Provider) -> Simulator {
    start_with(provider, Options::default()).await
}

pub async fn start_with(provider: Provider, options: Options) -> Simulator {
    let world = World {
        providers: vec![provider],
        zones: Vec::new(),
    };
    Simulator::start(world, options).await.unwrap()
}

pub fn mx(simulator: &Simulator) -> SocketAddr {
    simulator.host_address(&domain("mx1.one.example")).unwrap()
}

impl Client {
    /// Connects, without reading the greeting.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_from(Ipv4Addr::new(127, 0, 0, 1), address).await
    }

    pub async fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(IpAddr::V4(source), 0)).unwrap();
        let stream = socket.connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(Box::new(stream)))
    }

    /// Connects, is greeted and says EHLO.
    pub async fn introduced(address: SocketAddr) -> Self {
        let mut client = Self::connect(address).await;
        assert_eq!(client.reply().await.code, 220);
        assert_eq!(client.say("EHLO client.example").await.code, 250);
        client
    }

    /// The next reply; code 0 when the connection is closed instead.
    pub async fn reply(&mut self) -> Reply {
        let mut reply = Reply {
            code: 0,
            lines: Vec::new(),
        };
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).await.unwrap_or_default() == 0 {
                return reply;
            }
            let line = line.strip_suffix("\r\n").unwrap();
            reply.code = line[..3].parse().unwrap();
            reply.lines.push(line[4..].to_owned());
            if &line[3..4] == " " {
                return reply;
            }
        }
    }

    pub async fn codes(&mut self, count: usize) -> Vec<u16> {
        let mut codes = Vec::new();
        for _ in 0..count {
            codes.push(self.reply().await.code);
        }
        codes
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// One command and its reply.
    pub async fn say(&mut self, command: &str) -> Reply {
        self.write(format!("{command}\r\n")).await;
        self.reply().await
    }

    /// A whole transaction without pipelining; the code of the first refusal, or of the acceptance.
    pub async fn send(&mut self, recipient: &str, message: &str) -> u16 {
        for command in [
            "MAIL FROM:<sender@example.org>",
            &format!("RCPT TO:<{recipient}>"),
            "DATA",
        ] {
            let code = self.say(command).await.code;
            if !(200..400).contains(&code) {
                return code;
            }
        }
        self.say(&format!("{message}\r\n.")).await.code
    }

    /// STARTTLS and the handshake.
    pub async fn start_tls(mut self, simulator: &Simulator, host: &str) -> Self {
        assert_eq!(self.say("STARTTLS").await.code, 220);
        self.shake_hands(simulator, host).await
    }

    /// The TLS handshake, with nothing trusted but the simulator's certificate.
    pub async fn shake_hands(self, simulator: &Simulator, host: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(simulator.certificate().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, self.0.into_inner())
            .await
            .unwrap();
        Self(BufReader::new(Box::new(stream)))
    }

    /// True when the server has closed the connection and said nothing more.
    pub async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        matches!(self.0.read_to_end(&mut rest).await, Ok(0) | Err(_))
    }
}
