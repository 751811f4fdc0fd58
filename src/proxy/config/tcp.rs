//! `envoy.filters.network.tcp_proxy`.

use std::time::Duration;

use super::value::limit;
use super::{Compiled, Names, Refusal};
use crate::proxy::tcp::TcpProxy;
use crate::xds::pb::network_filter::tcp_proxy;
use crate::xds::pb::network_filter::tcp_proxy::tcp_proxy::ClusterSpecifier;

/// Envoy's, where nothing is said.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// A `TcpProxy`.
pub(crate) fn proxy(message: &tcp_proxy::TcpProxy, names: &mut Names) -> Compiled<TcpProxy> {
    let clusters = match message.cluster_specifier.as_ref() {
        Some(ClusterSpecifier::Cluster(name)) => vec![(names.clusters.of(name), 1)],
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            let clusters = weighted.clusters.iter();
            clusters
                .map(|one| (names.clusters.of(&one.name), one.weight.into()))
                .collect()
        }
        None => return Err(Refusal::new("a cluster is needed")),
    };
    Ok(TcpProxy {
        stat_prefix: message.stat_prefix.as_str().into(),
        clusters,
        idle_timeout: limit(message.idle_timeout.as_ref(), Some(IDLE_TIMEOUT)),
        max_duration: limit(message.max_downstream_connection_duration.as_ref(), None),
        hash_source_ip: !message.hash_policy.is_empty(),
    })
}
