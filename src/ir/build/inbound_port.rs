//! Inbound ports of a workload: those of its services, or those listed by its Sidecar.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::cluster::{limits, upstream_http};
use super::fixed;
use super::naming;
use super::scope::stream_port;
use crate::ir::cluster::{
    Cluster, ClusterEndpoints, ClusterMetadata, Discovery, HttpVersion, LbEndpoint, LoadBalancer, LocalityEndpoints,
};
use crate::ir::node::InterceptionMode;
use crate::ir::{NodeView, Origins};
use crate::mesh::Mesh;
use crate::mesh::config::InboundPolicy;
use crate::mesh::destination_rule::{ConnectionPool, DestinationRule};
use crate::mesh::service::{Address, Locality, Protocol, Service};
use crate::mesh::sidecar::{DefaultEndpoint, Ingress, Sidecar};

/// An inbound port of the workload.
pub(super) struct InboundPort<'a> {
    /// The port number.
    pub(super) number: u16,
    /// The protocol.
    pub(super) protocol: Protocol,
    /// The service and its port number.
    pub(super) service: Option<(&'a Arc<Service>, u16)>,
    /// Bind address, for a listener of its own.
    pub(super) bind: Option<IpAddr>,
    /// Where the application listens.
    endpoint: Option<DefaultEndpoint>,
    /// Connection limits.
    pool: Option<ConnectionPool>,
    /// The service's DestinationRule, if it has a policy.
    rule: Option<Arc<DestinationRule>>,
    /// The Sidecar that lists it.
    sidecar: Option<&'a Sidecar>,
}

/// The inbound ports of a node. The ingress listeners of a Sidecar replace the ports of services;
/// without interception there are no others. If two services share a port, the older one determines
/// its protocol.
pub(super) fn inbound_ports<'a>(mesh: &'a Mesh, node: &NodeView, sidecar: Option<&'a Sidecar>) -> Vec<InboundPort<'a>> {
    let served = served(mesh, node);
    if let Some(sidecar) = sidecar.filter(|sidecar| !sidecar.ingress.is_empty()) {
        let ports = sidecar.ingress.iter();
        return ports
            .map(|ingress| of_ingress(mesh, node, sidecar, ingress, &served))
            .collect();
    }
    if node.mode == InterceptionMode::None {
        return Vec::new();
    }
    let ports = served.into_iter();
    ports
        .map(|(number, (service, port))| {
            let rule = rule(mesh, node, service);
            InboundPort {
                number,
                protocol: stream_port(service, port).map_or(Protocol::Auto, |port| port.protocol),
                service: Some((service, port)),
                bind: None,
                endpoint: None,
                pool: pool(sidecar, rule.as_deref(), port),
                rule,
                sidecar: None,
            }
        })
        .collect()
}

/// The service and its port number by workload port.
type Served<'a> = BTreeMap<u16, (&'a Arc<Service>, u16)>;

fn served<'a>(mesh: &'a Mesh, node: &NodeView) -> Served<'a> {
    let mut served = Served::new();
    for address in &node.addresses {
        for service in mesh.services_at_address(*address) {
            let here = service
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.address == Address::Ip(*address));
            for (number, target) in here.flat_map(|endpoint| &endpoint.ports) {
                if stream_port(service, *number).is_some() {
                    served.entry(*target).or_insert((service, *number));
                }
            }
        }
    }
    served
}

fn of_ingress<'a>(
    mesh: &Mesh,
    node: &NodeView,
    sidecar: &'a Sidecar,
    ingress: &Ingress,
    served: &Served<'a>,
) -> InboundPort<'a> {
    let service = served.get(&ingress.port.number).copied();
    let bound = ingress.bound || node.mode == InterceptionMode::None;
    let own = || node.addresses.first().copied();
    let rule = service.and_then(|(service, _)| rule(mesh, node, service));
    let port = service.map_or(ingress.port.number, |(_, port)| port);
    InboundPort {
        number: ingress.port.number,
        protocol: ingress.port.protocol,
        service,
        bind: if bound { ingress.bind.or_else(own) } else { None },
        endpoint: Some(ingress.default_endpoint.clone()),
        pool: ingress
            .connection_pool
            .clone()
            .or_else(|| pool(Some(sidecar), rule.as_deref(), port)),
        rule,
        sidecar: Some(sidecar),
    }
}

/// The DestinationRule of a service that the node backs, if it has a policy.
fn rule(mesh: &Mesh, node: &NodeView, service: &Service) -> Option<Arc<DestinationRule>> {
    let rule = mesh.destination_rule(&service.key, &node.namespace);
    rule.filter(|rule| rule.policy != Default::default())
}

/// Connection limits of the Sidecar, else of the service's DestinationRule.
fn pool(sidecar: Option<&Sidecar>, rule: Option<&DestinationRule>, port: u16) -> Option<ConnectionPool> {
    let own = sidecar.and_then(|sidecar| sidecar.inbound_connection_pool.clone());
    own.or_else(|| rule?.effective(port, None).connection_pool)
}

