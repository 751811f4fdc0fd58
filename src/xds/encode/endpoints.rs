//! Endpoints (EDS).

use std::collections::HashMap;

use super::value::{ip_address, pipe, socket_address, structure, text, uint32};
use crate::ir::cluster::{ClusterEndpoints, LbEndpoint, LocalityEndpoints};
use crate::mesh::service;
use crate::xds::pb::core::address::Address as AddressKind;
use crate::xds::pb::core::{Address, HealthStatus, Locality, Metadata};
use crate::xds::pb::endpoint::lb_endpoint::HostIdentifier;
use crate::xds::pb::endpoint::{self, ClusterLoadAssignment, Endpoint, LocalityLbEndpoints};
use crate::xds::resource::{Resource, ResourceType};

/// The EDS resource of a cluster, named like the cluster.
pub fn endpoints(endpoints: &ClusterEndpoints) -> Resource {
    super::seal(
        ResourceType::Endpoints,
        &endpoints.cluster,
        &message(endpoints),
        &endpoints.origins,
    )
}

/// Endpoints, as an EDS resource or inline in a cluster.
pub(super) fn message(endpoints: &ClusterEndpoints) -> ClusterLoadAssignment {
    ClusterLoadAssignment {
        cluster_name: endpoints.cluster.to_string(),
        endpoints: endpoints.localities.iter().map(locality).collect(),
        ..Default::default()
    }
}

fn locality(group: &LocalityEndpoints) -> LocalityLbEndpoints {
    let locality = Locality {
        region: group.locality.region.to_string(),
        zone: group.locality.zone.to_string(),
        sub_zone: group.locality.subzone.to_string(),
    };
    LocalityLbEndpoints {
        locality: Some(locality),
        priority: group.priority,
        load_balancing_weight: Some(uint32(group.weight)),
        lb_endpoints: group.endpoints.iter().map(lb_endpoint).collect(),
        ..Default::default()
    }
}

fn lb_endpoint(endpoint: &LbEndpoint) -> endpoint::LbEndpoint {
    let health = if endpoint.healthy {
        HealthStatus::Healthy
    } else {
        HealthStatus::Unhealthy
    };
    endpoint::LbEndpoint {
        health_status: health.into(),
        metadata: metadata(endpoint),
        load_balancing_weight: Some(uint32(endpoint.weight)),
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(address(endpoint)),
            ..Default::default()
        })),
    }
}

fn address(endpoint: &LbEndpoint) -> Address {
    match &endpoint.address {
        service::Address::Ip(ip) => ip_address(*ip, endpoint.port),
        service::Address::Name(name) => Address {
            address: Some(AddressKind::SocketAddress(socket_address(name, endpoint.port))),
        },
        service::Address::Unix(path) => pipe(path),
    }
}

/// Metadata for transport socket matches and Istio's tools.
fn metadata(endpoint: &LbEndpoint) -> Option<Metadata> {
    let tls_mode = endpoint.mutual_tls.then(|| {
        let fields = structure([("tlsMode", text("istio"))]);
        ("envoy.transport_socket_match".to_owned(), fields)
    });
    let workload = endpoint.workload.as_deref().map(|workload| {
        let fields = structure([("workload", text(workload))]);
        ("istio".to_owned(), fields)
    });
    let filter_metadata: HashMap<_, _> = tls_mode.into_iter().chain(workload).collect();
    (!filter_metadata.is_empty()).then(|| Metadata {
        filter_metadata,
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ir::Origins;
    use crate::xds::encode::testing::shown;

    fn endpoint(address: service::Address, port: u16) -> LbEndpoint {
        LbEndpoint {
            address,
            port,
            weight: 1,
            healthy: true,
            mutual_tls: false,
            workload: None,
        }
    }

    #[test]
    fn endpoints_have_locality_health_weight_and_istio_metadata() {
        let mutual = LbEndpoint {
            mutual_tls: true,
            workload: Some("reviews-v1;default;reviews;v1;".into()),
            weight: 3,
            ..endpoint(service::Address::Ip([10, 0, 0, 1].into()), 9080)
        };
        let sick = LbEndpoint {
            healthy: false,
            ..endpoint(service::Address::Unix("/run/app".into()), 0)
        };
        let resource = endpoints(&ClusterEndpoints {
            cluster: "outbound|9080||reviews".into(),
            localities: vec![LocalityEndpoints {
                locality: service::Locality {
                    region: "eu".into(),
                    zone: "eu-1".into(),
                    subzone: "".into(),
                },
                priority: 1,
                weight: 4,
                endpoints: vec![mutual, sick],
            }],
            origins: Origins::from([]),
        });
        assert_eq!(&*resource.name, "outbound|9080||reviews");
        assert_eq!(
            shown(&resource),
            json!({
                "cluster_name": "outbound|9080||reviews",
                "endpoints": [{
                    "locality": {"region": "eu", "zone": "eu-1"},
                    "lb_endpoints": [
                        {
                            "endpoint": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 9080}}},
                            "health_status": "HEALTHY",
                            "metadata": {"filter_metadata": {
                                "envoy.transport_socket_match": {"tlsMode": "istio"},
                                "istio": {"workload": "reviews-v1;default;reviews;v1;"},
                            }},
                            "load_balancing_weight": 3,
                        },
                        {
                            "endpoint": {"address": {"pipe": {"path": "/run/app"}}},
                            "health_status": "UNHEALTHY",
                            "load_balancing_weight": 1,
                        },
                    ],
                    "load_balancing_weight": 4,
                    "priority": 1,
                }],
            })
        );
    }

    #[test]
    fn an_empty_load_assignment_is_valid() {
        let resource = endpoints(&ClusterEndpoints {
            cluster: "a".into(),
            ..Default::default()
        });
        assert_eq!(shown(&resource), json!({"cluster_name": "a"}));
    }
}
