//! Small meshes for tests.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::ir::node::InterceptionMode;
use crate::ir::{Cluster, ClusterEndpoints, Listener, NodeView, RouteConfig};
use crate::mesh::config::MeshConfig;
use crate::mesh::destination_rule::{
    ClientTls, ClientTlsMode, DestinationRule, PolicyWithPorts, Subset, TrafficPolicy,
};
use crate::mesh::peer_authentication::{MutualTlsMode, PeerAuthentication, hosts_affected};
use crate::mesh::service::{
    Address, Endpoint, Locality, Protocol, Resolution, Service, ServiceKey, ServicePort, TrafficDistribution,
};
use crate::mesh::sidecar::{
    Bind, DefaultEndpoint, Egress, FilterNamespace, HostFilter, Ingress, ListenerPort, Sidecar,
};
use crate::mesh::virtual_service::{
    Destination, HeaderChanges, HttpAction, HttpForward, HttpMatch, HttpRoute, StringMatch, VirtualService,
    WeightedDestination,
};
use crate::mesh::{ExportTo, Labels, Mesh, Rank, Touched};
use crate::name::{Hostname, Kind, Namespace, ObjectId};

use super::{Built, build};
use crate::diag::Severity;

/// A mesh that remembers its inputs, so that tests can remove objects and compute what that
/// touches.
#[derive(Clone, Default)]
pub(super) struct World {
    pub(super) mesh: Mesh,
    services: BTreeMap<ServiceKey, Arc<Service>>,
    routes: BTreeMap<ObjectId, (Rank, Arc<VirtualService>)>,
    rules: BTreeMap<ObjectId, (Rank, Arc<DestinationRule>)>,
    sidecars: BTreeMap<ObjectId, (Rank, Arc<Sidecar>)>,
    policies: BTreeMap<ObjectId, (Rank, Arc<PeerAuthentication>)>,
}

pub(super) fn rank(id: &ObjectId) -> Rank {
    Rank {
        origin: format!("{}/{}", id.namespace, id.name).into(),
        position: 0,
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            mesh: Mesh::new(MeshConfig::default()),
            ..Self::default()
        }
    }

    pub(super) fn with(mut self, thing: impl Thing) -> Self {
        thing.put(&mut self);
        self
    }

    pub(super) fn put(&mut self, thing: impl Thing) -> Touched {
        thing.put(self)
    }

    pub(super) fn remove_service(&mut self, key: &ServiceKey) -> Touched {
        let touched = self
            .services
            .remove(key)
            .map(|old| service_touch(&old))
            .unwrap_or_default();
        self.mesh.put_service(key, None);
        touched
    }

    pub(super) fn remove_route(&mut self, id: &ObjectId) -> Touched {
        let Some((rank, old)) = self.routes.remove(id) else {
            return Touched::default();
        };
        self.mesh.replace_virtual_service(Some((&rank, &old)), None);
        route_touch(&old)
    }

    pub(super) fn remove_rule(&mut self, id: &ObjectId) -> Touched {
        let Some((rank, old)) = self.rules.remove(id) else {
            return Touched::default();
        };
        self.mesh.replace_destination_rule(Some((&rank, &old)), None);
        rule_touch(&old)
    }

    pub(super) fn remove_sidecar(&mut self, id: &ObjectId) -> Touched {
        let Some((rank, old)) = self.sidecars.remove(id) else {
            return Touched::default();
        };
        self.mesh.replace_sidecar(Some((&rank, &old)), None);
        sidecar_touch()
    }

    pub(super) fn build(&self, node: &NodeView) -> Built {
        build(&self.mesh, node)
    }
}

/// The configuration of a node in the mesh of these documents, which must be valid.
pub(super) fn built(node: &NodeView, text: &str) -> Built {
    let applied = crate::mesh::testing::load(text);
    let mistakes = applied.directory.diagnostics();
    let errors = mistakes.iter().filter(|mistake| mistake.severity == Severity::Error);
    assert_eq!(errors.map(|error| &*error.message).collect::<Vec<_>>(), [""; 0]);
    build(&applied.mesh, node)
}

/// An object that can be put into a world.
pub(super) trait Thing {
    /// Puts it in place of one with the same name; returns what that touches.
    fn put(self, world: &mut World) -> Touched;
}

impl Thing for Service {
    fn put(self, world: &mut World) -> Touched {
        let key = self.key.clone();
        let mut touched = world.remove_service(&key);
        touched.merge(service_touch(&self));
        let service = Arc::new(self);
        let rank = Rank {
            origin: format!("{}/{}", key.namespace, key.host).into(),
            position: 0,
        };
        world.mesh.put_service(&key, Some((rank, service.clone())));
        world.services.insert(key, service);
        touched
    }
}

