//! Sidecars, lowered: inbound listeners and visible services of a proxy.

use std::net::IpAddr;
use std::sync::Arc;

use super::Labels;
use super::config::OutboundPolicy;
use super::destination_rule::ConnectionPool;
use super::service::{Protocol, ServiceKey};
use super::virtual_service::{Destination, VirtualService};
use crate::name::{Hostname, Namespace, ObjectId};

/// A Sidecar.
#[derive(Clone, Debug, PartialEq)]
pub struct Sidecar {
    /// The object.
    pub id: ObjectId,
    /// `workloadSelector.labels`; `None`: default of the namespace (or mesh).
    pub selector: Option<Labels>,
    /// `ingress`; if empty, the ports of the workload's services.
    pub ingress: Vec<Ingress>,
    /// `egress`; if empty, everything visible.
    pub egress: Vec<Egress>,
    /// `outboundTrafficPolicy.mode`; `None` means the mesh's.
    pub outbound_policy: Option<OutboundPolicy>,
    /// `inboundConnectionPool`.
    pub inbound_connection_pool: Option<ConnectionPool>,
}

impl Sidecar {
    /// The service that receives traffic to unknown destinations, if set.
    pub fn egress_proxy(&self) -> Option<&Destination> {
        match self.outbound_policy.as_ref()? {
            OutboundPolicy::EgressProxy(proxy) => Some(proxy),
            OutboundPolicy::AllowAny | OutboundPolicy::RegistryOnly => None,
        }
    }
}

/// Port of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerPort {
    /// `number`.
    pub number: u16,
    /// `protocol`.
    pub protocol: Protocol,
    /// `name`.
    pub name: Arc<str>,
}

/// An entry of `ingress`.
#[derive(Clone, Debug, PartialEq)]
pub struct Ingress {
    /// `port`.
    pub port: ListenerPort,
    /// `bind`.
    pub bind: Option<IpAddr>,
    /// `captureMode: NONE`: binds its own port.
    pub bound: bool,
    /// `defaultEndpoint`.
    pub default_endpoint: DefaultEndpoint,
    /// `connectionPool`.
    pub connection_pool: Option<ConnectionPool>,
}

/// Where inbound requests are forwarded to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefaultEndpoint {
    /// Absent: the original destination.
    Original,
    /// `127.0.0.1:PORT` or `[::1]:PORT`.
    Loopback(std::net::SocketAddr),
    /// `0.0.0.0:PORT`, `[::]:PORT` or `:PORT`: the workload's own address.
    Instance(u16),
    /// `unix://PATH`.
    Unix(Arc<str>),
}

/// An entry of `egress`.
#[derive(Clone, Debug, PartialEq)]
pub struct Egress {
    /// `port`; `None`: all ports of the hosts.
    pub port: Option<ListenerPort>,
    /// `bind`.
    pub bind: Option<Bind>,
    /// `captureMode: NONE`: binds its own port.
    pub bound: bool,
    /// `hosts`.
    pub hosts: Vec<HostFilter>,
}

impl Egress {
    /// Whether `hosts` includes the service, for a proxy in namespace `own`.
    pub fn admits(&self, service: &ServiceKey, own: &Namespace) -> bool {
        let mut covering = self
            .hosts
            .iter()
            .filter(|filter| filter.namespace.covers(&service.namespace, own) && filter.host.covers(&service.host))
            .peekable();
        covering.peek().is_some() && covering.all(|filter| !filter.exclude)
    }

    /// Whether it imports the VirtualService: its namespace is included, and one of its hosts
    /// matches a listed host or vice versa (Istio's `vsHostMatches`). `own` is the proxy's
    /// namespace.
    pub fn takes(&self, rule: &VirtualService, own: &Namespace) -> bool {
        let meets = |one: &Hostname, other: &Hostname| one.covers(other) || other.covers(one);
        self.hosts
            .iter()
            .filter(|filter| !filter.exclude && filter.namespace.covers(&rule.id.namespace, own))
            .any(|filter| rule.hosts.iter().any(|host| meets(&filter.host, host)))
    }

    /// Whether it serves all ports of a service: it has no port, or is an explicit HTTP proxy or a
    /// Unix domain socket.
    pub fn any_port(&self) -> bool {
        self.is_http_proxy() || self.port.as_ref().is_none_or(|port| port.number == 0)
    }

    /// Whether it is an explicit HTTP proxy.
    pub fn is_http_proxy(&self) -> bool {
        self.port
            .as_ref()
            .is_some_and(|port| port.protocol == Protocol::HttpProxy)
    }
}

/// `bind` of an egress listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// An address.
    Ip(IpAddr),
    /// `unix://PATH`.
    Unix(Arc<str>),
}

/// An entry of `hosts`: `namespace/host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFilter {
    /// `~ns/host`: excludes what it matches.
    pub exclude: bool,
    /// The namespace before the slash.
    pub namespace: FilterNamespace,
    /// The host, possibly a wildcard.
    pub host: Hostname,
}

/// The namespace of a [`HostFilter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterNamespace {
    /// `*`.
    Any,
    /// `.` in a Sidecar of the root namespace: the namespace of the proxy it applies to (Istio's
    /// `convertIstioListenerToWrapper`). In other namespaces it is the Sidecar's own.
    Proxy,
    /// This one.
    Named(Namespace),
}

impl FilterNamespace {
    /// Whether it includes `namespace`, for a proxy in namespace `own`.
    fn covers(&self, namespace: &Namespace, own: &Namespace) -> bool {
        match self {
            FilterNamespace::Any => true,
            FilterNamespace::Proxy => namespace == own,
            FilterNamespace::Named(named) => namespace == named,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(hosts: &[(Option<&str>, &str, bool)]) -> Egress {
        let filter = |(namespace, host, exclude): &(Option<&str>, &str, bool)| HostFilter {
            exclude: *exclude,
            namespace: match *namespace {
                None => FilterNamespace::Any,
                Some(".") => FilterNamespace::Proxy,
                Some(name) => FilterNamespace::Named(name.parse().unwrap()),
            },
            host: host.parse().unwrap(),
        };
        Egress {
            port: None,
            bind: None,
            bound: false,
            hosts: hosts.iter().map(filter).collect(),
        }
    }

    fn key(host: &str, namespace: &str) -> ServiceKey {
        ServiceKey {
            host: host.parse().unwrap(),
            namespace: namespace.parse().unwrap(),
        }
    }

    #[test]
    fn listed_hosts_are_included_unless_excluded() {
        let shop: Namespace = "shop".parse().unwrap();
        let egress = egress(&[(None, "*", false), (Some("shop"), "*.secret.com", true)]);
        assert!(egress.admits(&key("a.com", "shop"), &shop));
        assert!(!egress.admits(&key("a.secret.com", "shop"), &shop));
        assert!(egress.admits(&key("a.secret.com", "other"), &shop));
        assert!(!super::tests::egress(&[(Some("shop"), "*", true)]).admits(&key("a.com", "shop"), &shop));
    }

    #[test]
    fn a_dot_in_the_root_namespace_denotes_the_proxys_namespace() {
        let egress = egress(&[(Some("."), "*", false), (Some("istio-system"), "*", false)]);
        let (shop, other): (Namespace, Namespace) = ("shop".parse().unwrap(), "other".parse().unwrap());
        assert!(egress.admits(&key("a.com", "shop"), &shop) && !egress.admits(&key("a.com", "shop"), &other));
        assert!(egress.admits(&key("a.com", "istio-system"), &other));
    }
}
