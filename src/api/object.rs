//! One object of the directory.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::api::FieldPath;
use crate::api::config_map::ConfigMap;
use crate::api::destination_rule::DestinationRule;
use crate::api::endpoint_slice::EndpointSlice;
use crate::api::endpoints::Endpoints;
use crate::api::peer_authentication::PeerAuthentication;
use crate::api::place::{self, Part};
use crate::api::service::Service;
use crate::api::service_entry::ServiceEntry;
use crate::api::sidecar::Sidecar;
use crate::api::virtual_service::VirtualService;
use crate::api::workload_entry::WorkloadEntry;
use crate::api::workload_group::WorkloadGroup;
use crate::diag::Place;
use crate::name::{Kind, ObjectId};
use crate::source::document::Document;
use crate::source::node::{self, Node};

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
    /// The bytes of the document that it takes.
    pub extent: Range<usize>,
    /// Where it stands among the others, for "the oldest wins".
    pub order: Precedence,
}

impl Object {
    /// Where a field of the object stands, as `spec.http[0].match[0].headers["x-a"]`; the nearest
    /// field above it where there is none of that path; the object's name for the object itself.
    ///
    /// The text is read again for this, so it is meant for what goes wrong.
    pub fn place(&self, path: impl Into<FieldPath>) -> Place {
        self.places().place(&path.into())
    }

    /// Where the name of a field, or the key of a map's entry, stands.
    pub fn place_of_name(&self, path: impl Into<FieldPath>) -> Place {
        self.places().find(&path.into(), Part::Name)
    }

    /// Where many fields of the object stand.
    pub fn places(&self) -> Places<'_> {
        Places {
            object: self,
            text: OnceCell::new(),
        }
    }
}

/// Where fields of an object stand: the text is read again for the first of them, and only for that.
#[derive(Debug)]
pub struct Places<'o> {
    object: &'o Object,
    text: OnceCell<Text>,
}

/// What the text of an object was read as.
#[derive(Debug)]
enum Text {
    /// The object alone.
    Object(Node),
    /// The document that it stands in, to which its aliases refer.
    Document(Node),
    /// It cannot be read any more.
    Nothing,
}

impl Places<'_> {
    /// See [`Object::place`].
    pub fn place(&self, path: &FieldPath) -> Place {
        self.find(path, Part::Value)
    }

    fn find(&self, path: &FieldPath, part: Part) -> Place {
        let name = FieldPath::root().field("metadata").field("name");
        let path = if *path == FieldPath::root() { &name } else { path };
        let Object {
            document, extent, at, ..
        } = self.object;
        let span = match self.text.get_or_init(|| Text::of(self.object)) {
            Text::Object(object) => place::find(object, path, part),
            Text::Document(document) => place::find(document, &at.join(path), part),
            Text::Nothing => extent.start..extent.start,
        };
        document.place(span)
    }
}

impl Text {
    fn of(object: &Object) -> Self {
        if let Some(node) = node::parse_part(&object.document, object.extent.clone()) {
            return Text::Object(node);
        }
        node::parse(&object.document).root.map_or(Text::Nothing, Text::Document)
    }
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
    WorkloadGroup(Arc<WorkloadGroup>),
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
            Spec::WorkloadGroup(_) => Kind::WorkloadGroup,
            Spec::Sidecar(_) => Kind::Sidecar,
            Spec::VirtualService(_) => Kind::VirtualService,
            Spec::DestinationRule(_) => Kind::DestinationRule,
            Spec::PeerAuthentication(_) => Kind::PeerAuthentication,
        }
    }
}
