//! From a recipient domain to the hosts that take its mail (RFC 5321 section 5.1).

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};
use rand::seq::SliceRandom;
use relaypool_api::Domain;
use relaypool_bounce::Failure;

/// A route is looked up again after this at the latest, so that a moved provider is found.
const LONGEST_ROUTE: Duration = Duration::from_secs(3600);
/// A route is kept for this at least: a zero TTL must not cause a lookup for every message.
const SHORTEST_ROUTE: Duration = Duration::from_secs(30);
/// Hosts of one domain that are considered; the rest would never be reached within a message's validity.
const MOST_HOSTS: usize = 16;

/// Looks up MX hosts and their addresses.
#[derive(Clone)]
pub struct MxResolver {
    resolver: TokioResolver,
    limits: DestinationLimits,
}

/// Which destinations are refused.
#[derive(Debug, Clone, Default)]
pub struct DestinationLimits {
    /// Whether loopback, private, link-local and other special addresses may be connected to.
    pub allow_private: bool,
    /// Names and addresses of this pool: mail that would come back to them is a loop.
    pub own_names: HashSet<Domain>,
    /// See `own_names`.
    pub own_addresses: HashSet<IpAddr>,
}

/// One host that takes a domain's mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MxHost {
    /// Name of the host.
    pub name: Domain,
    /// Preference; lower is tried first.
    pub preference: u16,
    /// Its addresses; at least one.
    pub addresses: Vec<IpAddr>,
}

/// Where a domain's mail goes.
#[derive(Debug, Clone)]
pub struct Route {
    /// Hosts, best preference first. At least one.
    pub hosts: Vec<MxHost>,
    /// When to look again.
    pub valid_until: Instant,
}

/// Why there is no route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The domain does not exist (NXDOMAIN).
    #[error("domain {0} does not exist")]
    DomainNotFound(Domain),
    /// A null MX (RFC 7505): the domain takes no mail.
    #[error("domain {0} says by a null MX that it takes no mail")]
    NullMx(Domain),
    /// The domain exists, but has neither MX nor address records.
    #[error("domain {0} has neither MX nor address records")]
    NoHost(Domain),
    /// The domain has MX records, but none of the hosts they name has an address.
    #[error("none of the MX hosts of {0} has an address")]
    NoAddress(Domain),
    /// A name server failed or did not answer in time. May heal.
    #[error("name servers failed for {domain}: {reason}")]
    ServerFailure {
        /// What was looked up.
        domain: Domain,
        /// What the resolver said.
        reason: String,
    },
    /// The best host left is this pool itself.
    #[error("mail for {0} would come back to this pool")]
    Loop(Domain),
    /// Every address is a private one, and the pool does not allow those.
    #[error("mail hosts of {0} have only private addresses, which the pool does not allow (allowPrivateDestinations)")]
    PrivateDestination(Domain),
}

impl RouteError {
    /// What it means for a message.
    pub fn failure(&self) -> Failure {
        match self {
            Self::DomainNotFound(_) => Failure::DomainNotFound,
            Self::NullMx(_) => Failure::NullMx,
            Self::NoHost(_) => Failure::NoMailHost,
            Self::NoAddress(_) => Failure::MxHostNotFound,
            Self::ServerFailure { .. } => Failure::DnsServerFailure,
            Self::Loop(_) => Failure::MailLoop,
            Self::PrivateDestination(_) => Failure::PrivateDestination,
        }
    }
}

