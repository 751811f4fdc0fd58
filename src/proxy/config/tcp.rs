//! Compiling `envoy.filters.network.tcp_proxy`.

use std::sync::Arc;
use std::time::Duration;

use super::access_log::access_logs;
use super::value::{limit, number};
use super::{At, Compiled, Names, Refusal};
use crate::proxy::slot::Slot;
use crate::proxy::tcp::TcpProxy;
use crate::proxy::upstream::cluster::Cluster;
use crate::xds::pb::network_filter::tcp_proxy;
use crate::xds::pb::network_filter::tcp_proxy::tcp_proxy::{ClusterSpecifier, WeightedCluster};
use crate::xds::pb::types::HashPolicy;
use crate::xds::pb::types::hash_policy::PolicySpecifier;

/// Envoy's default.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Compiles a `TcpProxy`.
pub(crate) fn proxy(message: &tcp_proxy::TcpProxy, names: &mut Names) -> Compiled<TcpProxy> {
    if message.tunneling_config.is_some() {
        return Err(Refusal::not_implemented("tunneling_config"));
    }
    let clusters = match message.cluster_specifier.as_ref() {
        Some(ClusterSpecifier::Cluster(name)) => vec![(names.clusters.of(name), 1)],
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            self::weighted(weighted, names).at("weighted_clusters")?
        }
        None => return Err(Refusal::new("a cluster is required")),
    };
    Ok(TcpProxy {
        stat_prefix: message.stat_prefix.as_str().into(),
        clusters,
        max_connect_attempts: number(message.max_connect_attempts.as_ref(), 1).max(1),
        idle_timeout: limit(message.idle_timeout.as_ref(), Some(IDLE_TIMEOUT)),
        max_duration: limit(message.max_downstream_connection_duration.as_ref(), None),
        hash_source_ip: hash_source_ip(&message.hash_policy)?,
        access_logs: access_logs(&message.access_log)?,
        stats: names.stats.tcp(&message.stat_prefix),
    })
}

fn weighted(message: &WeightedCluster, names: &mut Names) -> Compiled<Vec<(Arc<Slot<Cluster>>, u64)>> {
    if message.clusters.iter().all(|one| one.weight == 0) {
        return Err(Refusal::new("a weight is required"));
    }
    let clusters = message.clusters.iter().enumerate();
    clusters
        .map(|(index, one)| {
            if one.metadata_match.is_some() {
                return Err(Refusal::not_implemented("metadata_match")).at_index("clusters", index);
            }
            Ok((names.clusters.of(&one.name), one.weight.into()))
        })
        .collect()
}

fn hash_source_ip(policies: &[HashPolicy]) -> Compiled<bool> {
    for (index, policy) in policies.iter().enumerate() {
        match policy.policy_specifier.as_ref() {
            Some(PolicySpecifier::SourceIp(_)) => {}
            Some(_) => return Err(Refusal::not_implemented("this policy")).at_index("hash_policy", index),
            None => return Err(Refusal::new("a policy is required")).at_index("hash_policy", index),
        }
    }
    Ok(!policies.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::pb::network_filter::tcp_proxy::tcp_proxy::weighted_cluster::ClusterWeight;
    use crate::xds::pb::types::hash_policy::{FilterState, SourceIp};

    fn shares(shares: &[(&str, u32)]) -> tcp_proxy::TcpProxy {
        let clusters = shares.iter().map(|(name, weight)| ClusterWeight {
            name: (*name).to_owned(),
            weight: *weight,
            metadata_match: None,
        });
        tcp_proxy::TcpProxy {
            stat_prefix: "x".to_owned(),
            cluster_specifier: Some(ClusterSpecifier::WeightedClusters(WeightedCluster {
                clusters: clusters.collect(),
            })),
            ..Default::default()
        }
    }

    fn compiled(message: &tcp_proxy::TcpProxy) -> Result<TcpProxy, String> {
        proxy(message, &mut Names::default()).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn each_cluster_has_its_share() {
        let proxy = compiled(&shares(&[("a", 1), ("never", 0), ("b", 3)])).unwrap();
        let row: Vec<_> = (0..5)
            .map(|place| proxy.at(place).map(|slot| slot.name().to_string()))
            .collect();
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(row, [name("a"), name("b"), name("b"), name("b"), None]);
    }

    #[test]
    fn weights_that_are_all_zero_are_refused() {
        assert_eq!(
            compiled(&shares(&[("a", 0)])).unwrap_err(),
            "weighted_clusters: a weight is required"
        );
    }

    #[test]
    fn only_the_clients_address_can_be_hashed() {
        let by = |policy| tcp_proxy::TcpProxy {
            hash_policy: vec![HashPolicy {
                policy_specifier: Some(policy),
            }],
            ..shares(&[("a", 1)])
        };
        assert!(
            compiled(&by(PolicySpecifier::SourceIp(SourceIp {})))
                .unwrap()
                .hash_source_ip
        );
        let error = compiled(&by(PolicySpecifier::FilterState(FilterState::default()))).unwrap_err();
        assert_eq!(error, "hash_policy[0]: this policy is not implemented");
    }
}
