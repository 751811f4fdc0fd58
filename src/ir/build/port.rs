//! Outbound listeners and route configurations of one port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdSet;
use ipnet::IpNet;

use super::Conflict;
use super::chain::{self, HttpPart, Place};
use super::naming;
use super::routing::Routing;
use super::scope::{Scope, Through};
use super::slot::{Finish, ListenerSocket, Slots};
use super::virtual_host::{self, Content, Exposed, Virtual};
use crate::ir::listener::{ListenAddress, Listener};
use crate::ir::node::InterceptionMode;
use crate::ir::{ResourceName, RouteConfig};
use crate::mesh::service::{Address, Protocol, Resolution, Service};
use crate::mesh::sidecar::Bind;
use crate::mesh::virtual_service::VirtualService;
use crate::name::Hostname;

/// Key of the units of listeners and routes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PortKey {
    /// A service port.
    Port(u16),
    /// A Unix domain socket of the Sidecar.
    Unix(Arc<str>),
}

/// The listeners and route configurations of one port.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PortUnit {
    /// Listeners by name.
    pub(super) listeners: BTreeMap<ResourceName, Arc<Listener>>,
    /// Route configurations by name.
    pub(super) routes: BTreeMap<ResourceName, Arc<RouteConfig>>,
    /// Hosts it depends on, besides those of the services with this port.
    pub(super) reads: BTreeSet<Hostname>,
    /// Services that lost an address conflict.
    pub(super) conflicts: Vec<Conflict>,
}

impl PortUnit {
    /// Replaces values by equal ones of the previous unit.
    pub(super) fn keeping(mut self, old: &PortUnit) -> Self {
        super::keep_equal(&mut self.listeners, &old.listeners);
        super::keep_equal(&mut self.routes, &old.routes);
        for (name, config) in &mut self.routes {
            if let Some(old) = old.routes.get(name).filter(|old| !Arc::ptr_eq(old, config)) {
                virtual_host::keep_equal(Arc::make_mut(config), old);
            }
        }
        self
    }
}

/// Builds the listeners and route configurations of a port. `orphans` are hosts with a
/// VirtualService but no service.
pub(super) fn port_unit(scope: Scope<'_>, orphans: &OrdSet<Hostname>, key: &PortKey) -> PortUnit {
    let mut builder = PortBuilder {
        routing: Routing::new(scope),
        orphans,
        slots: Slots::default(),
        contents: BTreeMap::new(),
        sniffed: BTreeMap::new(),
    };
    if let Some(egress) = scope.dedicated(key) {
        let way = Through::Egress(egress);
        match (key, egress.any_port()) {
            (PortKey::Port(port), false) => builder.add_port(way, *port),
            (PortKey::Port(_) | PortKey::Unix(_), _) => builder.add_all(way, key),
        }
        builder.slots.lock();
    }
    if let (Some(way), PortKey::Port(port)) = (scope.catch_all(), key) {
        builder.add_port(way, *port);
    }
    builder.finish()
}

/// How the listeners of an egress listener bind.
struct Binding {
    /// Bind address; `None` for the services' own addresses.
    at: Option<Bind>,
    /// Whether they bind sockets.
    bound: bool,
}

impl Binding {
    /// Without interception every listener binds; one without a bind address listens on loopback.
    fn of(scope: &Scope<'_>, way: Through<'_>) -> Self {
        let egress = way.egress();
        let bind = egress.and_then(|egress| egress.bind.clone());
        let bound = scope.view.mode == InterceptionMode::None
            || egress.is_some_and(|egress| egress.bound)
            || matches!(bind, Some(Bind::Unix(_)));
        Self {
            at: bind.or_else(|| bound.then(|| Bind::Ip(scope.view.loopback()))),
            bound,
        }
    }

    /// Address of the listener shared by all services.
    fn socket(&self, scope: &Scope<'_>, port: u16) -> ListenerSocket {
        ListenerSocket {
            address: match &self.at {
                Some(Bind::Unix(path)) => ListenAddress::Unix(path.clone()),
                Some(Bind::Ip(ip)) => ListenAddress::Ip(*ip, port),
                None => ListenAddress::Ip(scope.view.wildcard(), port),
            },
            bound: self.bound,
        }
    }
}

/// Builder of a [`PortUnit`].
struct PortBuilder<'a> {
    routing: Routing<'a>,
    orphans: &'a OrdSet<Hostname>,
    slots: Slots,
    /// Inputs of shared route configurations.
    contents: BTreeMap<ResourceName, Content<'a>>,
    /// Services with a route configuration of their own.
    sniffed: BTreeMap<ResourceName, Exposed<'a>>,
}