impl Thing for VirtualService {
    fn put(self, world: &mut World) -> Touched {
        let id = self.id.clone();
        let mut touched = world.remove_route(&id);
        touched.merge(route_touch(&self));
        let (rank, rule) = (rank(&id), Arc::new(self));
        world.mesh.replace_virtual_service(None, Some((&rank, &rule)));
        world.routes.insert(id, (rank, rule));
        touched
    }
}

impl Thing for DestinationRule {
    fn put(self, world: &mut World) -> Touched {
        let id = self.id.clone();
        let mut touched = world.remove_rule(&id);
        touched.merge(rule_touch(&self));
        let (rank, rule) = (rank(&id), Arc::new(self));
        world.mesh.replace_destination_rule(None, Some((&rank, &rule)));
        world.rules.insert(id, (rank, rule));
        touched
    }
}

impl Thing for Sidecar {
    fn put(self, world: &mut World) -> Touched {
        let id = self.id.clone();
        world.remove_sidecar(&id);
        let (rank, sidecar) = (rank(&id), Arc::new(self));
        world.mesh.replace_sidecar(None, Some((&rank, &sidecar)));
        world.sidecars.insert(id, (rank, sidecar));
        sidecar_touch()
    }
}

impl Thing for PeerAuthentication {
    fn put(self, world: &mut World) -> Touched {
        let id = self.id.clone();
        let old = world.policies.remove(&id);
        let before = world.mesh.clone();
        let (rank, policy) = (rank(&id), Arc::new(self));
        let both = old.iter().map(|(_, policy)| policy).chain([&policy]);
        let policies = both.map(|policy| policy.scope(&before.config.root_namespace)).collect();
        let old = old.as_ref().map(|(rank, policy)| (rank, &**policy));
        world.mesh.replace_peer_authentication(old, Some((&rank, &policy)));
        world.policies.insert(id, (rank, policy));
        Touched {
            hosts: hosts_affected(&before, &world.mesh, &policies),
            policies,
            ..Touched::default()
        }
    }
}

fn service_touch(service: &Service) -> Touched {
    Touched {
        hosts: [service.key.host.clone()]
            .into_iter()
            .chain(service.alias.clone())
            .collect(),
        ports: service.ports.iter().map(|port| port.number).collect(),
        addresses: service
            .endpoints
            .iter()
            .filter_map(|endpoint| match endpoint.address {
                Address::Ip(ip) => Some(ip),
                Address::Name(_) | Address::Unix(_) => None,
            })
            .collect(),
        ..Touched::default()
    }
}

fn route_touch(rule: &VirtualService) -> Touched {
    let destinations = rule.destinations().map(|destination| destination.host.clone());
    Touched {
        hosts: rule.hosts.iter().cloned().chain(destinations).collect(),
        ..Touched::default()
    }
}

fn rule_touch(rule: &DestinationRule) -> Touched {
    Touched {
        hosts: [rule.host.clone()].into(),
        ..Touched::default()
    }
}

fn sidecar_touch() -> Touched {
    Touched {
        sidecars: true,
        ..Touched::default()
    }
}

pub(super) fn host(text: &str) -> Hostname {
    let full = match text.contains('.') {
        true => text.to_owned(),
        false => format!("{text}.default.svc.cluster.local"),
    };
    full.parse().unwrap()
}

pub(super) fn namespace(text: &str) -> Namespace {
    text.parse().unwrap()
}

pub(super) fn id(kind: Kind, name: &str) -> ObjectId {
    ObjectId {
        kind,
        namespace: Namespace::default(),
        name: name.into(),
    }
}

pub(super) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect()
}

pub(super) fn locality(text: &str) -> Locality {
    let mut parts = text.split('/').map(Arc::from);
    let mut next = || parts.next().unwrap_or_else(|| "".into());
    Locality {
        region: next(),
        zone: next(),
        subzone: next(),
    }
}

/// A node in `default` with the address 10.0.0.9.
pub(super) fn node() -> NodeView {
    NodeView {
        namespace: Namespace::default(),
        labels: Arc::new(labels(&[("app", "client")])),
        addresses: vec!["10.0.0.9".parse().unwrap()],
        locality: Locality::default(),
        mode: InterceptionMode::Redirect,
    }
}

