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

/// Envoy rejects weights of zero here; a single cluster gets all connections, whatever its weight.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::xds::encode::testing::{printed, tcp_proxy};

    #[test]
    fn connections_are_distributed_by_weight() {
        let shown = |clusters: &[(&str, u32)]| printed(&config(&tcp_proxy(clusters)));
        assert_eq!(shown(&[("a", 1)]), json!({"stat_prefix": "tcp", "cluster": "a"}));
        assert_eq!(
            shown(&[("a", 90), ("b", 0), ("c", 10)])["weighted_clusters"],
            json!({"clusters": [{"name": "a", "weight": 90}, {"name": "c", "weight": 10}]})
        );
        assert_eq!(shown(&[("a", 0), ("b", 10)])["cluster"], "b");
        assert_eq!(shown(&[("a", 0)])["cluster"], "a");
    }

    #[test]
    fn timeouts_and_hash_policy_are_optional() {
        let proxy = listener::TcpProxy {
            idle_timeout: Some(Duration::ZERO),
            max_connection_duration: Some(Duration::from_secs(60)),
            hash_source_ip: true,
            ..tcp_proxy(&[("a", 1)])
        };
        let shown = printed(&config(&proxy));
        assert_eq!(shown["idle_timeout"], "0s");
        assert_eq!(shown["max_downstream_connection_duration"], "60s");
        assert_eq!(shown["hash_policy"], json!([{"source_ip": {}}]));
    }
}
