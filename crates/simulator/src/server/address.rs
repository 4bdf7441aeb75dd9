//! Loopback addresses: one for each MX host, all on one port.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use rand::RngExt;
use relaypool_api::Domain;
use tokio::net::{TcpListener, TcpSocket};

/// Addresses taken from the kernel.
pub(crate) struct Bound {
    /// The port all of them share.
    pub(crate) port: u16,
    /// The listeners, in the order the hosts were given in.
    pub(crate) listeners: Vec<TcpListener>,
    /// The address of every host, the unreachable ones included.
    pub(crate) addresses: HashMap<Domain, Ipv4Addr>,
    /// Bound and not listening: connections are refused, and nobody else can take the address meanwhile.
    pub(crate) closed: Vec<TcpSocket>,
}

/// No addresses could be had.
#[derive(Debug, thiserror::Error)]
#[error("no loopback address could be bound for {host} on port {port} (0: any) after {TRIES} tries")]
pub struct BindError {
    host: Domain,
    port: u16,
    #[source]
    source: io::Error,
}

/// Blocks tried before giving up. Each is chosen by chance among fifty thousand, so that simulators running side by side
/// do not meet.
const TRIES: u32 = 32;

/// Pending connections the kernel holds for a listener.
const BACKLOG: u32 = 1_024;

/// Binds one address for every host in `reachable`, listening, and for every one in `unreachable`, not listening.
pub(crate) fn bind(reachable: &[Domain], unreachable: &[Domain], port: Option<u16>) -> Result<Bound, BindError> {
    let mut tries = 1;
    loop {
        match bind_block(random_block(), reachable, unreachable, port.unwrap_or_default()) {
            Err(error) if tries < TRIES && error.source.kind() == io::ErrorKind::AddrInUse => tries += 1,
            result => return result,
        }
    }
}

/// The first address of a block. Below 127.32 is left to those who send.
fn random_block() -> Ipv4Addr {
    let mut random = rand::rng();
    Ipv4Addr::new(127, random.random_range(32..=240), random.random(), 1)
}

fn bind_block(first: Ipv4Addr, reachable: &[Domain], unreachable: &[Domain], port: u16) -> Result<Bound, BindError> {
    let mut bound = Bound {
        port,
        listeners: Vec::with_capacity(reachable.len()),
        addresses: HashMap::new(),
        closed: Vec::with_capacity(unreachable.len()),
    };
    for ((position, host), address) in reachable.iter().chain(unreachable).enumerate().zip(u32::from(first)..) {
        let address = Ipv4Addr::from(address);
        bound
            .take(address, port != 0, position < reachable.len())
            .map_err(|source| BindError {
                host: host.clone(),
                port,
                source,
            })?;
        bound.addresses.insert(host.clone(), address);
    }
    Ok(bound)
}

impl Bound {
    fn take(&mut self, address: Ipv4Addr, fixed_port: bool, listening: bool) -> io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        // A port that is asked for must be free again at once after the last run's connections.
        socket.set_reuseaddr(fixed_port)?;
        socket.bind(SocketAddrV4::new(address, self.port).into())?;
        self.port = socket.local_addr()?.port();
        if listening {
            self.listeners.push(socket.listen(BACKLOG)?);
        } else {
            self.closed.push(socket);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> Vec<Domain> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn all_hosts_share_a_port_on_addresses_of_their_own() {
        let bound = bind(&hosts(&["a.example", "b.example"]), &hosts(&["dead.example"]), None).unwrap();
        assert_eq!(bound.addresses.len(), 3);
        for listener in &bound.listeners {
            assert_eq!(listener.local_addr().unwrap().port(), bound.port);
        }
        let dead = bound.addresses[&"dead.example".parse::<Domain>().unwrap()];
        let refused = tokio::net::TcpStream::connect((dead, bound.port)).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_taken_address_is_an_error_that_names_it() {
        let first = bind_block(Ipv4Addr::new(127, 241, 0, 1), &hosts(&["a.example"]), &[], 0).unwrap();
        let Err(error) = bind_block(Ipv4Addr::new(127, 241, 0, 1), &hosts(&["b.example"]), &[], first.port) else {
            panic!("bound twice");
        };
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("b.example"), "{error}");
    }
}
