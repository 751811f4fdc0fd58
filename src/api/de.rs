//! Deserializer from YAML nodes to the API types that reports every problem with its location.
//!
//! serde stops at the first error. To report all errors at once, a node that fails is reported and
//! marked, and deserialization restarts as if the node were absent, until it succeeds. The result
//! is discarded if any error was reported.

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

/// Maximum number of restarts; further problems in the same document are not reported.
const MAX_ROUNDS: usize = 50;

/// Deserializes a node. `skip` names fields of the outermost map that are deserialized elsewhere.
/// Returns `None` if [`MAX_ROUNDS`] is exceeded.
pub(super) fn read<'n, T: Deserialize<'n>>(node: &'n Node, report: &Report<'_>, skip: &[&str]) -> Option<T> {
    let reader = Reader {
        node,
        report,
        name: None,
        skip,
    };
    (0..MAX_ROUNDS).find_map(|_| T::deserialize(reader).ok())
}

/// Why deserialization stopped.
#[derive(Debug)]
enum Stop {
    /// The problem has been reported.
    Reported,
    /// A serde error message that has no location yet.
    Unplaced(String),
    /// The expected type of a node, without a location yet.
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

/// How messages refer to a value: its field or variant name, and where that is.
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

/// Deserializer of one node.
#[derive(Clone, Copy)]
struct Reader<'r, 'n> {
    node: &'n Node,
    report: &'r Report<'r>,
    name: Option<Name<'n>>,
    skip: &'r [&'r str],
}

impl<'n> Reader<'_, 'n> {
    /// Deserializer of a child node.
    fn inner(&self, node: &'n Node, name: Option<Name<'n>>) -> Self {
        Self {
            node,
            report: self.report,
            name,
            skip: &[],
        }
    }

    /// Reports a node of the wrong type.
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

    /// The span to report: the value, or its name if the value is empty.
    fn span(&self) -> Range<usize> {
        match self.name {
            Some(name) if self.node.span.is_empty() => name.span.clone(),
            _ => own_span(self.node),
        }
    }

    /// Attaches the location of this node to an error that has none.
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

/// Describes a value in a message.
fn found(value: &Value) -> String {
    const LONG: usize = 40;
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_, text) | Value::Number(text) | Value::String(text) if text.chars().count() <= LONG => {
            format!("`{}`", text.escape_debug())
        }
        Value::Bool(..) | Value::Number(_) | Value::String(_) => "a longer string".to_owned(),
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

    /// Any scalar deserializes as a string: numbers and booleans as they are written.
    fn deserialize_str<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Stop> {
        match &self.node.value {
            Value::Bool(_, text) | Value::Number(text) | Value::String(text) => {
                self.placed(visitor.visit_borrowed_str(text))
            }
            Value::Null => self.placed(visitor.visit_borrowed_str("")),
            Value::Seq(_) | Value::Map(_) => Err(self.expected("a string")),
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
        // An enum with a variant named "" is a oneof, in which no field need be set.
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
