//! Bytes passed on as they are (`envoy.filters.network.tcp_proxy`).

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
    /// Clusters with their weights, of which one at least is not zero.
    pub(crate) clusters: Vec<(Arc<Slot<Cluster>>, u64)>,
    /// How often a host is tried for a connection, at least once.
    pub(crate) max_connect_attempts: u32,
    /// How long neither side may say anything; an hour unless said otherwise; none: for ever.
    pub(crate) idle_timeout: Option<Duration>,
    /// How long a connection may live.
    pub(crate) max_duration: Option<Duration>,
    /// Whether the client's address decides which host is chosen.
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
    /// A cluster, by weight.
    fn choose(&self) -> Option<&Arc<Slot<Cluster>>> {
        if let [(only, _)] = &self.clusters[..] {
            return Some(only);
        }
        let total: u64 = self.clusters.iter().map(|(_, weight)| weight).sum();
        self.at(fastrand::u64(..total.max(1)))
    }

    /// The cluster at a place in the row of all weights.
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