/// The name servers of a pool could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// An entry of `dns.servers` is no address.
    #[error("dns.servers: '{0}' is not an IP address with an optional port")]
    BadServer(String),
    /// The machine's own configuration could not be read.
    #[error("cannot read the machine's DNS configuration")]
    System(#[source] NetError),
    /// The resolver could not be built.
    #[error("cannot build the resolver")]
    Build(#[source] NetError),
}

impl MxResolver {
    /// A resolver for these name servers (`address` or `address:port`); none means those of the machine.
    pub fn new(
        servers: &[String],
        timeout: Option<Duration>,
        limits: DestinationLimits,
    ) -> Result<Self, ResolverError> {
        let mut builder = if servers.is_empty() {
            Resolver::builder_tokio().map_err(ResolverError::System)?
        } else {
            let servers = servers
                .iter()
                .map(|server| parse_server(server).map(name_server))
                .collect::<Result<Vec<_>, _>>()?;
            let config = ResolverConfig::from_name_servers(servers);
            Resolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.timeout = timeout.unwrap_or(Duration::from_secs(5));
        options.attempts = 2;
        options.cache_size = 50_000;
        options.positive_max_ttl = Some(LONGEST_ROUTE);
        options.negative_max_ttl = Some(Duration::from_secs(300));
        let resolver = builder.build().map_err(ResolverError::Build)?;
        Ok(Self { resolver, limits })
    }

    /// The hosts for `domain`, best first, those of equal preference in random order.
    pub async fn route(&self, domain: &Domain) -> Result<Route, RouteError> {
        let (candidates, mut valid_until) = self.mail_exchangers(domain).await?;
        let candidates =
            without_loop(candidates, &self.limits.own_names).ok_or_else(|| RouteError::Loop(domain.clone()))?;
        let is_implicit = matches!(candidates.as_slice(), [(name, _)] if name == domain);
        let mut hosts = Vec::new();
        let mut temporary = None;
        let mut refused_private = false;
        for (name, preference) in candidates.into_iter().take(MOST_HOSTS) {
            match self.addresses(&name).await {
                Ok((addresses, until)) => {
                    valid_until = valid_until.min(until);
                    let found = addresses.len();
                    let addresses = self.permitted(addresses);
                    refused_private |= addresses.len() < found;
                    if !addresses.is_empty() {
                        hosts.push(MxHost {
                            name,
                            preference,
                            addresses,
                        });
                    }
                }
                Err(AddressError::None) => {}
                Err(AddressError::Temporary(reason)) => temporary = Some(reason),
            }
        }
        if hosts.is_empty() {
            return Err(match temporary {
                Some(reason) => RouteError::ServerFailure {
                    domain: domain.clone(),
                    reason,
                },
                None if refused_private => RouteError::PrivateDestination(domain.clone()),
                None if is_implicit => RouteError::NoHost(domain.clone()),
                None => RouteError::NoAddress(domain.clone()),
            });
        }
        if hosts[0]
            .addresses
            .iter()
            .all(|address| self.limits.own_addresses.contains(address))
        {
            return Err(RouteError::Loop(domain.clone()));
        }
        let now = Instant::now();
        Ok(Route {
            hosts,
            valid_until: valid_until.clamp(now + SHORTEST_ROUTE, now + LONGEST_ROUTE),
        })
    }

    /// MX records in the order to try, or the domain itself where it has none (implicit MX).
    async fn mail_exchangers(&self, domain: &Domain) -> Result<(Vec<(Domain, u16)>, Instant), RouteError> {
        let name = absolute(domain);
        match self.resolver.lookup(name, RecordType::MX).await {
            Ok(lookup) => {
                let mut records: Vec<(u16, &Name)> = lookup
                    .answers()
                    .iter()
                    .filter_map(|record| match &record.data {
                        RData::MX(mx) => Some((mx.preference, &mx.exchange)),
                        _ => None,
                    })
                    .collect();
                if records.iter().any(|(_, exchange)| exchange.is_root()) {
                    return Err(RouteError::NullMx(domain.clone()));
                }
                records.shuffle(&mut rand::rng());
                records.sort_by_key(|(preference, _)| *preference);
                let hosts: Vec<(Domain, u16)> = records
                    .into_iter()
                    .filter_map(|(preference, exchange)| Some((exchange.to_ascii().parse().ok()?, preference)))
                    .collect();
                if hosts.is_empty() {
                    return Ok((vec![(domain.clone(), 0)], lookup.valid_until()));
                }
                Ok((hosts, lookup.valid_until()))
            }
            Err(error) if error.is_nx_domain() => Err(RouteError::DomainNotFound(domain.clone())),
            Err(error) if error.is_no_records_found() => {
                Ok((vec![(domain.clone(), 0)], Instant::now() + Duration::from_secs(300)))
            }
            Err(error) => Err(RouteError::ServerFailure {
                domain: domain.clone(),
                reason: describe(&error),
            }),
        }
    }

    async fn addresses(&self, host: &Domain) -> Result<(Vec<IpAddr>, Instant), AddressError> {
        let name = absolute(host);
        let (v4, v6) = tokio::join!(
            self.resolver.lookup(name.clone(), RecordType::A),
            self.resolver.lookup(name, RecordType::AAAA)
        );
        let mut addresses = Vec::new();
        let mut valid_until = Instant::now() + LONGEST_ROUTE;
        let mut temporary = None;
        for answer in [v4, v6] {
            match answer {
                Ok(lookup) => {
                    valid_until = valid_until.min(lookup.valid_until());
                    addresses.extend(lookup.answers().iter().filter_map(|record| match &record.data {
                        RData::A(address) => Some(IpAddr::V4(address.0)),
                        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                        _ => None,
                    }));
                }
                Err(error) if error.is_no_records_found() => {}
                Err(error) => temporary = Some(describe(&error)),
            }
        }
        match (addresses.is_empty(), temporary) {
            (false, _) => {
                addresses.shuffle(&mut rand::rng());
                Ok((addresses, valid_until))
            }
            (true, Some(reason)) => Err(AddressError::Temporary(reason)),
            (true, None) => Err(AddressError::None),
        }
    }

    fn permitted(&self, addresses: Vec<IpAddr>) -> Vec<IpAddr> {
        if self.limits.allow_private {
            return addresses;
        }
        addresses.into_iter().filter(|address| is_public(*address)).collect()
    }
}

enum AddressError {
    None,
    Temporary(String),
}

/// Drops our own hosts and everything behind them: passing mail to an equal or worse preference than our own would circle
/// (RFC 5321 section 5.1). None when nothing is left.
fn without_loop(hosts: Vec<(Domain, u16)>, own: &HashSet<Domain>) -> Option<Vec<(Domain, u16)>> {
    let own_preference = hosts
        .iter()
        .filter(|(name, _)| own.contains(name))
        .map(|(_, preference)| *preference)
        .min();
    let hosts: Vec<_> = match own_preference {
        Some(limit) => hosts
            .into_iter()
            .filter(|(_, preference)| *preference < limit)
            .collect(),
        None => hosts,
    };
    (!hosts.is_empty()).then_some(hosts)
}

/// Whether an address can belong to a host on the public Internet: not loopback, private, link-local, shared
/// (RFC 6598), documentation, benchmarking, multicast or reserved, in IPv4 or in any IPv6 form that embeds IPv4.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, third, _] = v4.octets();
            !(v4.is_unspecified()
                || v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_documentation()
                || v4.is_multicast()
                || first == 0
                || first >= 240
                || (first == 100 && (64..128).contains(&second))
                || (first == 198 && (second == 18 || second == 19))
                || (first == 192 && second == 0 && third == 0))
        }
        IpAddr::V6(v6) => {
            if let Some(v4) = v6.to_ipv4_mapped() {
                return is_public(IpAddr::V4(v4));
            }
            let segments = v6.segments();
            // 64:ff9b::/96 (NAT64) and 2002::/16 (6to4) carry an IPv4 address that decides.
            if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
                let [a, b] = [segments[6].to_be_bytes(), segments[7].to_be_bytes()];
                return is_public(IpAddr::from([a[0], a[1], b[0], b[1]]));
            }
            if segments[0] == 0x2002 {
                let [a, b] = [segments[1].to_be_bytes(), segments[2].to_be_bytes()];
                return is_public(IpAddr::from([a[0], a[1], b[0], b[1]]));
            }
            // Global unicast is 2000::/3; 2001:db8::/32 is documentation.
            (segments[0] & 0xe000) == 0x2000 && !(segments[0] == 0x2001 && segments[1] == 0xdb8)
        }
    }
}