/// A node at `address` without interception.
pub(super) fn bound_node(address: &str) -> NodeView {
    NodeView {
        addresses: vec![address.parse().unwrap()],
        mode: InterceptionMode::None,
        ..node()
    }
}

/// A Kubernetes Service in `default`, or a ServiceEntry if the name has a dot, without ports and
/// endpoints.
pub(super) fn service(name: &str) -> Service {
    let kubernetes = !name.contains('.');
    let kind = if kubernetes { Kind::Service } else { Kind::ServiceEntry };
    Service {
        key: ServiceKey {
            host: host(name),
            namespace: Namespace::default(),
        },
        name: name.into(),
        origins: vec![id(kind, name)],
        addresses: Vec::new(),
        ports: Vec::new(),
        resolution: Resolution::Static,
        external: false,
        kubernetes,
        headless: false,
        alias: None,
        export_to: ExportTo::Everyone,
        subject_alt_names: Vec::new(),
        traffic_distribution: TrafficDistribution::Any,
        endpoints: Arc::new([]),
    }
}

impl Service {
    pub(super) fn port_of(mut self, number: u16, protocol: Protocol) -> Self {
        self.ports.push(ServicePort {
            number,
            name: format!("p{number}").into(),
            protocol,
            target: number,
        });
        self
    }

    pub(super) fn vip(mut self, net: &str) -> Self {
        let net = net.parse().or_else(|_| net.parse::<IpAddr>().map(Into::into));
        self.addresses.push(net.unwrap());
        self
    }

    pub(super) fn endpoint(mut self, endpoint: Endpoint) -> Self {
        let mut endpoint = endpoint;
        if endpoint.ports.is_empty() {
            endpoint.ports = self.ports.iter().map(|port| (port.number, port.target)).collect();
        }
        self.endpoints = self.endpoints.iter().cloned().chain([endpoint]).collect();
        self
    }

    pub(super) fn resolved_by(mut self, resolution: Resolution) -> Self {
        self.resolution = resolution;
        self
    }

    pub(super) fn in_namespace(mut self, name: &str) -> Self {
        self.key.namespace = namespace(name);
        self.key.host = self
            .key
            .host
            .as_str()
            .replace(".default.", &format!(".{name}."))
            .parse()
            .unwrap();
        self
    }
}

/// A ready endpoint with mutual TLS, running as `account`, for every port of its service.
pub(super) fn endpoint(address: &str, account: &str) -> Endpoint {
    Endpoint {
        address: match address.parse() {
            Ok(ip) => Address::Ip(ip),
            Err(_) => Address::Name(address.into()),
        },
        further: Arc::default(),
        ports: Vec::new(),
        labels: Arc::default(),
        namespace: Namespace::default(),
        service_account: (!account.is_empty()).then(|| account.parse().unwrap()),
        mutual_tls: !account.is_empty(),
        locality: Locality::default(),
        weight: 1,
        ready: true,
        workload: None,
    }
}

pub(super) fn labelled(mut endpoint: Endpoint, pairs: &[(&str, &str)]) -> Endpoint {
    endpoint.labels = Arc::new(labels(pairs));
    endpoint
}

pub(super) fn placed(mut endpoint: Endpoint, place: &str) -> Endpoint {
    endpoint.locality = locality(place);
    endpoint
}

/// A DestinationRule without policy and with subsets by label `version`.
pub(super) fn rule(name: &str, subsets: &[&str]) -> DestinationRule {
    DestinationRule {
        id: id(Kind::DestinationRule, name),
        api_version: "networking.istio.io/v1".into(),
        host: host(name),
        export_to: ExportTo::Everyone,
        policy: PolicyWithPorts::default(),
        subsets: subsets
            .iter()
            .map(|name| Subset {
                name: (*name).into(),
                labels: labels(&[("version", name)]),
                policy: PolicyWithPorts::default(),
            })
            .collect(),
    }
}

pub(super) fn with_policy(mut rule: DestinationRule, policy: TrafficPolicy) -> DestinationRule {
    rule.policy.policy = policy;
    rule
}

pub(super) fn tls(mode: ClientTlsMode) -> TrafficPolicy {
    TrafficPolicy {
        tls: Some(ClientTls {
            mode,
            subject_alt_names: Vec::new(),
            sni: None,
        }),
        ..TrafficPolicy::default()
    }
}

/// A VirtualService for `name` with these routes.
pub(super) fn routes(name: &str, http: Vec<HttpRoute>) -> VirtualService {
    VirtualService {
        id: id(Kind::VirtualService, name),
        api_version: "networking.istio.io/v1".into(),
        hosts: vec![host(name)],
        export_to: ExportTo::Everyone,
        http,
        tls: Vec::new(),
        tcp: Vec::new(),
    }
}

