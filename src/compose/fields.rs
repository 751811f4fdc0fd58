//! Fields of a service, merged from several files and the services it extends.

use crate::diag::{Code, Diagnostic, Place};
use crate::source::document::Document;
use crate::source::node::{Key, Node, Value};

/// A string and its location.
#[derive(Clone, Debug)]
pub struct Spot {
    /// The string, not interpolated.
    pub text: String,
    /// Its location.
    pub place: Place,
}

impl Spot {
    /// Whether Compose interpolates a part of it: `$NAME` or `${…}`, but not `$$`.
    pub fn is_interpolated(&self) -> bool {
        self.text.replace("$$", "").contains('$')
    }

    /// The string as a boolean.
    pub(super) fn as_bool(&self) -> Option<bool> {
        match &*self.text.to_ascii_lowercase() {
            "true" | "yes" | "on" | "enabled" => Some(true),
            "false" | "no" | "off" | "disabled" => Some(false),
            _ => None,
        }
    }
}

/// A service's definition in one file.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) document: Document,
    pub(super) entries: Vec<(Key, Node)>,
    /// Whether the file is included by another one, and may have different variables.
    pub(super) included: bool,
}

impl Part {
    fn get(&self, name: &str) -> Option<(&Key, &Node)> {
        let entry = self.entries.iter().find(|(key, _)| *key.text == *name);
        entry.map(|(key, node)| (key, node))
    }
}

/// Whether the value of a field has this tag, e.g. one that discards earlier definitions.
pub(super) fn has_tag(document: &Document, key: &Key, node: &Node, tag: &str) -> bool {
    let between = document.text().get(key.span.end..node.span.start.max(key.span.end));
    between.is_some_and(|between| between.contains(tag))
}

/// A list item and its document.
pub(super) struct Item<'p> {
    pub(super) document: &'p Document,
    pub(super) node: &'p Node,
}

impl Item<'_> {
    pub(super) fn place(&self) -> Place {
        place(self.document, self.node)
    }

    pub(super) fn spot(&self) -> Option<Spot> {
        spot(self.document, self.node)
    }

    /// A field of the item, if it is a map.
    pub(super) fn get(&self, name: &str) -> Option<Spot> {
        let Value::Map(entries) = &self.node.value else {
            return None;
        };
        let (_, node) = entries.iter().find(|(key, _)| *key.text == *name)?;
        spot(self.document, node)
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }
}

/// The parts of a service, earliest first: the last one takes precedence for single values.
pub(super) struct Fields<'p> {
    pub(super) parts: &'p [Part],
    pub(super) problems: &'p mut Vec<Diagnostic>,
}

