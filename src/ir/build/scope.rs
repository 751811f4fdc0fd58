//! Visibility: what a proxy sees of the mesh according to `exportTo` and its Sidecar's egress
//! listeners.

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

/// The part of the mesh visible to one outbound view.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    /// The mesh.
    pub(super) mesh: &'a Mesh,
    /// The view.
    pub(super) view: &'a OutboundView,
    /// The effective Sidecar.
    pub(super) sidecar: Option<&'a Sidecar>,
    /// Services visible only as destinations of a VirtualService.
    pub(super) imports: &'a Imports,
}

/// A source of visible services: the equivalent of Istio's `IstioEgressListenerWrapper`.
#[derive(Clone, Copy)]
pub(super) enum Through<'a> {
    /// Everything exported, without a Sidecar.
    Everything,
    /// An egress listener of the Sidecar.
    Egress(&'a Egress),
}

impl<'a> Through<'a> {
    /// Whether it imports the service for a proxy in namespace `own`.
    fn admits(self, service: &Service, own: &Namespace) -> bool {
        self.egress().is_none_or(|egress| egress.admits(&service.key, own))
    }

    /// Whether it imports the VirtualService for a proxy in namespace `own`.
    fn takes(self, rule: &VirtualService, own: &Namespace) -> bool {
        self.egress().is_none_or(|egress| egress.takes(rule, own))
    }

    /// The egress listener, if there is a Sidecar.
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

    /// All egress listeners, or [`Through::Everything`].
    pub(super) fn ways(&self) -> impl Iterator<Item = Through<'a>> {
        let everything = self.egress().is_empty().then_some(Through::Everything);
        everything.into_iter().chain(self.egress().iter().map(Through::Egress))
    }

    /// Whether a Sidecar restricts visibility.
    pub(super) fn is_limited(&self) -> bool {
        !self.egress().is_empty()
    }

    /// The egress listener for ports that have none of their own.
    pub(super) fn catch_all(&self) -> Option<Through<'a>> {
        self.ways()
            .find(|way| way.egress().is_none_or(|egress| port_key(egress).is_none()))
    }

    /// The egress listener dedicated to this port or Unix domain socket.
    pub(super) fn dedicated(&self, key: &PortKey) -> Option<&'a Egress> {
        self.egress()
            .iter()
            .find(|egress| port_key(egress).as_ref() == Some(key))
    }

    /// Ports and sockets with a dedicated egress listener.
    pub(super) fn dedicated_keys(&self) -> impl Iterator<Item = PortKey> {
        self.egress().iter().filter_map(port_key)
    }

    /// Policy for destinations unknown to the mesh. Without interception the original destination
    /// is unknown, so `ALLOW_ANY` cannot be honoured (Envoy would respond 503 and log a warning per
    /// request), except through an egress proxy.
    pub(super) fn outbound_policy(&self) -> OutboundPolicy {
        let own = self.sidecar.and_then(|sidecar| sidecar.outbound_policy.as_ref());
        match own.unwrap_or(&self.mesh.config.outbound_policy) {
            OutboundPolicy::AllowAny if self.view.mode == InterceptionMode::None => OutboundPolicy::RegistryOnly,
            policy => policy.clone(),
        }
    }

    /// The service visible for `host` through any egress listener. Clusters exist for these.
    pub(super) fn service(&self, host: &Hostname) -> Option<&'a Arc<Service>> {
        self.best(host, |service| {
            self.ways().any(|way| way.admits(service, &self.view.namespace))
        })
        .or_else(|| self.imports.contains(host).then(|| self.best(host, |_| true))?)
    }

    /// The service visible for `host` through one egress listener. Listeners and routes exist for
    /// these.
    pub(super) fn service_through(&self, way: Through<'_>, host: &Hostname) -> Option<&'a Arc<Service>> {
        self.best(host, |service| way.admits(service, &self.view.namespace))
    }

    /// Among the visible services of a host: that of the proxy's namespace, else a Kubernetes
    /// Service, else the oldest.
    fn best(&self, host: &Hostname, accept: impl Fn(&Service) -> bool) -> Option<&'a Arc<Service>> {
        let namespace = &self.view.namespace;
        self.mesh
            .services_named(host)
            .filter(|(_, service)| service.export_to.covers(namespace) && accept(service))
            .min_by_key(|(rank, service)| (service.key.namespace != *namespace, !service.kubernetes, *rank))
            .map(|(_, service)| service)
    }

    /// Whether clusters exist for this port of a visible service.
    pub(super) fn reaches_port(&self, service: &Service, port: u16) -> bool {
        let mut ways = self.ways().filter(|way| way.admits(service, &self.view.namespace));
        ways.any(|way| match way {
            Through::Everything => true,
            Through::Egress(egress) => egress.any_port() || egress.port.as_ref().is_some_and(|own| own.number == port),
        }) || self.imports.contains(&service.key.host)
    }

    /// Services with this port visible through an egress listener, oldest first.
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

    /// All services visible through an egress listener. Iterates over the whole mesh; only for
    /// listeners that serve several ports.
    pub(super) fn all_services(&self, way: Through<'a>) -> impl Iterator<Item = &'a Arc<Service>> {
        let chosen = move |service: &&'a Arc<Service>| {
            self.service_through(way, &service.key.host)
                .is_some_and(|best| Arc::ptr_eq(best, service))
        };
        self.mesh.services().filter(chosen)
    }

    /// The VirtualService for a host: among visible ones with the most specific host, the oldest.
    pub(super) fn virtual_service(&self, way: Through<'_>, host: &Hostname) -> Option<&'a Arc<VirtualService>> {
        self.mesh
            .virtual_services_covering(host)
            .find(|rule| self.sees(rule) && way.takes(rule, &self.view.namespace))
    }

    /// Visible VirtualServices for exactly this host, oldest first.
    pub(super) fn virtual_services_naming(
        &self,
        way: Through<'a>,
        host: &Hostname,
    ) -> impl Iterator<Item = &'a Arc<VirtualService>> {
        let named = self.mesh.virtual_services_naming(host);
        named.filter(move |rule| self.sees(rule) && way.takes(rule, &self.view.namespace))
    }

    /// Whether the VirtualService is visible through any egress listener.
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

    /// The traffic policy for a subset of a service port.
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

/// The port with this number that is not UDP, since both may exist.
pub(super) fn stream_port(service: &Service, number: u16) -> Option<&ServicePort> {
    service
        .ports
        .iter()
        .find(|port| port.number == number && port.protocol != Protocol::Udp)
}