/// A route to `service` or `service/subset`; several are weighted.
pub(super) fn to(destinations: &[(&str, u32)]) -> HttpRoute {
    HttpRoute {
        name: "".into(),
        matches: Vec::new(),
        action: HttpAction::Forward(Box::new(HttpForward {
            destinations: destinations
                .iter()
                .map(|(place, weight)| WeightedDestination {
                    destination: destination(place),
                    weight: *weight,
                    headers: HeaderChanges::default(),
                })
                .collect(),
            rewrite: None,
            timeout: None,
            retries: None,
            mirrors: Vec::new(),
        })),
        headers: HeaderChanges::default(),
        fault: None,
        cors: None,
    }
}

pub(super) fn destination(place: &str) -> Destination {
    let (name, subset) = place
        .split_once('/')
        .map_or((place, None), |(name, subset)| (name, Some(subset)));
    Destination {
        host: host(name),
        subset: subset.map(Arc::from),
        port: None,
    }
}

pub(super) fn prefix(path: &str, mut route: HttpRoute) -> HttpRoute {
    route.matches.push(HttpMatch {
        uri: Some(StringMatch::Prefix(path.into())),
        ..HttpMatch::default()
    });
    route
}

/// A mutual TLS mode for all of `namespace`.
pub(super) fn mode(namespace: &str, mode: MutualTlsMode) -> PeerAuthentication {
    PeerAuthentication {
        id: ObjectId {
            namespace: namespace.parse().unwrap(),
            ..id(Kind::PeerAuthentication, "default")
        },
        selector: None,
        mode: Some(mode),
        ports: Vec::new(),
    }
}

/// A Sidecar for all of `default`.
pub(super) fn sidecar(ingress: Vec<Ingress>, egress: Vec<Egress>) -> Sidecar {
    Sidecar {
        id: id(Kind::Sidecar, "default"),
        selector: None,
        ingress,
        egress,
        outbound_policy: None,
        inbound_connection_pool: None,
    }
}

/// An egress listener for `hosts`, written as in a Sidecar.
pub(super) fn egress(port: Option<(u16, Protocol)>, bind: Option<&str>, hosts: &[&str]) -> Egress {
    Egress {
        port: port.map(listener_port),
        bind: bind.map(|bind| Bind::Ip(bind.parse().unwrap())),
        bound: false,
        hosts: hosts
            .iter()
            .map(|text| {
                let (exclude, text) = text.strip_prefix('~').map_or((false, *text), |text| (true, text));
                let (namespace, host) = text.split_once('/').unwrap();
                HostFilter {
                    exclude,
                    namespace: match namespace {
                        "*" | "" => FilterNamespace::Any,
                        "." => FilterNamespace::Proxy,
                        name => FilterNamespace::Named(name.parse().unwrap()),
                    },
                    host: host.parse().unwrap(),
                }
            })
            .collect(),
    }
}

pub(super) fn ingress(port: u16, bind: Option<&str>, endpoint: DefaultEndpoint) -> Ingress {
    Ingress {
        port: listener_port((port, Protocol::Http)),
        bind: bind.map(|bind| bind.parse().unwrap()),
        bound: false,
        default_endpoint: endpoint,
        connection_pool: None,
    }
}

fn listener_port((number, protocol): (u16, Protocol)) -> ListenerPort {
    ListenerPort {
        number,
        protocol,
        name: format!("p{number}").into(),
    }
}

impl Built {
    pub(super) fn cluster(&self, name: &str) -> &Cluster {
        let found = self.config.clusters.get(name);
        found.unwrap_or_else(|| panic!("{name} is not among {:?}", self.clusters()))
    }

    pub(super) fn clusters(&self) -> Vec<&str> {
        self.config.clusters.keys().map(|name| &**name).collect()
    }

    pub(super) fn endpoints(&self, name: &str) -> &ClusterEndpoints {
        &self.config.endpoints[name]
    }

    pub(super) fn listener(&self, name: &str) -> &Listener {
        let found = self.config.listeners.get(name);
        found.unwrap_or_else(|| panic!("{name} is not among {:?}", self.listeners()))
    }

    pub(super) fn listeners(&self) -> Vec<&str> {
        self.config.listeners.keys().map(|name| &**name).collect()
    }

    pub(super) fn routes(&self, name: &str) -> &RouteConfig {
        let found = self.config.routes.get(name);
        found.unwrap_or_else(|| panic!("no routes {name}"))
    }
}
