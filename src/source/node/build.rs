//! Builds the node tree from parser events.

use std::collections::HashMap;
use std::ops::Range;

use serde_saphyr::granit_parser::{Event, ScalarStyle, Span, StructureStyle, Tag};

use super::mistake;
use super::{Key, Node, Parsed, Value, scalar};
use crate::diag::{Code, Diagnostic};
use crate::source::document::Document;

/// Maximum number of values kept for anchors and added by aliases, as a limit on exponential
/// expansion ("billion laughs").
const MAX_COPIED: usize = 50_000;

/// Builder of the tree.
pub(super) struct Builder<'d> {
    document: &'d Document,
    /// Offset of the text within the document.
    offset: usize,
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    copied: usize,
    diagnostics: Vec<Diagnostic>,
}

/// An unfinished sequence or mapping.
struct Open {
    start: usize,
    style: StructureStyle,
    anchor: usize,
    items: Items,
}

enum Items {
    Seq(Vec<Node>),
    Map(Entries),
}

#[derive(Default)]
struct Entries {
    entries: Vec<(Key, Node)>,
    index: HashMap<Box<str>, usize>,
    next: Next,
    merged: Vec<Node>,
}

/// What the next value of a mapping is.
#[derive(Default)]
enum Next {
    #[default]
    Key,
    ValueOf(Key),
    /// The value of `<<`.
    Merged,
    /// The value of a rejected key.
    Dropped,
}

impl<'d> Builder<'d> {
    pub(super) fn new(document: &'d Document, offset: usize) -> Self {
        Self {
            document,
            offset,
            open: Vec::new(),
            root: None,
            anchors: HashMap::new(),
            copied: 0,
            diagnostics: Vec::new(),
        }
    }

    pub(super) fn document(&self) -> &'d Document {
        self.document
    }

    pub(super) fn finish(self) -> Parsed {
        Parsed {
            root: self.root,
            diagnostics: self.diagnostics,
        }
    }

    /// Processes an event.
    ///
    /// # Errors
    ///
    /// If an alias is undefined or its expansion is too large.
    pub(super) fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), Box<Diagnostic>> {
        let span = self.in_document(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_string = style != ScalarStyle::Plain || tag.is_some_and(|tag| is_string_tag(&tag));
                if !is_string && text == "<<" && self.expects_key() {
                    self.next(Next::Merged);
                    return Ok(());
                }
                let value = if is_string {
                    Value::String(text.into())
                } else {
                    scalar::plain(&text)
                };
                self.complete(
                    Node {
                        end: span.end,
                        span,
                        value,
                    },
                    anchor,
                )?;
            }
            Event::SequenceStart(style, anchor, _) => self.start(&span, style, anchor, Items::Seq(Vec::new())),
            Event::MappingStart(style, anchor, _) => self.start(&span, style, anchor, Items::Map(Entries::default())),
            Event::SequenceEnd | Event::MappingEnd => self.end(&span)?,
            Event::Alias(anchor) => self.alias(anchor, &span)?,
            Event::DocumentStart(..) if self.root.is_some() => return Err(self.second_document(span)),
            // Other events carry no value.
            _ => {}
        }
        Ok(())
    }

    fn in_document(&self, span: &Span) -> Range<usize> {
        let offset = |at: Option<usize>| self.offset + at.unwrap_or_default();
        offset(span.start.byte_offset())..offset(span.end.byte_offset())
    }

    fn start(&mut self, span: &Range<usize>, style: StructureStyle, anchor: usize, items: Items) {
        self.open.push(Open {
            start: span.start,
            style,
            anchor,
            items,
        });
    }

    fn end(&mut self, span: &Range<usize>) -> Result<(), Box<Diagnostic>> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let pointed_end = match open.style {
            StructureStyle::Block => open.start,
            StructureStyle::Flow => span.end,
        };
        let value = match open.items {
            Items::Seq(items) => Value::Seq(items),
            Items::Map(entries) => Value::Map(self.merge(entries)),
        };
        let node = Node {
            span: open.start..pointed_end,
            end: span.end,
            value,
        };
        self.complete(node, open.anchor)
    }

    fn alias(&mut self, anchor: usize, span: &Range<usize>) -> Result<(), Box<Diagnostic>> {
        let Some(node) = self.anchors.get(&anchor) else {
            let problem = Diagnostic::new(Code::InvalidYaml, "this alias refers to a value that contains it");
            return Err(Box::new(problem.at(self.document.place(span.clone()))));
        };
        let copy = copy(node, Some(span), &mut self.copied);
        let copy = copy.ok_or_else(|| self.too_much(span))?;
        self.put(copy);
        Ok(())
    }

    /// A value is complete; its anchor can be referred to from now on.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), Box<Diagnostic>> {
        if anchor != 0 {
            let kept = copy(&node, None, &mut self.copied).ok_or_else(|| self.too_much(&node.span))?;
            self.anchors.insert(anchor, kept);
        }
        self.put(node);
        Ok(())
    }

    fn put(&mut self, node: Node) {
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::Seq(items)) => items.push(node),
            Some(Items::Map(map)) => match std::mem::take(&mut map.next) {
                Next::ValueOf(key) => map.entries.push((key, node)),
                Next::Merged => map.merged.push(node),
                Next::Dropped => {}
                Next::Key => self.key(node),
            },
        }
    }

    fn key(&mut self, node: Node) {
        let text = match node.value {
            Value::String(text) | Value::Number(text) | Value::Bool(_, text) => text,
            Value::Null => self.document.source.text[node.span.clone()].into(),
            Value::Seq(_) | Value::Map(_) => {
                self.next(Next::Dropped);
                let problem = Diagnostic::new(Code::InvalidYaml, "a map key must be a string, not a list or map");
                let mut problem = problem.at(self.document.place(node.span.clone()));
                problem.help = mistake::template(self.document, node.span.start);
                self.diagnostics.push(problem);
                return;
            }
        };
        let key = Key { text, span: node.span };
        match self.first_of(&key) {
            None => self.next(Next::ValueOf(key)),
            Some(first) => {
                self.next(Next::Dropped);
                let problem = Diagnostic::new(Code::InvalidYaml, format!("duplicate key `{}`", key.text))
                    .at(self.document.place(key.span))
                    .label(self.document.place(first), "first defined here")
                    .help("remove one of the two");
                self.diagnostics.push(problem);
            }
        }
    }

    fn expects_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { items: Items::Map(map), .. }) if matches!(map.next, Next::Key))
    }

    fn next(&mut self, next: Next) {
        if let Some(Open {
            items: Items::Map(map), ..
        }) = self.open.last_mut()
        {
            map.next = next;
        }
    }

    fn first_of(&mut self, key: &Key) -> Option<Range<usize>> {
        match self.open.last_mut() {
            Some(Open {
                items: Items::Map(map), ..
            }) => map.find(&key.text).map(|at| map.entries[at].0.span.clone()),
            _ => None,
        }
    }

    /// The entries of a mapping and, for other keys, of the mappings merged into it.
    fn merge(&mut self, mut map: Entries) -> Vec<(Key, Node)> {
        for merged in std::mem::take(&mut map.merged) {
            let maps = match merged.value {
                Value::Seq(maps) => maps,
                _ => vec![merged],
            };
            for node in maps {
                let Value::Map(entries) = node.value else {
                    let problem = Diagnostic::new(Code::InvalidYaml, "only maps can be merged with `<<`");
                    self.diagnostics.push(problem.at(self.document.place(node.span)));
                    continue;
                };
                for (key, value) in entries {
                    if map.find(&key.text).is_none() {
                        map.entries.push((key, value));
                    }
                }
            }
        }
        map.entries
    }

    fn too_much(&self, span: &Range<usize>) -> Box<Diagnostic> {
        let problem = format!("anchors and aliases expand to more than {MAX_COPIED} values, which is the limit");
        Box::new(Diagnostic::new(Code::InvalidYaml, problem).at(self.document.place(span.clone())))
    }

    fn second_document(&self, span: Range<usize>) -> Box<Diagnostic> {
        let problem = Diagnostic::new(Code::InvalidYaml, "a second document starts in the middle of a line");
        Box::new(
            problem
                .at(self.document.place(span))
                .help("end each line with a line feed"),
        )
    }
}