impl<'p> Fields<'p> {
    /// Whether a field is set.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.present(name).next().is_some()
    }

    /// The value of a scalar field.
    pub(super) fn scalar(&mut self, name: &str) -> Option<Spot> {
        let (part, _, node) = self.present(name).last()?;
        let found = spot(&part.document, node);
        if found.is_none() {
            self.wrong(&part.document, node, format!("`{name}` must be a string"));
        }
        found
    }

    /// A nested value: `deploy.replicas`.
    pub(super) fn inner(&self, name: &str, inner: &str) -> Option<Spot> {
        let items = self.present(name).map(|(part, _, node)| Item {
            document: &part.document,
            node,
        });
        items.filter_map(|item| item.get(inner)).last()
    }

    /// List items of all parts.
    pub(super) fn list(&mut self, name: &str) -> Vec<Item<'p>> {
        let mut found = Vec::new();
        for (part, _, node) in self.present(name) {
            match &node.value {
                Value::Seq(items) => found.extend(items.iter().map(|node| Item {
                    document: &part.document,
                    node,
                })),
                _ => self.wrong(&part.document, node, format!("`{name}` must be a list")),
            }
        }
        found
    }

    /// Strings in a list, or a single one.
    pub(super) fn texts(&mut self, name: &str) -> Vec<Spot> {
        let mut found = Vec::new();
        for (part, _, node) in self.present(name) {
            let document = &part.document;
            let nodes = match &node.value {
                Value::Seq(items) => items.as_slice(),
                _ => std::slice::from_ref(node),
            };
            for node in nodes {
                match spot(document, node) {
                    Some(spot) => found.push(spot),
                    None => self.wrong(document, node, format!("`{name}` must be a list of strings")),
                }
            }
        }
        found
    }

    /// Names in a list, or map keys: `depends_on`, `networks`.
    pub(super) fn names(&mut self, name: &str) -> Vec<Spot> {
        let mut found: Vec<Spot> = Vec::new();
        for (part, _, node) in self.present(name) {
            let document = &part.document;
            let names: Vec<Option<Spot>> = match &node.value {
                Value::Map(entries) => entries.iter().map(|(key, _)| Some(of_key(document, key))).collect(),
                Value::Seq(items) => items.iter().map(|node| spot(document, node)).collect(),
                Value::Null | Value::Bool(..) | Value::Number(_) | Value::String(_) => vec![None],
            };
            for listed in names {
                match listed {
                    Some(listed) if found.iter().any(|earlier| earlier.text == listed.text) => {}
                    Some(listed) => found.push(listed),
                    None => self.wrong(document, node, format!("`{name}` must be a list or map of names")),
                }
            }
        }
        found
    }

    /// Keys and values of a map or a list of `KEY=VALUE`: `labels`. The last value of a key takes
    /// precedence.
    pub(super) fn pairs(&mut self, name: &str) -> Vec<(Spot, Spot)> {
        let mut found: Vec<(Spot, Spot)> = Vec::new();
        let mut put = |key: Spot, value: Spot| {
            found.retain(|(earlier, _)| earlier.text != key.text);
            found.push((key, value));
        };
        let mut wrong = Vec::new();
        for (part, _, node) in self.present(name) {
            let document = &part.document;
            match &node.value {
                Value::Map(entries) => {
                    for (key, node) in entries {
                        let key = of_key(document, key);
                        let empty = Spot {
                            text: String::new(),
                            place: key.place.clone(),
                        };
                        put(key, spot(document, node).unwrap_or(empty));
                    }
                }
                Value::Seq(items) => {
                    for node in items {
                        let Some(both) = spot(document, node) else {
                            wrong.push((document, node));
                            continue;
                        };
                        let (key, value) = both.text.split_once('=').unwrap_or((&both.text, ""));
                        let at = |text: &str| Spot {
                            text: text.to_owned(),
                            place: both.place.clone(),
                        };
                        put(at(key), at(value));
                    }
                }
                _ => wrong.push((document, node)),
            }
        }
        for (document, node) in wrong {
            self.wrong(
                document,
                node,
                format!("`{name}` must be a map or a list of `KEY=VALUE` strings"),
            );
        }
        found
    }

    /// The parts that set the field, except those discarded by a later `!reset` or `!override`.
    pub(super) fn present(&self, name: &str) -> impl Iterator<Item = (&'p Part, &'p Key, &'p Node)> + use<'p> {
        let mut found = Vec::new();
        for part in self.parts {
            let Some((key, node)) = part.get(name) else { continue };
            let has_tag = |tag| has_tag(&part.document, key, node, tag);
            let reset = has_tag("!reset");
            if reset || has_tag("!override") {
                found.clear();
            }
            if !reset && node.value != Value::Null {
                found.push((part, key, node));
            }
        }
        found.into_iter()
    }

    fn wrong(&mut self, document: &Document, node: &Node, message: String) {
        let problem = Diagnostic::new(Code::InvalidValue, message);
        self.problems.push(problem.at(place(document, node)));
    }
}

pub(super) fn of_key(document: &Document, key: &Key) -> Spot {
    Spot {
        text: key.text.to_string(),
        place: document.place(key.span.clone()),
    }
}

/// A scalar.
pub(super) fn spot(document: &Document, node: &Node) -> Option<Spot> {
    let text = match &node.value {
        Value::Bool(_, text) | Value::Number(text) | Value::String(text) => text.to_string(),
        Value::Null | Value::Seq(_) | Value::Map(_) => return None,
    };
    Some(Spot {
        text,
        place: document.place(node.span.clone()),
    })
}

/// Location of a value; of its first entry for a block mapping or sequence.
pub(super) fn place(document: &Document, node: &Node) -> Place {
    let span = match &node.value {
        Value::Map(entries) if node.span.is_empty() => entries.first().map(|(key, _)| key.span.clone()),
        Value::Seq(items) if node.span.is_empty() => items.first().map(|item| item.span.clone()),
        _ => None,
    };
    document.place(span.unwrap_or_else(|| node.span.clone()))
}
