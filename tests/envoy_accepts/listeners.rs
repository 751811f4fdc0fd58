//! Listeners for validation by Envoy.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use topsail::ir::Origins;
use topsail::ir::listener::{
    ChainMatch, Direction, DownstreamTls, FilterChain, HttpConnectionManager, HttpFilter, HttpRole, InspectExcept,
    Inspection, ListenAddress, Listener, NetworkFilter, RouteSource, TcpProxy, TransportProtocol,
};
use topsail::mesh::config::{PathNormalization, TlsVersion};
use topsail::xds::{Resource, encode};

use super::routes;

/// Covers all kinds of listeners, filter chains and filters.
pub(crate) fn all() -> Vec<Resource> {
    [
        virtual_outbound(),
        virtual_inbound(),
        http_port(),
        sniffed(),
        tls_port(),
        forward_proxy(),
        unix(),
    ]
    .iter()
    .map(encode::listener)
    .collect()
}

/// Listeners that Envoy rejects.
pub(crate) fn broken() -> Vec<Resource> {
    let chains = |name: &str, chains| Listener {
        chains,
        ..listener(name, 20100)
    };
    let named = |names: &[&str]| {
        chain(ChainMatch {
            server_names: names.iter().map(|name| Arc::from(*name)).collect(),
            ..Default::default()
        })
    };
    let prefixless = FilterChain {
        network: NetworkFilter::Tcp(TcpProxy {
            stat_prefix: "".into(),
            ..tcp("x")
        }),
        ..chain(ChainMatch::default())
    };
    [
        chains("empty", vec![]),
        chains("same", vec![chain(ChainMatch::default()), chain(ChainMatch::default())]),
        chains("overlap", vec![named(&["a", "b"]), named(&["c", "b"])]),
        chains("wildcard", vec![named(&["*foo.com"])]),
        chains("star", vec![named(&["*"])]),
        chains("stat-prefix", vec![prefixless]),
    ]
    .iter()
    .map(encode::listener)
    .collect()
}

fn listener(name: &str, port: u16) -> Listener {
    Listener {
        name: name.into(),
        address: ListenAddress::Ip(IpAddr::from([127, 0, 0, 1]), port),
        bind: false,
        use_original_dst: false,
        transparent: false,
        direction: Direction::Outbound,
        inspection: Inspection::default(),
        chains: Vec::new(),
        default_chain: None,
        origins: Origins::from([]),
    }
}

fn chain(matcher: ChainMatch) -> FilterChain {
    FilterChain {
        name: None,
        matcher,
        tls: None,
        network: NetworkFilter::Tcp(tcp("BlackHoleCluster")),
    }
}

fn tcp(cluster: &str) -> TcpProxy {
    TcpProxy {
        stat_prefix: cluster.into(),
        clusters: vec![(cluster.into(), 1)],
        idle_timeout: None,
        max_connection_duration: None,
        hash_source_ip: false,
    }
}

fn http(role: HttpRole, filters: &[HttpFilter]) -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: "outbound_0.0.0.0_80;".into(),
        routes: RouteSource::Rds("80".into()),
        filters: filters.to_vec(),
        role,
        path_normalization: PathNormalization::Base,
    }
}

fn virtual_outbound() -> Listener {
    Listener {
        use_original_dst: true,
        bind: true,
        chains: vec![chain(ChainMatch {
            destination_port: Some(15001),
            ..Default::default()
        })],
        default_chain: Some(chain(ChainMatch::default())),
        ..listener("virtualOutbound", 20001)
    }
}

fn virtual_inbound() -> Listener {
    let alpn = vec!["istio-http/1.0", "istio-http/1.1", "istio-h2"];
    let tls = Some(DownstreamTls {
        trust_domains: vec!["cluster.local".parse().unwrap(), "old.example".parse().unwrap()],
        alpn: vec!["h2", "http/1.1"],
        oldest: TlsVersion::V1_3,
    });
    let matching = |transport, application_protocols| ChainMatch {
        destination_port: Some(8080),
        transport: Some(transport),
        application_protocols,
        ..Default::default()
    };
    let server = HttpConnectionManager {
        routes: RouteSource::Inline(routes::inline("inbound|8080||")),
        ..http(
            HttpRole::Server,
            &[HttpFilter::GrpcStats, HttpFilter::Fault, HttpFilter::Cors],
        )
    };
    Listener {
        bind: true,
        transparent: true,
        direction: Direction::Inbound,
        inspection: Inspection {
            original_dst: true,
            original_src_mark: Some(1337),
            tls: Some(InspectExcept(vec![1, 2, 65535])),
            http: Some(InspectExcept(vec![3])),
            timeout: Some(Duration::ZERO),
        },
        chains: vec![
            FilterChain {
                name: Some("0.0.0.0_8080".into()),
                network: NetworkFilter::Http(Box::new(server.clone())),
                tls: tls.clone(),
                ..chain(matching(TransportProtocol::Tls, alpn))
            },
            FilterChain {
                network: NetworkFilter::Http(Box::new(server)),
                ..chain(matching(TransportProtocol::RawBuffer, vec!["http/1.1", "h2c"]))
            },
            chain(matching(TransportProtocol::RawBuffer, vec![])),
            FilterChain {
                tls,
                ..chain(matching(TransportProtocol::Tls, vec!["istio"]))
            },
            chain(matching(TransportProtocol::Tls, vec![])),
        ],
        default_chain: Some(chain(ChainMatch::default())),
        ..listener("virtualInbound", 20006)
    }
}

