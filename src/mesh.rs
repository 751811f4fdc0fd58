//! The mesh: what all the objects of the directory mean together.
//!
//! Validated, cross-linked and immutable. An edit makes a new [`Mesh`] that shares everything the
//! edit did not touch with the old one, so that its cost follows the size of the edit.

pub mod config;
pub mod destination_rule;
pub mod peer_authentication;
pub mod service;
pub mod sidecar;
mod store;
pub mod virtual_service;
pub mod workload;

use std::sync::Arc;

pub use store::{Mesh, Rank};

use crate::name::Namespace;

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
}

/// Labels as sets of pairs, sorted by key.
pub type Labels = std::collections::BTreeMap<Arc<str>, Arc<str>>;

/// Whether `labels` holds every pair of `selector`; an empty selector selects everything.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
