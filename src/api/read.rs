//! Parses a document into objects: the envelope common to all kinds, then the kind's own fields.

mod envelope;

use std::sync::Arc;

use serde::Deserialize;

use super::de::{self, Report};
use super::field_path::FieldPath;
use super::kinds::{self, Support, Unknown};
use super::object::{Object, Precedence, Spec};
use super::place::own_span;
use crate::diag::{Code, Diagnostic, Severity};
use crate::name::{Kind, ObjectId};
use crate::source::document::{Document, MAX_BYTES};
use crate::source::node::{self, Node, Value};
use envelope::{Envelope, Metadata};

/// Parser options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Report unknown fields and kinds as warnings instead of errors.
    pub lenient: bool,
}

/// The result of parsing a document.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// The valid objects.
    pub objects: Vec<Object>,
    /// All problems of the document.
    pub diagnostics: Vec<Diagnostic>,
    /// Invalid objects, as far as their names could be parsed.
    pub ids_in_error: Vec<ObjectId>,
    /// Whether there is an error in an object whose name could not be parsed.
    pub hides_objects: bool,
}

/// Parses a document: one object or a list. Reports all problems, not only the first.
pub fn read(document: &Document, options: &ReadOptions) -> Read {
    let mut reading = Reading {
        document,
        options,
        is_broken: false,
        read: Read::default(),
    };
    if document.text().len() > MAX_BYTES {
        reading.too_large();
        return reading.read;
    }
    let parsed = node::parse(document);
    reading.is_broken = !parsed.diagnostics.is_empty();
    match &parsed.root {
        Some(root) => reading.value(root, &FieldPath::root(), &Inherited::default()),
        None => reading.ids_before_mistake(),
    }
    let mut read = reading.read;
    read.diagnostics.splice(0..0, parsed.diagnostics);
    read
}

struct Reading<'d> {
    document: &'d Document,
    options: &'d ReadOptions,
    /// The YAML is malformed, so no object can be trusted.
    is_broken: bool,
    read: Read,
}

/// `apiVersion` and kind that items inherit from a list such as `VirtualServiceList`.
#[derive(Default)]
struct Inherited<'n> {
    api_version: Option<&'n str>,
    kind: Option<&'n str>,
    item: usize,
}

