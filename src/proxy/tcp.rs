//! The TCP proxy (`envoy.filters.network.tcp_proxy`).

pub(crate) mod relay;
mod session;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::access_log::AccessLog;
use super::io::metered::{ByteStats, Counts};
use super::slot::Slot;
use super::upstream::cluster::Cluster;

pub(crate) use session::serve;

/// A compiled `TcpProxy`.
#[derive(Debug)]
pub(crate) struct TcpProxy {
    /// `stat_prefix`.
    pub(crate) stat_prefix: Arc<str>,
    /// Clusters with weights, at least one of which is not zero.
    pub(crate) clusters: Vec<(Arc<Slot<Cluster>>, u64)>,
    /// `max_connect_attempts`, at least one.
    pub(crate) max_connect_attempts: u32,
    /// `idle_timeout`; an hour by default; `None`: no limit.
    pub(crate) idle_timeout: Option<Duration>,
    /// `max_downstream_connection_duration`.
    pub(crate) max_duration: Option<Duration>,
    /// Whether the hash policy is the client's address.
    pub(crate) hash_source_ip: bool,
    /// Access logs.
    pub(crate) access_logs: Box<[AccessLog]>,
    /// Counters.
    pub(crate) stats: Arc<TcpStats>,
}

/// Counters of a TCP proxy, by Envoy's names.
#[derive(Debug, Default)]
pub(crate) struct TcpStats {
    /// `downstream_cx_total`.
    pub(crate) cx_total: AtomicU64,
    /// `downstream_cx_no_route`.
    pub(crate) cx_no_route: AtomicU64,
    /// `downstream_cx_…_bytes_…`.
    pub(crate) bytes: ByteStats,
    /// `idle_timeout`.
    pub(crate) idle_timeout: AtomicU64,
    /// `max_downstream_connection_duration`.
    pub(crate) max_duration: AtomicU64,
}

impl Counts for &TcpStats {
    fn bytes(&self) -> &ByteStats {
        &self.bytes
    }

    fn closed(&mut self, _by_peer: bool) {}
}

impl TcpProxy {
    /// Chooses a cluster by weight.
    fn choose(&self) -> Option<&Arc<Slot<Cluster>>> {
        if let [(only, _)] = &self.clusters[..] {
            return Some(only);
        }
        let total: u64 = self.clusters.iter().map(|(_, weight)| weight).sum();
        self.at(fastrand::u64(..total.max(1)))
    }

    /// The cluster at a position in the sum of all weights.
    pub(super) fn at(&self, mut place: u64) -> Option<&Arc<Slot<Cluster>>> {
        for (cluster, weight) in &self.clusters {
            match place.checked_sub(*weight) {
                Some(rest) => place = rest,
                None => return Some(cluster),
            }
        }
        None
    }
}
