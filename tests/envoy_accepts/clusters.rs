//! Clusters for validation by Envoy.

use std::sync::Arc;
use std::time::Duration;

use topsail::ir::Origins;
use topsail::ir::cluster::{
    Cluster, ClusterEndpoints, ClusterMetadata, Discovery, HttpVersion, LbEndpoint, Limits, LoadBalancer,
    LocalityEndpoints, Lookup, ServerIdentity, Transport, UpstreamHttp, UpstreamTls,
};
use topsail::mesh::config::TlsVersion;
use topsail::mesh::destination_rule::{HashTable, OutlierDetection, ServerVerification, TcpKeepalive, Warmup};
use topsail::mesh::service::{Address, Locality};
use topsail::name::{Kind, ObjectId, Percent};
use topsail::xds::{Resource, encode};

/// Covers all discovery types, load balancers, transport sockets and HTTP versions.
pub(crate) fn all() -> Vec<Resource> {
    let mut clusters = vec![cluster("plain", Discovery::Eds)];
    clusters.extend(discoveries());
    clusters.extend(load_balancers());
    clusters.extend(transports());
    clusters.extend(http());
    clusters.push(with_everything());
    clusters.iter().map(encode::cluster).collect()
}

/// Clusters that Envoy rejects.
pub(crate) fn broken() -> Vec<Resource> {
    let by_name = static_endpoints(&[(Address::Name("example.com".into()), 80)]);
    let weightless = ClusterEndpoints {
        localities: vec![LocalityEndpoints {
            endpoints: vec![LbEndpoint {
                weight: 0,
                ..endpoint(Address::Ip([10, 0, 0, 1].into()), 80)
            }],
            ..locality("a", 0)
        }],
        ..Default::default()
    };
    [
        cluster("", Discovery::Eds),
        Cluster {
            connect_timeout: Duration::ZERO,
            ..cluster("instant", Discovery::Eds)
        },
        cluster("static-by-name", Discovery::Static(Arc::new(by_name))),
        cluster("weightless", Discovery::Static(Arc::new(weightless))),
        Cluster {
            load_balancer: LoadBalancer::Hash(HashTable::Maglev(1000)),
            ..cluster("maglev", Discovery::Static(Arc::default()))
        },
        Cluster {
            load_balancer: LoadBalancer::Hash(HashTable::Ring(1 << 30)),
            ..cluster("ring", Discovery::Static(Arc::default()))
        },
        Cluster {
            load_balancer: LoadBalancer::RoundRobin,
            ..cluster("original-dst", passthrough(false))
        },
        Cluster {
            panic_threshold: 101,
            ..cluster("panic", Discovery::Eds)
        },
    ]
    .iter()
    .map(encode::cluster)
    .collect()
}

fn cluster(name: &str, discovery: Discovery) -> Cluster {
    Cluster {
        name: name.into(),
        discovery,
        connect_timeout: Duration::from_secs(10),
        load_balancer: LoadBalancer::LeastRequest,
        warmup: None,
        locality_weighted: false,
        marked_source: false,
        limits: Limits::default(),
        outlier_detection: None,
        panic_threshold: 0,
        http: UpstreamHttp::default(),
        tcp_keepalive: None,
        transport: Transport::Plaintext,
        proxy_protocol: None,
        metadata: ClusterMetadata::default(),
        origins: Origins::from([]),
    }
}

fn discoveries() -> Vec<Cluster> {
    let addresses = [
        (Address::Ip([10, 0, 0, 1].into()), 8080),
        (Address::Ip("fd00::1".parse().unwrap()), 8080),
        (Address::Unix("/run/app.sock".into()), 0),
    ];
    let names = [
        (Address::Name("example.com".into()), 443),
        (Address::Name("example.org".into()), 443),
    ];
    let lookup = |ipv6| Lookup {
        refresh: Duration::from_secs(60),
        ipv6,
    };
    let provided = |name, discovery| Cluster {
        load_balancer: LoadBalancer::ClusterProvided,
        ..cluster(name, discovery)
    };
    vec![
        cluster("BlackHoleCluster", Discovery::Static(Arc::default())),
        cluster("static", Discovery::Static(Arc::new(static_endpoints(&addresses)))),
        cluster(
            "dns",
            Discovery::StrictDns(Arc::new(static_endpoints(&names)), lookup(false)),
        ),
        cluster(
            "logical-dns",
            Discovery::LogicalDns(Arc::new(static_endpoints(&names[..1])), lookup(true)),
        ),
        provided("PassthroughCluster", passthrough(false)),
        provided("InboundPassthroughCluster", passthrough(true)),
        provided(
            "inbound|8080||",
            Discovery::OriginalDst {
                port: Some(8080),
                inbound: true,
            },
        ),
        Cluster {
            marked_source: true,
            ..cluster(
                "inbound|8081||",
                Discovery::Static(Arc::new(static_endpoints(&addresses))),
            )
        },
    ]
}

fn passthrough(inbound: bool) -> Discovery {
    Discovery::OriginalDst { port: None, inbound }
}

fn load_balancers() -> Vec<Cluster> {
    let warmup = Warmup {
        duration: Duration::from_secs(60),
        minimum: Percent::new(0.1).ok(),
        aggression: Some(1.5),
    };
    [
        LoadBalancer::LeastRequest,
        LoadBalancer::RoundRobin,
        LoadBalancer::Random,
        LoadBalancer::Hash(HashTable::Ring(1024)),
        LoadBalancer::Hash(HashTable::Maglev(65537)),
    ]
    .into_iter()
    .enumerate()
    .flat_map(|(index, load_balancer)| {
        [false, true].map(|locality_weighted| Cluster {
            load_balancer,
            warmup: locality_weighted.then_some(warmup),
            locality_weighted,
            ..cluster(&format!("lb-{index}-{locality_weighted}"), Discovery::Eds)
        })
    })
    .collect()
}

