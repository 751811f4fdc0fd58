//! The inbound part of a node's configuration: listeners and clusters for connections to its
//! application.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::chain::to_cluster;
use super::fixed;
use super::inbound_chain::InboundChains;
use super::inbound_port::{InboundPort, inbound_ports};
use super::naming;
use crate::ir::cluster::{Cluster, Discovery, LoadBalancer};
use crate::ir::listener::{
    ChainMatch, Direction, FilterChain, InspectExcept, Inspection, ListenAddress, Listener, TransportProtocol,
};
use crate::ir::node::InterceptionMode;
use crate::ir::{NodeView, Origins, ResourceName};
use crate::mesh::peer_authentication::PolicyScope;
use crate::mesh::service::{Protocol, Resolution};
use crate::mesh::sidecar::Sidecar;
use crate::mesh::{Mesh, Touched};
use crate::name::Hostname;

/// `SO_MARK` that exempts the proxy's own connections from TPROXY rules.
const TPROXY_MARK: u32 = 1337;

/// The inbound part of a node's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Inbound {
    node: NodeView,
    /// Hosts of the services the node backs, whose policies it depends on.
    hosts: BTreeSet<Hostname>,
    pub(super) parts: Arc<Parts>,
}

/// Resources of an inbound part.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Parts {
    pub(super) clusters: BTreeMap<ResourceName, Arc<Cluster>>,
    pub(super) listeners: BTreeMap<ResourceName, Arc<Listener>>,
    /// Outbound listeners for the node's own address as an endpoint of a headless service. They are
    /// removed: connections of an application to itself bypass the proxy.
    pub(super) itself: BTreeSet<ResourceName>,
}

/// Builds the inbound part of a node.
pub fn build_inbound(mesh: &Mesh, node: &NodeView) -> Inbound {
    let sidecar = mesh.sidecar(&node.namespace, &node.labels).map(|sidecar| &**sidecar);
    let ports = inbound_ports(mesh, node, sidecar);
    let mut parts = Parts {
        itself: itself(mesh, node),
        ..Parts::default()
    };
    for port in &ports {
        parts.add_cluster(port.cluster(mesh, node));
        if let Some(ip) = port.bind {
            parts.add_listener(bound_listener(mesh, node, port, ip));
        }
    }
    if node.mode != InterceptionMode::None {
        parts.add_cluster(passthrough(mesh));
        parts.add_listener(virtual_inbound(mesh, node, sidecar, &ports));
    }
    Inbound {
        node: node.clone(),
        hosts: hosts(mesh, node),
        parts: Arc::new(parts),
    }
}

impl Inbound {
    /// Updates the part after an edit; returns `self` if nothing changed.
    pub fn update(self: &Arc<Self>, mesh: &Mesh, node: &NodeView, touched: &Touched) -> Arc<Inbound> {
        let address = node.addresses.iter().any(|address| touched.addresses.contains(address));
        let concerns = |host: &Hostname| self.hosts.iter().any(|own| host.covers(own));
        let host = touched.hosts.iter().any(concerns);
        let covers = |scope: &PolicyScope| scope.covers(&node.namespace, &node.labels);
        let policy = touched.policies.iter().any(covers);
        if *node == self.node && !(touched.all || touched.sidecars || address || host || policy) {
            return self.clone();
        }
        let new = Arc::new(build_inbound(mesh, node)).sharing(self);
        match new == *self {
            true => self.clone(),
            false => new,
        }
    }

    /// Replaces values by equal ones of `other`: replicas of a workload have the same inbound
    /// configuration.
    pub fn sharing(self: Arc<Self>, other: &Inbound) -> Arc<Inbound> {
        if self.is_alike(other) {
            return self;
        }
        let mut parts = Parts::clone(&self.parts);
        let news = super::keep_equal(&mut parts.clusters, &other.parts.clusters);
        let news = super::keep_equal(&mut parts.listeners, &other.parts.listeners) || news;
        let parts = match parts == *other.parts {
            true => other.parts.clone(),
            false if news => Arc::new(parts),
            false => return self,
        };
        let (node, hosts) = (self.node.clone(), self.hosts.clone());
        Arc::new(Inbound { node, hosts, parts })
    }

