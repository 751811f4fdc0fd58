//! Deserializers of lists, maps and structs.

use std::slice;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Reader, Stop, number};
use crate::api::field_path::is_field;
use crate::source::node::{Key, Node, Value};

/// The elements of a list.
pub(super) struct Items<'r, 'n> {
    reader: Reader<'r, 'n>,
    items: slice::Iter<'n, Node>,
}

impl<'r, 'n> Items<'r, 'n> {
    pub(super) fn new(reader: Reader<'r, 'n>, items: &'n [Node]) -> Self {
        Self {
            reader,
            items: items.iter(),
        }
    }
}

impl<'n> SeqAccess<'n> for Items<'_, 'n> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'n>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        let Some(item) = self.items.find(|item| !self.reader.report.is_poisoned(item)) else {
            return Ok(None);
        };
        let reader = self.reader.inner(item, None);
        if item.value == Value::Null {
            return Err(reader.wrong("this element of the list is empty".to_owned()));
        }
        seed.deserialize(reader).map(Some)
    }

    /// Without a size hint serde would reserve excess capacity that the object would retain.
    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The entries of a map with user-defined keys.
pub(super) struct MapEntries<'r, 'n> {
    reader: Reader<'r, 'n>,
    entries: slice::Iter<'n, (Key, Node)>,
    value: Option<&'n (Key, Node)>,
}

impl<'r, 'n> MapEntries<'r, 'n> {
    pub(super) fn new(reader: Reader<'r, 'n>, entries: &'n [(Key, Node)]) -> Self {
        Self {
            reader,
            entries: entries.iter(),
            value: None,
        }
    }
}

impl<'n> MapAccess<'n> for MapEntries<'_, 'n> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'n>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        self.value = self.entries.find(|(_, node)| !self.reader.report.is_poisoned(node));
        let Some((key, node)) = self.value else { return Ok(None) };
        seed.deserialize(KeyReader(key)).map(Some).map_err(|stop| {
            self.reader.report.invalid(&key.span, stop.to_string());
            self.reader.report.poison(node);
            Stop::Reported
        })
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        let Some((key, node)) = self.value.take() else {
            return Err(Stop::Unplaced("a value without a key".to_owned()));
        };
        seed.deserialize(self.reader.inner(node, Some(key.into())))
    }
}

/// Deserializer of such a key: a string or an integer.
struct KeyReader<'n>(&'n Key);

impl<'n> Deserializer<'n> for KeyReader<'n> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_borrowed_str(&self.0.text)
    }

    fn deserialize_u32<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Stop> {
        let number = number::integer(&Value::String(self.0.text.clone()));
        match number.and_then(|number| u32::try_from(number).ok()) {
            Some(number) => visitor.visit_u32(number),
            None => Err(Stop::Unplaced(format!(
                "expected {}, found `{}`",
                number::range(0, u32::MAX.into()),
                self.0.text
            ))),
        }
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'n>>
        bool i8 i16 i32 i64 i128 u8 u16 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The fields of a struct. A field without a value counts as absent, as in Kubernetes.
pub(super) struct Fields<'r, 'n> {
    reader: Reader<'r, 'n>,
    known: &'static [&'static str],
    entries: &'n [(Key, Node)],
    at: usize,
    value: Option<&'n (Key, Node)>,
}

impl<'r, 'n> Fields<'r, 'n> {
    pub(super) fn new(reader: Reader<'r, 'n>, known: &'static [&'static str], entries: &'n [(Key, Node)]) -> Self {
        Self {
            reader,
            known,
            entries,
            at: 0,
            value: None,
        }
    }

    /// The next known field; reports and skips unknown and duplicate ones.
    fn next(&mut self) -> Option<(&'static str, &'n (Key, Node))> {
        while let Some(entry) = self.entries.get(self.at) {
            self.at += 1;
            let (key, node) = entry;
            if self.reader.skip.contains(&&*key.text) {
                continue;
            }
            let Some(field) = self.known.iter().find(|field| is_field(&key.text, field)) else {
                self.reader.report.unknown_field(key, self.known);
                continue;
            };
            let earlier = &self.entries[..self.at - 1];
            if let Some((first, _)) = earlier.iter().find(|(key, _)| is_field(&key.text, field)) {
                self.reader.report.given_twice(key, first);
            } else if node.value != Value::Null && !self.reader.report.is_poisoned(node) {
                return Some((field, entry));
            }
        }
        None
    }
}

impl<'n> MapAccess<'n> for Fields<'_, 'n> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'n>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        let Some((field, entry)) = self.next() else {
            return Ok(None);
        };
        self.value = Some(entry);
        seed.deserialize(BorrowedStrDeserializer::new(field)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        let Some((key, node)) = self.value.take() else {
            return Err(Stop::Unplaced("a value without a field".to_owned()));
        };
        seed.deserialize(self.reader.inner(node, Some(key.into())))
    }
}
