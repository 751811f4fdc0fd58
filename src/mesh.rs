//! The mesh model: services, workloads and policies derived from all objects of the directory.
//!
//! A [`Mesh`] is validated, cross-linked and immutable. An edit creates a new one that shares
//! everything unaffected with its predecessor, so the cost is proportional to the edit.

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

/// The namespaces an object is visible in (`exportTo`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum ExportTo {
    /// `*`: all namespaces.
    #[default]
    Everyone,
    /// `.` and namespace names: these only.
    Namespaces(Arc<[Namespace]>),
    /// `~`: none.
    Nobody,
}

impl ExportTo {
    /// Whether the object is visible to proxies in `namespace`.
    pub fn covers(&self, namespace: &Namespace) -> bool {
        match self {
            ExportTo::Everyone => true,
            ExportTo::Namespaces(namespaces) => namespaces.contains(namespace),
            ExportTo::Nobody => false,
        }
    }

    /// Whether it literally includes every entry of `other`; `*` is not expanded (Istio's
    /// `SupersetOf`).
    pub fn includes(&self, other: &ExportTo) -> bool {
        match (self, other) {
            (ExportTo::Everyone, ExportTo::Everyone) | (ExportTo::Nobody, ExportTo::Nobody) => true,
            (ExportTo::Namespaces(own), ExportTo::Namespaces(others)) => others.iter().all(|other| own.contains(other)),
            (ExportTo::Everyone | ExportTo::Namespaces(_) | ExportTo::Nobody, _) => false,
        }
    }

    /// Whether both include a common namespace.
    pub fn meets(&self, other: &ExportTo) -> bool {
        match (self, other) {
            (ExportTo::Nobody, _) | (_, ExportTo::Nobody) => false,
            (ExportTo::Everyone, _) | (_, ExportTo::Everyone) => true,
            (ExportTo::Namespaces(own), ExportTo::Namespaces(others)) => others.iter().any(|other| own.contains(other)),
        }
    }

    /// Whether some namespace sees both an object of namespace `own` with this `exportTo` and one
    /// of `other_own` with `other`. An object is always visible in its own namespace.
    pub fn shares(&self, own: &Namespace, other: &ExportTo, other_own: &Namespace) -> bool {
        match (self, other) {
            (ExportTo::Everyone, _) | (_, ExportTo::Everyone) => true,
            (ExportTo::Namespaces(named), _) if named.iter().any(|ns| ns == other_own || other.covers(ns)) => true,
            (ExportTo::Namespaces(_) | ExportTo::Nobody, _) => own == other_own || other.covers(own),
        }
    }
}

/// Labels, sorted by key.
pub type Labels = std::collections::BTreeMap<Arc<str>, Arc<str>>;

/// Whether `labels` contains every pair of `selector`; an empty selector matches everything.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// What an edit of the mesh may have changed for proxies. Including too much costs a comparison,
/// since equal results are kept; including too little leaves proxies with stale configuration.
///
/// All sets cover the state before and after the edit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Anything may have changed, because the mesh configuration did.
    pub all: bool,
    /// Sidecars changed.
    pub sidecars: bool,
    /// WorkloadEntries changed, which determine the labels and addresses of proxies.
    pub workloads: bool,
    /// Hosts of changed services (including changes of their endpoints and of PeerAuthentications
    /// for these), hosts named by changed VirtualServices and DestinationRules, and destinations of
    /// these VirtualServices. Wildcards are not expanded: they stand for all hosts they match.
    pub hosts: BTreeSet<Hostname>,
    /// Port numbers of changed services.
    pub ports: BTreeSet<u16>,
    /// Addresses of changed workloads and endpoints; the inbound configuration of proxies there may
    /// change.
    pub addresses: BTreeSet<IpAddr>,
    /// Scopes of changed PeerAuthentications; the inbound configuration of proxies in scope may
    /// change. Outbound configuration is affected only where mutual TLS becomes disabled or
    /// enabled; the services concerned are in `hosts`.
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

    /// Whether nothing visible to a proxy changed.
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