impl Entries {
    /// Up to this number of entries, keys are searched linearly.
    const FEW: usize = 16;

    fn find(&mut self, key: &str) -> Option<usize> {
        if self.entries.len() < Self::FEW {
            return self.entries.iter().position(|(earlier, _)| *earlier.text == *key);
        }
        for (at, (earlier, _)) in self.entries.iter().enumerate().skip(self.index.len()) {
            self.index.insert(earlier.text.clone(), at);
        }
        self.index.get(key).copied()
    }
}

/// `!!str`, or the non-specific tag `!`, which makes a scalar a string.
fn is_string_tag(tag: &Tag) -> bool {
    tag.is_yaml_core_schema_tag("str") || tag.parts() == ("", "!")
}

/// A copy of a tree, optionally with all locations replaced; `None` if it has too many values.
fn copy(node: &Node, at: Option<&Range<usize>>, copied: &mut usize) -> Option<Node> {
    *copied += 1;
    if *copied > MAX_COPIED {
        return None;
    }
    let place = |own: &Range<usize>| at.unwrap_or(own).clone();
    let value = match &node.value {
        Value::Seq(items) => Value::Seq(items.iter().map(|item| copy(item, at, copied)).collect::<Option<_>>()?),
        Value::Map(entries) => {
            let entries = entries.iter().map(|(key, value)| {
                let key = Key {
                    text: key.text.clone(),
                    span: place(&key.span),
                };
                Some((key, copy(value, at, copied)?))
            });
            Value::Map(entries.collect::<Option<_>>()?)
        }
        Value::Null | Value::Bool(..) | Value::Number(_) | Value::String(_) => node.value.clone(),
    };
    Some(Node {
        span: place(&node.span),
        end: at.map_or(node.end, |at| at.end),
        value,
    })
}