impl<'a> PortBuilder<'a> {
    fn scope(&self) -> Scope<'a> {
        self.routing.scope
    }

    /// Adds the services with this port.
    fn add_port(&mut self, way: Through<'a>, port: u16) {
        let services = self.scope().services_on_port(way, port);
        let protocol = way.egress().and_then(|egress| Some(egress.port.as_ref()?.protocol));
        let exposed: Vec<Exposed<'a>> = services
            .into_iter()
            .map(|(service, port)| Exposed {
                service,
                port,
                protocol: protocol.unwrap_or(port.protocol),
                rule: self.scope().virtual_service(way, &service.key.host),
            })
            .collect();
        let binding = Binding::of(&self.scope(), way);
        let name: ResourceName = port.to_string().into();
        for exposed in &exposed {
            self.listen(&binding, exposed, &name);
        }
        self.share(way, name, exposed, Some(port));
    }

    /// Adds all HTTP ports of all services, which requests select by the port in their authority.
    fn add_all(&mut self, way: Through<'a>, key: &PortKey) {
        let scope = self.scope();
        let exposed: Vec<Exposed<'a>> = scope
            .all_services(way)
            .flat_map(|service| service.ports.iter().map(move |port| (service, port)))
            .map(|(service, port)| Exposed {
                service,
                port,
                protocol: port.protocol,
                rule: scope.virtual_service(way, &service.key.host),
            })
            .filter(Exposed::is_routed)
            .collect();
        let (number, name): (u16, ResourceName) = match key {
            PortKey::Port(port) => (*port, port.to_string().into()),
            PortKey::Unix(path) => (0, path.clone()),
        };
        let socket = Binding::of(&scope, way).socket(&scope, number);
        for exposed in &exposed {
            let part = HttpPart {
                routes: name.clone(),
                grpc_web: exposed.protocol == Protocol::GrpcWeb,
                forward_proxy: way.egress().is_some_and(|egress| egress.is_http_proxy()),
            };
            self.slots.add_http(&socket, exposed, part);
        }
        self.share(way, name, exposed, None);
    }

    /// Records the content of a shared route configuration. The Sidecar's egress listener is
    /// recorded first and takes precedence.
    fn share(&mut self, way: Through<'a>, name: ResourceName, exposed: Vec<Exposed<'a>>, port: Option<u16>) {
        let exposed: Vec<_> = exposed.into_iter().filter(Exposed::is_routed).collect();
        let virtuals = self.virtuals(way, &exposed, port);
        self.contents.entry(name.clone()).or_insert(Content {
            name,
            exposed,
            virtuals,
            one_port: port.is_some(),
            otherwise: self.routing.scope.outbound_policy(),
        });
    }

    /// Hosts without a service: on a service's port, those in the same VirtualService as the
    /// service; on port 80, all.
    fn virtuals(&self, way: Through<'a>, exposed: &[Exposed<'a>], port: Option<u16>) -> Vec<Virtual<'a>> {
        let scope = self.scope();
        let mut found: BTreeMap<(u16, Hostname), &'a Arc<VirtualService>> = BTreeMap::new();
        if port.is_none_or(|port| port == 80) {
            for host in self.orphans {
                if let Some(rule) = scope.virtual_services_naming(way, host).next() {
                    found.insert((80, host.clone()), rule);
                }
            }
        }
        let attached = virtual_host::attached(exposed);
        for ((port, _), rule) in &attached {
            for host in rule.hosts.iter().filter(|host| self.orphans.contains(*host)) {
                let mut rivals = scope.virtual_services_naming(way, host);
                if let Some(rule) = rivals.find(|rival| attached.contains_key(&(*port, &rival.id))) {
                    found.entry((*port, host.clone())).or_insert(rule);
                }
            }
        }
        let listed = found.into_iter();
        listed
            .map(|((port, host), rule)| Virtual { host, port, rule })
            .collect()
    }

    /// Adds the listeners of a service port.
    fn listen(&mut self, binding: &Binding, exposed: &Exposed<'a>, shared: &ResourceName) {
        let protocol = exposed.protocol;
        if exposed.service.resolution == Resolution::Alias || protocol == Protocol::Udp {
            return;
        }
        if protocol.is_http() {
            let socket = binding.socket(&self.scope(), exposed.port.number);
            return self
                .slots
                .add_http(&socket, exposed, http_part(exposed, shared.clone()));
        }
        for (socket, ranges) in self.listener_sockets(binding, exposed) {
            let own = !socket.bound && !is_wildcard(&socket);
            if protocol == Protocol::Auto && own {
                let name = naming::host_port(exposed.service.key.host.as_str(), exposed.port.number);
                self.slots.add_http(&socket, exposed, http_part(exposed, name.clone()));
                self.sniffed.insert(name, *exposed);
            } else if protocol == Protocol::Auto && ranges.is_empty() {
                self.slots
                    .add_http(&socket, exposed, http_part(exposed, shared.clone()));
            }
            let place = Place {
                wildcard: is_wildcard(&socket),
                ranges: &ranges,
            };
            let chains = chain::stream_chains(&mut self.routing, exposed, place);
            self.slots.add_streams(&socket, exposed, chains);
        }
    }

    /// Listen addresses of a service's TCP port: its VIPs; its endpoints' addresses if it is
    /// headless; the wildcard address if it has none, or CIDRs.
    fn listener_sockets(&self, binding: &Binding, exposed: &Exposed<'a>) -> Vec<(ListenerSocket, Vec<IpNet>)> {
        let scope = self.scope();
        let number = exposed.port.number;
        let shared = binding.socket(&scope, number);
        if binding.at.is_some() {
            return vec![(shared, Vec::new())];
        }
        let at = |ip: IpAddr| {
            let address = ListenAddress::Ip(ip, number);
            (ListenerSocket { address, bound: false }, Vec::new())
        };
        let (single, ranges) = addresses(exposed.service);
        if single.is_empty() && ranges.is_empty() && exposed.service.resolution == Resolution::Passthrough {
            let endpoints = endpoint_addresses(exposed.service, number);
            if exposed.service.kubernetes || !endpoints.is_empty() {
                return endpoints.into_iter().map(at).collect();
            }
        }
        let wildcard = (single.is_empty() || !ranges.is_empty()).then_some((shared, ranges));
        single.into_iter().map(at).chain(wildcard).collect()
    }

    fn finish(mut self) -> PortUnit {
        let wanted: BTreeSet<ResourceName> = self.slots.routes().cloned().collect();
        let mut follows_client = BTreeMap::new();
        let mut routes = BTreeMap::new();
        for name in wanted {
            self.routing.begin();
            let made = match (self.contents.get(&name), self.sniffed.get(&name)) {
                (Some(content), _) => virtual_host::shared(&mut self.routing, content),
                (None, Some(exposed)) => virtual_host::sniffed(&mut self.routing, exposed),
                (None, None) => continue,
            };
            follows_client.insert(name.clone(), self.routing.follows_client);
            routes.insert(name, Arc::new(made));
        }
        let finish = Finish {
            config: &self.routing.scope.mesh.config,
            policy: self.routing.scope.outbound_policy(),
            follows_client,
        };
        PortUnit {
            conflicts: std::mem::take(&mut self.slots.conflicts),
            listeners: self
                .slots
                .finish(&finish)
                .map(|listener| (listener.name.clone(), Arc::new(listener)))
                .collect(),
            routes,
            reads: self.routing.reads,
        }
    }
}

