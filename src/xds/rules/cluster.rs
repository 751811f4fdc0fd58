//! Envoy's checks of clusters and endpoints beyond field constraints.

use prost::Message;

use super::{RuleBreak, breaks};
use crate::xds::pb::cluster::Cluster;
use crate::xds::pb::cluster::cluster::{ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy};
use crate::xds::pb::core::address::Address;
use crate::xds::pb::endpoint::lb_endpoint::HostIdentifier;
use crate::xds::pb::endpoint::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints};

/// Validates a cluster.
pub(super) fn check(bytes: &[u8]) -> Vec<RuleBreak> {
    let Ok(cluster) = Cluster::decode(bytes) else {
        return vec![breaks("", "cannot be read")];
    };
    let static_addresses = is_of(&cluster, DiscoveryType::Static);
    let mut broken = original_dst(&cluster);
    broken.extend(eds(&cluster));
    broken.extend(maglev(&cluster));
    if let Some(endpoints) = &cluster.load_assignment {
        broken.extend(assignment(endpoints, static_addresses, "load_assignment."));
    }
    broken
}

/// Validates an EDS resource.
pub(super) fn check_endpoints(bytes: &[u8]) -> Vec<RuleBreak> {
    match ClusterLoadAssignment::decode(bytes) {
        Ok(endpoints) => assignment(&endpoints, true, ""),
        Err(_) => vec![breaks("", "cannot be read")],
    }
}

fn is_of(cluster: &Cluster, wanted: DiscoveryType) -> bool {
    match &cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) => *kind == i32::from(wanted),
        Some(ClusterDiscoveryType::ClusterType(_)) => false,
        None => wanted == DiscoveryType::Static,
    }
}

fn eds(cluster: &Cluster) -> Option<RuleBreak> {
    let source = cluster
        .eds_cluster_config
        .as_ref()
        .and_then(|config| config.eds_config.as_ref());
    let missing = is_of(cluster, DiscoveryType::Eds) && source.is_none_or(|s| s.config_source_specifier.is_none());
    missing.then(|| {
        breaks(
            "eds_cluster_config.eds_config",
            "must specify where endpoints come from",
        )
    })
}

/// `ORIGINAL_DST` and `CLUSTER_PROVIDED` imply each other.
fn original_dst(cluster: &Cluster) -> Vec<RuleBreak> {
    let provided = cluster.lb_policy == i32::from(LbPolicy::ClusterProvided);
    if !is_of(cluster, DiscoveryType::OriginalDst) {
        let rule = "must not be CLUSTER_PROVIDED except for ORIGINAL_DST";
        let is_typed = !matches!(
            cluster.cluster_discovery_type,
            Some(ClusterDiscoveryType::ClusterType(_))
        );
        return (provided && is_typed)
            .then(|| breaks("lb_policy", rule))
            .into_iter()
            .collect();
    }
    let policy = (!provided).then(|| breaks("lb_policy", "must be CLUSTER_PROVIDED for ORIGINAL_DST"));
    let endpoints = cluster
        .load_assignment
        .is_some()
        .then(|| breaks("load_assignment", "must not be set for ORIGINAL_DST"));
    policy.into_iter().chain(endpoints).collect()
}

fn maglev(cluster: &Cluster) -> Option<RuleBreak> {
    let Some(LbConfig::MaglevLbConfig(config)) = &cluster.lb_config else {
        return None;
    };
    let size = config.table_size?.value;
    (!is_prime(size)).then(|| {
        breaks(
            "maglev_lb_config.table_size",
            format!("must be a prime number, not {size}"),
        )
    })
}

/// Primality test, for sizes up to Maglev's limit of 5,000,011.
fn is_prime(number: u64) -> bool {
    let divisors = (2..).take_while(|divisor| divisor * divisor <= number);
    number > 1 && !divisors.into_iter().any(|divisor| number.is_multiple_of(divisor))
}

fn assignment(endpoints: &ClusterLoadAssignment, addresses_only: bool, path: &str) -> Vec<RuleBreak> {
    let mut broken = Vec::new();
    for (index, group) in endpoints.endpoints.iter().enumerate() {
        let path = format!("{path}endpoints[{index}]");
        broken.extend(weights(group, &path));
        if addresses_only {
            let hosts = group.lb_endpoints.iter().enumerate();
            let names = hosts.filter_map(|(at, endpoint)| Some((at, host_name(endpoint)?)));
            broken.extend(names.map(|(at, name)| {
                let rule = format!("must be an IP address, not `{name}`");
                breaks(format!("{path}.lb_endpoints[{at}].endpoint.address"), rule)
            }));
        }
    }
    broken
}

