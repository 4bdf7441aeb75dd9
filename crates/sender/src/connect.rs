//! Opening a TCP connection to a receiving host from a given source address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

/// Connects to `target` from `source` (any free port of it), giving up after `timeout`.
///
/// The operating system's error is returned as it is; a timeout is [`io::ErrorKind::TimedOut`].
pub async fn connect(source: IpAddr, target: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    bind_source(&socket, source)?;
    let stream = tokio::time::timeout(timeout, socket.connect(target))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {timeout:?}")))??;
    // A session is a dialogue of small writes; waiting for full segments would cost a round trip each.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Binds to any free port. Address reuse lets the kernel hand out ports that wait out an old connection (TIME-WAIT), which
/// a busy source address would otherwise run out of.
fn bind_source(socket: &TcpSocket, source: IpAddr) -> io::Result<()> {
    socket.set_reuseaddr(true)?;
    socket
        .bind(SocketAddr::new(source, 0))
        .map_err(|error| io::Error::new(error.kind(), format!("cannot bind source address {source}: {error}")))
}

/// Whether a connection from `source` can reach `target`: both of one address family.
pub fn same_family(source: IpAddr, target: IpAddr) -> bool {
    source.is_ipv4() == target.is_ipv4()
}
