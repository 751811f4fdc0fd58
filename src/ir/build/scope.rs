//! What a proxy sees of the mesh: `exportTo`, and the egress listeners of its Sidecar.

use std::sync::Arc;

use super::import::Imports;
use super::port::PortKey;
use super::view::OutboundView;
use crate::ir::node::InterceptionMode;
use crate::mesh::Mesh;
use crate::mesh::config::OutboundPolicy;
use crate::mesh::destination_rule::{DestinationRule, TrafficPolicy};
use crate::mesh::service::{Protocol, Service, ServicePort};
use crate::mesh::sidecar::{Bind, Egress, Sidecar};
use crate::mesh::virtual_service::VirtualService;
use crate::name::{Hostname, Namespace};

/// The mesh through the eyes of one outbound view.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    /// The mesh.
    pub(super) mesh: &'a Mesh,
    /// Who looks.
    pub(super) view: &'a OutboundView,
    /// The Sidecar in force.
    pub(super) sidecar: Option<&'a Sidecar>,
    /// What is seen only because a VirtualService leads there.
    pub(super) imports: &'a Imports,
}

/// The way that listeners lead to services.
#[derive(Clone, Copy)]
pub(super) enum Through<'a> {
    /// No Sidecar limits it.
    Everything,
    /// An egress listener of the Sidecar.
    Egress(&'a Egress),
}

impl<'a> Through<'a> {
    /// Whether it leads a proxy of the namespace `own` to the service.
    fn admits(self, service: &Service, own: &Namespace) -> bool {
        self.egress().is_none_or(|egress| egress.admits(&service.key, own))
    }

    /// Whether it takes the VirtualService for a proxy of the namespace `own`.
    fn takes(self, rule: &VirtualService, own: &Namespace) -> bool {
        self.egress().is_none_or(|egress| egress.takes(rule, own))
    }

    /// The egress listener, if the Sidecar has one.
    pub(super) fn egress(self) -> Option<&'a Egress> {
        match self {
            Through::Everything => None,
            Through::Egress(egress) => Some(egress),
        }
    }
}

