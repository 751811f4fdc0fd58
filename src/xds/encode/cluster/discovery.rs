//! Endpoint discovery of a cluster.

use std::time::Duration;

use crate::ir::cluster::{Cluster, ClusterEndpoints, Discovery, Lookup};
use crate::xds::encode::endpoints;
use crate::xds::encode::value::{ads, any, duration, uint32};
use crate::xds::pb::cares::CaresDnsResolverConfig;
use crate::xds::pb::cluster;
use crate::xds::pb::cluster::cluster::{ClusterDiscoveryType, CustomClusterType, DiscoveryType, EdsClusterConfig};
use crate::xds::pb::core::TypedExtensionConfig;
use crate::xds::pb::dns_cluster::DnsCluster;
use crate::xds::pb::dns_lookup::DnsLookupFamily;
use crate::xds::pb::endpoint::ClusterLoadAssignment;

/// The longest cleanup interval Envoy accepts: hosts of inbound clusters are effectively never
/// removed.
const NEVER: Duration = Duration::from_secs(9_223_372_035);

/// Spreads the queries of proxies started together, as in Istio.
const LOOKUP_JITTER: Duration = Duration::from_millis(100);

/// Number of queries after which a new socket is used, as in Istio.
const QUERIES_PER_SOCKET: u32 = 100;

/// A cluster with its discovery fields set.
pub(super) fn discovery(cluster: &Cluster) -> cluster::Cluster {
    match &cluster.discovery {
        Discovery::Eds => cluster::Cluster {
            eds_cluster_config: Some(EdsClusterConfig {
                eds_config: Some(ads()),
                service_name: cluster.name.to_string(),
            }),
            ..of_type(DiscoveryType::Eds)
        },
        Discovery::Static(endpoints) => with_endpoints(cluster, endpoints, of_type(DiscoveryType::Static)),
        Discovery::StrictDns(endpoints, lookup) => with_endpoints(cluster, endpoints, dns(lookup, false)),
        Discovery::LogicalDns(endpoints, lookup) => with_endpoints(cluster, endpoints, dns(lookup, true)),
        Discovery::OriginalDst { inbound: false, .. } => of_type(DiscoveryType::OriginalDst),
        Discovery::OriginalDst { inbound: true, .. } => cluster::Cluster {
            cleanup_interval: Some(duration(NEVER)),
            ..of_type(DiscoveryType::OriginalDst)
        },
    }
}

fn of_type(kind: DiscoveryType) -> cluster::Cluster {
    cluster::Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind.into())),
        ..Default::default()
    }
}

/// Uses the DNS cluster extension, since the DNS fields of `Cluster` are deprecated.
fn dns(lookup: &Lookup, one_address: bool) -> cluster::Cluster {
    let family = match lookup.ipv6 {
        // IPv6, or IPv4 if there is none.
        true => DnsLookupFamily::Auto,
        false => DnsLookupFamily::V4Preferred,
    };
    let options = DnsCluster {
        dns_refresh_rate: Some(duration(lookup.refresh)),
        respect_dns_ttl: true,
        dns_jitter: Some(duration(LOOKUP_JITTER)),
        dns_lookup_family: family.into(),
        typed_dns_resolver_config: Some(resolver()),
        all_addresses_in_single_endpoint: one_address,
        ..Default::default()
    };
    cluster::Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
            name: "envoy.cluster.dns".to_owned(),
            typed_config: Some(any(&options)),
        })),
        ..Default::default()
    }
}

/// The c-ares resolver with periodically renewed sockets: a socket whose server disappeared would
/// never get a response.
fn resolver() -> TypedExtensionConfig {
    let options = CaresDnsResolverConfig {
        udp_max_queries: Some(uint32(QUERIES_PER_SOCKET)),
        ..Default::default()
    };
    TypedExtensionConfig {
        name: "envoy.network.dns_resolver.cares".to_owned(),
        typed_config: Some(any(&options)),
    }
}

fn with_endpoints(cluster: &Cluster, endpoints: &ClusterEndpoints, message: cluster::Cluster) -> cluster::Cluster {
    cluster::Cluster {
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: cluster.name.to_string(),
            ..endpoints::message(endpoints)
        }),
        ..message
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::ir::cluster::{LbEndpoint, LocalityEndpoints};
    use crate::mesh::service::{Address, Locality};
    use crate::xds::encode::cluster;
    use crate::xds::encode::testing::{cluster as plain, shown};
    use crate::xds::resource::Warming;

    fn example_com() -> Arc<ClusterEndpoints> {
        Arc::new(ClusterEndpoints {
            localities: vec![LocalityEndpoints {
                locality: Locality::default(),
                priority: 0,
                weight: 1,
                endpoints: vec![LbEndpoint {
                    address: Address::Name("example.com".into()),
                    port: 443,
                    weight: 1,
                    healthy: true,
                    mutual_tls: false,
                    workload: None,
                }],
            }],
            ..Default::default()
        })
    }

    #[test]
    fn dns_clusters_use_the_extension() {
        let of = |discovery| {
            cluster(&Cluster {
                discovery,
                ..plain("a")
            })
        };
        let lookup = |ipv6| Lookup {
            refresh: Duration::from_secs(60),
            ipv6,
        };
        let strict = of(Discovery::StrictDns(example_com(), lookup(false)));
        assert_eq!(strict.warming, Warming::Dns);
        let strict = shown(&strict);
        assert_eq!(
            strict["cluster_type"],
            json!({"name": "envoy.cluster.dns", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
                "dns_refresh_rate": "60s",
                "respect_dns_ttl": true,
                "dns_jitter": "0.100s",
                "typed_dns_resolver_config": {"name": "envoy.network.dns_resolver.cares", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                    "udp_max_queries": 100,
                }},
                "dns_lookup_family": "V4_PREFERRED",
            }})
        );
        assert_eq!(strict["load_assignment"]["cluster_name"], "a");
        let logical = shown(&of(Discovery::LogicalDns(example_com(), lookup(true))));
        let options = &logical["cluster_type"]["typed_config"];
        assert_eq!(options["all_addresses_in_single_endpoint"], true);
        assert_eq!(options["dns_lookup_family"], "AUTO");
    }
}
