//! One object of the directory.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::FieldPath;
use crate::api::config_map::ConfigMap;
use crate::api::destination_rule::DestinationRule;
use crate::api::endpoint_slice::EndpointSlice;
use crate::api::endpoints::Endpoints;
use crate::api::peer_authentication::PeerAuthentication;
use crate::api::service::Service;
use crate::api::service_entry::ServiceEntry;
use crate::api::sidecar::Sidecar;
use crate::api::virtual_service::VirtualService;
use crate::api::workload_entry::WorkloadEntry;
use crate::name::{Kind, ObjectId};
use crate::source::document::Document;

/// An object as it was written. Two objects are equal when they say the same, wherever and however
/// they are written, so that a comment or a blank line changes nothing.
#[derive(Clone, Debug)]
pub struct Object {
    /// Kind, namespace and name.
    pub id: ObjectId,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// What is particular to the kind.
    pub spec: Spec,
    /// The document that holds it.
    pub document: Document,
    /// Where in the document: the root, or an item of a list.
    pub at: FieldPath,
    /// Where it stands among the others, for "the oldest wins".
    pub order: Precedence,
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && self.spec == other.spec
            && self.labels == other.labels
            && self.annotations == other.annotations
    }
}

/// The order that stands in for Istio's creation time: by path, then by position in the file.
/// Paths compare byte by byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Precedence {
    /// The path as it is shown.
    pub origin: Arc<str>,
    /// The byte in the file at which the document starts.
    pub document: usize,
    /// The position in the document's list.
    pub item: usize,
}

/// What is particular to a kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// Kubernetes `v1`.
    ConfigMap(Arc<ConfigMap>),
    /// Kubernetes `v1`.
    Service(Arc<Service>),
    /// Kubernetes `discovery.k8s.io/v1`.
    EndpointSlice(Arc<EndpointSlice>),
    /// Kubernetes `v1`.
    Endpoints(Arc<Endpoints>),
    /// Istio.
    ServiceEntry(Arc<ServiceEntry>),
    /// Istio.
    WorkloadEntry(Arc<WorkloadEntry>),
    /// Istio.
    Sidecar(Arc<Sidecar>),
    /// Istio.
    VirtualService(Arc<VirtualService>),
    /// Istio.
    DestinationRule(Arc<DestinationRule>),
    /// Istio.
    PeerAuthentication(Arc<PeerAuthentication>),
}

impl Spec {
    /// The kind that it is of.
    pub fn kind(&self) -> Kind {
        match self {
            Spec::ConfigMap(_) => Kind::ConfigMap,
            Spec::Service(_) => Kind::Service,
            Spec::EndpointSlice(_) => Kind::EndpointSlice,
            Spec::Endpoints(_) => Kind::Endpoints,
            Spec::ServiceEntry(_) => Kind::ServiceEntry,
            Spec::WorkloadEntry(_) => Kind::WorkloadEntry,
            Spec::Sidecar(_) => Kind::Sidecar,
            Spec::VirtualService(_) => Kind::VirtualService,
            Spec::DestinationRule(_) => Kind::DestinationRule,
            Spec::PeerAuthentication(_) => Kind::PeerAuthentication,
        }
    }
}
