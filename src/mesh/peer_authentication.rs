//! PeerAuthentications, lowered: mutual TLS modes of inbound connections.

use std::collections::{BTreeMap, BTreeSet};

use super::service::Endpoint;
use super::{Labels, Mesh, selects};
use crate::name::{Hostname, Namespace, ObjectId};

/// A PeerAuthentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// The object.
    pub id: ObjectId,
    /// `selector.matchLabels`; `None`: the whole namespace, or mesh if in the root namespace.
    pub selector: Option<Labels>,
    /// `mtls.mode`; `None` (UNSET) inherits.
    pub mode: Option<MutualTlsMode>,
    /// `portLevelMtls`, by workload port; `None` inherits.
    pub ports: Vec<(u16, Option<MutualTlsMode>)>,
}

/// The workloads to which a PeerAuthentication applies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyScope {
    /// Restricts it to a namespace.
    pub namespace: Option<Namespace>,
    /// Restricts it to workloads with these labels.
    pub selector: Option<Labels>,
}

impl PeerAuthentication {
    /// Its scope in a mesh with this root namespace.
    pub fn scope(&self, root: &Namespace) -> PolicyScope {
        let is_of_mesh = self.id.namespace == *root && self.selector.is_none();
        PolicyScope {
            namespace: (!is_of_mesh).then(|| self.id.namespace.clone()),
            selector: self.selector.clone(),
        }
    }
}

impl PolicyScope {
    /// Whether a workload is in scope.
    pub fn covers(&self, namespace: &Namespace, labels: &Labels) -> bool {
        self.namespace.as_ref().is_none_or(|own| own == namespace)
            && self.selector.as_ref().is_none_or(|selector| selects(selector, labels))
    }
}

/// The services whose outbound configuration changes with an edit of PeerAuthentications in these
/// scopes, because mutual TLS became disabled or enabled in their namespace or at one of their
/// endpoints. Iterates over endpoints, but builds nothing.
pub fn hosts_affected(before: &Mesh, after: &Mesh, scopes: &BTreeSet<PolicyScope>) -> BTreeSet<Hostname> {
    let is_off = |mode: MutualTlsMode| mode == MutualTlsMode::Disable;
    let in_general = |namespace: &Namespace| {
        is_off(before.namespace_mutual_tls(namespace)) != is_off(after.namespace_mutual_tls(namespace))
    };
    let mut known = BTreeMap::new();
    let mut at_port = |endpoint: &Endpoint, port: Option<u16>| {
        let off = |mesh: &Mesh| is_off(mesh.mutual_tls_mode(&endpoint.namespace, &endpoint.labels, port));
        let workload = (endpoint.namespace.clone(), endpoint.labels.clone(), port);
        *known.entry(workload).or_insert_with(|| off(before) != off(after))
    };
    let covered = |endpoint: &&Endpoint| {
        let covers = |scope: &PolicyScope| scope.covers(&endpoint.namespace, &endpoint.labels);
        scopes.iter().any(covers)
    };
    let services = after.services().filter(|_| !scopes.is_empty());
    let affected = services.filter(|service| {
        let mut endpoints = service.endpoints.iter().filter(covered);
        let numbers = || service.ports.iter().map(|port| port.number);
        in_general(&service.key.namespace)
            || endpoints.any(|endpoint| numbers().any(|number| at_port(endpoint, endpoint.port(number))))
    });
    affected.map(|service| service.key.host.clone()).collect()
}

/// `mtls.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MutualTlsMode {
    /// `DISABLE`: plaintext only.
    Disable,
    /// `PERMISSIVE`: both; the default.
    Permissive,
    /// `STRICT`: mutual TLS only.
    Strict,
}
