//! The part of a node that its calls depend on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ir::NodeView;
use crate::ir::node::InterceptionMode;
use crate::mesh::service::Locality;
use crate::mesh::{Labels, Mesh};
use crate::name::{Namespace, ObjectId};

/// All of a node that affects what it sends. It is less than a [`NodeView`], so that the many proxies of a
/// namespace share one outbound configuration: addresses are not in it, and of the labels only those that some
/// rule tells clients apart by: where `sourceLabels` name `version: v1` alone, all other versions are alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboundView {
    /// The namespace.
    pub namespace: Namespace,
    /// Labels that `sourceLabels` of some rule name with this value, or `failoverPriority` with any.
    pub labels: Labels,
    /// Where the node runs.
    pub locality: Locality,
    /// How traffic reaches the proxy.
    pub mode: InterceptionMode,
    /// Whether the main address is an IPv6 one: listeners are on `::` and `::1` then.
    pub ipv6: bool,
    /// The Sidecar in force, which also says where listeners bind.
    pub sidecar: Option<ObjectId>,
}

impl OutboundView {
    /// The address that stands for all of the node's.
    pub(super) fn wildcard(&self) -> IpAddr {
        match self.ipv6 {
            true => Ipv6Addr::UNSPECIFIED.into(),
            false => Ipv4Addr::UNSPECIFIED.into(),
        }
    }

    /// The address that only the node itself reaches.
    pub(super) fn loopback(&self) -> IpAddr {
        match self.ipv6 {
            true => Ipv6Addr::LOCALHOST.into(),
            false => Ipv4Addr::LOCALHOST.into(),
        }
    }
}

/// What a node's calls depend on.
pub fn outbound_view(mesh: &Mesh, node: &NodeView) -> OutboundView {
    let for_failover = |key: &str| mesh.config.locality_lb.failover_labels().any(|label| label == key);
    let tells_apart = |key, value| mesh.tells_clients_apart(key, value) || for_failover(key);
    let labels = node.labels.iter().filter(|(key, value)| tells_apart(key, value));
    OutboundView {
        namespace: node.namespace.clone(),
        labels: labels.map(|(key, value)| (key.clone(), value.clone())).collect(),
        locality: node.locality.clone(),
        mode: node.mode,
        ipv6: node.addresses.first().is_some_and(IpAddr::is_ipv6),
        sidecar: mesh
            .sidecar(&node.namespace, &node.labels)
            .map(|sidecar| sidecar.id.clone()),
    }
}
