//! `envoy.filters.network.tcp_proxy`.

use crate::ir::ResourceName;
use crate::ir::listener;
use crate::xds::encode::value::duration;
use crate::xds::pb::network_filter::tcp_proxy::TcpProxy;
use crate::xds::pb::network_filter::tcp_proxy::tcp_proxy::weighted_cluster::ClusterWeight;
use crate::xds::pb::network_filter::tcp_proxy::tcp_proxy::{ClusterSpecifier, WeightedCluster};
use crate::xds::pb::types::HashPolicy;
use crate::xds::pb::types::hash_policy::{PolicySpecifier, SourceIp};

pub(super) const NAME: &str = "envoy.filters.network.tcp_proxy";

pub(super) fn config(proxy: &listener::TcpProxy) -> TcpProxy {
    let source_ip = || HashPolicy {
        policy_specifier: Some(PolicySpecifier::SourceIp(SourceIp {})),
    };
    TcpProxy {
        stat_prefix: proxy.stat_prefix.to_string(),
        cluster_specifier: specifier(&proxy.clusters),
        idle_timeout: proxy.idle_timeout.map(duration),
        max_downstream_connection_duration: proxy.max_connection_duration.map(duration),
        hash_policy: proxy.hash_source_ip.then(source_ip).into_iter().collect(),
        ..Default::default()
    }
}

/// Envoy takes no share of zero here; a cluster alone gets everything, whatever its share.
fn specifier(clusters: &[(ResourceName, u32)]) -> Option<ClusterSpecifier> {
    let weighted: Vec<_> = clusters
        .iter()
        .filter(|(_, weight)| *weight > 0)
        .map(|(name, weight)| ClusterWeight {
            name: name.to_string(),
            weight: *weight,
            ..Default::default()
        })
        .collect();
    match &weighted[..] {
        [] => clusters
            .first()
            .map(|(name, _)| ClusterSpecifier::Cluster(name.to_string())),
        [only] => Some(ClusterSpecifier::Cluster(only.name.clone())),
        _ => Some(ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: weighted,
        })),
    }
}
