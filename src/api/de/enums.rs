//! Deserializers of enums: names such as `ISTIO_MUTUAL`, and oneofs such as `{prefix: /a}`.

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, VariantAccess, Visitor};

use super::{Name, Reader, Stop, found};
use crate::api::field_path::is_field;
use crate::api::suggest;
use crate::source::node::Value;

/// An enum value by name.
pub(super) struct Word<'r, 'n> {
    reader: Reader<'r, 'n>,
    word: &'n str,
}

impl<'r, 'n> Word<'r, 'n> {
    pub(super) fn new(reader: Reader<'r, 'n>, words: &'static [&'static str]) -> Result<Self, Stop> {
        let word = match &reader.node.value {
            Value::String(word) | Value::Number(word) | Value::Bool(_, word) => &**word,
            Value::Null | Value::Seq(_) | Value::Map(_) => return Err(reader.expected(&suggest::one_of(words))),
        };
        if words.contains(&word) {
            return Ok(Self { reader, word });
        }
        let found = found(&reader.node.value);
        Err(match suggest::closest(word, words.iter().copied()) {
            Some(closest) => reader.wrong_with(
                format!("{found} is not a valid value for this field"),
                format!("did you mean `{closest}`?"),
            ),
            None => reader.expected(&suggest::one_of(words)),
        })
    }
}

impl<'r, 'n> EnumAccess<'n> for Word<'r, 'n> {
    type Error = Stop;
    type Variant = Content<'r, 'n>;

    fn variant_seed<V: DeserializeSeed<'n>>(self, seed: V) -> Result<(V::Value, Self::Variant), Stop> {
        let variant = seed.deserialize(StrDeserializer::new(self.word))?;
        let name = Name {
            text: self.word,
            span: &self.reader.node.span,
        };
        Ok((variant, Content(Some(self.reader.inner(self.reader.node, Some(name))))))
    }
}

/// A protobuf oneof: at most one field; none selects the variant named "".
pub(super) struct OneOf<'r, 'n> {
    field: &'static str,
    content: Content<'r, 'n>,
}

impl<'r, 'n> OneOf<'r, 'n> {
    pub(super) fn new(reader: Reader<'r, 'n>, variants: &'static [&'static str]) -> Result<Self, Stop> {
        let fields: Vec<&'static str> = variants.iter().copied().filter(|name| !name.is_empty()).collect();
        let Value::Map(entries) = &reader.node.value else {
            return Err(reader.expected(&format!("a map with {}", suggest::one_of(&fields))));
        };
        let mut chosen = None;
        for (key, node) in entries {
            let Some(field) = fields.iter().find(|field| is_field(&key.text, field)) else {
                reader.report.unknown_choice(key, &fields);
                continue;
            };
            if reader.report.is_poisoned(node) {
                reader.report.poison(reader.node);
                return Err(Stop::Reported);
            }
            if node.value == Value::Null {
                continue;
            }
            if chosen.is_some() {
                reader
                    .report
                    .invalid(&key.span, format!("only {} may be set", suggest::one_of(&fields)));
                reader.report.poison(reader.node);
                return Err(Stop::Reported);
            }
            chosen = Some((*field, reader.inner(node, Some(key.into()))));
        }
        Ok(match chosen {
            Some((field, inner)) => Self {
                field,
                content: Content(Some(inner)),
            },
            None => Self {
                field: "",
                content: Content(None),
            },
        })
    }
}

impl<'r, 'n> EnumAccess<'n> for OneOf<'r, 'n> {
    type Error = Stop;
    type Variant = Content<'r, 'n>;

    fn variant_seed<V: DeserializeSeed<'n>>(self, seed: V) -> Result<(V::Value, Self::Variant), Stop> {
        let variant = seed.deserialize(StrDeserializer::new(self.field))?;
        Ok((variant, self.content))
    }
}

/// The content of a variant.
pub(super) struct Content<'r, 'n>(Option<Reader<'r, 'n>>);

impl<'r, 'n> Content<'r, 'n> {
    fn reader(self) -> Result<Reader<'r, 'n>, Stop> {
        self.0.ok_or_else(|| Stop::Unplaced("expected a value".to_owned()))
    }
}

impl<'r, 'n> VariantAccess<'n> for Content<'r, 'n> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'n>>(self, seed: T) -> Result<T::Value, Stop> {
        seed.deserialize(self.reader()?)
    }

    fn tuple_variant<V: Visitor<'n>>(self, _: usize, visitor: V) -> Result<V::Value, Stop> {
        self.reader()?.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'n>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        self.reader()?.deserialize_struct("", fields, visitor)
    }
}
