//! Test helpers for the encoders: minimal values, and resources as JSON.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prost::{Message, Name};
use serde_json::Value;

use crate::ir::Origins;
use crate::ir::cluster::{Cluster, ClusterMetadata, Discovery, Limits, LoadBalancer, Transport, UpstreamHttp};
use crate::ir::listener::{
    ChainMatch, Direction, FilterChain, Inspection, ListenAddress, Listener, NetworkFilter, TcpProxy,
};
use crate::ir::route::{Forward, PathMatch, Route, RouteAction, RouteConfig, RouteMatch, VirtualHost, WeightedCluster};
use crate::mesh::virtual_service::HeaderOps;
use crate::name::{Kind, ObjectId};
use crate::xds::json::Printer;
use crate::xds::{Resource, rules};

/// A resource as JSON; it must be valid.
pub(super) fn shown(resource: &Resource) -> Value {
    assert_eq!(rules::check(resource), Ok(()));
    printer().to_json(resource.kind.type_url(), &resource.body).unwrap()
}

/// A message as JSON.
pub(super) fn printed<M: Message + Name>(message: &M) -> Value {
    printer().to_json(&M::type_url(), &message.encode_to_vec()).unwrap()
}

fn printer() -> &'static Printer {
    static PRINTER: OnceLock<Printer> = OnceLock::new();
    PRINTER.get_or_init(|| Printer::new().unwrap())
}

/// A plaintext EDS cluster without limits.
pub(super) fn cluster(name: &str) -> Cluster {
    Cluster {
        name: name.into(),
        discovery: Discovery::Eds,
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

/// An outbound listener without a socket, with one chain to one cluster.
pub(super) fn listener(name: &str) -> Listener {
    Listener {
        name: name.into(),
        address: ListenAddress::Ip([0, 0, 0, 0].into(), 9080),
        bind: false,
        use_original_dst: false,
        transparent: false,
        direction: Direction::Outbound,
        inspection: Inspection::default(),
        chains: vec![chain()],
        default_chain: None,
        origins: Origins::from([]),
    }
}

/// A catch-all chain to one cluster.
pub(super) fn chain() -> FilterChain {
    FilterChain {
        name: None,
        matcher: ChainMatch::default(),
        tls: None,
        network: NetworkFilter::Tcp(tcp_proxy(&[("PassthroughCluster", 1)])),
    }
}

/// A TCP proxy to weighted clusters.
pub(super) fn tcp_proxy(clusters: &[(&str, u32)]) -> TcpProxy {
    TcpProxy {
        stat_prefix: "tcp".into(),
        clusters: clusters
            .iter()
            .map(|(name, weight)| (Arc::from(*name), *weight))
            .collect(),
        idle_timeout: None,
        max_connection_duration: None,
        hash_source_ip: false,
    }
}

/// A route configuration with these routes for all hosts.
pub(super) fn route_config(name: &str, routes: Vec<Route>) -> RouteConfig {
    let host = VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        routes,
        attempt_count: false,
        origins: Origins::from([]),
    };
    RouteConfig {
        name: name.into(),
        virtual_hosts: vec![Arc::new(host)],
        ignore_port: true,
        origins: Origins::from([]),
    }
}

/// A catch-all route to one cluster.
pub(super) fn route() -> Route {
    Route {
        name: "".into(),
        matcher: RouteMatch {
            path: PathMatch::Prefix("/".into()),
            ignore_case: false,
            headers: Vec::new(),
            query: Vec::new(),
        },
        action: RouteAction::Forward(Box::new(forward())),
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        fault: None,
        cors: None,
        operation: "".into(),
        config: None,
        stat_prefix: "".into(),
    }
}

/// Forwards to one cluster, with defaults.
pub(super) fn forward() -> Forward {
    Forward {
        clusters: vec![weighted("reviews", 1)],
        path_rewrite: None,
        host_rewrite: None,
        timeout: None,
        retry: None,
        retry_other_hosts: false,
        mirrors: Vec::new(),
        hash: None,
    }
}

/// A weighted cluster.
pub(super) fn weighted(cluster: &str, weight: u32) -> WeightedCluster {
    WeightedCluster {
        cluster: cluster.into(),
        weight,
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        host_rewrite: None,
    }
}

/// An object in the namespace `default`.
pub(super) fn object(kind: Kind, name: &str) -> ObjectId {
    ObjectId {
        kind,
        namespace: "default".parse().unwrap(),
        name: name.into(),
    }
}
