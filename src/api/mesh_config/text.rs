//! The text of the mesh configuration and its location.

use std::ops::Range;

use super::MeshConfig;
use crate::api::de::{self, Report};
use crate::api::field_path::FieldPath;
use crate::api::object::{Object, Spec};
use crate::api::place::{self, Part, own_span};
use crate::api::read::ReadOptions;
use crate::diag::{Diagnostic, Place, Severity, SourceText};
use crate::source::document::Document;
use crate::source::node::{self, Node, Value};

/// Key of the ConfigMap that holds the mesh configuration.
const KEY: &str = "mesh";

/// The text of a mesh configuration: a document of its own, or a value in a ConfigMap. Locations
/// refer to the file in both cases; within a ConfigMap they are exact for a block scalar (`mesh:
/// |`), and point to the whole value otherwise.
#[derive(Clone, Debug)]
pub struct MeshConfigText {
    /// The document that holds it.
    document: Document,
    within: Option<Within>,
}

/// A text that is a scalar in a document.
#[derive(Clone, Debug)]
struct Within {
    document: Document,
    /// Byte range of the scalar in the document.
    scalar: Range<usize>,
    /// For each line, its offset in the text and in the document; empty unless it is a block
    /// scalar.
    lines: Vec<(usize, usize)>,
}

impl From<Document> for MeshConfigText {
    fn from(document: Document) -> Self {
        Self { document, within: None }
    }
}

impl MeshConfigText {
    /// The mesh configuration in a ConfigMap, if it has one.
    pub fn in_config_map(object: &Object) -> Option<Self> {
        let Spec::ConfigMap(map) = &object.spec else {
            return None;
        };
        let text = map.data.get(KEY)?;
        let scalar = object.place(FieldPath::root().field("data").key(KEY)).span;
        let source = SourceText::new(object.document.source.origin.clone(), text.as_str());
        Some(Self {
            document: object.document.clone(),
            within: Some(Within {
                lines: lines(text, &object.document.source.text, scalar.start).unwrap_or_default(),
                document: Document::whole(&source),
                scalar,
            }),
        })
    }

    /// The document that holds it.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Parses it; `None` if there are errors. Unsupported fields are only warnings here, since real
    /// mesh configurations are full of them.
    pub fn read(&self, options: &ReadOptions) -> (Option<MeshConfig>, Vec<Diagnostic>) {
        let (root, mut diagnostics) = self.parse();
        let report = Report::new(&self.document, options.lenient).unsupported_is(Severity::Warning);
        let config = match &root {
            // The text holds only comments, unless it is malformed.
            None => Some(MeshConfig::default()),
            Some(root) => match &root.value {
                Value::Null => Some(MeshConfig::default()),
                Value::Map(_) => de::read(root, &report, &[]),
                Value::Bool(..) | Value::Number(_) | Value::String(_) | Value::Seq(_) => {
                    report.invalid(&own_span(root), "the mesh configuration must be a map");
                    None
                }
            },
        };
        diagnostics.extend(report.finish());
        let is_good = diagnostics.iter().all(|problem| problem.severity != Severity::Error);
        (config.filter(|_| is_good), diagnostics)
    }

    /// The location of a field such as `defaultHttpRetryPolicy.attempts`, or of its nearest
    /// existing ancestor.
    pub fn place(&self, path: impl Into<FieldPath>) -> Place {
        let span = match self.parse().0 {
            Some(root) => place::find(&root, &path.into(), Part::Value),
            None => 0..0,
        };
        self.document.place(span)
    }

    /// Parses the text into nodes with locations in the file.
    fn parse(&self) -> (Option<Node>, Vec<Diagnostic>) {
        let Some(within) = &self.within else {
            let parsed = node::parse(&self.document);
            return (parsed.root, parsed.diagnostics);
        };
        let parsed = node::parse(&within.document);
        let root = parsed.root.map(|root| within.node(root));
        let mut diagnostics = parsed.diagnostics;
        for label in diagnostics.iter_mut().flat_map(|problem| &mut problem.labels) {
            label.place = self.document.place(within.span(&label.place.span));
        }
        (root, diagnostics)
    }
}

impl Within {
    fn node(&self, node: Node) -> Node {
        let value = match node.value {
            Value::Seq(items) => Value::Seq(items.into_iter().map(|item| self.node(item)).collect()),
            Value::Map(entries) => {
                let entries = entries.into_iter().map(|(mut key, value)| {
                    key.span = self.span(&key.span);
                    (key, self.node(value))
                });
                Value::Map(entries.collect())
            }
            scalar @ (Value::Null | Value::Bool(..) | Value::Number(_) | Value::String(_)) => scalar,
        };
        Node {
            span: self.span(&node.span),
            end: self.offset(node.end).unwrap_or(self.scalar.end),
            value,
        }
    }

    fn span(&self, span: &Range<usize>) -> Range<usize> {
        match (self.offset(span.start), self.offset(span.end)) {
            (Some(start), Some(end)) => start..end,
            _ => self.scalar.clone(),
        }
    }

    fn offset(&self, at: usize) -> Option<usize> {
        let line = self.lines.partition_point(|(start, _)| *start <= at).checked_sub(1)?;
        let (in_text, in_file) = self.lines[line];
        Some(in_file + at - in_text)
    }
}

