//! The mesh: what all the objects of the directory mean together.
//!
//! Validated, cross-linked and immutable. An edit makes a new [`Mesh`] that shares everything the
//! edit did not touch with the old one, so that its cost follows the size of the edit.

pub mod config;
pub mod destination_rule;
pub mod directory;
pub(crate) mod few;
mod groups;
mod link;
pub mod lower;
pub mod peer_authentication;
pub mod service;
pub mod sidecar;
mod store;
#[cfg(test)]
pub(crate) mod testing;
pub mod virtual_service;
pub mod workload;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

pub use store::{Mesh, Rank};

use crate::name::{Hostname, Namespace};
use peer_authentication::PolicyScope;

/// Which namespaces see an object (`exportTo`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum ExportTo {
    /// `*`: every namespace.
    #[default]
    Everyone,
    /// `.` and namespace names: these and no others.
    Namespaces(Arc<[Namespace]>),
    /// `~`: nobody.
    Nobody,
}

impl ExportTo {
    /// Whether a proxy in `namespace` sees the object.
    pub fn covers(&self, namespace: &Namespace) -> bool {
        match self {
            ExportTo::Everyone => true,
            ExportTo::Namespaces(namespaces) => namespaces.contains(namespace),
            ExportTo::Nobody => false,
        }
    }

    /// Whether it names all that `other` names, word for word: `*` names no namespace (Istio's `SupersetOf`).
    pub fn includes(&self, other: &ExportTo) -> bool {
        match (self, other) {
            (ExportTo::Everyone, ExportTo::Everyone) | (ExportTo::Nobody, ExportTo::Nobody) => true,
            (ExportTo::Namespaces(own), ExportTo::Namespaces(others)) => others.iter().all(|other| own.contains(other)),
            (ExportTo::Everyone | ExportTo::Namespaces(_) | ExportTo::Nobody, _) => false,
        }
    }

    /// Whether there is a namespace that both name.
    pub fn meets(&self, other: &ExportTo) -> bool {
        match (self, other) {
            (ExportTo::Nobody, _) | (_, ExportTo::Nobody) => false,
            (ExportTo::Everyone, _) | (_, ExportTo::Everyone) => true,
            (ExportTo::Namespaces(own), ExportTo::Namespaces(others)) => others.iter().any(|other| own.contains(other)),
        }
    }

    /// Whether there is a namespace that sees both an object of `own` with this, and one of `other_own`
    /// with `other`. Each object is seen in its own namespace.
    pub fn shares(&self, own: &Namespace, other: &ExportTo, other_own: &Namespace) -> bool {
        match (self, other) {
            (ExportTo::Everyone, _) | (_, ExportTo::Everyone) => true,
            (ExportTo::Namespaces(named), _) if named.iter().any(|ns| ns == other_own || other.covers(ns)) => true,
            (ExportTo::Namespaces(_) | ExportTo::Nobody, _) => own == other_own || other.covers(own),
        }
    }
}

/// Labels as sets of pairs, sorted by key.
pub type Labels = std::collections::BTreeMap<Arc<str>, Arc<str>>;

/// Whether `labels` holds every pair of `selector`; an empty selector selects everything.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// What an edit of the mesh may have changed for proxies. Naming too much costs a comparison, since equal
/// results are kept; naming too little leaves a proxy with what was true before.
///
/// Everything stands here as it was before the edit and as it is after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Anything may have changed: settings.
    pub all: bool,
    /// Sidecars changed.
    pub sidecars: bool,
    /// WorkloadEntries changed: what the proxies of their names are may be different.
    pub workloads: bool,
    /// Hosts of services that changed (their endpoints, and the policies those are under, included), hosts
    /// that changed VirtualServices and DestinationRules name, and the destinations of those
    /// VirtualServices. Wildcards as the rules write them: they stand for all that they cover.
    pub hosts: BTreeSet<Hostname>,
    /// Port numbers of services that changed.
    pub ports: BTreeSet<u16>,
    /// Addresses of workloads and endpoints that changed: what the proxies there accept may be different.
    pub addresses: BTreeSet<IpAddr>,
    /// What PeerAuthentications that changed are for: what the proxies of these workloads accept may be
    /// different. What is sent to them differs only where mutual TLS is turned off or no longer is; those
    /// services are among the hosts.
    pub policies: BTreeSet<PolicyScope>,
}

impl Touched {
    /// Everything.
    pub fn everything() -> Self {
        Self {
            all: true,
            ..Self::default()
        }
    }

    /// Whether the edit touched nothing that a proxy could see.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what another edit touched.
    pub fn merge(&mut self, other: Touched) {
        self.all |= other.all;
        self.sidecars |= other.sidecars;
        self.workloads |= other.workloads;
        self.hosts.extend(other.hosts);
        self.ports.extend(other.ports);
        self.addresses.extend(other.addresses);
        self.policies.extend(other.policies);
    }
}
