//! Schema of Envoy's messages: their fields and Envoy's constraints on them.
//!
//! The descriptor set produced by `build.rs` is embedded in the binary; the descriptor of a message
//! type is parsed when it is first used. (The descriptor pool of `prost-reflect` takes 16 MB for
//! the whole set, this index 0.3 MB and a few KB per type in use.)

mod constraint;
mod descriptor;
mod scalar;
mod wire;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

pub(super) use constraint::{Checks, Constraint, Value};
pub(super) use scalar::{Scalar, nanoseconds};
pub(super) use wire::{WireField, WireValue, any_parts, wire_fields};

use descriptor::{FieldDescriptor, FieldType, Label, MessageDescriptor};
use prost::Message as _;

/// The serialized `FileDescriptorSet` of all Envoy messages.
pub(super) static DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/envoy.bin"));

/// A message type.
pub(super) struct MessageType {
    /// The full name.
    pub(super) name: Arc<str>,
    descriptor: &'static [u8],
    layout: OnceLock<Layout>,
}

/// The fields of a message type.
#[derive(Default)]
pub(super) struct Layout {
    /// Fields, sorted by number.
    pub(super) fields: Vec<Field>,
    /// Oneofs that must be set: name and field numbers.
    pub(super) required_oneofs: Vec<(String, Vec<u32>)>,
}

/// A field.
pub(super) struct Field {
    pub(super) number: u32,
    /// Original name in the `.proto` file.
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
    /// Whether absence is distinguishable from the default value.
    pub(super) optional: bool,
    /// The enum type, if it has one.
    pub(super) values: Option<EnumType>,
    /// Envoy's constraints on the field.
    pub(super) constraint: Constraint,
}

/// An enum.
#[derive(Clone, Copy)]
pub(super) struct EnumType(&'static [u8]);

impl EnumType {
    /// The number of a named value.
    pub(super) fn number(self, name: &str) -> Option<i32> {
        descriptor::enum_number(self.0, name)
    }
}

/// Type of a field.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Scalar(Scalar),
    Message(&'static MessageType),
    /// A map entry: a message with the key in field 1 and the value in field 2.
    MapEntry(&'static MessageType),
    /// `google.protobuf.Any`.
    Any,
    /// `google.protobuf.Duration`.
    Duration,
    /// A wrapper such as `google.protobuf.UInt32Value`: a message with the value in field 1.
    Wrapper(Scalar),
}

impl MessageType {
    /// The type with this full name.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        index().messages.get(name)
    }

    /// The type of an `Any` with this URL.
    pub(super) fn of_url(type_url: &str) -> Option<&'static Self> {
        let (_, name) = type_url.rsplit_once('/')?;
        Self::find(name)
    }

    /// Its fields.
    pub(super) fn layout(&self) -> &Layout {
        self.layout.get_or_init(|| Layout::read(self.descriptor))
    }
}

impl Layout {
    /// The field with this number.
    pub(super) fn field(&self, number: u32) -> Option<(usize, &Field)> {
        let at = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        Some((at, &self.fields[at]))
    }

    fn read(descriptor: &[u8]) -> Self {
        // The descriptor set is built in; a type that fails to parse would have no fields, which
        // the tests detect.
        let message = MessageDescriptor::decode(descriptor).unwrap_or_default();
        let unruled = message
            .options
            .is_some_and(|options| options.disabled || options.ignored);
        let required_oneofs = message
            .oneofs
            .iter()
            .enumerate()
            .filter(|(_, oneof)| !unruled && oneof.options.is_some_and(|options| options.required))
            .map(|(index, oneof)| (oneof.name.clone(), members(&message.fields, index)))
            .collect();
        let mut fields: Vec<_> = message.fields.iter().map(|field| Field::read(field, unruled)).collect();
        fields.sort_unstable_by_key(|field| field.number);
        Self {
            fields,
            required_oneofs,
        }
    }
}

/// Field numbers of a oneof.
fn members(fields: &[FieldDescriptor], oneof: usize) -> Vec<u32> {
    let belongs = |field: &&FieldDescriptor| field.oneof.is_some_and(|index| usize::try_from(index) == Ok(oneof));
    fields.iter().filter(belongs).map(|field| field.number).collect()
}

