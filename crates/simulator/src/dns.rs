//! The DNS of a world: one zone for all names, on UDP and TCP.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::ProtoError;
use hickory_proto::rr::rdata::{A, MX, PTR, SOA, TXT};
use hickory_proto::rr::{LowerName, Name, RData, Record};
use hickory_server::Server;
use hickory_server::net::runtime::TokioRuntimeProvider;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use relaypool_api::Domain;
use tokio::net::{TcpListener, UdpSocket};

use crate::description::{MxHost, World, Zone};

/// A DNS server for the names of a world. All names stand in one zone, the root: whatever is not listed does not exist.
pub(crate) struct Dns {
    zone: Arc<InMemoryZoneHandler>,
    server: Server<Catalog>,
    address: SocketAddr,
}

/// The DNS server could not be started, or a record not be added.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// No port to listen on.
    #[error("DNS could not be served on 127.0.0.1, port {port} (0: any)")]
    Bind {
        /// The port asked for.
        port: u16,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A name that DNS cannot carry.
    #[error("'{name}' is not a DNS name")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        #[source]
        source: ProtoError,
    },
}

/// Seconds a positive answer may be cached.
const TTL: u32 = 60;

/// Seconds a negative answer may be cached: records are added while tests run.
const NEGATIVE_TTL: u32 = 1;

/// Ports tried until one is free on both UDP and TCP.
const TRIES: u32 = 32;

/// A DNS character-string holds no more (RFC 1035 section 3.3).
const MAX_TXT_STRING: usize = 255;

impl Dns {
    /// Serves the records of `world`, whose hosts have the given addresses, at 127.0.0.1.
    pub(crate) async fn start(
        world: &World,
        addresses: &HashMap<Domain, Ipv4Addr>,
        port: Option<u16>,
    ) -> Result<Self, DnsError> {
        let mut zone =
            InMemoryZoneHandler::<TokioRuntimeProvider>::empty(Name::root(), ZoneType::Primary, AxfrPolicy::Deny);
        let mut catalog = Catalog::new();
        for record in records(world, addresses)? {
            zone.upsert_mut(record, 0);
        }
        let zone = Arc::new(zone);
        catalog.upsert(LowerName::new(&Name::root()), vec![zone.clone()]);
        for entry in &world.zones {
            if let Zone::ServFail { name } = entry {
                // A zone that nobody answers for is answered with SERVFAIL.
                catalog.upsert(LowerName::new(&dns_name(name.as_str())?), Vec::new());
            }
        }
        let (udp, tcp) = bind(port.unwrap_or_default()).await?;
        let address = udp.local_addr().map_err(|source| DnsError::Bind {
            port: port.unwrap_or_default(),
            source,
        })?;
        let mut server = Server::new(catalog);
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(10), 16);
        Ok(Self { zone, server, address })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a TXT record, beside those the name has.
    pub(crate) async fn add_txt(&self, name: &str, text: &str) -> Result<(), DnsError> {
        let strings = text.as_bytes().chunks(MAX_TXT_STRING).collect();
        self.add(dns_name(name)?, RData::TXT(TXT::from_bytes(strings))).await;
        Ok(())
    }

    /// Adds an A record, beside those the name has.
    pub(crate) async fn add_address(&self, name: &str, address: Ipv4Addr) -> Result<(), DnsError> {
        self.add(dns_name(name)?, RData::A(A(address))).await;
        Ok(())
    }

    /// Adds the PTR record of an address.
    pub(crate) async fn add_pointer(&self, address: IpAddr, name: &str) -> Result<(), DnsError> {
        self.add(Name::from(address), RData::PTR(PTR(dns_name(name)?))).await;
        Ok(())
    }

    async fn add(&self, name: Name, data: RData) {
        let serial = self.zone.serial().await;
        self.zone.upsert(Record::from_rdata(name, TTL, data), serial).await;
    }

    /// Stops answering.
    pub(crate) async fn shut_down(&mut self) {
        if let Err(error) = self.server.shutdown_gracefully().await {
            tracing::debug!(%error, "the DNS server ended with an error");
        }
    }
}

/// A UDP and a TCP socket on one port.
async fn bind(port: u16) -> Result<(UdpSocket, TcpListener), DnsError> {
    let mut tries = 1;
    loop {
        let bound = async {
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).await?;
            let tcp = TcpListener::bind(udp.local_addr()?).await?;
            Ok((udp, tcp))
        };
        match bound.await {
            Ok(sockets) => return Ok(sockets),
            // The kernel chose a UDP port whose TCP twin is taken.
            Err(_) if port == 0 && tries < TRIES => tries += 1,
            Err(source) => return Err(DnsError::Bind { port, source }),
        }
    }
}

/// All records, the SOA first: without it a zone is none.
fn records(world: &World, addresses: &HashMap<Domain, Ipv4Addr>) -> Result<Vec<Record>, DnsError> {
    let mut records = vec![start_of_authority()?];
    let mut add = |name: &Domain, data: RData| {
        records.push(Record::from_rdata(dns_name(name.as_str())?, TTL, data));
        Ok::<_, DnsError>(())
    };
    for (host, address) in addresses {
        add(host, RData::A(A(*address)))?;
    }
    for provider in &world.providers {
        let own = provider
            .domains
            .iter()
            .filter(|domain| !world.zones.iter().any(|zone| zone.name() == *domain));
        for domain in own {
            for host in &provider.mx_hosts {
                add(domain, mx(host)?)?;
            }
        }
    }
    for zone in &world.zones {
        match zone {
            Zone::Mx { name, hosts } => {
                for host in hosts {
                    add(name, mx(host)?)?;
                }
            }
            Zone::NullMx { name } => add(name, RData::MX(MX::new(0, Name::root())))?,
            Zone::ImplicitMx { name, host } => {
                if let Some(address) = addresses.get(host) {
                    add(name, RData::A(A(*address)))?;
                }
            }
            // Their addresses are known already, or they are to have none.
            Zone::Unreachable { .. } | Zone::ServFail { .. } | Zone::Missing { .. } => (),
        }
    }
    Ok(records)
}

fn start_of_authority() -> Result<Record, DnsError> {
    let soa = SOA::new(
        dns_name("ns.simulator.invalid")?,
        dns_name("hostmaster.simulator.invalid")?,
        1,
        3_600,
        600,
        86_400,
        NEGATIVE_TTL,
    );
    Ok(Record::from_rdata(Name::root(), NEGATIVE_TTL, RData::SOA(soa)))
}

fn mx(host: &MxHost) -> Result<RData, DnsError> {
    Ok(RData::MX(MX::new(host.priority, dns_name(host.name.as_str())?)))
}

fn dns_name(name: &str) -> Result<Name, DnsError> {
    let mut absolute = Name::from_str(name).map_err(|source| DnsError::Name {
        name: name.to_owned(),
        source,
    })?;
    absolute.set_fqdn(true);
    Ok(absolute)
}