    /// Whether two parts consist of the same values, by pointer.
    pub fn is_alike(&self, other: &Inbound) -> bool {
        Arc::ptr_eq(&self.parts, &other.parts)
    }
}

impl Parts {
    fn add_cluster(&mut self, cluster: Cluster) {
        self.clusters
            .entry(cluster.name.clone())
            .or_insert_with(|| Arc::new(cluster));
    }

    fn add_listener(&mut self, listener: Listener) {
        self.listeners
            .entry(listener.name.clone())
            .or_insert_with(|| Arc::new(listener));
    }
}

fn hosts(mesh: &Mesh, node: &NodeView) -> BTreeSet<Hostname> {
    let services = node
        .addresses
        .iter()
        .flat_map(|address| mesh.services_at_address(*address));
    services.map(|service| service.key.host.clone()).collect()
}

fn itself(mesh: &Mesh, node: &NodeView) -> BTreeSet<ResourceName> {
    let mut names = BTreeSet::new();
    for address in &node.addresses {
        for service in mesh.services_at_address(*address) {
            if service.resolution == Resolution::Passthrough && service.addresses.is_empty() {
                let at = |port: u16| naming::listener(&ListenAddress::Ip(*address, port));
                names.extend(service.ports.iter().map(|port| at(port.number)));
            }
        }
    }
    names
}

/// `InboundPassthroughCluster`.
fn passthrough(mesh: &Mesh) -> Cluster {
    Cluster {
        discovery: Discovery::OriginalDst {
            port: None,
            inbound: true,
        },
        load_balancer: LoadBalancer::ClusterProvided,
        marked_source: true,
        ..fixed::unclaimed(naming::INBOUND_PASSTHROUGH.into(), &mesh.config)
    }
}

/// A listener for one port, bound to it.
fn bound_listener(mesh: &Mesh, node: &NodeView, port: &InboundPort<'_>, ip: IpAddr) -> Listener {
    let address = ListenAddress::Ip(ip, port.number);
    let name = naming::listener(&address);
    let mode = mesh.mutual_tls_mode(&node.namespace, &node.labels, Some(port.number));
    let chains = port_chains(mesh, port, &name, None).chains(mode);
    Listener {
        address,
        bind: true,
        use_original_dst: false,
        transparent: false,
        direction: Direction::Inbound,
        inspection: Inspection {
            tls: needs_tls(&chains).then(InspectExcept::default),
            http: needs_http(&chains).then(InspectExcept::default),
            timeout: Some(mesh.config.protocol_detection_timeout),
            ..Inspection::default()
        },
        chains,
        default_chain: None,
        origins: port.origins(),
        name,
    }
}

fn port_chains<'a>(
    mesh: &'a Mesh,
    port: &InboundPort<'_>,
    listener: &ResourceName,
    matched: Option<u16>,
) -> InboundChains<'a> {
    InboundChains {
        config: &mesh.config,
        names: (listener.clone(), listener.clone()),
        destination_port: matched,
        listener: listener.clone(),
        cluster: naming::inbound_cluster(port.number),
        service_port: port.service_port(),
        host: port.host(),
        protocol: port.protocol,
        origins: port.origins(),
    }
}

