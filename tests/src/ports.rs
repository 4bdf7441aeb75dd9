//! Ports for servers that must be told their port before they start.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use tokio::net::TcpSocket;

/// A port on 127.0.0.1 that is bound but does not listen: the kernel gives it to nobody else, and connections to it
/// are refused. Dropping it frees the port for the server it is meant for.
///
/// Between the drop and the server's own bind somebody else may take the port; whoever starts a server must be ready
/// to try again with another one.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    _socket: TcpSocket,
    port: u16,
}

impl ReservedPort {
    /// Reserves a port of the kernel's choice.
    pub(crate) fn any() -> Result<Self> {
        let socket = TcpSocket::new_v4().context("cannot create a socket")?;
        Self::bind(socket, 0)
    }

    /// Reserves a port whose server has just ended.
    pub(crate) fn again(port: u16) -> Result<Self> {
        let socket = TcpSocket::new_v4().context("cannot create a socket")?;
        // Connections of the server that ended linger on the port.
        socket.set_reuseaddr(true).context("cannot set SO_REUSEADDR")?;
        Self::bind(socket, port)
    }

    fn bind(socket: TcpSocket, port: u16) -> Result<Self> {
        socket
            .bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .with_context(|| format!("cannot bind port {port} of 127.0.0.1"))?;
        let port = socket
            .local_addr()
            .context("cannot read the address of a socket")?
            .port();
        Ok(Self { _socket: socket, port })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}
