use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use relaypool_api::Domain;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpSocket;

use crate::books::{Books, Keep};
use crate::clock::Clock;
use crate::description::{World, WorldError, Zone};
use crate::dns::{Dns, DnsError};
use crate::model::ProviderModel;
use crate::server::{self, BindError, ProviderServer, Tasks, Tls, TlsError};

/// How a world is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Virtual seconds that pass in one real second. Sleeps are rounded up to a real millisecond, so a high scale
    /// stretches short delays.
    pub time_scale: f64,
    /// Decides all chance.
    pub seed: u64,
    /// What is kept of accepted messages.
    pub keep: Keep,
    /// The ports.
    pub listen: Listen,
}

/// Ports to listen on; the kernel chooses those that are not given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listen {
    /// The port of the DNS server at 127.0.0.1, UDP and TCP.
    pub dns: Option<u16>,
    /// The port of all MX hosts.
    pub smtp: Option<u16>,
}

impl Default for Options {
    /// Real time, seed 0, entries without content, ports chosen by the kernel.
    fn default() -> Self {
        Self {
            time_scale: 1.0,
            seed: 0,
            keep: Keep::default(),
            listen: Listen::default(),
        }
    }
}

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The description contradicts itself.
    #[error("the world cannot be run")]
    World(#[from] WorldError),
    /// No virtual time could pass.
    #[error("the time scale {0} cannot be used: it must be greater than 0 and at most 1000000")]
    TimeScale(f64),
    /// No addresses for the MX hosts.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// No certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No DNS.
    #[error(transparent)]
    Dns(#[from] DnsError),
}

/// A world that is running: SMTP servers and a DNS server on loopback.
///
/// Every MX host has an address of its own between 127.32.0.1 and 127.240.255.255, and all listen on one port. Addresses
/// below are left to those who send, so that each sending IP can have one. Linux routes all of 127.0.0.0/8 to itself;
/// other systems may not.
///
/// Dropping it stops all servers; [`shutdown`](Self::shutdown) also waits until they have.
pub struct Simulator {
    books: Books,
    clock: Clock,
    dns: Dns,
    addresses: HashMap<Domain, Ipv4Addr>,
    port: u16,
    certificate: CertificateDer<'static>,
    tasks: Tasks,
    /// Sockets that keep the addresses of unreachable hosts from being used by anybody.
    _closed: Vec<TcpSocket>,
}

impl Simulator {
    /// Starts all servers of `world`. Virtual time begins now.
    ///
    /// # Errors
    ///
    /// When the description contradicts itself, or sockets or a certificate cannot be had.
    pub async fn start(world: World, options: Options) -> Result<Self, StartError> {
        world.check()?;
        if !(options.time_scale > 0.0 && options.time_scale <= 1e6) {
            return Err(StartError::TimeScale(options.time_scale));
        }
        let hosts: Vec<Domain> = world.mx_hosts().cloned().collect();
        let bound = server::bind(&hosts, &unreachable(&world), options.listen.smtp)?;
        let tls = Tls::for_hosts(hosts.iter().map(Domain::to_string).collect())?;
        let dns = Dns::start(&world, &bound.addresses, options.listen.dns).await?;
        let books = Books::new(world.providers.iter().map(|provider| provider.name.as_str().into()));
        let simulator = Self {
            clock: Clock::start(options.time_scale),
            books,
            dns,
            addresses: bound.addresses,
            port: bound.port,
            certificate: tls.certificate.clone(),
            tasks: Tasks::default(),
            _closed: bound.closed,
        };
        simulator.serve(&world, &options, bound.listeners, &tls);
        Ok(simulator)
    }

    /// `listeners` stand in the order of the world's hosts.
    fn serve(&self, world: &World, options: &Options, listeners: Vec<tokio::net::TcpListener>, tls: &Tls) {
        let mut listeners = listeners.into_iter();
        for (position, provider) in world.providers.iter().enumerate() {
            let server = Arc::new(ProviderServer {
                position,
                name: provider.name.as_str().into(),
                model: Mutex::new(ProviderModel::new(provider, options.seed)),
                books: self.books.clone(),
                clock: self.clock,
                keep: options.keep,
                tls: provider.start_tls.then(|| tls.acceptor.clone()),
                max_message_size: provider.max_message_size,
            });
            for (host, listener) in provider.mx_hosts.iter().zip(listeners.by_ref()) {
                server.serve(host.name.as_str().into(), listener, &self.tasks);
            }
        }
    }

    /// Where DNS is answered, on UDP and TCP.
    pub fn dns_address(&self) -> SocketAddr {
        self.dns.address()
    }

    /// The port of all MX hosts.
    pub fn smtp_port(&self) -> u16 {
        self.port
    }

    /// The address and port of a host, whether it can be reached or not.
    pub fn host_address(&self, host: &Domain) -> Option<SocketAddr> {
        self.addresses
            .get(host)
            .map(|address| SocketAddr::new(IpAddr::V4(*address), self.port))
    }

    /// The certificate of all MX hosts, signed by itself: to trust it is to trust them.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What was accepted and refused so far.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// Virtual time since the start.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Adds a TXT record, such as a DKIM public key. Texts of any length are cut into strings of 255 octets.
    ///
    /// # Errors
    ///
    /// When `name` is no DNS name.
    pub async fn add_txt(&self, name: &str, text: &str) -> Result<(), DnsError> {
        self.dns.add_txt(name, text).await
    }

    /// Adds an A record, such as that of a sending host.
    ///
    /// # Errors
    ///
    /// When `name` is no DNS name.
    pub async fn add_address(&self, name: &str, address: Ipv4Addr) -> Result<(), DnsError> {
        self.dns.add_address(name, address).await
    }

    /// Adds a PTR record, such as that of a sending IP.
    ///
    /// # Errors
    ///
    /// When `name` is no DNS name.
    pub async fn add_pointer(&self, address: IpAddr, name: &str) -> Result<(), DnsError> {
        self.dns.add_pointer(address, name).await
    }

    /// Closes all connections and waits until every server has ended. The books can still be read.
    pub async fn shutdown(mut self) {
        self.tasks.ending.cancel();
        self.tasks.tracker.close();
        self.tasks.tracker.wait().await;
        self.dns.shut_down().await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.tasks.ending.cancel();
    }
}

fn unreachable(world: &World) -> Vec<Domain> {
    world
        .zones
        .iter()
        .filter_map(|zone| match zone {
            Zone::Unreachable { name } => Some(name.clone()),
            _ => None,
        })
        .collect()
}