/// `virtualInbound`: receives all intercepted inbound connections, with filter chains by
/// destination port. Mutual TLS applies to ports without a service as well.
fn virtual_inbound(mesh: &Mesh, node: &NodeView, sidecar: Option<&Sidecar>, ports: &[InboundPort<'_>]) -> Listener {
    let config = &mesh.config;
    let wildcard = wildcard(node);
    let itself = ChainMatch {
        destination_port: Some(config.inbound_port),
        ..ChainMatch::default()
    };
    let mut chains = vec![fixed::stream(
        "virtualInbound-blackhole",
        itself,
        to_cluster(naming::BLACK_HOLE),
    )];
    for unnamed in unnamed_ports(mesh, node, ports) {
        let mode = mesh.mutual_tls_mode(&node.namespace, &node.labels, unnamed);
        chains.extend(catch_all(mesh, unnamed).chains(mode));
    }
    for port in ports.iter().filter(|port| port.bind.is_none()) {
        let mode = mesh.mutual_tls_mode(&node.namespace, &node.labels, Some(port.number));
        let name = naming::listener(&ListenAddress::Ip(wildcard, port.number));
        chains.extend(port_chains(mesh, port, &name, Some(port.number)).chains(mode));
    }
    let tproxy = node.mode == InterceptionMode::Tproxy;
    Listener {
        name: "virtualInbound".into(),
        address: ListenAddress::Ip(wildcard, config.inbound_port),
        bind: true,
        use_original_dst: false,
        transparent: tproxy,
        direction: Direction::Inbound,
        inspection: Inspection {
            original_dst: true,
            original_src_mark: tproxy.then_some(TPROXY_MARK),
            tls: except(&chains, needs_tls),
            http: except(&chains, needs_http),
            timeout: Some(config.protocol_detection_timeout),
        },
        chains,
        default_chain: None,
        origins: origins(sidecar, ports),
    }
}

fn origins(sidecar: Option<&Sidecar>, ports: &[InboundPort<'_>]) -> Origins {
    let ports: Vec<Origins> = ports.iter().map(InboundPort::origins).collect();
    let all = sidecar.map(|sidecar| &sidecar.id).into_iter();
    super::virtual_host::origins(all.chain(ports.iter().flat_map(|origins| origins.iter())))
}

/// Ports without a service that have their own mutual TLS mode, then `None` for all others.
fn unnamed_ports(mesh: &Mesh, node: &NodeView, ports: &[InboundPort<'_>]) -> Vec<Option<u16>> {
    let policy = mesh.peer_authentication_of(&node.namespace, &node.labels);
    let exceptions = policy.into_iter().flat_map(|policy| &policy.ports);
    let taken = |number: u16| ports.iter().any(|port| port.number == number && port.bind.is_none());
    let free: BTreeSet<u16> = exceptions
        .map(|(number, _)| *number)
        .filter(|number| !taken(*number) && *number != mesh.config.inbound_port)
        .collect();
    free.into_iter().map(Some).chain([None]).collect()
}

fn catch_all(mesh: &Mesh, matched: Option<u16>) -> InboundChains<'_> {
    InboundChains {
        config: &mesh.config,
        names: ("virtualInbound-catchall-http".into(), "virtualInbound".into()),
        destination_port: matched,
        listener: format!("0.0.0.0_{}", matched.unwrap_or_default()).into(),
        cluster: naming::INBOUND_PASSTHROUGH.into(),
        service_port: 0,
        host: "".into(),
        protocol: Protocol::Auto,
        origins: Origins::default(),
    }
}

fn wildcard(node: &NodeView) -> IpAddr {
    match node.addresses.first() {
        Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        Some(IpAddr::V4(_)) | None => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// The inspector, if any chain needs it, disabled for ports whose chains do not.
fn except(chains: &[FilterChain], needs: impl Fn(&[FilterChain]) -> bool) -> Option<InspectExcept> {
    let mut by_port: BTreeMap<Option<u16>, Vec<FilterChain>> = BTreeMap::new();
    for chain in chains {
        let port = chain.matcher.destination_port;
        by_port.entry(port).or_default().push(chain.clone());
    }
    needs(chains).then(|| {
        let alone = by_port.iter().filter(|(_, chains)| !needs(chains));
        InspectExcept(alone.filter_map(|(port, _)| *port).collect())
    })
}

fn needs_tls(chains: &[FilterChain]) -> bool {
    chains
        .iter()
        .any(|chain| chain.matcher.transport == Some(TransportProtocol::Tls))
}

fn needs_http(chains: &[FilterChain]) -> bool {
    chains.iter().any(|chain| {
        let plain = chain.matcher.transport == Some(TransportProtocol::RawBuffer);
        plain && !chain.matcher.application_protocols.is_empty()
    })
}