impl<'a> Scope<'a> {
    fn egress(&self) -> &'a [Egress] {
        self.sidecar.map_or(&[], |sidecar| sidecar.egress.as_slice())
    }

    /// Every way to services.
    pub(super) fn ways(&self) -> impl Iterator<Item = Through<'a>> {
        let everything = self.egress().is_empty().then_some(Through::Everything);
        everything.into_iter().chain(self.egress().iter().map(Through::Egress))
    }

    /// Whether a Sidecar limits what is seen.
    pub(super) fn is_limited(&self) -> bool {
        !self.egress().is_empty()
    }

    /// The way for ports without an egress listener of their own.
    pub(super) fn catch_all(&self) -> Option<Through<'a>> {
        self.ways()
            .find(|way| way.egress().is_none_or(|egress| port_key(egress).is_none()))
    }

    /// The egress listener for this port or Unix socket alone.
    pub(super) fn dedicated(&self, key: &PortKey) -> Option<&'a Egress> {
        self.egress()
            .iter()
            .find(|egress| port_key(egress).as_ref() == Some(key))
    }

    /// Ports and sockets that the Sidecar has egress listeners for.
    pub(super) fn dedicated_keys(&self) -> impl Iterator<Item = PortKey> {
        self.egress().iter().filter_map(port_key)
    }

    /// What happens to traffic that no service claims. Without interception nobody knows where it was going, so
    /// that it cannot be let through (Envoy would answer 503 and log a warning for each request), but an egress proxy
    /// may know.
    pub(super) fn outbound_policy(&self) -> OutboundPolicy {
        let own = self.sidecar.and_then(|sidecar| sidecar.outbound_policy.as_ref());
        match own.unwrap_or(&self.mesh.config.outbound_policy) {
            OutboundPolicy::AllowAny if self.view.mode == InterceptionMode::None => OutboundPolicy::RegistryOnly,
            policy => policy.clone(),
        }
    }

    /// The service that calls for `host` reach, whichever way. Clusters exist for these.
    pub(super) fn service(&self, host: &Hostname) -> Option<&'a Arc<Service>> {
        self.best(host, |service| {
            self.ways().any(|way| way.admits(service, &self.view.namespace))
        })
        .or_else(|| self.imports.contains(host).then(|| self.best(host, |_| true))?)
    }

    /// The service that one way leads to for `host`. Listeners and routes exist for these.
    pub(super) fn service_through(&self, way: Through<'_>, host: &Hostname) -> Option<&'a Arc<Service>> {
        self.best(host, |service| way.admits(service, &self.view.namespace))
    }

    /// Of the services of this host that the proxy sees: its namespace's, else a Kubernetes Service, else the
    /// oldest.
    fn best(&self, host: &Hostname, accept: impl Fn(&Service) -> bool) -> Option<&'a Arc<Service>> {
        let namespace = &self.view.namespace;
        self.mesh
            .services_named(host)
            .filter(|(_, service)| service.export_to.covers(namespace) && accept(service))
            .min_by_key(|(rank, service)| (service.key.namespace != *namespace, !service.kubernetes, *rank))
            .map(|(_, service)| service)
    }

    /// Whether clusters exist for this port of a service that the proxy sees.
    pub(super) fn reaches_port(&self, service: &Service, port: u16) -> bool {
        let mut ways = self.ways().filter(|way| way.admits(service, &self.view.namespace));
        ways.any(|way| match way {
            Through::Everything => true,
            Through::Egress(egress) => egress.any_port() || egress.port.as_ref().is_some_and(|own| own.number == port),
        }) || self.imports.contains(&service.key.host)
    }

    /// Services with this port that a way leads to, oldest first.
    pub(super) fn services_on_port(&self, way: Through<'_>, port: u16) -> Vec<(&'a Arc<Service>, &'a ServicePort)> {
        let services = self.mesh.services_on_port(port).into_iter();
        let reached = services.filter(|service| {
            self.service_through(way, &service.key.host)
                .is_some_and(|best| Arc::ptr_eq(best, service))
        });
        reached
            .filter_map(|service| Some((service, stream_port(service, port)?)))
            .collect()
    }

    /// Every service that a way leads to. A pass over the mesh: for listeners that are not of one port.
    pub(super) fn all_services(&self, way: Through<'a>) -> impl Iterator<Item = &'a Arc<Service>> {
        let chosen = move |service: &&'a Arc<Service>| {
            self.service_through(way, &service.key.host)
                .is_some_and(|best| Arc::ptr_eq(best, service))
        };
        self.mesh.services().filter(chosen)
    }

    /// The VirtualService for a host: of those taken for the most specific host, the oldest.
    pub(super) fn virtual_service(&self, way: Through<'_>, host: &Hostname) -> Option<&'a Arc<VirtualService>> {
        self.mesh
            .virtual_services_covering(host)
            .find(|rule| self.sees(rule) && way.takes(rule, &self.view.namespace))
    }

    /// VirtualServices taken that name exactly this host, oldest first.
    pub(super) fn virtual_services_naming(
        &self,
        way: Through<'a>,
        host: &Hostname,
    ) -> impl Iterator<Item = &'a Arc<VirtualService>> {
        let named = self.mesh.virtual_services_naming(host);
        named.filter(move |rule| self.sees(rule) && way.takes(rule, &self.view.namespace))
    }

    /// Whether the VirtualService is taken, whichever way.
    pub(super) fn takes(&self, rule: &VirtualService) -> bool {
        self.sees(rule) && self.ways().any(|way| way.takes(rule, &self.view.namespace))
    }

    fn sees(&self, rule: &VirtualService) -> bool {
        rule.export_to.covers(&self.view.namespace)
    }

    /// The DestinationRule for a service.
    pub(super) fn destination_rule(&self, service: &Service) -> Option<Arc<DestinationRule>> {
        self.mesh.destination_rule(&service.key, &self.view.namespace)
    }

    /// The policy for calls to a subset of a service's port.
    pub(super) fn policy(&self, service: &Service, port: u16, subset: Option<&str>) -> TrafficPolicy {
        let Some(rule) = self.destination_rule(service) else {
            return TrafficPolicy::default();
        };
        let subset = subset.and_then(|name| rule.subsets.iter().find(|subset| *subset.name == *name));
        rule.effective(port, subset)
    }
}

fn port_key(egress: &Egress) -> Option<PortKey> {
    if let Some(Bind::Unix(path)) = &egress.bind {
        return Some(PortKey::Unix(path.clone()));
    }
    egress.port.as_ref().map(|port| PortKey::Port(port.number))
}

/// The port with this number that is not UDP: a number may stand for both.
pub(super) fn stream_port(service: &Service, number: u16) -> Option<&ServicePort> {
    service
        .ports
        .iter()
        .find(|port| port.number == number && port.protocol != Protocol::Udp)
}