impl<'d> Reading<'d> {
    /// Parses an object or a list of objects.
    fn value<'n>(&mut self, node: &'n Node, at: &FieldPath, inherited: &Inherited<'n>) {
        let entries = match &node.value {
            Value::Map(entries) => entries,
            // An empty document.
            Value::Null => return,
            Value::Bool(..) | Value::Number(_) | Value::String(_) | Value::Seq(_) => {
                let problem = Diagnostic::new(Code::InvalidValue, "expected an object with `apiVersion` and `kind`");
                return self.add(problem.at(self.document.place(own_span(node))));
            }
        };
        let envelope = Envelope::new(entries);
        let Some(kind) = self.required(node, &envelope, "kind", inherited.kind) else {
            return;
        };
        let Some(api_version) = self.required(node, &envelope, "apiVersion", inherited.api_version) else {
            return;
        };
        match envelope.get("items") {
            Some((_, items)) if is_list(kind) => self.list(items, at, api_version, kind),
            None if kind == "List" || item_kind(kind).is_some_and(|item| kinds::by_name(item).is_some()) => {
                let problem = Diagnostic::new(Code::MissingField, "a List object must have `items`");
                self.add(problem.at(self.place_of(&envelope, "kind", node)));
            }
            _ => self.object(node, at, &envelope, api_version, kind, inherited.item),
        }
    }

    fn list(&mut self, items: &Node, at: &FieldPath, api_version: &str, kind: &str) {
        let item_kind = item_kind(kind);
        let at = at.field("items");
        match &items.value {
            Value::Seq(items) => {
                for (item, node) in items.iter().enumerate() {
                    if node.value == Value::Null {
                        let problem = Diagnostic::new(Code::InvalidValue, "this element of the list is empty");
                        self.add(problem.at(self.document.place(node.span.clone())));
                        continue;
                    }
                    let inherited = Inherited {
                        api_version: item_kind.and(Some(api_version)),
                        kind: item_kind,
                        item,
                    };
                    self.value(node, &at.index(item), &inherited);
                }
            }
            Value::Null => {}
            Value::Bool(..) | Value::Number(_) | Value::String(_) | Value::Map(_) => {
                let problem = Diagnostic::new(Code::InvalidValue, "`items` must be a list of objects");
                self.add(problem.at(self.document.place(own_span(items))));
            }
        }
    }

    /// A required string of the envelope.
    fn required<'n>(
        &mut self,
        node: &Node,
        envelope: &Envelope<'n>,
        name: &'static str,
        inherited: Option<&'n str>,
    ) -> Option<&'n str> {
        let (place, text) = match envelope.get(name) {
            Some((key, value)) => (key.span.clone(), envelope::text(value)),
            None => (own_span(node), inherited),
        };
        if text.is_none() {
            let problem = Diagnostic::new(Code::MissingField, format!("`{name}` is missing"));
            let mut problem = problem.at(self.document.place(place));
            if let Some(meant) = envelope.misspelt(name) {
                problem = problem.help(format!("did you mean `{name}` instead of `{meant}`?"));
            } else if name == "kind" {
                problem = problem.help("an object starts with `apiVersion` and `kind`");
            }
            self.add(problem);
        }
        text
    }

    fn object(
        &mut self,
        node: &Node,
        at: &FieldPath,
        envelope: &Envelope<'_>,
        api_version: &str,
        kind: &str,
        item: usize,
    ) {
        match kinds::find(api_version, kind) {
            Ok(Support::Full(kind)) => self.supported(kind, node, at, envelope, item),
            Ok(Support::NotYet) => {
                let problem = Diagnostic::new(Code::UnsupportedKind, format!("{kind} is not supported yet"));
                self.add(
                    problem
                        .at(self.place_of(envelope, "kind", node))
                        .help("the object has no effect"),
                );
            }
            Ok(Support::Irrelevant) => {
                let problem = Diagnostic::new(
                    Code::IrrelevantKind,
                    format!("{kind} is ignored: it is not relevant to a mesh without Kubernetes"),
                );
                self.add(problem.at(self.place_of(envelope, "kind", node)));
            }
            Err(Unknown::ApiVersion { expected, support }) => {
                let problem = Diagnostic::new(Code::UnknownKind, format!("`{api_version}` has no kind {kind}"));
                let problem = problem.at(self.place_of(envelope, "apiVersion", node));
                self.unknown(
                    problem.help(format!("its `apiVersion` is `{expected}`")),
                    Some(support),
                    envelope,
                );
            }
            Err(Unknown::Kind { closest }) => {
                let problem = Diagnostic::new(Code::UnknownKind, format!("unknown kind `{}`", kind.escape_debug()));
                let mut problem = problem.at(self.place_of(envelope, "kind", node));
                problem.help = closest.map(|closest| format!("did you mean `{closest}`?"));
                self.unknown(problem, closest.and_then(kinds::by_name), envelope);
            }
        }
    }

    /// Reports an object of unknown kind or version. If the intended kind is clear, the object of
    /// that kind is recorded as being in error.
    fn unknown(&mut self, problem: Diagnostic, meant: Option<Support>, envelope: &Envelope<'_>) {
        let severity = if self.options.lenient {
            Severity::Warning
        } else {
            Severity::Error
        };
        self.read.diagnostics.push(problem.severity(severity));
        if let Some(Support::Full(kind)) = meant.filter(|_| severity == Severity::Error) {
            let ignored = Report::new(self.document, true);
            let metadata = envelope.metadata(&ignored);
            self.in_error(metadata.and_then(|metadata| metadata.id(kind, envelope, &ignored)));
        } else if severity == Severity::Error {
            self.in_error(None);
        }
    }

    /// Records an invalid object.
    fn in_error(&mut self, id: Option<ObjectId>) {
        self.read.hides_objects |= id.is_none();
        self.read.ids_in_error.extend(id);
    }

    fn supported(&mut self, kind: Kind, node: &Node, at: &FieldPath, envelope: &Envelope<'_>, item: usize) {
        let report = Report::new(self.document, self.options.lenient);
        let metadata = envelope.metadata(&report).unwrap_or_default();
        let id = metadata.id(kind, envelope, &report);
        if kind == Kind::ConfigMap && id.as_ref().is_some_and(|id| &*id.name != MESH_CONFIG_MAP) {
            let problem = Diagnostic::new(
                Code::IrrelevantKind,
                "this ConfigMap is ignored: only `istio` is relevant to the mesh",
            );
            return self.add(problem.at(self.place_of(envelope, "kind", node)));
        }
        let spec = spec(kind, node, envelope, &report);
        match (id, spec) {
            (Some(id), Some(spec)) if !report.has_errors() && !self.is_broken => {
                let object = self.assemble(id, metadata, spec, node, at, item);
                self.read.objects.push(object);
            }
            (id, _) => self.in_error(id),
        }
        self.read.diagnostics.extend(report.finish());
    }

    fn assemble(
        &self,
        id: ObjectId,
        metadata: Metadata,
        spec: Spec,
        node: &Node,
        at: &FieldPath,
        item: usize,
    ) -> Object {
        let is_whole_document = *at == FieldPath::root();
        Object {
            id,
            labels: metadata.labels,
            annotations: metadata.annotations,
            spec,
            document: self.document.clone(),
            at: at.clone(),
            extent: if is_whole_document {
                0..self.document.text().len()
            } else {
                node.span.start..node.end
            },
            order: Precedence {
                origin: Arc::clone(&self.document.source.origin),
                document: self.document.source.start().bytes,
                item,
            },
        }
    }

    fn place_of(&self, envelope: &Envelope<'_>, name: &str, node: &Node) -> crate::diag::Place {
        let span = envelope
            .get(name)
            .map_or_else(|| own_span(node), |(_, value)| value.span.clone());
        self.document.place(span)
    }

    fn add(&mut self, problem: Diagnostic) {
        self.read.hides_objects |= problem.severity == Severity::Error;
        self.read.diagnostics.push(problem);
    }

    fn too_large(&mut self) {
        let problem = format!(
            "the document has {} bytes, exceeding the limit of {MAX_BYTES}",
            self.document.text().len()
        );
        self.add(Diagnostic::new(Code::DocumentTooLarge, problem).at(self.document.place(0..0)));
    }

    /// Records the objects of a malformed document, as far as it can be parsed.
    fn ids_before_mistake(&mut self) {
        if let Some(head) = node::parse_before_mistake(self.document) {
            self.is_broken = true;
            self.value(&head, &FieldPath::root(), &Inherited::default());
            self.read.diagnostics.clear();
        }
    }
}