impl InboundPort<'_> {
    /// The service port number; 0 if there is none.
    pub(super) fn service_port(&self) -> u16 {
        self.service.map_or(self.number, |(_, port)| port)
    }

    /// The service's host, or for a Sidecar port the one that Istio derives.
    pub(super) fn host(&self) -> Arc<str> {
        match (self.service, self.sidecar) {
            (Some((service, _)), _) => service.key.host.as_str().into(),
            (None, Some(sidecar)) => format!("{}.{}", sidecar.id.name, sidecar.id.namespace).into(),
            (None, None) => "".into(),
        }
    }

    /// The objects it is built from.
    pub(super) fn origins(&self) -> Origins {
        let sidecar = self.sidecar.map(|sidecar| sidecar.id.clone());
        let service = self
            .service
            .into_iter()
            .flat_map(|(service, _)| service.origins.iter().cloned());
        let rule = self.rule.iter().map(|rule| rule.id.clone());
        sidecar.into_iter().chain(service).chain(rule).collect()
    }

    /// The cluster for connections to the application.
    pub(super) fn cluster(&self, mesh: &Mesh, node: &NodeView) -> Cluster {
        let name = naming::inbound_cluster(self.number);
        let discovery = match self.application(mesh, node) {
            Some((address, port)) => Discovery::Static(Arc::new(only(name.clone(), address, port))),
            None => Discovery::OriginalDst {
                port: None,
                inbound: true,
            },
        };
        let marked_source = match &discovery {
            Discovery::OriginalDst { .. } => true,
            // Connections of a proxy to its own non-loopback address are intercepted.
            _ => node.mode != InterceptionMode::None && matches!(self.endpoint, Some(DefaultEndpoint::Instance(_))),
        };
        let pool = self.pool.as_ref();
        let config = &mesh.config;
        Cluster {
            load_balancer: match discovery {
                Discovery::OriginalDst { .. } => LoadBalancer::ClusterProvided,
                Discovery::Eds | Discovery::Static(_) | Discovery::StrictDns(..) | Discovery::LogicalDns(..) => {
                    LoadBalancer::LeastRequest
                }
            },
            discovery,
            limits: limits(pool),
            http: upstream_http(self.version(), pool),
            tcp_keepalive: pool.and_then(|pool| pool.tcp_keepalive).or(config.tcp_keepalive),
            marked_source,
            metadata: self.metadata(),
            origins: self.origins(),
            ..fixed::plain(
                name,
                pool.and_then(|pool| pool.connect_timeout)
                    .unwrap_or(config.connect_timeout),
            )
        }
    }

    /// HTTP version of the application; an upgrade applies between proxies only.
    fn version(&self) -> HttpVersion {
        let follows = self.pool.as_ref().is_some_and(|pool| pool.use_client_protocol);
        match self.protocol {
            Protocol::Auto => HttpVersion::Downstream,
            _ if follows => HttpVersion::Downstream,
            protocol if protocol.is_http2() => HttpVersion::Http2,
            _ => HttpVersion::Http1,
        }
    }

    /// Address of the application; `None` for the original destination.
    fn application(&self, mesh: &Mesh, node: &NodeView) -> Option<(Address, u16)> {
        let local = |port| (Address::Ip([127, 0, 0, 1].into()), port);
        match self.endpoint.as_ref().unwrap_or(&DefaultEndpoint::Original) {
            DefaultEndpoint::Loopback(socket) => Some(at(socket)),
            DefaultEndpoint::Instance(port) => Some((Address::Ip(*node.addresses.first()?), *port)),
            DefaultEndpoint::Unix(path) => Some((Address::Unix(path.clone()), 0)),
            DefaultEndpoint::Original => match self.bind {
                // Clients of a bound listener address the listener itself, so the original
                // destination is of no use.
                Some(ip) => (!ip.is_unspecified() && ip != IpAddr::from([127, 0, 0, 1])).then(|| local(self.number)),
                None => (mesh.config.inbound_policy == InboundPolicy::Localhost).then(|| local(self.number)),
            },
        }
    }

    fn metadata(&self) -> ClusterMetadata {
        let service = self.service.map(|(service, _)| {
            let key = &service.key;
            (key.host.clone(), service.name.clone(), key.namespace.clone())
        });
        let rule = self.rule.as_ref();
        ClusterMetadata {
            config: rule.map(|rule| (rule.id.clone(), rule.api_version.clone())),
            services: service.into_iter().collect(),
            ..ClusterMetadata::default()
        }
    }
}

fn at(socket: &SocketAddr) -> (Address, u16) {
    (Address::Ip(socket.ip()), socket.port())
}

/// A single endpoint without locality.
fn only(cluster: crate::ir::ResourceName, address: Address, port: u16) -> ClusterEndpoints {
    let endpoint = LbEndpoint {
        address,
        port,
        weight: 1,
        healthy: true,
        mutual_tls: false,
        workload: None,
    };
    ClusterEndpoints {
        cluster,
        localities: vec![LocalityEndpoints {
            locality: Locality::default(),
            priority: 0,
            weight: 1,
            endpoints: vec![endpoint],
        }],
        origins: Origins::default(),
    }
}
