//! From YAML nodes to the types of the kinds, with every problem reported at its place.
//!
//! serde stops at the first error. To report all of them at once, a node that cannot be read is
//! reported and remembered, and the reading starts again as if the node were absent, until it
//! comes through. What comes of it is thrown away if anything was reported as an error.

mod entries;
mod enums;
mod number;
mod report;

use std::fmt;
use std::ops::Range;

use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::place::own_span;
use super::value::UNSUPPORTED;
use crate::source::node::{Key, Node, Value};
use entries::{Fields, Items, MapEntries};
use enums::{OneOf, Word};
pub(super) use report::Report;

/// How often the reading starts again; a document with more problems is read no further.
const MAX_ROUNDS: usize = 50;

/// Reads a value of a type. `skip` names fields of the outermost map that somebody else reads.
/// Nothing comes of a node in which there is too much wrong.
pub(super) fn read<'n, T: Deserialize<'n>>(node: &'n Node, report: &Report<'_>, skip: &[&str]) -> Option<T> {
    let reader = Reader {
        node,
        report,
        name: None,
        skip,
    };
    (0..MAX_ROUNDS).find_map(|_| T::deserialize(reader).ok())
}

/// Why a reading stops.
#[derive(Debug)]
enum Stop {
    /// A node that has been reported.
    Reported,
    /// A problem that serde has told and that has no place yet.
    Unplaced(String),
    /// What is needed where something else stands, without a place yet.
    Expected(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Reported => f.write_str("reported"),
            Stop::Unplaced(message) => f.write_str(message),
            Stop::Expected(expected) => write!(f, "expected {expected}"),
        }
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Stop::Unplaced(message.to_string())
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Stop::Expected(expected.to_string())
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Stop::Expected(expected.to_string())
    }
}

/// What a value is called in messages: its field or variant, and where that stands.
#[derive(Clone, Copy)]
struct Name<'n> {
    text: &'n str,
    span: &'n Range<usize>,
}

impl<'n> From<&'n Key> for Name<'n> {
    fn from(key: &'n Key) -> Self {
        Self {
            text: &key.text,
            span: &key.span,
        }
    }
}

/// Reads one node.
#[derive(Clone, Copy)]
struct Reader<'r, 'n> {
    node: &'n Node,
    report: &'r Report<'r>,
    name: Option<Name<'n>>,
    skip: &'r [&'r str],
}

impl<'n> Reader<'_, 'n> {
    /// The reader of a node within this one.
    fn inner(&self, node: &'n Node, name: Option<Name<'n>>) -> Self {
        Self {
            node,
            report: self.report,
            name,
            skip: &[],
        }
    }

    /// Reports that the node is not what is needed.
    fn expected(&self, expected: &str) -> Stop {
        self.wrong(format!("expected {expected}, found {}", found(&self.node.value)))
    }

    fn wrong(&self, message: String) -> Stop {
        self.report.invalid(&self.span(), message);
        self.report.poison(self.node);
        Stop::Reported
    }

    fn wrong_with(&self, message: String, help: String) -> Stop {
        self.report.invalid_with(&self.span(), message, help);
        self.report.poison(self.node);
        Stop::Reported
    }

    /// What to point at: the value, or its name where the value has no extent of its own.
    fn span(&self) -> Range<usize> {
        match self.name {
            Some(name) if self.node.span.is_empty() => name.span.clone(),
            _ => own_span(self.node),
        }
    }

    /// Gives a problem that serde has told the place of this node.
    fn placed<T>(&self, result: Result<T, Stop>) -> Result<T, Stop> {
        result.map_err(|stop| match stop {
            Stop::Reported => Stop::Reported,
            Stop::Unplaced(message) => self.wrong(message),
            Stop::Expected(expected) => self.expected(&expected),
        })
    }

    fn unsupported(&self) -> Stop {
        let span = self.name.map_or(&self.node.span, |name| name.span);
        self.report
            .unsupported(span, self.name.map_or("this", |name| name.text));
        self.report.poison(self.node);
        Stop::Reported
    }
}

/// What a value is, in a message.
fn found(value: &Value) -> String {
    const LONG: usize = 40;
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_, text) | Value::Number(text) | Value::String(text) if text.chars().count() <= LONG => {
            format!("`{}`", text.escape_debug())
        }
        Value::Bool(..) | Value::Number(_) | Value::String(_) => "a longer text".to_owned(),
        Value::Seq(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $int:ty;)*) => {
        $(fn $method<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Stop> {
            let integer = number::integer(&self.node.value).and_then(|integer| <$int>::try_from(integer).ok());
            match integer {
                Some(integer) => self.placed(visitor.$visit(integer)),
                None => Err(self.expected(&number::range(<$int>::MIN.into(), <$int>::MAX.into()))),
            }
        })*
    };
}

impl<'n> Deserializer<'n> for Reader<'_, 'n> {
    type Error = Stop;

    integers! {
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
    }

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::Null => self.placed(visitor.visit_unit()),
            Value::Bool(..) => self.deserialize_bool(visitor),
            Value::Number(_) if number::integer(&self.node.value).is_some() => self.deserialize_i64(visitor),
            Value::Number(_) => self.deserialize_f64(visitor),
            Value::String(text) => self.placed(visitor.visit_borrowed_str(text)),
            Value::Seq(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::Bool(bool, _) => self.placed(visitor.visit_bool(*bool)),
            _ => Err(self.expected("`true` or `false`, without quotes")),
        }
    }

    fn deserialize_f64<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Stop> {
        match number::float(&self.node.value) {
            Some(float) => self.placed(visitor.visit_f64(float)),
            None => Err(self.expected("a number")),
        }
    }

    fn deserialize_f32<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_f64(visitor)
    }

    /// Any scalar is a text: numbers and booleans as they are written.
    fn deserialize_str<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::Bool(_, text) | Value::Number(text) | Value::String(text) => {
                self.placed(visitor.visit_borrowed_str(text))
            }
            Value::Null => self.placed(visitor.visit_borrowed_str("")),
            Value::Seq(_) | Value::Map(_) => Err(self.expected("a text")),
        }
    }

    fn deserialize_string<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::Null => self.placed(visitor.visit_none()),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'n>>(self, name: &'static str, visitor: V) -> Result<V::Value, Stop> {
        if name == UNSUPPORTED {
            return Err(self.unsupported());
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::Seq(items) => self.placed(visitor.visit_seq(Items::new(self, items))),
            _ => Err(self.expected("a list")),
        }
    }

    fn deserialize_map<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::Map(entries) => self.placed(visitor.visit_map(MapEntries::new(self, entries))),
            _ => Err(self.expected("a map")),
        }
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::Map(entries) => self.placed(visitor.visit_map(Fields::new(self, fields, entries))),
            _ => Err(self.expected("a map")),
        }
    }

    fn deserialize_enum<V: Visitor<'n>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        // A variant without a name says that the enum is a choice between fields, of which none
        // need be set.
        if variants.contains(&"") {
            self.placed(visitor.visit_enum(OneOf::new(self, variants)?))
        } else {
            self.placed(visitor.visit_enum(Word::new(self, variants)?))
        }
    }

    fn deserialize_ignored_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'n>>
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

#[cfg(test)]
mod tests;
