//! DNS of a world, asked by a real resolver.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};
use relaypool_simulator::description::{MxHost, Zone};
use relaypool_simulator::{Listen, Options, Simulator, World};
use support::{Client, domain, provider};

fn resolver(server: SocketAddr, tcp: bool) -> TokioResolver {
    let mut name_server = if tcp {
        NameServerConfig::tcp(server.ip())
    } else {
        NameServerConfig::udp(server.ip())
    };
    for connection in &mut name_server.connections {
        connection.port = server.port();
    }
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![name_server]);
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().cache_size = 0;
    builder.build().unwrap()
}

fn world() -> World {
    let name = domain;
    let host = |host: &str, priority| MxHost {
        name: domain(host),
        priority,
    };
    let mut provider = provider();
    provider.mx_hosts.push(host("mx2.one.example", 20));
    provider.domains.push(domain("fallback.example"));
    provider.domains.push(domain("xn--bcher-kva.example"));
    World {
        providers: vec![provider],
        zones: vec![
            Zone::NullMx {
                name: name("null.example"),
            },
            Zone::ImplicitMx {
                name: name("implicit.example"),
                host: name("mx1.one.example"),
            },
            Zone::ServFail {
                name: name("broken.example"),
            },
            Zone::Unreachable {
                name: name("dead.example"),
            },
            Zone::Missing {
                name: name("gone.example"),
            },
            Zone::Mx {
                name: name("fallback.example"),
                hosts: vec![
                    host("dead.example", 5),
                    host("gone.example", 7),
                    host("mx1.one.example", 10),
                ],
            },
        ],
    }
}

/// The MX records of a name, by preference; the response code where there are none.
async fn mx_records(resolver: &TokioResolver, name: &str) -> Result<Vec<(u16, String)>, ResponseCode> {
    match resolver.mx_lookup(name).await {
        Ok(answer) => {
            let mut records: Vec<_> = answer
                .answers()
                .iter()
                .filter_map(|record| match &record.data {
                    RData::MX(mx) => Some((mx.preference, mx.exchange.to_string())),
                    _ => None,
                })
                .collect();
            records.sort();
            Ok(records)
        }
        Err(error) => Err(code(&error)),
    }
}

fn code(error: &hickory_resolver::net::NetError) -> ResponseCode {
    use hickory_resolver::net::{DnsError, NetError};
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => none.response_code,
        NetError::Dns(DnsError::ResponseCode(code)) => *code,
        other => panic!("{other:?}"),
    }
}

async fn address(resolver: &TokioResolver, name: &str) -> Result<IpAddr, ResponseCode> {
    match resolver.ipv4_lookup(name).await {
        Ok(answer) => Ok(answer
            .answers()
            .iter()
            .find_map(|record| match record.data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                _ => None,
            })
            .unwrap()),
        Err(error) => Err(code(&error)),
    }
}