fn parse_server(text: &str) -> Result<SocketAddr, ResolverError> {
    text.parse::<SocketAddr>()
        .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)))
        .map_err(|_| ResolverError::BadServer(text.to_owned()))
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

/// The name with a final dot, so that no search domain is ever appended.
fn absolute(domain: &Domain) -> Name {
    let mut name = Name::from_ascii(domain.as_str()).unwrap_or_else(|_| Name::root());
    name.set_fqdn(true);
    name
}

fn describe(error: &NetError) -> String {
    match error {
        NetError::Dns(DnsError::ResponseCode(code)) => format!("answer {code}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(name: &str) -> Domain {
        name.parse().unwrap()
    }

    #[test]
    fn mail_never_goes_to_hosts_at_or_behind_our_own() {
        let own: HashSet<Domain> = [domain("mx2.example.com")].into();
        let hosts = vec![
            (domain("mx1.example.com"), 5),
            (domain("mx2.example.com"), 10),
            (domain("mx3.example.com"), 10),
            (domain("mx4.example.com"), 20),
        ];
        assert_eq!(
            without_loop(hosts.clone(), &own),
            Some(vec![(domain("mx1.example.com"), 5)])
        );
        assert_eq!(without_loop(hosts[1..].to_vec(), &own), None);
        assert_eq!(without_loop(hosts.clone(), &HashSet::new()), Some(hosts));
    }

    #[test]
    fn special_addresses_are_not_public() {
        for special in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "fe80::1",
            "fc00::1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:a00:1::",
            "ff02::1",
            "::",
            "2001:db8::1",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
        for public in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2a00:1450::1",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn name_servers_are_parsed() {
        assert_eq!(
            parse_server("127.0.0.1:5353").unwrap(),
            "127.0.0.1:5353".parse().unwrap()
        );
        assert_eq!(parse_server("::1").unwrap(), "[::1]:53".parse().unwrap());
        assert!(parse_server("dns.example.com").is_err());
    }
}