fn transports() -> Vec<Cluster> {
    let istio = |server| UpstreamTls::Istio {
        server,
        sni: "outbound_.80_._.reviews.default.svc.cluster.local".into(),
        alpn: vec!["istio-h2", "istio", "h2"],
        oldest: TlsVersion::V1_3,
    };
    let exact = ServerIdentity::Exact(vec![
        "spiffe://cluster.local/ns/default/sa/reviews".into(),
        "reviews".into(),
    ]);
    let prefix = ServerIdentity::Prefixes(vec!["spiffe://cluster.local/ns/default/".into()]);
    let files = |certificate, verify, names: &[&str], sni: Option<&str>| {
        Transport::Tls(UpstreamTls::Files {
            certificate,
            verify,
            subject_alt_names: names.iter().map(ToString::to_string).collect(),
            sni: sni.map(Into::into),
            alpn: Vec::new(),
        })
    };
    let pair = || Some(("/etc/client.pem".into(), "/etc/client.key".into()));
    let ca = |crl: Option<&str>| ServerVerification::File {
        ca: "/etc/ca.pem".into(),
        crl: crl.map(Into::into),
    };
    let names = ["example.com", "spiffe://a/b", "10.0.0.1", "me@example.com"];
    [
        Transport::Tls(istio(exact.clone())),
        Transport::Auto(istio(exact)),
        Transport::Auto(istio(prefix)),
        files(None, ServerVerification::System, &[], Some("example.com")),
        files(pair(), ca(None), &names, None),
        files(None, ca(Some("/etc/crl.pem")), &[], None),
        files(None, ServerVerification::None, &[], None),
    ]
    .into_iter()
    .enumerate()
    .map(|(index, transport)| Cluster {
        transport,
        ..cluster(&format!("tls-{index}"), Discovery::Eds)
    })
    .collect()
}

fn http() -> Vec<Cluster> {
    let limited = |version| UpstreamHttp {
        version,
        max_concurrent_streams: Some(100),
        keepalive: Some((Duration::from_secs(30), Duration::from_secs(5))),
        idle_timeout: Some(Duration::from_secs(60)),
        max_connection_duration: Some(Duration::from_secs(600)),
        max_requests_per_connection: Some(1000),
        auto_sni: true,
        auto_san_validation: false,
    };
    let plain = |version| UpstreamHttp {
        version,
        ..Default::default()
    };
    [HttpVersion::Http1, HttpVersion::Http2, HttpVersion::Downstream]
        .into_iter()
        .flat_map(|version| [plain(version), limited(version)])
        .enumerate()
        .map(|(index, http)| Cluster {
            http,
            ..cluster(&format!("http-{index}"), Discovery::Eds)
        })
        .collect()
}

fn with_everything() -> Cluster {
    Cluster {
        limits: Limits {
            connections: Some(1),
            pending_requests: Some(2),
            requests: Some(3),
            retries: Some(4),
        },
        outlier_detection: Some(OutlierDetection {
            consecutive_5xx: Some(0),
            consecutive_gateway: Some(3),
            split_local_origin: true,
            consecutive_local_origin: Some(2),
            interval: Some(Duration::from_secs(5)),
            base_ejection_time: Some(Duration::from_secs(30)),
            max_ejection_percent: Some(50),
            min_health_percent: 10,
        }),
        panic_threshold: 10,
        tcp_keepalive: Some(TcpKeepalive {
            probes: Some(3),
            time: Some(Duration::from_millis(1500)),
            interval: Some(Duration::from_millis(10)),
        }),
        metadata: ClusterMetadata {
            config: Some((destination_rule(), "networking.istio.io/v1".into())),
            services: vec![(
                "reviews.default".parse().unwrap(),
                "reviews".into(),
                "default".parse().unwrap(),
            )],
            subset: Some("v1".into()),
            external: true,
        },
        ..cluster("outbound|80|v1|reviews.default.svc.cluster.local", Discovery::Eds)
    }
}

fn destination_rule() -> ObjectId {
    ObjectId {
        kind: Kind::DestinationRule,
        namespace: "default".parse().unwrap(),
        name: "reviews".into(),
    }
}

fn static_endpoints(addresses: &[(Address, u16)]) -> ClusterEndpoints {
    ClusterEndpoints {
        cluster: "static".into(),
        localities: vec![LocalityEndpoints {
            endpoints: addresses
                .iter()
                .map(|(address, port)| endpoint(address.clone(), *port))
                .collect(),
            ..locality("eu", 0)
        }],
        origins: Origins::from([]),
    }
}

fn locality(region: &str, priority: u32) -> LocalityEndpoints {
    LocalityEndpoints {
        locality: Locality {
            region: region.into(),
            zone: "1".into(),
            subzone: "a".into(),
        },
        priority,
        weight: 1,
        endpoints: Vec::new(),
    }
}

fn endpoint(address: Address, port: u16) -> LbEndpoint {
    LbEndpoint {
        address,
        port,
        weight: 1,
        healthy: true,
        mutual_tls: true,
        workload: Some("reviews;default;reviews;;".into()),
    }
}
