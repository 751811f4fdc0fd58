//! The fields common to all kinds: `apiVersion`, `kind`, `metadata`, `spec`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::api::de::{self, Report};
use crate::api::suggest;
use crate::api::value::Ignored;
use crate::diag::{Code, Diagnostic};
use crate::name::{Kind, Namespace, ObjectId, is_dns_label};
use crate::source::node::{Key, Node, Value};

/// The fields of an object.
pub(super) struct Envelope<'n>(&'n [(Key, Node)]);

/// Fields of a kind that has a `spec`.
const FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];

impl<'n> Envelope<'n> {
    pub(super) fn new(entries: &'n [(Key, Node)]) -> Self {
        Self(entries)
    }

    pub(super) fn get(&self, name: &str) -> Option<(&'n Key, &'n Node)> {
        let entry = self.0.iter().find(|(key, _)| *key.text == *name);
        entry.map(|(key, node)| (key, node))
    }

    /// A key that is likely a misspelling of this one.
    pub(super) fn misspelt(&self, name: &'static str) -> Option<&'n str> {
        let keys = self.0.iter().map(|(key, _)| &*key.text);
        keys.filter(|key| !FIELDS.contains(key))
            .find(|key| suggest::closest(key, [name]).is_some())
    }

    pub(super) fn metadata(&self, report: &Report<'_>) -> Option<Metadata> {
        match self.get("metadata") {
            Some((_, node)) if node.value != Value::Null => de::read(node, report, &[]),
            _ => Some(Metadata::default()),
        }
    }

    /// Parses `spec`; its default if absent.
    pub(super) fn spec<T: Deserialize<'n> + Default>(&self, report: &Report<'_>) -> Option<Arc<T>> {
        for (key, _) in self.0.iter().filter(|(key, _)| !FIELDS.contains(&&*key.text)) {
            report.unknown_field(key, FIELDS);
        }
        match self.get("spec") {
            Some((_, node)) if node.value != Value::Null => de::read(node, report, &[]).map(Arc::new),
            _ => Some(Arc::default()),
        }
    }
}

/// A plain or quoted string.
pub(super) fn text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::String(text) | Value::Number(text) | Value::Bool(_, text) => Some(text),
        Value::Null | Value::Seq(_) | Value::Map(_) => None,
    }
}

/// `metadata`, as in the Kubernetes API.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    name: String,
    namespace: String,
    generate_name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(rename = "creationTimestamp")]
    _creation_timestamp: Ignored,
    #[serde(rename = "deletionGracePeriodSeconds")]
    _deletion_grace_period_seconds: Ignored,
    #[serde(rename = "deletionTimestamp")]
    _deletion_timestamp: Ignored,
    #[serde(rename = "clusterName")]
    _cluster_name: Ignored,
    #[serde(rename = "finalizers")]
    _finalizers: Ignored,
    #[serde(rename = "generation")]
    _generation: Ignored,
    #[serde(rename = "managedFields")]
    _managed_fields: Ignored,
    #[serde(rename = "ownerReferences")]
    _owner_references: Ignored,
    #[serde(rename = "resourceVersion")]
    _resource_version: Ignored,
    #[serde(rename = "selfLink")]
    _self_link: Ignored,
    #[serde(rename = "uid")]
    _uid: Ignored,
}

impl Metadata {
    /// The id of the object; reports what is wrong with its name or namespace.
    pub(super) fn id(&self, kind: Kind, envelope: &Envelope<'_>, report: &Report<'_>) -> Option<ObjectId> {
        if self.name.is_empty() {
            // A name that is malformed or misspelt has already been reported.
            if !report.has_errors() {
                self.report_missing_name(envelope, report);
            }
            return None;
        }
        let namespace = match &*self.namespace {
            "" if report.has_errors() => None,
            "" => Some(Namespace::default()),
            name => name
                .parse()
                .map_err(|why| report_at(envelope, report, "namespace", format!("{why}")))
                .ok(),
        };
        if let Some(needed) = wrong_name(kind, &self.name) {
            let problem = format!(
                "`{}` is not a valid name for a {kind}: {needed}",
                self.name.escape_debug()
            );
            report_at(envelope, report, "name", problem);
            return None;
        }
        Some(ObjectId {
            kind,
            namespace: namespace?,
            name: self.name.as_str().into(),
        })
    }

    fn report_missing_name(&self, envelope: &Envelope<'_>, report: &Report<'_>) {
        let key = envelope.get("metadata").or_else(|| envelope.get("kind"));
        let Some((key, _)) = key else { return };
        let mut problem = Diagnostic::new(Code::MissingField, "`metadata.name` is missing");
        problem = problem.at(report.place(&key.span));
        if !self.generate_name.is_empty() {
            problem = problem.help("`generateName` is only supported by the Kubernetes API; set `name`");
        }
        report.add(problem);
    }
}

/// Kubernetes' naming rule for the kind, if `name` violates it.
fn wrong_name(kind: Kind, name: &str) -> Option<&'static str> {
    let is_label = |label: &str| is_dns_label(label) && !label.bytes().any(|b| b.is_ascii_uppercase());
    match kind {
        Kind::Service if !is_label(name) => Some("expected a lowercase DNS label of at most 63 characters"),
        _ if name.len() > 253 || !name.split('.').all(is_label) => {
            Some("expected at most 253 lowercase letters, digits, `-` and `.`")
        }
        _ => None,
    }
}

/// Reports a problem of a metadata field.
fn report_at(envelope: &Envelope<'_>, report: &Report<'_>, field: &str, problem: String) {
    let metadata = envelope.get("metadata").map(|(_, node)| &node.value);
    if let Some(Value::Map(entries)) = metadata
        && let Some((_, value)) = entries.iter().find(|(key, _)| *key.text == *field)
    {
        report.invalid(&value.span, problem);
    }
}
