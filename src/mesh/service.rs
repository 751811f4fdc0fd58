//! Services and their endpoints, whatever kind of object they came from.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use ipnet::IpNet;

use super::destination_rule::LocalityLb;
use super::{ExportTo, Labels};
use crate::name::{Hostname, Namespace, ObjectId, ServiceAccount};

/// What identifies a service: hosts of ServiceEntries may repeat between namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The fully qualified host.
    pub host: Hostname,
    /// The namespace of the object that defines it.
    pub namespace: Namespace,
}

/// A host that can be called, from a Kubernetes Service or a ServiceEntry.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Host and namespace.
    pub key: ServiceKey,
    /// `metadata.name` of the defining object; Istio puts it into cluster metadata.
    pub name: Arc<str>,
    /// The objects it is made of, the defining one first. ServiceEntries of one host and namespace
    /// are aggregated.
    pub origins: Vec<ObjectId>,
    /// Virtual addresses: the cluster IP or `addresses`.
    pub addresses: Vec<IpNet>,
    /// Ports, in the order written.
    pub ports: Vec<ServicePort>,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// `location: MESH_EXTERNAL`: never automatic mutual TLS.
    pub external: bool,
    /// From a Kubernetes Service, which wins over ServiceEntries of the same host.
    pub kubernetes: bool,
    /// Kubernetes `clusterIP: None`.
    pub headless: bool,
    /// `externalName`: the host that this one is another name of.
    pub alias: Option<Hostname>,
    /// Who sees it.
    pub export_to: ExportTo,
    /// `subjectAltNames`: expected of servers when a DestinationRule names none.
    pub subject_alt_names: Vec<String>,
    /// Which endpoints are asked first, unless a DestinationRule has a locality setting.
    pub traffic_distribution: TrafficDistribution,
    /// Every endpoint, of all ports.
    pub endpoints: Arc<[Endpoint]>,
}

impl Service {
    /// The port with this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// The service as it would be without endpoints.
    pub fn without_endpoints(&self) -> Self {
        Self {
            endpoints: Arc::default(),
            ..self.clone()
        }
    }
}

/// Kubernetes' `trafficDistribution`, or Istio's annotation of that name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficDistribution {
    /// Not said: the mesh's locality setting holds.
    #[default]
    Any,
    /// `PreferSameZone` and `PreferClose`.
    PreferSameZone,
    /// `PreferSameNode`.
    PreferSameNode,
}

impl TrafficDistribution {
    /// What it amounts to, whether failing endpoints are noticed or not: failover by these labels (Istio's
    /// `GetLocalityLbSetting`).
    pub fn locality_lb(self) -> Option<&'static LocalityLb> {
        static ZONE: LazyLock<LocalityLb> = LazyLock::new(|| LocalityLb::by_labels(&NEAREST[..3]));
        static NODE: LazyLock<LocalityLb> = LazyLock::new(|| LocalityLb::by_labels(&NEAREST));
        match self {
            TrafficDistribution::Any => None,
            TrafficDistribution::PreferSameZone => Some(&ZONE),
            TrafficDistribution::PreferSameNode => Some(&NODE),
        }
    }
}

/// The label with the node of a workload.
pub(super) const NODE: &str = "kubernetes.io/hostname";

/// Labels of the place of a workload, the widest first.
const NEAREST: [&str; 5] = [
    "topology.istio.io/network",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
    NODE,
];

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// The number clients use.
    pub number: u16,
    /// The name, which endpoints refer to; may be empty.
    pub name: Arc<str>,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// The port on the workload when the endpoint names none.
    pub target: u16,
}

/// What is spoken on a port (Istio's protocol selection).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Not declared: detected from the first bytes.
    Auto,
    /// HTTP/1.1.
    Http,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// An explicit HTTP proxy (Sidecar egress and ServiceEntry).
    HttpProxy,
    /// TLS that the application terminates, routed by SNI.
    Tls,
    /// As TLS.
    Https,
    /// Opaque bytes.
    Tcp,
    /// MongoDB; served as TCP.
    Mongo,
    /// Redis; served as TCP.
    Redis,
    /// MySQL; served as TCP.
    MySql,
    /// Not proxied.
    Udp,
}

impl Protocol {
    /// The HTTP family, which `http` routes apply to.
    pub fn is_http(self) -> bool {
        matches!(
            self,
            Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb | Protocol::HttpProxy
        )
    }

    /// Spoken as HTTP/2 to endpoints.
    pub fn is_http2(self) -> bool {
        matches!(self, Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb)
    }

    /// Opaque TLS, which `tls` routes apply to.
    pub fn is_tls(self) -> bool {
        matches!(self, Protocol::Tls | Protocol::Https)
    }

    /// Opaque bytes, TLS included.
    pub fn is_tcp(self) -> bool {
        self.is_tls()
            || matches!(
                self,
                Protocol::Tcp | Protocol::Mongo | Protocol::Redis | Protocol::MySql
            )
    }
}

/// How the endpoints of a service are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// Listed: EDS.
    Static,
    /// `DNS`: all addresses the resolver returns.
    Dns,
    /// `DNS_ROUND_ROBIN`: one address at a time.
    DnsRoundRobin,
    /// `NONE` and headless services: where the client wanted to go.
    Passthrough,
    /// Kubernetes `ExternalName`: another host's alias; gets no cluster of its own.
    Alias,
}

/// Where an endpoint is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An IP address.
    Ip(IpAddr),
    /// A name to resolve, for DNS resolutions.
    Name(Arc<str>),
    /// A Unix domain socket path (`@` first for an abstract one).
    Unix(Arc<str>),
}

/// One place that serves a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Where.
    pub address: Address,
    /// Where too: a workload in several networks. A headless service is listened for at all of them.
    pub further: Arc<[IpAddr]>,
    /// (service port number, endpoint port): the service ports it serves. The endpoint port is 0
    /// for a Unix socket.
    pub ports: Vec<(u16, u16)>,
    /// Labels, for subsets.
    pub labels: Arc<Labels>,
    /// The namespace of the workload.
    pub namespace: Namespace,
    /// The service account, if known; with the namespace it is the identity.
    pub service_account: Option<ServiceAccount>,
    /// Whether it takes Istio mutual TLS (`security.istio.io/tlsMode: istio`, or a service account
    /// on its WorkloadEntry).
    pub mutual_tls: bool,
    /// Where it runs.
    pub locality: Locality,
    /// Load-balancing weight, at least 1.
    pub weight: u32,
    /// Whether it is ready; the not ready are sent as UNHEALTHY.
    pub ready: bool,
    /// The workload's name, if it has one.
    pub workload: Option<Arc<str>>,
}

impl Endpoint {
    /// The endpoint's port for a service port.
    pub fn port(&self, service_port: u16) -> Option<u16> {
        self.ports
            .iter()
            .find(|(number, _)| *number == service_port)
            .map(|(_, port)| *port)
    }
}

/// `region/zone/subzone`; empty parts are unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    /// Region.
    pub region: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
    /// Sub-zone.
    pub subzone: Arc<str>,
}