impl Field {
    fn read(field: &FieldDescriptor, unruled: bool) -> Self {
        let rules = field.options.as_ref().and_then(|options| options.rules.clone());
        let values = field.value_type().and_then(|name| index().enums.get(name));
        let defined: Arc<[i32]> = values.map_or_else(
            || Arc::from([]),
            |descriptor| descriptor::enum_numbers(descriptor).into(),
        );
        // An unknown kind of constraint is left to Envoy; a test checks that there is none.
        let constraint = rules
            .filter(|_| !unruled)
            .and_then(|rules| Constraint::compile(rules, &defined).ok());
        Self {
            number: field.number,
            name: field.name.clone(),
            kind: Kind::of(field),
            repeated: field.label() == Label::Repeated,
            optional: field.oneof.is_some(),
            values: values.map(|descriptor| EnumType(descriptor)),
            constraint: constraint.unwrap_or_default(),
        }
    }
}

impl Kind {
    fn of(field: &FieldDescriptor) -> Self {
        let Some(name) = field.value_type().filter(|_| field.field_type() == FieldType::Message) else {
            return Kind::Scalar(field.field_type().scalar());
        };
        match name {
            "google.protobuf.Any" => return Kind::Any,
            "google.protobuf.Duration" => return Kind::Duration,
            _ => {}
        }
        if let Some(scalar) = wrapped(name) {
            return Kind::Wrapper(scalar);
        }
        match MessageType::find(name) {
            Some(message) if descriptor::is_map_entry(message.descriptor) => Kind::MapEntry(message),
            Some(message) => Kind::Message(message),
            // The descriptor set is complete; on the wire a message is bytes.
            None => Kind::Scalar(Scalar::Bytes),
        }
    }
}

fn wrapped(name: &str) -> Option<Scalar> {
    Some(match name {
        "google.protobuf.DoubleValue" => Scalar::Double,
        "google.protobuf.FloatValue" => Scalar::Float,
        "google.protobuf.Int64Value" | "google.protobuf.Int32Value" => Scalar::Int,
        "google.protobuf.UInt64Value" | "google.protobuf.UInt32Value" => Scalar::Uint,
        "google.protobuf.BoolValue" => Scalar::Bool,
        "google.protobuf.StringValue" => Scalar::String,
        "google.protobuf.BytesValue" => Scalar::Bytes,
        _ => return None,
    })
}

struct Index {
    messages: HashMap<Arc<str>, MessageType>,
    enums: HashMap<String, &'static [u8]>,
}

fn index() -> &'static Index {
    static INDEX: OnceLock<Index> = OnceLock::new();
    INDEX.get_or_init(|| {
        let mut index = Index {
            messages: HashMap::new(),
            enums: HashMap::new(),
        };
        descriptor::each_type(DESCRIPTOR_SET, &mut |name, found| match found {
            descriptor::Found::Message(descriptor) => {
                let layout = OnceLock::new();
                let name = Arc::from(name);
                index.messages.insert(
                    Arc::clone(&name),
                    MessageType {
                        name,
                        descriptor,
                        layout,
                    },
                );
            }
            descriptor::Found::Enum(descriptor) => {
                index.enums.insert(name, descriptor);
            }
        });
        index
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::ResourceType;

    #[test]
    fn every_served_type_is_known_with_its_fields() {
        for kind in ResourceType::ALL {
            let message = MessageType::of_url(kind.type_url()).unwrap();
            assert!(message.layout().fields.len() > 1, "{kind}");
        }
    }

    #[test]
    fn fields_have_their_types() {
        let cluster = MessageType::find("envoy.config.cluster.v3.Cluster").unwrap().layout();
        let kind = |number| cluster.field(number).unwrap().1.kind;
        assert!(matches!(kind(1), Kind::Scalar(Scalar::String)));
        assert!(matches!(kind(4), Kind::Duration));
        assert!(matches!(kind(5), Kind::Wrapper(Scalar::Uint)));
        assert!(matches!(kind(36), Kind::MapEntry(_)));
        assert!(matches!(kind(43), Kind::Message(_)));
        assert!(cluster.field(9999).is_none());
    }

    #[test]
    fn every_constraint_in_the_descriptor_set_is_supported() {
        let mut rules = 0;
        for message in index().messages.values() {
            let descriptor = MessageDescriptor::decode(message.descriptor).unwrap();
            for field in &descriptor.fields {
                if let Some(rule) = field.options.as_ref().and_then(|options| options.rules.clone()) {
                    let compiled = Constraint::compile(rule.clone(), &Arc::from([]));
                    assert!(compiled.is_ok(), "{}: {rule:?}", field.name);
                    rules += 1;
                }
            }
        }
        assert!(rules > 1000, "{rules}");
    }
}