fn http_port() -> Listener {
    let filters = [
        HttpFilter::GrpcWeb,
        HttpFilter::GrpcStats,
        HttpFilter::Fault,
        HttpFilter::Cors,
    ];
    Listener {
        inspection: Inspection {
            http: Some(InspectExcept::default()),
            timeout: Some(Duration::ZERO),
            ..Default::default()
        },
        chains: vec![FilterChain {
            network: NetworkFilter::Http(Box::new(http(HttpRole::Client, &filters))),
            ..chain(ChainMatch {
                transport: Some(TransportProtocol::RawBuffer),
                application_protocols: vec!["http/1.1", "h2c"],
                ..Default::default()
            })
        }],
        default_chain: Some(FilterChain {
            name: Some("PassthroughFilterChain".into()),
            ..chain(ChainMatch::default())
        }),
        ..listener("0.0.0.0_80", 20080)
    }
}

fn sniffed() -> Listener {
    let normalizations = [
        PathNormalization::None,
        PathNormalization::Base,
        PathNormalization::MergeSlashes,
        PathNormalization::DecodeAndMergeSlashes,
    ];
    let chains = normalizations
        .into_iter()
        .zip(["http/1.0", "http/1.1", "h2c", "x"])
        .map(|(normalization, found)| {
            let alpn = HttpFilter::UpstreamAlpn(vec!["istio-http/1.1", "istio", "http/1.1"]);
            let manager = HttpConnectionManager {
                path_normalization: normalization,
                ..http(HttpRole::Client, &[HttpFilter::GrpcStats, alpn])
            };
            FilterChain {
                network: NetworkFilter::Http(Box::new(manager)),
                ..chain(ChainMatch {
                    application_protocols: vec![found],
                    ..Default::default()
                })
            }
        });
    Listener {
        inspection: Inspection {
            tls: Some(InspectExcept::default()),
            http: Some(InspectExcept::default()),
            timeout: Some(Duration::from_secs(5)),
            ..Default::default()
        },
        chains: chains.collect(),
        default_chain: Some(chain(ChainMatch::default())),
        ..listener("10.0.0.1_9000", 20081)
    }
}

fn tls_port() -> Listener {
    let weighted = TcpProxy {
        clusters: vec![("a".into(), 90), ("b".into(), 10), ("c".into(), 0)],
        idle_timeout: Some(Duration::ZERO),
        max_connection_duration: Some(Duration::from_secs(3600)),
        hash_source_ip: true,
        ..tcp("a")
    };
    Listener {
        inspection: Inspection {
            tls: Some(InspectExcept::default()),
            ..Default::default()
        },
        chains: vec![
            FilterChain {
                network: NetworkFilter::Tcp(weighted),
                ..chain(ChainMatch {
                    server_names: vec!["a.example.com".into(), "*.example.com".into()],
                    prefix_ranges: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
                    ..Default::default()
                })
            },
            chain(ChainMatch::default()),
        ],
        ..listener("0.0.0.0_443", 20443)
    }
}

fn forward_proxy() -> Listener {
    Listener {
        bind: true,
        chains: vec![FilterChain {
            network: NetworkFilter::Http(Box::new(http(HttpRole::ForwardProxy, &[]))),
            ..chain(ChainMatch::default())
        }],
        ..listener("127.0.0.1_3128", 23128)
    }
}

fn unix() -> Listener {
    Listener {
        address: ListenAddress::Unix("/run/topsail.sock".into()),
        bind: true,
        chains: vec![chain(ChainMatch::default())],
        ..listener("unix", 0)
    }
}