#[tokio::test]
async fn every_kind_of_fact_is_answered_over_udp_and_tcp() {
    let simulator = Simulator::start(world(), Options::default()).await.unwrap();
    for tcp in [false, true] {
        let resolver = resolver(simulator.dns_address(), tcp);
        let records = |name| mx_records(&resolver, name);
        let both = vec![(10, "mx1.one.example.".to_owned()), (20, "mx2.one.example.".to_owned())];
        assert_eq!(records("one.example.").await, Ok(both.clone()));
        assert_eq!(records("ONE.Example.").await, Ok(both.clone()));
        assert_eq!(records("xn--bcher-kva.example.").await, Ok(both));
        assert_eq!(records("null.example.").await, Ok(vec![(0, ".".to_owned())]));
        assert_eq!(
            records("fallback.example.").await,
            Ok(vec![
                (5, "dead.example.".to_owned()),
                (7, "gone.example.".to_owned()),
                (10, "mx1.one.example.".to_owned())
            ])
        );
        assert_eq!(records("implicit.example.").await, Err(ResponseCode::NoError));
        assert_eq!(records("nowhere.example.").await, Err(ResponseCode::NXDomain));
        assert_eq!(records("broken.example.").await, Err(ResponseCode::ServFail));
        assert_eq!(address(&resolver, "gone.example.").await, Err(ResponseCode::NXDomain));
        let mx1 = simulator.host_address(&domain("mx1.one.example")).unwrap().ip();
        assert_eq!(address(&resolver, "mx1.one.example.").await, Ok(mx1));
        assert_eq!(address(&resolver, "implicit.example.").await, Ok(mx1));
        let dead = simulator.host_address(&domain("dead.example")).unwrap();
        assert_eq!(address(&resolver, "dead.example.").await, Ok(dead.ip()));
        let refused = tokio::net::TcpStream::connect(dead).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

#[tokio::test]
async fn records_can_be_added_while_it_runs() {
    let simulator = Simulator::start(world(), Options::default()).await.unwrap();
    let resolver = resolver(simulator.dns_address(), false);
    let name = "selector._domainkey.one.example.";
    let missing = resolver.txt_lookup(name).await.unwrap_err();
    assert_eq!(code(&missing), ResponseCode::NXDomain);

    let key = format!("v=DKIM1; k=rsa; p={}", "A".repeat(400));
    simulator.add_txt(name, &key).await.unwrap();
    let found = resolver.txt_lookup(name).await.unwrap();
    let RData::TXT(text) = &found.answers()[0].data else {
        panic!("{found:?}");
    };
    assert_eq!(text.txt_data.concat(), key.as_bytes());
    assert_eq!(text.txt_data.len(), 2);

    // Not of 127.0.0.0/8: for those a resolver answers "localhost" without asking (RFC 6761 section 6.3).
    let source = Ipv4Addr::new(192, 0, 2, 7);
    simulator.add_address("out1.pool.example", source).await.unwrap();
    simulator.add_pointer(source.into(), "out1.pool.example").await.unwrap();
    assert_eq!(address(&resolver, "out1.pool.example.").await, Ok(source.into()));
    let pointer = resolver.reverse_lookup(IpAddr::V4(source)).await.unwrap();
    assert_eq!(pointer.answers()[0].data.to_string(), "out1.pool.example.");
    assert!(simulator.add_txt("a..b", "x").await.is_err());
}

#[tokio::test]
async fn a_name_that_is_missing_comes_with_its_authority() {
    let simulator = Simulator::start(world(), Options::default()).await.unwrap();
    let resolver = resolver(simulator.dns_address(), false);
    let error = resolver.lookup("nowhere.example.", RecordType::MX).await.unwrap_err();
    let hickory_resolver::net::NetError::Dns(hickory_resolver::net::DnsError::NoRecordsFound(none)) = &error else {
        panic!("{error:?}");
    };
    let soa = none.soa.as_ref().unwrap();
    assert!(soa.name.is_root());
    assert_eq!(none.negative_ttl, Some(1));
}

#[tokio::test]
async fn simulators_run_side_by_side_and_ports_can_be_fixed() {
    let first = Simulator::start(world(), Options::default()).await.unwrap();
    let second = Simulator::start(world(), Options::default()).await.unwrap();
    let host = domain("mx1.one.example");
    assert_ne!(first.host_address(&host), second.host_address(&host));
    assert_ne!(first.dns_address(), second.dns_address());

    let listen = Listen {
        dns: Some(second.dns_address().port()),
        smtp: Some(second.smtp_port()),
    };
    let options = || Options {
        listen,
        ..Options::default()
    };
    let taken = Simulator::start(world(), options()).await;
    assert!(taken.is_err(), "the DNS port is in use");
    second.shutdown().await;
    let third = Simulator::start(world(), options()).await.unwrap();
    assert_eq!(third.smtp_port(), listen.smtp.unwrap());
    assert_eq!(third.dns_address().port(), listen.dns.unwrap());
    Client::introduced(third.host_address(&host).unwrap()).await;
}
