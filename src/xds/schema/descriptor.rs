//! The needed parts of a descriptor set (`google/protobuf/descriptor.proto`).

use prost::Message;

use super::{Scalar, WireValue, wire_fields};
use crate::xds::pb::validate::FieldRules;

/// `DescriptorProto`, without nested types.
#[derive(Clone, PartialEq, Message)]
pub(super) struct MessageDescriptor {
    #[prost(message, repeated, tag = "2")]
    pub(super) fields: Vec<FieldDescriptor>,
    #[prost(message, optional, tag = "7")]
    pub(super) options: Option<MessageOptions>,
    #[prost(message, repeated, tag = "8")]
    pub(super) oneofs: Vec<OneofDescriptor>,
}

/// `MessageOptions`, with the extensions of `validate.proto`.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct MessageOptions {
    #[prost(bool, tag = "7")]
    pub(super) map_entry: bool,
    #[prost(bool, tag = "1071")]
    pub(super) disabled: bool,
    #[prost(bool, tag = "1072")]
    pub(super) ignored: bool,
}

/// `FieldDescriptorProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FieldDescriptor {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(uint32, tag = "3")]
    pub(super) number: u32,
    #[prost(enumeration = "Label", tag = "4")]
    label: i32,
    #[prost(enumeration = "FieldType", tag = "5")]
    field_type: i32,
    #[prost(string, optional, tag = "6")]
    type_name: Option<String>,
    #[prost(message, optional, tag = "8")]
    pub(super) options: Option<FieldOptions>,
    #[prost(int32, optional, tag = "9")]
    pub(super) oneof: Option<i32>,
}

/// `FieldOptions`, with the extension of `validate.proto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FieldOptions {
    #[prost(message, optional, tag = "1071")]
    pub(super) rules: Option<FieldRules>,
}

/// `OneofDescriptorProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OneofDescriptor {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) options: Option<OneofOptions>,
}

/// `OneofOptions`, with the extension of `validate.proto`.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct OneofOptions {
    #[prost(bool, tag = "1071")]
    pub(super) required: bool,
}

/// `FieldDescriptorProto.Label`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Label {
    Optional = 1,
    Required = 2,
    Repeated = 3,
}

/// `FieldDescriptorProto.Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum FieldType {
    Double = 1,
    Float = 2,
    Int64 = 3,
    Uint64 = 4,
    Int32 = 5,
    Fixed64 = 6,
    Fixed32 = 7,
    Bool = 8,
    String = 9,
    Group = 10,
    Message = 11,
    Bytes = 12,
    Uint32 = 13,
    Enum = 14,
    Sfixed32 = 15,
    Sfixed64 = 16,
    Sint32 = 17,
    Sint64 = 18,
}

impl FieldDescriptor {
    /// Full name of the field's message or enum type, without the leading dot.
    pub(super) fn value_type(&self) -> Option<&str> {
        self.type_name.as_deref()?.strip_prefix('.')
    }
}

impl FieldType {
    /// How a value is decoded; messages as bytes.
    pub(super) fn scalar(self) -> Scalar {
        match self {
            FieldType::Double => Scalar::Double,
            FieldType::Float => Scalar::Float,
            FieldType::Int64 | FieldType::Int32 | FieldType::Enum => Scalar::Int,
            FieldType::Uint64 | FieldType::Uint32 => Scalar::Uint,
            FieldType::Fixed64 | FieldType::Sfixed64 => Scalar::Fixed64,
            FieldType::Fixed32 | FieldType::Sfixed32 => Scalar::Fixed32,
            FieldType::Bool => Scalar::Bool,
            FieldType::String => Scalar::String,
            FieldType::Bytes | FieldType::Message | FieldType::Group => Scalar::Bytes,
            FieldType::Sint32 | FieldType::Sint64 => Scalar::Zigzag,
        }
    }
}

/// A type definition: its serialized descriptor.
pub(super) enum Found {
    Message(&'static [u8]),
    Enum(&'static [u8]),
}

/// Calls `found` with the full name of every message and enum of a `FileDescriptorSet`, nested ones
/// included.
pub(super) fn each_type(set: &'static [u8], found: &mut impl FnMut(String, Found)) {
    for file in parts(set, 1) {
        let package = text(file, 2);
        parts(file, 4).for_each(|message| each_nested(message, package, found));
        parts(file, 5).for_each(|descriptor| found(join(package, text(descriptor, 1)), Found::Enum(descriptor)));
    }
}

fn each_nested(message: &'static [u8], scope: &str, found: &mut impl FnMut(String, Found)) {
    let name = join(scope, text(message, 1));
    parts(message, 3).for_each(|nested| each_nested(nested, &name, found));
    parts(message, 4).for_each(|descriptor| found(join(&name, text(descriptor, 1)), Found::Enum(descriptor)));
    found(name, Found::Message(message));
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() {
        return name.to_owned();
    }
    format!("{scope}.{name}")
}

/// `EnumValueDescriptorProto`.
#[derive(Clone, PartialEq, Message)]
struct EnumValue {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    number: i32,
}

fn enum_values(descriptor: &[u8]) -> impl Iterator<Item = EnumValue> {
    parts(descriptor, 2).filter_map(|value| EnumValue::decode(value).ok())
}

/// The numbers of an enum's values.
pub(super) fn enum_numbers(descriptor: &[u8]) -> Vec<i32> {
    enum_values(descriptor).map(|value| value.number).collect()
}

/// The number of a named enum value.
pub(super) fn enum_number(descriptor: &[u8], name: &str) -> Option<i32> {
    enum_values(descriptor)
        .find(|value| value.name == name)
        .map(|value| value.number)
}

/// Whether a message is a map entry.
pub(super) fn is_map_entry(message: &[u8]) -> bool {
    parts(message, 7).any(|options| MessageOptions::decode(options).is_ok_and(|options| options.map_entry))
}

/// Contents of the length-delimited fields with this number.
fn parts(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    wire_fields(message)
        .flatten()
        .filter(move |field| field.number == number)
        .filter_map(|field| match field.value {
            WireValue::Bytes(place) => Some(&message[place]),
            WireValue::Varint(_) | WireValue::Fixed64(_) | WireValue::Fixed32(_) => None,
        })
}

fn text(message: &[u8], number: u32) -> &str {
    parts(message, number)
        .next()
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .unwrap_or_default()
}
