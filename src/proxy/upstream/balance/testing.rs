//! Clusters and endpoints for tests.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::proxy::upstream::breaker::{Breakers, Thresholds};
use crate::proxy::upstream::cluster::{
    Cluster, ClusterConfig, Discovery, FailurePercentage, LbPolicy, OutlierConfig, SuccessRate, Transport, UpstreamHttp,
};
use crate::proxy::upstream::health_check::schedule::Schedule;
use crate::proxy::upstream::health_check::tcp::TcpCheck;
use crate::proxy::upstream::health_check::{HealthCheck, Probe};
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
        health_check: None,
    }
}

/// Outlier detection that needs few failures.
pub(crate) fn outlier_config() -> OutlierConfig {
    OutlierConfig {
        consecutive_5xx: (3, 100),
        consecutive_gateway: (2, 0),
        consecutive_local: (2, 100),
        split_local: false,
        interval: Duration::from_secs(10),
        base_ejection: Duration::from_secs(30),
        max_ejection: Duration::from_secs(50),
        max_percent: 100,
        always_one: false,
        uneject_checked: true,
        success_rate: SuccessRate {
            enforcing: 100,
            enforcing_local: 100,
            minimum_hosts: 4,
            request_volume: 10,
            stdev_factor: 1500,
        },
        failure_percentage: FailurePercentage {
            enforcing: 0,
            enforcing_local: 0,
            threshold: 60,
            minimum_hosts: 2,
            request_volume: 5,
        },
    }
}

/// A check by connecting, with thresholds of two.
pub(crate) fn check() -> HealthCheck {
    let interval = Duration::from_secs(1);
    HealthCheck {
        timeout: interval,
        schedule: Schedule {
            initial_jitter: Duration::ZERO,
            healthy: interval,
            unhealthy: interval,
            healthy_edge: interval,
            unhealthy_edge: interval,
            no_traffic: interval,
            no_traffic_healthy: interval,
            jitter: Duration::ZERO,
            jitter_percent: 0,
        },
        unhealthy_threshold: 2,
        healthy_threshold: 2,
        reuse_connection: true,
        alpn: None,
        transport_labels: None,
        keeps_healthy: true,
        ignores_new: false,
        probe: Probe::Tcp(TcpCheck {
            send: Default::default(),
            receive: Vec::new(),
        }),
    }
}

/// A cluster with Envoy's defaults whose hosts are checked.
pub(crate) fn checked_config() -> ClusterConfig {
    ClusterConfig {
        health_check: Some(Arc::new(check())),
        ..cluster_config()
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
        check: None,
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
