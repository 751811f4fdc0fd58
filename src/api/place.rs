//! Finds the location of a field. Locations are not stored: the few that are needed are found by
//! parsing the text again.

use std::ops::Range;

use super::field_path::{FieldPath, Segment, is_field};
use crate::source::node::{Key, Node, Value};

/// The part of a field to locate.
#[derive(Clone, Copy)]
pub(super) enum Part {
    /// The value.
    Value,
    /// The field name or map key.
    Name,
}

/// Byte range of the value at a path, or of its nearest existing ancestor.
pub(super) fn find(root: &Node, path: &FieldPath, part: Part) -> Range<usize> {
    let mut at = At { key: None, node: root };
    for segment in path.segments() {
        match at.step(segment) {
            Some(next) => at = next,
            None => return at.span(Part::Value),
        }
    }
    at.span(part)
}

struct At<'n> {
    key: Option<&'n Key>,
    node: &'n Node,
}

impl<'n> At<'n> {
    fn step(&self, segment: &Segment) -> Option<At<'n>> {
        match (segment, &self.node.value) {
            (Segment::Field(name), Value::Map(entries)) => entry(entries, |key| is_field(key, name)),
            (Segment::Key(name), Value::Map(entries)) => entry(entries, |key| key == &**name),
            (Segment::Index(index), Value::Seq(items)) => items.get(*index).map(|node| At { key: None, node }),
            _ => None,
        }
    }

    fn span(&self, part: Part) -> Range<usize> {
        match (part, self.key) {
            (Part::Name, Some(key)) => key.span.clone(),
            (Part::Value, Some(key)) if self.node.span.is_empty() => key.span.clone(),
            _ => own_span(self.node),
        }
    }
}

fn entry<'n>(entries: &'n [(Key, Node)], is_wanted: impl Fn(&str) -> bool) -> Option<At<'n>> {
    let (key, node) = entries.iter().find(|(key, _)| is_wanted(&key.text))?;
    Some(At { key: Some(key), node })
}

/// The span of a value; of its first key for a block mapping.
pub(super) fn own_span(node: &Node) -> Range<usize> {
    match &node.value {
        Value::Map(entries) if node.span.is_empty() => {
            entries.first().map_or(node.span.clone(), |(key, _)| key.span.clone())
        }
        Value::Seq(items) if node.span.is_empty() => items.first().map_or(node.span.clone(), own_span),
        _ => node.span.clone(),
    }
}