/// The sum of weights in a locality must fit in 32 bits.
fn weights(group: &LocalityLbEndpoints, path: &str) -> Option<RuleBreak> {
    let weight = |endpoint: &LbEndpoint| {
        endpoint
            .load_balancing_weight
            .map_or(1, |weight| u64::from(weight.value))
    };
    let sum: u64 = group.lb_endpoints.iter().map(weight).sum();
    (sum > u64::from(u32::MAX)).then(|| {
        breaks(
            format!("{path}.lb_endpoints"),
            "must not have weights whose sum is 2^32 or more",
        )
    })
}

/// The address of an endpoint, if it is a host name.
fn host_name(endpoint: &LbEndpoint) -> Option<&str> {
    let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else {
        return None;
    };
    let Some(Address::SocketAddress(socket)) = &endpoint.address.as_ref()?.address else {
        return None;
    };
    let is_address = socket.address.parse::<std::net::IpAddr>().is_ok();
    (!is_address && socket.resolver_name.is_empty()).then_some(&socket.address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::pb::cluster::cluster::MaglevLbConfig;
    use crate::xds::pb::core::{self, SocketAddress};
    use crate::xds::pb::endpoint::Endpoint;
    use crate::xds::pb::wkt::{UInt32Value, UInt64Value};

    fn endpoints(hosts: &[(&str, u32)]) -> ClusterLoadAssignment {
        let endpoint = |(host, weight): &(&str, u32)| LbEndpoint {
            load_balancing_weight: Some(UInt32Value { value: *weight }),
            host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
                address: Some(core::Address {
                    address: Some(Address::SocketAddress(SocketAddress {
                        address: (*host).to_owned(),
                        ..Default::default()
                    })),
                }),
                ..Default::default()
            })),
            ..Default::default()
        };
        ClusterLoadAssignment {
            endpoints: vec![LocalityLbEndpoints {
                lb_endpoints: hosts.iter().map(endpoint).collect(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn texts(broken: &[RuleBreak]) -> Vec<String> {
        broken.iter().map(ToString::to_string).collect()
    }

    fn broken(kind: DiscoveryType, lb_policy: LbPolicy, load_assignment: Option<ClusterLoadAssignment>) -> Vec<String> {
        let cluster = Cluster {
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind.into())),
            lb_policy: lb_policy.into(),
            load_assignment,
            ..Default::default()
        };
        texts(&check(&cluster.encode_to_vec()))
    }

    #[test]
    fn host_names_need_a_dns_cluster() {
        let names = endpoints(&[("10.0.0.1", 1), ("example.com", 1)]);
        let rule = "must be an IP address, not `example.com`";
        assert_eq!(
            texts(&check_endpoints(&names.encode_to_vec())),
            [format!("`endpoints[0].lb_endpoints[1].endpoint.address` {rule}")]
        );
        let of = |kind| broken(kind, LbPolicy::RoundRobin, Some(names.clone()));
        assert_eq!(
            of(DiscoveryType::Static),
            [format!(
                "`load_assignment.endpoints[0].lb_endpoints[1].endpoint.address` {rule}"
            )]
        );
        assert!(of(DiscoveryType::StrictDns).is_empty());
    }

    #[test]
    fn weights_do_not_overflow() {
        let heavy = endpoints(&[("10.0.0.1", u32::MAX), ("10.0.0.2", 1)]);
        assert_eq!(check_endpoints(&heavy.encode_to_vec()).len(), 1);
    }

    #[test]
    fn original_dst_requires_cluster_provided() {
        let original = DiscoveryType::OriginalDst;
        assert!(broken(original, LbPolicy::ClusterProvided, None).is_empty());
        assert_eq!(broken(original, LbPolicy::RoundRobin, Some(endpoints(&[]))).len(), 2);
        assert_eq!(
            broken(DiscoveryType::StrictDns, LbPolicy::ClusterProvided, None).len(),
            1
        );
    }

    #[test]
    fn eds_has_a_source() {
        assert_eq!(
            broken(DiscoveryType::Eds, LbPolicy::RoundRobin, None),
            ["`eds_cluster_config.eds_config` must specify where endpoints come from"]
        );
    }

    #[test]
    fn maglev_tables_have_a_prime_size() {
        let cluster = |value| Cluster {
            lb_config: Some(LbConfig::MaglevLbConfig(MaglevLbConfig {
                table_size: Some(UInt64Value { value }),
            })),
            ..Default::default()
        };
        assert!(check(&cluster(65537).encode_to_vec()).is_empty());
        assert_eq!(check(&cluster(65536).encode_to_vec()).len(), 1);
    }
}