fn http_part(exposed: &Exposed<'_>, routes: ResourceName) -> HttpPart {
    HttpPart {
        routes,
        grpc_web: exposed.protocol == Protocol::GrpcWeb,
        forward_proxy: false,
    }
}

fn is_wildcard(socket: &ListenerSocket) -> bool {
    match &socket.address {
        ListenAddress::Ip(ip, _) => ip.is_unspecified(),
        ListenAddress::Unix(_) => false,
    }
}

/// A service's addresses and CIDRs.
fn addresses(service: &Service) -> (Vec<IpAddr>, Vec<IpNet>) {
    let (single, ranges): (Vec<IpNet>, Vec<IpNet>) = service
        .addresses
        .iter()
        .filter(|net| !(net.addr().is_unspecified() && net.prefix_len() == net.max_prefix_len()))
        .partition(|net| net.prefix_len() == net.max_prefix_len());
    (single.iter().map(IpNet::addr).collect(), ranges)
}

/// The endpoint addresses of a service port.
fn endpoint_addresses(service: &Service, port: u16) -> BTreeSet<IpAddr> {
    let serving = service
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.port(port).is_some());
    serving
        .flat_map(|endpoint| {
            let own = match endpoint.address {
                Address::Ip(ip) => Some(ip),
                Address::Name(_) | Address::Unix(_) => None,
            };
            own.into_iter().chain(endpoint.further.iter().copied())
        })
        .collect()
}