/// Name of the ConfigMap that holds the mesh configuration.
const MESH_CONFIG_MAP: &str = "istio";

/// The item kind of a typed list such as `ServiceList`, as the Kubernetes API returns them; empty
/// for `List`.
fn item_kind(kind: &str) -> Option<&str> {
    kind.strip_suffix("List").filter(|kind| !kind.is_empty())
}

fn is_list(kind: &str) -> bool {
    kind.ends_with("List") && kinds::by_name(kind).is_none()
}

/// Parses the kind-specific part, which may be absent.
fn spec(kind: Kind, node: &Node, envelope: &Envelope<'_>, report: &Report<'_>) -> Option<Spec> {
    Some(match kind {
        Kind::ConfigMap => Spec::ConfigMap(whole(node, report)?),
        Kind::EndpointSlice => Spec::EndpointSlice(whole(node, report)?),
        Kind::Endpoints => Spec::Endpoints(whole(node, report)?),
        Kind::Service => Spec::Service(envelope.spec(report)?),
        Kind::ServiceEntry => Spec::ServiceEntry(envelope.spec(report)?),
        Kind::WorkloadEntry => Spec::WorkloadEntry(envelope.spec(report)?),
        Kind::WorkloadGroup => Spec::WorkloadGroup(envelope.spec(report)?),
        Kind::Sidecar => Spec::Sidecar(envelope.spec(report)?),
        Kind::VirtualService => Spec::VirtualService(envelope.spec(report)?),
        Kind::DestinationRule => Spec::DestinationRule(envelope.spec(report)?),
        Kind::PeerAuthentication => Spec::PeerAuthentication(envelope.spec(report)?),
    })
}

/// Parses a kind whose fields are siblings of `metadata` instead of under `spec`.
fn whole<'n, T: Deserialize<'n>>(node: &'n Node, report: &Report<'_>) -> Option<Arc<T>> {
    de::read(node, report, &["apiVersion", "kind", "metadata"]).map(Arc::new)
}

#[cfg(test)]
mod tests;
