//! Services and their endpoints, independent of the kind of object that defines them.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use ipnet::IpNet;

use super::destination_rule::LocalityLb;
use super::{ExportTo, Labels};
use crate::name::{Hostname, Namespace, ObjectId, ServiceAccount};

/// Identifies a service. ServiceEntries in different namespaces may have the same host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The fully qualified host.
    pub host: Hostname,
    /// The namespace of the object that defines it.
    pub namespace: Namespace,
}

/// A service, defined by a Kubernetes Service or ServiceEntries.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Host and namespace.
    pub key: ServiceKey,
    /// `metadata.name` of the defining object; part of Istio's cluster metadata.
    pub name: Arc<str>,
    /// The objects it is built from, the defining one first. ServiceEntries with the same host and
    /// namespace are merged.
    pub origins: Vec<ObjectId>,
    /// Virtual addresses: the cluster IP or `addresses`.
    pub addresses: Vec<IpNet>,
    /// Ports, in the order written.
    pub ports: Vec<ServicePort>,
    /// How endpoints are discovered.
    pub resolution: Resolution,
    /// `location: MESH_EXTERNAL`: no auto mTLS.
    pub external: bool,
    /// Whether it is a Kubernetes Service, which takes precedence over ServiceEntries with the same
    /// host.
    pub kubernetes: bool,
    /// Kubernetes `clusterIP: None`.
    pub headless: bool,
    /// `externalName`: the host it is an alias for.
    pub alias: Option<Hostname>,
    /// Visibility.
    pub export_to: ExportTo,
    /// `subjectAltNames`: expected in server certificates unless a DestinationRule sets its own.
    pub subject_alt_names: Vec<String>,
    /// Locality preference, unless a DestinationRule sets its own.
    pub traffic_distribution: TrafficDistribution,
    /// Endpoints of all ports.
    pub endpoints: Arc<[Endpoint]>,
}

impl Service {
    /// The port with this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// A copy without endpoints.
    pub fn without_endpoints(&self) -> Self {
        Self {
            endpoints: Arc::default(),
            ..self.clone()
        }
    }
}

/// Kubernetes' `trafficDistribution`, or Istio's annotation for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficDistribution {
    /// Unset: the mesh's locality setting applies.
    #[default]
    Any,
    /// `PreferSameZone` and `PreferClose`.
    PreferSameZone,
    /// `PreferSameNode`.
    PreferSameNode,
}

impl TrafficDistribution {
    /// The equivalent locality setting: failover by these labels, whether or not outlier detection
    /// is configured (Istio's `GetLocalityLbSetting`).
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

/// Label with the node that a workload runs on.
pub(super) const NODE: &str = "kubernetes.io/hostname";

/// Topology labels of a workload, the widest first.
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
    /// Service port number.
    pub number: u16,
    /// The name by which endpoints refer to it; may be empty.
    pub name: Arc<str>,
    /// The protocol.
    pub protocol: Protocol,
    /// Endpoint port, unless the endpoint sets its own.
    pub target: u16,
}

/// Protocol of a port (Istio's protocol selection).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Not declared; detected from the first bytes.
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
    /// TLS passthrough, routed by SNI.
    Tls,
    /// Same as TLS.
    Https,
    /// TCP.
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
    /// HTTP protocols, to which `http` routes apply.
    pub fn is_http(self) -> bool {
        matches!(
            self,
            Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb | Protocol::HttpProxy
        )
    }

    /// Whether HTTP/2 is used upstream.
    pub fn is_http2(self) -> bool {
        matches!(self, Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb)
    }

    /// TLS passthrough, to which `tls` routes apply.
    pub fn is_tls(self) -> bool {
        matches!(self, Protocol::Tls | Protocol::Https)
    }

    /// Protocols proxied as TCP, TLS included.
    pub fn is_tcp(self) -> bool {
        self.is_tls()
            || matches!(
                self,
                Protocol::Tcp | Protocol::Mongo | Protocol::Redis | Protocol::MySql
            )
    }
}

/// How the endpoints of a service are discovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// Listed endpoints: EDS.
    Static,
    /// `DNS`: all addresses the name resolves to.
    Dns,
    /// `DNS_ROUND_ROBIN`: one address at a time.
    DnsRoundRobin,
    /// `NONE` and headless services: the original destination.
    Passthrough,
    /// Kubernetes `ExternalName`: an alias of another host, without a cluster of its own.
    Alias,
}

/// Address of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An IP address.
    Ip(IpAddr),
    /// A host name, for DNS resolution.
    Name(Arc<str>),
    /// Path of a Unix domain socket (starts with `@` for an abstract one).
    Unix(Arc<str>),
}

/// An endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: Address,
    /// Additional addresses of a workload in several networks. A headless service gets listeners
    /// for all of them.
    pub further: Arc<[IpAddr]>,
    /// (service port, endpoint port) for the ports it serves. The endpoint port is 0 for a Unix
    /// domain socket.
    pub ports: Vec<(u16, u16)>,
    /// Labels, for subsets.
    pub labels: Arc<Labels>,
    /// The namespace of the workload.
    pub namespace: Namespace,
    /// The service account, if known; determines the SPIFFE ID together with the namespace.
    pub service_account: Option<ServiceAccount>,
    /// Whether it accepts Istio mutual TLS (`security.istio.io/tlsMode: istio`, or a WorkloadEntry
    /// with a service account).
    pub mutual_tls: bool,
    /// Its locality.
    pub locality: Locality,
    /// Load-balancing weight, at least 1.
    pub weight: u32,
    /// Readiness; unready endpoints are sent as UNHEALTHY.
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
