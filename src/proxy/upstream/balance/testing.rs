//! Clusters and endpoints for tests.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::proxy::upstream::breaker::{Breakers, Thresholds};
use crate::proxy::upstream::cluster::{Cluster, ClusterConfig, Discovery, LbPolicy, Transport, UpstreamHttp};
use crate::proxy::upstream::host::{
    EdsHealth, Endpoint, Endpoints, HostAddress, HostSet, Locality, LocalityEndpoints, Target,
};

/// 127.0.0.1 and this port.
pub(crate) fn address(port: u16) -> HostAddress {
    HostAddress::Ip(([127, 0, 0, 1], port).into())
}

/// A cluster with Envoy's defaults.
pub(crate) fn cluster_config() -> ClusterConfig {
    ClusterConfig {
        name: "test".into(),
        stat_name: "test".into(),
        via_api: true,
        connect_timeout: Duration::from_secs(5),
        discovery: Discovery::Static,
        policy: LbPolicy::RoundRobin,
        slow_start: None,
        panic_threshold: 50.0,
        locality_weighted: false,
        transports: Vec::new(),
        transport: Transport::default(),
        unmatched: AtomicU64::default(),
        http: UpstreamHttp::default(),
        tcp_keepalive: None,
        source: Vec::new(),
        outlier: None,
    }
}

/// A cluster with these endpoints and circuit breaker thresholds.
pub(crate) fn cluster(config: ClusterConfig, endpoints: &Endpoints, thresholds: Thresholds) -> Arc<Cluster> {
    let hosts = HostSet::build(&config, endpoints, None, std::time::Instant::now());
    let breakers = Breakers::new(thresholds, Thresholds::default());
    Arc::new(Cluster::new(config, breakers, Arc::default(), hosts))
}

fn endpoint(port: u16, weight: u32) -> Endpoint {
    Endpoint {
        target: Target::Address(address(port)),
        hostname: None,
        weight,
        health: EdsHealth::Healthy,
        transport_labels: Vec::new(),
    }
}

fn group(locality: &str, priority: u32, weight: u32, endpoints: Vec<Endpoint>) -> LocalityEndpoints {
    LocalityEndpoints {
        locality: Arc::new(Locality {
            region: locality.to_owned(),
            ..Default::default()
        }),
        priority,
        weight,
        endpoints,
    }
}

fn all(localities: Vec<LocalityEndpoints>) -> Endpoints {
    Endpoints {
        localities,
        overprovisioning: 140,
    }
}

/// Endpoints by port and priority.
pub(crate) fn endpoints(ports: &[(u16, u32)]) -> Endpoints {
    let groups = ports
        .iter()
        .map(|(port, priority)| group("", *priority, 0, vec![endpoint(*port, 1)]));
    all(groups.collect())
}

/// Endpoints by port and weight.
pub(crate) fn weighted(ports: &[(u16, u32)]) -> Endpoints {
    let endpoints = ports.iter().map(|(port, weight)| endpoint(*port, *weight));
    all(vec![group("", 0, 0, endpoints.collect())])
}

/// Endpoints by locality, with the locality's weight.
pub(crate) fn in_localities(localities: &[(&str, u32, &[u16])]) -> Endpoints {
    let groups = localities.iter().map(|(name, weight, ports)| {
        let endpoints = ports.iter().map(|port| endpoint(*port, 1));
        group(name, 0, *weight, endpoints.collect())
    });
    all(groups.collect())
}

/// Endpoints by name, at port 80.
pub(crate) fn named(names: &[&str]) -> Endpoints {
    let endpoints = names.iter().map(|name| Endpoint {
        target: Target::Name((*name).into(), 80),
        ..endpoint(0, 1)
    });
    all(vec![group("", 0, 0, endpoints.collect())])
}