/// Where each line of the block scalar at `start` begins in the file; `None` if it is not a block
/// scalar or its lines differ from the text's.
fn lines(text: &str, file: &str, start: usize) -> Option<Vec<(usize, usize)>> {
    let line_start = file.get(..start)?.rfind('\n').map_or(0, |newline| newline + 1);
    let indent = file.get(line_start..start)?;
    if !indent.bytes().all(|b| b == b' ') {
        return None;
    }
    let (mut in_text, mut in_file) = (0, line_start);
    let mut lines = Vec::new();
    for line in text.split_inclusive('\n') {
        let written = file.get(in_file..)?.split_inclusive('\n').next()?;
        let content = line.trim_end_matches('\n');
        match written.strip_prefix(indent) {
            Some(rest) if rest.trim_end_matches(['\r', '\n']) == content => {
                lines.push((in_text, in_file + indent.len()))
            }
            _ if content.is_empty() => lines.push((in_text, in_file)),
            _ => return None,
        }
        in_text += line.len();
        in_file += written.len();
    }
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::mesh_config::MeshH2UpgradePolicy;
    use crate::api::value::Duration;
    use crate::source::document;

    const OPTIONS: ReadOptions = ReadOptions { lenient: false };

    fn config_map(text: &str) -> MeshConfigText {
        let document = document::split(&SourceText::new("f", text)).pop().unwrap();
        let read = crate::api::read(&document, &OPTIONS);
        assert_eq!(read.diagnostics, []);
        MeshConfigText::in_config_map(&read.objects[0]).unwrap()
    }

    fn shown(diagnostics: &[Diagnostic]) -> Vec<String> {
        let line = |d: &Diagnostic| format!("{} {} {}", d.place().unwrap().display(), d.severity.as_str(), d.message);
        diagnostics.iter().map(line).collect()
    }

    #[test]
    fn config_map_and_file_are_equivalent() {
        let fields =
            "trustDomain: mesh.example\nconnectTimeout: 5s\nh2UpgradePolicy: UPGRADE\naccessLogFile: /dev/stdout\n";
        let map = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    {}",
            fields.replace('\n', "\n    ")
        );
        let file = MeshConfigText::from(document::split(&SourceText::new("m", fields)).pop().unwrap());
        let (from_file, diagnostics) = file.read(&OPTIONS);
        assert_eq!(
            shown(&diagnostics),
            ["m:4:1 warning `accessLogFile` is not supported yet"]
        );
        let (from_map, diagnostics) = config_map(&map).read(&OPTIONS);
        assert_eq!(
            shown(&diagnostics),
            ["f:9:5 warning `accessLogFile` is not supported yet"]
        );
        assert_eq!(from_map, from_file);
        let config = from_map.unwrap();
        assert_eq!(config.trust_domain.as_deref(), Some("mesh.example"));
        assert_eq!(
            config.connect_timeout,
            Some(Duration(std::time::Duration::from_secs(5)))
        );
        assert_eq!(config.h2_upgrade_policy, Some(MeshH2UpgradePolicy::Upgrade));
    }

    #[test]
    fn locations_in_a_block_scalar_are_exact() {
        let text = config_map(
            "kind: ConfigMap\napiVersion: v1\nmetadata: {name: istio}\ndata:\n  other: x\n  mesh: |-\n    # ü\n\n    localityLbSetting:\n      enabld: true\n    dnsRefreshRate: x\n",
        );
        let (config, diagnostics) = text.read(&OPTIONS);
        assert_eq!(config, None);
        assert_eq!(
            shown(&diagnostics),
            [
                "f:10:7 error unknown field `enabld`",
                "f:11:21 error expected a duration such as `1.5s`, `100ms` or `1m30s`, found `x`",
            ]
        );
        assert_eq!(text.place("dnsRefreshRate").display(), "f:11:21");
        assert_eq!(text.place("localityLbSetting.failover").display(), "f:9:5");
    }

    #[test]
    fn locations_in_other_scalars_are_the_whole_value() {
        let text = config_map(
            "kind: ConfigMap\napiVersion: v1\nmetadata: {name: istio}\ndata:\n  mesh: \"trustDomain: [a]\\nx: 1\\n\"\n",
        );
        let (_, diagnostics) = text.read(&OPTIONS);
        assert_eq!(diagnostics.len(), 2);
        for problem in &diagnostics {
            assert_eq!(problem.place().unwrap().display(), "f:5:9");
        }
    }

    #[test]
    fn mistakes_and_empty_texts() {
        let head = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: istio}\ndata:\n  mesh: |\n";
        let (config, diagnostics) = config_map(&format!("{head}    a: b: c\n")).read(&OPTIONS);
        assert_eq!(config, None);
        assert_eq!(
            shown(&diagnostics),
            ["f:6:9 error an unquoted value cannot contain `: `"]
        );
        let (config, diagnostics) = config_map(&format!("{head}    # nothing\n")).read(&OPTIONS);
        assert_eq!((config, diagnostics), (Some(MeshConfig::default()), vec![]));
        let (config, diagnostics) = config_map(&format!("{head}    - a\n")).read(&OPTIONS);
        assert_eq!((config, diagnostics.len()), (None, 1));
    }
}
