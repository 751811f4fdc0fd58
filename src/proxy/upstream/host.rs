//! Hosts: the endpoints of a cluster, with what is known of each.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::balance::Balancer;
use super::cluster::{ClusterStats, Transport};
use crate::proxy::upstream::balance::outlier::OutlierState;

/// Where a host listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum HostAddress {
    /// An address and port.
    Ip(SocketAddr),
    /// A Unix domain socket.
    Unix(PathBuf),
}

impl HostAddress {
    /// The IP address, or else the path.
    pub(crate) fn without_port(&self) -> String {
        match self {
            HostAddress::Ip(address) => address.ip().to_string(),
            HostAddress::Unix(_) => self.to_string(),
        }
    }
}

impl std::fmt::Display for HostAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HostAddress::Ip(address) => address.fmt(f),
            HostAddress::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A host. One object for as long as the cluster has the address, so that what is counted is kept.
#[derive(Debug)]
pub(crate) struct Host {
    /// Where.
    pub(crate) address: HostAddress,
    /// The name that was looked up, if one was; for `auto_host_rewrite` and SNI.
    pub(crate) hostname: Option<Arc<str>>,
    /// Weight, at least 1.
    pub(crate) weight: u32,
    /// The locality.
    pub(crate) locality: Arc<Locality>,
    /// 0 is preferred.
    pub(crate) priority: u32,
    /// What EDS says of it.
    pub(crate) eds: EdsHealth,
    /// Plaintext or TLS.
    pub(crate) transport: Transport,
    /// What lives longer than one version of the endpoint.
    pub(crate) state: Arc<HostState>,
}

/// What lives as long as the cluster has a host of an address.
#[derive(Debug, Default)]
pub(crate) struct HostState {
    /// Requests and TCP connections under way, for least request.
    pub(crate) active: AtomicU32,
    /// Connections open.
    pub(crate) connections: AtomicU32,
    /// Taken out of rotation by outlier detection.
    pub(crate) ejected: AtomicBool,
    /// No longer in the cluster: idle connections are closed.
    pub(crate) removed: AtomicBool,
    /// When it was first healthy: from then on it is new (`slow_start_config`).
    pub(crate) healthy_since: OnceLock<Instant>,
    /// Chosen since it was last asked, for hosts that are forgotten when they are not.
    pub(crate) used: AtomicBool,
    /// What outlier detection counts.
    pub(crate) outlier: OutlierState,
    /// Counters by Envoy's names.
    pub(crate) stats: HostStats,
}

/// Counters of a host, as `/clusters` shows them.
#[derive(Debug, Default)]
pub(crate) struct HostStats {
    /// `cx_total`.
    pub(crate) cx_total: AtomicU64,
    /// `cx_connect_fail`.
    pub(crate) cx_connect_fail: AtomicU64,
    /// `rq_total`.
    pub(crate) rq_total: AtomicU64,
    /// `rq_success`.
    pub(crate) rq_success: AtomicU64,
    /// `rq_error`.
    pub(crate) rq_error: AtomicU64,
    /// `rq_timeout`.
    pub(crate) rq_timeout: AtomicU64,
}

/// A request or TCP connection that a host is busy with, until this is dropped.
#[derive(Debug)]
pub(crate) struct Busy(Arc<HostState>);

impl Busy {
    /// One more, which is counted as a request, as in Envoy.
    pub(crate) fn begin(cluster: &ClusterStats, host: &Host) -> Self {
        cluster.rq_total.fetch_add(1, Ordering::Relaxed);
        host.state.stats.rq_total.fetch_add(1, Ordering::Relaxed);
        host.state.active.fetch_add(1, Ordering::Relaxed);
        Self(host.state.clone())
    }

    /// What is counted of the host.
    pub(crate) fn stats(&self) -> &HostStats {
        &self.0.stats
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl HostStats {
    /// Counts a request by what came of it.
    pub(crate) fn count(&self, success: bool) {
        let counter = if success { &self.rq_success } else { &self.rq_error };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Host {
    /// Whether it may be chosen, panic aside.
    pub(crate) fn healthy(&self) -> bool {
        self.eds == EdsHealth::Healthy && !self.state.ejected.load(Ordering::Relaxed)
    }

    /// Whether it may be chosen where healthy hosts do not suffice.
    pub(crate) fn degraded(&self) -> bool {
        self.eds == EdsHealth::Degraded && !self.state.ejected.load(Ordering::Relaxed)
    }
}

/// What EDS says of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EdsHealth {
    /// That it is healthy, or nothing.
    #[default]
    Healthy,
    /// That it works, but is to be spared.
    Degraded,
    /// That it is not to be used.
    Unhealthy,
}

impl EdsHealth {
    /// The name of Envoy's `HealthStatus`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            EdsHealth::Healthy => "HEALTHY",
            EdsHealth::Degraded => "DEGRADED",
            EdsHealth::Unhealthy => "UNHEALTHY",
        }
    }
}

/// `core.v3.Locality`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Locality {
    /// The region.
    pub(crate) region: String,
    /// The zone.
    pub(crate) zone: String,
    /// The sub-zone.
    pub(crate) sub_zone: String,
}

/// A compiled `ClusterLoadAssignment`: what is said of endpoints, before names are looked up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Endpoints {
    /// Groups of one locality and priority.
    pub(crate) localities: Vec<LocalityEndpoints>,
    /// `overprovisioning_factor`, 140 unless said otherwise.
    pub(crate) overprovisioning: u32,
}

/// Endpoints of one locality and priority.
#[derive(Clone, Debug)]
pub(crate) struct LocalityEndpoints {
    /// The locality.
    pub(crate) locality: Arc<Locality>,
    /// 0 is preferred.
    pub(crate) priority: u32,
    /// Weight of the locality; 0: none is given.
    pub(crate) weight: u32,
    /// The endpoints.
    pub(crate) endpoints: Vec<Endpoint>,
}

/// What is said of an endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// An address, or a name to look up.
    pub(crate) target: Target,
    /// The name given beside the address.
    pub(crate) hostname: Option<Arc<str>>,
    /// Weight, at least 1.
    pub(crate) weight: u32,
    /// What EDS says of it.
    pub(crate) health: EdsHealth,
    /// `envoy.transport_socket_match`.
    pub(crate) transport_labels: Vec<(String, String)>,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Here.
    Address(HostAddress),
    /// At the addresses of this name, at this port.
    Name(Arc<str>, u16),
}

/// The hosts of a cluster, ready to be chosen from. Replaced whole when hosts or their health change.
#[derive(Debug)]
pub(crate) struct HostSet {
    /// All hosts, sorted by priority, then as they were given; by address in a cluster of original destinations.
    pub(crate) hosts: Vec<Arc<Host>>,
    /// What is said of them together.
    pub(crate) shares: Arc<Shares>,
    /// How one is chosen.
    pub(crate) balancer: Balancer,
    /// When the last of its new hosts is new no more, in a cluster with a slow start.
    pub(crate) settled: Option<Instant>,
    /// When it was made.
    pub(crate) made: Instant,
}

/// How load is shared between priorities and localities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// `overprovisioning_factor`.
    pub(crate) overprovisioning: u32,
    /// Weights of localities, by priority.
    pub(crate) localities: Vec<(u32, Arc<Locality>, u32)>,
}

impl Default for Shares {
    /// Envoy's, where nothing is said.
    fn default() -> Self {
        Self {
            overprovisioning: 140,
            localities: Vec::new(),
        }
    }
}
