//! Hosts: the endpoints of a cluster and their state.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::balance::Balancer;
use super::cluster::{ClusterStats, Transport};
use super::health_check::CheckTarget;
use super::health_check::state::Checked;
use crate::proxy::upstream::balance::outlier::OutlierState;

/// The address of a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum HostAddress {
    /// IP address and port.
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

/// A host. Its state is shared by all versions of the endpoint with the same address.
#[derive(Debug)]
pub(crate) struct Host {
    /// The address.
    pub(crate) address: HostAddress,
    /// The DNS name or configured hostname, for `auto_host_rewrite` and SNI.
    pub(crate) hostname: Option<Arc<str>>,
    /// Weight, at least 1.
    pub(crate) weight: u32,
    /// The locality.
    pub(crate) locality: Arc<Locality>,
    /// The priority; 0 is the highest.
    pub(crate) priority: u32,
    /// Health from EDS.
    pub(crate) eds: EdsHealth,
    /// The transport socket.
    pub(crate) transport: Transport,
    /// Health by active checks; `None`: it is not checked.
    pub(crate) checked: Option<Arc<Checked>>,
    /// State that outlives one version of the endpoint.
    pub(crate) state: Arc<HostState>,
}

/// The state of a host, kept as long as the cluster has its address.
#[derive(Debug, Default)]
pub(crate) struct HostState {
    /// Active requests and TCP connections, for least request.
    pub(crate) active: AtomicU32,
    /// Open connections.
    pub(crate) connections: AtomicU32,
    /// Ejected by outlier detection.
    pub(crate) ejected: AtomicBool,
    /// Removed from the cluster: idle connections are closed.
    pub(crate) removed: AtomicBool,
    /// When it was first healthy, from which slow start counts.
    pub(crate) healthy_since: OnceLock<Instant>,
    /// Whether it was chosen since this was last reset, for the cleanup of original destinations.
    pub(crate) used: AtomicBool,
    /// State of outlier detection.
    pub(crate) outlier: OutlierState,
    /// Counters by Envoy's names.
    pub(crate) stats: HostStats,
}

/// Counters of a host, as in `/clusters`.
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

/// Counts an active request or TCP connection until dropped.
#[derive(Debug)]
pub(crate) struct Busy(Arc<HostState>);

impl Busy {
    /// Begins one; as in Envoy, a TCP connection counts as a request, too.
    pub(crate) fn begin(cluster: &ClusterStats, host: &Host) -> Self {
        cluster.rq_total.fetch_add(1, Ordering::Relaxed);
        host.state.stats.rq_total.fetch_add(1, Ordering::Relaxed);
        host.state.active.fetch_add(1, Ordering::Relaxed);
        Self(host.state.clone())
    }

    /// The host's counters.
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
    /// Counts the outcome of a request.
    pub(crate) fn count(&self, success: bool) {
        let counter = if success { &self.rq_success } else { &self.rq_error };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Host {
    /// Whether it may be chosen outside of panic mode.
    pub(crate) fn healthy(&self) -> bool {
        self.eds == EdsHealth::Healthy && !self.failed() && !self.is_checked_as(Checked::degraded)
    }

    /// Whether it may be chosen where healthy hosts do not suffice.
    pub(crate) fn degraded(&self) -> bool {
        let degraded = self.eds == EdsHealth::Degraded || self.is_checked_as(Checked::degraded);
        degraded && self.eds != EdsHealth::Unhealthy && !self.failed()
    }

    /// Whether it does not count for priorities and panic mode.
    pub(crate) fn excluded(&self) -> bool {
        self.is_checked_as(Checked::pending) || self.is_checked_as(Checked::excluded)
    }

    /// Whether discovery has removed it, and health checks no longer keep it.
    pub(super) fn has_left(&self) -> bool {
        self.is_checked_as(Checked::leaving) && self.is_checked_as(Checked::failed)
    }

    /// When it became healthy, from which slow start counts.
    pub(super) fn healthy_since(&self) -> Option<Instant> {
        match &self.checked {
            Some(checked) => checked.healthy_since(),
            None => self.state.healthy_since.get().copied(),
        }
    }

    /// Whether outlier detection or a health check has found it unhealthy.
    pub(crate) fn failed(&self) -> bool {
        self.state.ejected.load(Ordering::Relaxed) || self.is_checked_as(Checked::failed)
    }

    fn is_checked_as(&self, what: impl Fn(&Checked) -> bool) -> bool {
        self.checked.as_ref().is_some_and(|checked| what(checked))
    }
}

/// Health of an endpoint from EDS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EdsHealth {
    /// `HEALTHY` or `UNKNOWN`.
    #[default]
    Healthy,
    /// `DEGRADED`.
    Degraded,
    /// `UNHEALTHY`, `DRAINING` or `TIMEOUT`.
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

/// A compiled `ClusterLoadAssignment`, before DNS resolution.
#[derive(Clone, Debug, Default)]
pub(crate) struct Endpoints {
    /// Endpoints grouped by locality and priority.
    pub(crate) localities: Vec<LocalityEndpoints>,
    /// `overprovisioning_factor`; 140 by default.
    pub(crate) overprovisioning: u32,
}

/// Endpoints of one locality and priority.
#[derive(Clone, Debug)]
pub(crate) struct LocalityEndpoints {
    /// The locality.
    pub(crate) locality: Arc<Locality>,
    /// The priority; 0 is the highest.
    pub(crate) priority: u32,
    /// Weight of the locality; 0: unset.
    pub(crate) weight: u32,
    /// The endpoints.
    pub(crate) endpoints: Vec<Endpoint>,
}

/// A compiled `LbEndpoint`.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Address or DNS name.
    pub(crate) target: Target,
    /// The configured hostname.
    pub(crate) hostname: Option<Arc<str>>,
    /// Weight, at least 1.
    pub(crate) weight: u32,
    /// Health from EDS.
    pub(crate) health: EdsHealth,
    /// `envoy.transport_socket_match` metadata.
    pub(crate) transport_labels: Vec<(String, String)>,
    /// `health_check_config`.
    pub(crate) check: Option<Arc<CheckTarget>>,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// At this address.
    Address(HostAddress),
    /// At the addresses of this DNS name, with this port.
    Name(Arc<str>, u16),
}

/// The hosts of a cluster and their load balancer. Replaced as a whole when hosts or their health change.
#[derive(Debug)]
pub(crate) struct HostSet {
    /// All hosts, sorted by priority, then in configuration order; by address in an `ORIGINAL_DST` cluster.
    pub(crate) hosts: Vec<Arc<Host>>,
    /// Settings that concern them together.
    pub(crate) shares: Arc<Shares>,
    /// The load balancer.
    pub(crate) balancer: Balancer,
    /// When the last host leaves slow start, if any is in it.
    pub(crate) settled: Option<Instant>,
    /// When it was built.
    pub(crate) made: Instant,
}

/// Settings for dividing load between priorities and localities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// `overprovisioning_factor`.
    pub(crate) overprovisioning: u32,
    /// Weights of localities, by priority.
    pub(crate) localities: Vec<(u32, Arc<Locality>, u32)>,
}

impl Default for Shares {
    /// Envoy's defaults.
    fn default() -> Self {
        Self {
            overprovisioning: 140,
            localities: Vec::new(),
        }
    }
}
