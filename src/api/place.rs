//! Where in a document a field stands. Nothing but the text is kept: the few places that are
//! needed are found by reading it again.

use std::ops::Range;

use super::field_path::{FieldPath, Segment, is_field};
use crate::source::node::{Key, Node, Value};

/// What to point at.
#[derive(Clone, Copy)]
pub(super) enum Part {
    /// The value.
    Value,
    /// The name of the field, or the key of the entry.
    Name,
}

/// The bytes of the document at which the value of a path stands, or the nearest value above it.
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

/// The value; its first key if it is a map in block style.
pub(super) fn own_span(node: &Node) -> Range<usize> {
    match &node.value {
        Value::Map(entries) if node.span.is_empty() => {
            entries.first().map_or(node.span.clone(), |(key, _)| key.span.clone())
        }
        Value::Seq(items) if node.span.is_empty() => items.first().map_or(node.span.clone(), own_span),
        _ => node.span.clone(),
    }
}
