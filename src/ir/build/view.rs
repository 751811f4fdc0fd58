//! The properties of a node that its outbound configuration depends on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ir::NodeView;
use crate::ir::node::InterceptionMode;
use crate::mesh::service::Locality;
use crate::mesh::{Labels, Mesh};
use crate::name::{Namespace, ObjectId};

/// All properties of a node that affect its outbound configuration. It has less than a
/// [`NodeView`], so that the many proxies of a namespace share one: no addresses, and only labels
/// that some rule distinguishes clients by. If `sourceLabels` name only `version: v1`, all other
/// versions are alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboundView {
    /// The namespace.
    pub namespace: Namespace,
    /// Labels matched with this value by `sourceLabels` of some rule, or with any by
    /// `failoverPriority`.
    pub labels: Labels,
    /// The node's locality.
    pub locality: Locality,
    /// How traffic is intercepted.
    pub mode: InterceptionMode,
    /// Whether the main address is IPv6; listeners then use `::` and `::1`.
    pub ipv6: bool,
    /// The effective Sidecar, which also determines bind addresses.
    pub sidecar: Option<ObjectId>,
}

impl OutboundView {
    /// The wildcard address of the node's IP family.
    pub(super) fn wildcard(&self) -> IpAddr {
        match self.ipv6 {
            true => Ipv6Addr::UNSPECIFIED.into(),
            false => Ipv4Addr::UNSPECIFIED.into(),
        }
    }

    /// The loopback address of the node's IP family.
    pub(super) fn loopback(&self) -> IpAddr {
        match self.ipv6 {
            true => Ipv6Addr::LOCALHOST.into(),
            false => Ipv4Addr::LOCALHOST.into(),
        }
    }
}

/// The outbound view of a node.
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
