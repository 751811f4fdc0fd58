//! Load balancing policy and slow start of a cluster.

use crate::ir::cluster::{Cluster, Discovery, LoadBalancer};
use crate::mesh::destination_rule::{HashTable, Warmup};
use crate::xds::encode::value::{duration, uint32};
use crate::xds::pb::cluster::cluster::common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig};
use crate::xds::pb::cluster::cluster::{
    CommonLbConfig, LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, OriginalDstLbConfig, RingHashLbConfig,
    RoundRobinLbConfig, SlowStartConfig,
};
use crate::xds::pb::core::RuntimeDouble;
use crate::xds::pb::types::Percent;
use crate::xds::pb::wkt::UInt64Value;

/// The policy and its options.
pub(super) fn load_balancer(cluster: &Cluster) -> (LbPolicy, Option<LbConfig>) {
    match cluster.load_balancer {
        LoadBalancer::LeastRequest => {
            let config = |warmup| LeastRequestLbConfig {
                slow_start_config: Some(slow_start(warmup)),
                ..Default::default()
            };
            let config = cluster.warmup.map(config);
            (LbPolicy::LeastRequest, config.map(LbConfig::LeastRequestLbConfig))
        }
        LoadBalancer::RoundRobin => {
            let config = |warmup| RoundRobinLbConfig {
                slow_start_config: Some(slow_start(warmup)),
            };
            let config = cluster.warmup.map(config);
            (LbPolicy::RoundRobin, config.map(LbConfig::RoundRobinLbConfig))
        }
        LoadBalancer::Random => (LbPolicy::Random, None),
        LoadBalancer::Hash(HashTable::Ring(size)) => {
            let config = RingHashLbConfig {
                minimum_ring_size: Some(UInt64Value { value: size }),
                ..Default::default()
            };
            (LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(config)))
        }
        LoadBalancer::Hash(HashTable::Maglev(size)) => {
            let config = MaglevLbConfig {
                table_size: Some(UInt64Value { value: size }),
            };
            (LbPolicy::Maglev, Some(LbConfig::MaglevLbConfig(config)))
        }
        LoadBalancer::ClusterProvided => (LbPolicy::ClusterProvided, port_override(&cluster.discovery)),
    }
}

fn slow_start(warmup: Warmup) -> SlowStartConfig {
    SlowStartConfig {
        slow_start_window: Some(duration(warmup.duration)),
        aggression: warmup.aggression.map(|aggression| RuntimeDouble {
            default_value: aggression,
            ..Default::default()
        }),
        min_weight_percent: warmup.minimum.map(|share| Percent {
            value: f64::from(share.per_million()) / 10_000.0,
        }),
    }
}

fn port_override(discovery: &Discovery) -> Option<LbConfig> {
    let Discovery::OriginalDst { port: Some(port), .. } = discovery else {
        return None;
    };
    Some(LbConfig::OriginalDstLbConfig(OriginalDstLbConfig {
        upstream_port_override: Some(uint32(*port)),
        ..Default::default()
    }))
}

/// Options common to all policies.
pub(super) fn common_lb(cluster: &Cluster) -> CommonLbConfig {
    let weighted = LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {});
    CommonLbConfig {
        healthy_panic_threshold: Some(Percent {
            value: cluster.panic_threshold.into(),
        }),
        locality_config_specifier: cluster.locality_weighted.then_some(weighted),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::xds::encode::cluster;
    use crate::xds::encode::testing::{cluster as plain, shown};

    #[test]
    fn load_balancers_have_their_options() {
        let hash = |table| {
            shown(&cluster(&Cluster {
                load_balancer: LoadBalancer::Hash(table),
                locality_weighted: true,
                panic_threshold: 10,
                ..plain("a")
            }))
        };
        let ring = hash(HashTable::Ring(1024));
        assert_eq!(ring["lb_policy"], "RING_HASH");
        assert_eq!(ring["ring_hash_lb_config"], json!({"minimum_ring_size": "1024"}));
        assert_eq!(
            ring["common_lb_config"],
            json!({"healthy_panic_threshold": {"value": 10.0}, "locality_weighted_lb_config": {}})
        );
        assert_eq!(
            hash(HashTable::Maglev(65537))["maglev_lb_config"],
            json!({"table_size": "65537"})
        );
    }

    #[test]
    fn warmup_configures_slow_start() {
        let warm = |load_balancer, minimum, aggression| {
            let warmup = Warmup {
                duration: Duration::from_secs(60),
                minimum,
                aggression,
            };
            shown(&cluster(&Cluster {
                load_balancer,
                warmup: Some(warmup),
                ..plain("a")
            }))
        };
        let least = warm(
            LoadBalancer::LeastRequest,
            crate::name::Percent::new(12.5).ok(),
            Some(1.5),
        );
        assert_eq!(
            least["least_request_lb_config"],
            json!({"slow_start_config": {
                "slow_start_window": "60s",
                "aggression": {"default_value": 1.5},
                "min_weight_percent": {"value": 12.5},
            }})
        );
        assert_eq!(
            warm(LoadBalancer::RoundRobin, None, None)["round_robin_lb_config"],
            json!({"slow_start_config": {"slow_start_window": "60s"}})
        );
        let random = warm(LoadBalancer::Random, None, None);
        assert_eq!(random["lb_policy"], "RANDOM");
        assert!(random.get("slow_start_config").is_none());
    }
}
