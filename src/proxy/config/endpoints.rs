//! Compiling endpoints (`ClusterLoadAssignment`).

use std::sync::Arc;

use super::cluster::transport_labels;
use super::value::{host_address, number, port_number, target};
use super::{At, Compiled, Refusal, all, same_name};
use crate::proxy::upstream::health_check::CheckTarget;
use crate::proxy::upstream::host::{EdsHealth, Endpoint, Endpoints, Locality, LocalityEndpoints};
use crate::xds::ResourceType;
use crate::xds::pb::core::HealthStatus;
use crate::xds::pb::endpoint::endpoint::HealthCheckConfig;
use crate::xds::pb::endpoint::{self, ClusterLoadAssignment};

/// Envoy's default.
const OVERPROVISIONING: u32 = 140;

/// Compiles the resource `name`.
pub(crate) fn resource(name: &str, bytes: &[u8]) -> Compiled<Endpoints> {
    let message: ClusterLoadAssignment = super::read(ResourceType::Endpoints, bytes)?;
    same_name(name, &message.cluster_name).at("cluster_name")?;
    endpoints(&message)
}

/// Compiles a `ClusterLoadAssignment`.
pub(super) fn endpoints(message: &ClusterLoadAssignment) -> Compiled<Endpoints> {
    let policy = message.policy.as_ref();
    let factor = policy.and_then(|policy| policy.overprovisioning_factor.as_ref());
    let localities = message.endpoints.iter().enumerate();
    Ok(Endpoints {
        localities: all(localities.map(|(index, group)| locality(group).at_index("endpoints", index)))?,
        overprovisioning: number(factor, OVERPROVISIONING),
    })
}

fn locality(message: &endpoint::LocalityLbEndpoints) -> Compiled<LocalityEndpoints> {
    let locality = message.locality.as_ref().map(|locality| Locality {
        region: locality.region.clone(),
        zone: locality.zone.clone(),
        sub_zone: locality.sub_zone.clone(),
    });
    let endpoints = message.lb_endpoints.iter().enumerate();
    Ok(LocalityEndpoints {
        locality: Arc::new(locality.unwrap_or_default()),
        priority: message.priority,
        weight: number(message.load_balancing_weight.as_ref(), 0),
        endpoints: all(endpoints.map(|(index, endpoint)| self::endpoint(endpoint).at_index("lb_endpoints", index)))?,
    })
}

fn endpoint(message: &endpoint::LbEndpoint) -> Compiled<Endpoint> {
    let endpoint = match message.host_identifier.as_ref() {
        Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint)) => endpoint,
        Some(endpoint::lb_endpoint::HostIdentifier::EndpointName(_)) => {
            return Err(Refusal::not_implemented("endpoint_name"));
        }
        None => return Err(Refusal::new("an endpoint is required")),
    };
    let health = match message.health_status() {
        HealthStatus::Unknown | HealthStatus::Healthy => EdsHealth::Healthy,
        HealthStatus::Degraded => EdsHealth::Degraded,
        HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout => EdsHealth::Unhealthy,
    };
    Ok(Endpoint {
        target: target(endpoint.address.as_ref()).at("endpoint.address")?,
        hostname: (!endpoint.hostname.is_empty()).then(|| endpoint.hostname.as_str().into()),
        weight: number(message.load_balancing_weight.as_ref(), 1).max(1),
        health,
        transport_labels: transport_labels(message.metadata.as_ref()),
        check: endpoint
            .health_check_config
            .as_ref()
            .map(check)
            .transpose()
            .at("endpoint.health_check_config")?,
    })
}

fn check(message: &HealthCheckConfig) -> Compiled<Arc<CheckTarget>> {
    let address = message.address.as_ref();
    Ok(Arc::new(CheckTarget {
        address: address
            .map(|address| host_address(Some(address)))
            .transpose()
            .at("address")?,
        port: Some(port_number(message.port_value).at("port_value")?).filter(|port| *port != 0),
        hostname: (!message.hostname.is_empty()).then(|| message.hostname.as_str().into()),
        disabled: message.disable_active_health_check,
    }))
}
