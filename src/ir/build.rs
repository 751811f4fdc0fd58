//! Builds the configuration of a node from the mesh.
//!
//! The outbound part depends on few properties of a node ([`OutboundView`]), so many nodes share
//! one; the inbound part is per node. Both consist of units that depend on a host, a port or an
//! address. An edit rebuilds only the units it touches, and values that turn out equal keep their
//! previous `Arc`.

mod chain;
mod cluster;
mod endpoints;
mod fixed;
mod import;
mod inbound;
mod inbound_chain;
mod inbound_port;
mod locality;
mod naming;
mod outbound;
mod port;
mod route;
mod routing;
mod scope;
mod slot;
mod transport;
mod view;
mod virtual_host;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

pub use inbound::{Inbound, build_inbound};
pub use outbound::{Outbound, build_outbound};
pub use view::{OutboundView, outbound_view};

use super::listener::{ListenAddress, Listener};
use super::{NodeConfig, NodeView, ResourceName};
use crate::mesh::{Mesh, Touched};
use crate::name::ObjectId;

/// A node's configuration and its parts.
#[derive(Clone, Debug)]
pub struct Built {
    /// The configuration.
    pub config: NodeConfig,
    /// Listeners left out of it.
    pub conflicts: Vec<Conflict>,
    /// The part shared by all nodes with the same outbound view.
    pub outbound: Arc<Outbound>,
    /// The part of this node only.
    pub inbound: Arc<Inbound>,
}

/// A listener, or a service's share of one, that is left out because its address and port are
/// taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The listener's name.
    pub listener: ResourceName,
    /// The object that has the address.
    pub kept: Option<ObjectId>,
    /// The object left out.
    pub dropped: Option<ObjectId>,
}

/// Builds a node's configuration from scratch.
pub fn build(mesh: &Mesh, node: &NodeView) -> Built {
    let view = outbound_view(mesh, node);
    combine(
        Arc::new(build_outbound(mesh, &view)),
        Arc::new(build_inbound(mesh, node)),
    )
}

/// Updates a node's configuration after an edit. The result equals that of [`build`]; the cost is
/// proportional to what the edit touched.
pub fn update(mesh: &Mesh, node: &NodeView, previous: &Built, touched: &Touched) -> Built {
    let view = outbound_view(mesh, node);
    let outbound = previous.outbound.update(mesh, &view, touched);
    let inbound = previous.inbound.update(mesh, node, touched);
    match Arc::ptr_eq(&outbound, &previous.outbound) && Arc::ptr_eq(&inbound, &previous.inbound) {
        true => previous.clone(),
        false => combine(outbound, inbound),
    }
}

/// Combines the two parts. Inbound listeners take precedence over outbound ones with the same
/// address.
pub fn combine(outbound: Arc<Outbound>, inbound: Arc<Inbound>) -> Built {
    let mut config = outbound.config().clone();
    let mut conflicts: Vec<Conflict> = outbound.conflicts().cloned().collect();
    for name in &inbound.parts.itself {
        config.listeners.remove(name);
    }
    for (name, listener) in &inbound.parts.listeners {
        for other in in_the_way(&outbound, listener) {
            let dropped = config.listeners.remove(&other);
            conflicts.push(Conflict {
                listener: other,
                kept: listener.origins.first().cloned(),
                dropped: dropped.and_then(|dropped| dropped.origins.first().cloned()),
            });
        }
        config.listeners.insert(name.clone(), listener.clone());
    }
    for (name, cluster) in &inbound.parts.clusters {
        config.clusters.insert(name.clone(), cluster.clone());
    }
    Built {
        config,
        conflicts,
        outbound,
        inbound,
    }
}

/// The outbound listeners that conflict with an inbound one: those with the same name or an
/// overlapping socket address.
fn in_the_way(outbound: &Outbound, inbound: &Listener) -> BTreeSet<ResourceName> {
    let ListenAddress::Ip(ip, port) = inbound.address else {
        return BTreeSet::new();
    };
    let listeners = &outbound.config().listeners;
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let same = listeners.get(&inbound.name).map(|listener| &listener.name);
    let everywhere = listeners.get(&naming::listener(&ListenAddress::Ip(any, port)));
    let everywhere = everywhere
        .filter(|listener| listener.bind)
        .map(|listener| &listener.name);
    let on_port = |name: &&ResourceName| {
        let address = listeners.get(*name).map(|listener| &listener.address);
        matches!(address, Some(ListenAddress::Ip(its, number)) if *number == port && its.is_ipv4() == ip.is_ipv4())
    };
    let anywhere = outbound.sockets().filter(|_| ip.is_unspecified()).filter(on_port);
    same.into_iter().chain(everywhere).chain(anywhere).cloned().collect()
}

/// Replaces values by equal previous ones. Returns whether any value differs.
fn keep_equal<T: PartialEq>(new: &mut BTreeMap<ResourceName, Arc<T>>, old: &BTreeMap<ResourceName, Arc<T>>) -> bool {
    let mut kept = false;
    for (name, value) in new {
        let equal = old.get(name).filter(|old| !Arc::ptr_eq(old, value) && *old == value);
        if let Some(old) = equal {
            *value = old.clone();
            kept = true;
        }
    }
    kept
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod random_edits;
#[cfg(test)]
mod random_files;
#[cfg(test)]
mod tests;
