//! Locates a field in a bootstrap file.

use std::path::Path;

use crate::diag::SourceText;
use crate::source::document::split;
use crate::source::node::{Node, Value, parse};

/// Location of a field, such as `static_resources.clusters[0].name` in protobuf or JSON case, as
/// `proxy.yaml:12:9`. Falls back to the nearest enclosing value if the field is absent, and to the location
/// of the syntax error if the file is not valid YAML. `None` if there is none of these.
pub(super) fn place(file: &Path, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let documents = split(&SourceText::new(file.display().to_string(), text));
    let document = documents.first()?;
    let parsed = parse(document);
    let Some(root) = parsed.root else {
        return Some(parsed.diagnostics.first()?.place()?.display());
    };
    let mut found = None;
    let mut at = &root;
    for step in steps(field) {
        // Field paths omit the `typed_config` level of extensions.
        let extension = || {
            Step::Field("typed_config")
                .of(at)
                .and_then(|(_, config)| step.of(config))
        };
        let Some((span, next)) = step.of(at).or_else(extension) else {
            break;
        };
        found = Some(span);
        at = next;
    }
    Some(document.place(found?).display())
}

/// A segment of a field path.
enum Step<'p> {
    Field(&'p str),
    /// A list index, or the index of a map entry.
    Index(usize),
    /// A map key.
    Key(&'p str),
}

fn steps(path: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(bracket) = rest.strip_prefix('[') {
            let (inside, after) = bracket.split_once(']').unwrap_or((bracket, ""));
            steps.push(inside.parse().map_or(Step::Key(inside), Step::Index));
            rest = after;
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let end = name.find(['.', '[']).unwrap_or(name.len());
            steps.push(Step::Field(&name[..end]));
            rest = &name[end..];
        }
    }
    steps
}

impl Step<'_> {
    /// The child that this segment selects, and the span to report.
    fn of<'n>(&self, node: &'n Node) -> Option<(std::ops::Range<usize>, &'n Node)> {
        let entry = |(key, node): &'n (crate::source::node::Key, Node)| (key.span.clone(), node);
        match (self, &node.value) {
            (Step::Field(name), Value::Map(entries)) => {
                entries.iter().find(|(key, _)| is_same(&key.text, name)).map(entry)
            }
            (Step::Key(name), Value::Map(entries)) => entries.iter().find(|(key, _)| &*key.text == *name).map(entry),
            (Step::Index(index), Value::Map(entries)) => entries.get(*index).map(entry),
            (Step::Index(index), Value::Seq(items)) => items.get(*index).map(|item| (item.span.clone(), item)),
            _ => None,
        }
    }
}

/// Whether two names are equal, ignoring protobuf and JSON case.
fn is_same(one: &str, other: &str) -> bool {
    let letters = |name: &'_ str| name.replace('_', "").to_ascii_lowercase();
    letters(one) == letters(other)
}

#[cfg(test)]
mod tests {
    #[test]
    fn absent_fields_fall_back_to_the_enclosing_value() {
        let text = "\
staticResources:
  clusters:
  - name: a
    typed_extension_protocol_options:
      a.b: {http2: {typed_config: {x: 1}}}
  - {name: b,
     hosts: []}
";
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("b.yaml");
        std::fs::write(&file, text).unwrap();
        let place = |field: &str| {
            let place = super::place(&file, field)?;
            Some(place.strip_prefix(file.to_str().unwrap()).unwrap().to_owned())
        };
        for (field, expected) in [
            ("static_resources.clusters[0].name", ":3:5"),
            ("static_resources.clusters[1].hosts", ":7:6"),
            ("static_resources.clusters[1].type.x", ":6:5"),
            (
                "static_resources.clusters[0].typed_extension_protocol_options[a.b].http2.x",
                ":5:36",
            ),
            (
                "static_resources.clusters[0].typed_extension_protocol_options[0].http2",
                ":5:13",
            ),
        ] {
            assert_eq!(place(field).as_deref(), Some(expected), "{field}");
        }
        assert_eq!(place("admin"), None);
        std::fs::write(&file, "a:\n  b: c: d\n").unwrap();
        assert_eq!(place("").as_deref(), Some(":2:7"));
    }
}
