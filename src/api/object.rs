//! A configuration object and its location in a document.

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

/// A parsed object. Equality considers content only, not location or formatting, so an edit to
/// comments or blank lines changes nothing.
#[derive(Clone, Debug)]
pub struct Object {
    /// Kind, namespace and name.
    pub id: ObjectId,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// The kind-specific part.
    pub spec: Spec,
    /// The document it is in.
    pub document: Document,
    /// Its path within the document: the root, or an item of a list.
    pub at: FieldPath,
    /// Its byte range in the document.
    pub extent: Range<usize>,
    /// Its precedence, which stands in for the creation time where Istio lets the oldest object
    /// win.
    pub order: Precedence,
}

impl Object {
    /// The location of a field, such as `spec.http[0].match[0].headers["x-a"]`; of its nearest
    /// existing ancestor if the field is absent; of the object's name for the empty path.
    ///
    /// Parses the text again, so it is meant for diagnostics only.
    pub fn place(&self, path: impl Into<FieldPath>) -> Place {
        self.places().place(&path.into())
    }

    /// The location of a field's name or a map entry's key.
    pub fn place_of_name(&self, path: impl Into<FieldPath>) -> Place {
        self.places().find(&path.into(), Part::Name)
    }

    /// Looks up many locations without parsing the text for each.
    pub fn places(&self) -> Places<'_> {
        Places {
            object: self,
            text: OnceCell::new(),
        }
    }
}

/// Looks up locations of an object's fields; the text is parsed on the first lookup.
#[derive(Debug)]
pub struct Places<'o> {
    object: &'o Object,
    text: OnceCell<Text>,
}

/// The re-parsed text of an object.
#[derive(Debug)]
enum Text {
    /// The object alone.
    Object(Node),
    /// The whole document, needed because the object uses aliases.
    Document(Node),
    /// The text cannot be parsed any more.
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

/// The order that stands in for Istio's creation time: by path, byte by byte, then by position in
/// the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Precedence {
    /// The file's path, as displayed.
    pub origin: Arc<str>,
    /// Byte offset of the document in the file.
    pub document: usize,
    /// Index in the document's list.
    pub item: usize,
}

/// The kind-specific part of an object.
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
    /// The kind.
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
