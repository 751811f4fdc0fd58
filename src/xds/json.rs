//! Protobuf messages as JSON in the format of Envoy's `/config_dump`: proto3 JSON with original
//! field names and expanded `Any`s.

use prost::Message;
use prost_reflect::{
    DescriptorError, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage,
    SerializeOptions,
};
use serde_json::{Map, Value};

use super::resource::Resource;
use super::schema::DESCRIPTOR_SET;

/// Replaces secrets.
const REDACTED: &str = "[redacted]";

/// Number of the field option `udpa.annotations.sensitive`.
const SENSITIVE: u32 = 76_569_463;

/// Converts messages to JSON.
///
/// It holds descriptors of all Envoy types, which take 16 MB and 25 ms to build: create one per
/// dump instead of keeping it.
#[derive(Debug)]
pub struct Printer {
    pool: DescriptorPool,
}

/// Why a message cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The descriptor set cannot be parsed.
    #[error("failed to decode Envoy's protobuf descriptors: {0}")]
    Descriptors(#[from] DescriptorError),
    /// The message type is unknown.
    #[error("`{0}` is not a message type of Envoy")]
    UnknownType(String),
    /// The bytes are not a message of the type.
    #[error("not a valid `{0}` message: {1}")]
    NoMessage(String, prost::DecodeError),
    /// The JSON does not match the type.
    #[error("not a valid `{0}`: {1}")]
    NotRead(String, serde_json::Error),
    /// A part cannot be converted: an `Any` with an unknown type or invalid content.
    #[error("failed to print `{0}`: {1}")]
    NotPrintable(String, serde_json::Error),
}

/// Parses a message from JSON; `name` is its full type name. Accepts original and lowerCamelCase
/// field names. Unknown fields are errors.
///
/// # Errors
///
/// If the type is unknown or the value does not match it.
pub fn from_json<M: Message + Default>(name: &str, value: Value) -> Result<M, JsonError> {
    let pool = DescriptorPool::decode(DESCRIPTOR_SET)?;
    let descriptor = pool
        .get_message_by_name(name)
        .ok_or_else(|| JsonError::UnknownType(name.to_owned()))?;
    let message =
        DynamicMessage::deserialize(descriptor, value).map_err(|error| JsonError::NotRead(name.to_owned(), error))?;
    M::decode(&message.encode_to_vec()[..]).map_err(|error| JsonError::NoMessage(name.to_owned(), error))
}

impl Printer {
    /// Parses the descriptor set.
    ///
    /// # Errors
    ///
    /// None in practice: the descriptor set is part of the binary.
    pub fn new() -> Result<Self, JsonError> {
        Ok(Self {
            pool: DescriptorPool::decode(DESCRIPTOR_SET)?,
        })
    }

    /// A resource as an expanded `Any`: `@type`, followed by its fields. A resource without
    /// content, which stands for one that the proxy already has, shows its name.
    ///
    /// # Errors
    ///
    /// See [`Printer::to_json`].
    pub fn resource(&self, resource: &Resource) -> Result<Value, JsonError> {
        let type_url = resource.kind.type_url();
        let mut value = Map::new();
        value.insert("@type".to_owned(), type_url.into());
        if resource.body.is_empty() {
            value.insert("name".to_owned(), resource.name.to_string().into());
        }
        if let Value::Object(fields) = self.to_json(type_url, &resource.body)? {
            value.extend(fields);
        }
        Ok(value.into())
    }

    /// A message of this type as JSON, with private keys and other secrets replaced by
    /// `[redacted]`.
    ///
    /// # Errors
    ///
    /// If the type is unknown or the bytes are not a message of it.
    pub fn to_json(&self, type_url: &str, bytes: &[u8]) -> Result<Value, JsonError> {
        let name = type_url.rsplit_once('/').map_or(type_url, |(_, name)| name);
        let unknown = || JsonError::UnknownType(name.to_owned());
        let descriptor = self.pool.get_message_by_name(name).ok_or_else(unknown)?;
        let message =
            DynamicMessage::decode(descriptor, bytes).map_err(|error| JsonError::NoMessage(name.to_owned(), error))?;
        let options = SerializeOptions::new().use_proto_field_name(true);
        let descriptor = message.descriptor();
        let mut value = message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|error| JsonError::NotPrintable(name.to_owned(), error))?;
        self.tidy_message(&mut value, &descriptor);
        Ok(value)
    }

    /// Redacts sensitive fields and sorts maps by key, recursively.
    fn tidy_message(&self, value: &mut Value, descriptor: &MessageDescriptor) {
        let Value::Object(object) = value else {
            return;
        };
        let held = object
            .get("@type")
            .and_then(Value::as_str)
            .and_then(|url| self.of_url(url));
        if let Some(held) = held.filter(|held| held != descriptor) {
            // An `Any` has the fields of its message beside `@type`, or `value` for a well-known
            // type.
            return match object.get_mut("value") {
                Some(inner) if held.full_name().starts_with("google.protobuf.") => self.tidy_message(inner, &held),
                Some(_) | None => self.tidy_message(value, &held),
            };
        }
        match descriptor.full_name() {
            "google.protobuf.Struct" => sort_struct(object),
            _ => self.tidy_fields(object, descriptor),
        }
    }

    fn tidy_fields(&self, object: &mut Map<String, Value>, descriptor: &MessageDescriptor) {
        for (name, value) in object.iter_mut() {
            let Some(field) = descriptor.get_field_by_name(name) else {
                continue;
            };
            if is_sensitive(&field) {
                redact(value);
            } else {
                self.tidy_field(value, &field);
            }
        }
    }

    fn tidy_field(&self, value: &mut Value, field: &FieldDescriptor) {
        let Kind::Message(message) = field.kind() else {
            return;
        };
        match value {
            Value::Object(pairs) if field.is_map() => {
                pairs.sort_keys();
                if let Kind::Message(message) = message.map_entry_value_field().kind() {
                    pairs.values_mut().for_each(|value| self.tidy_message(value, &message));
                }
            }
            Value::Array(elements) => elements
                .iter_mut()
                .for_each(|element| self.tidy_message(element, &message)),
            Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                self.tidy_message(value, &message);
            }
        }
    }

    fn of_url(&self, type_url: &str) -> Option<MessageDescriptor> {
        let (_, name) = type_url.rsplit_once('/')?;
        self.pool.get_message_by_name(name)
    }
}

fn is_sensitive(field: &FieldDescriptor) -> bool {
    let options = field.options();
    let extension = options.descriptor().get_extension(SENSITIVE);
    extension.is_some_and(|extension| options.get_extension(&extension).as_bool() == Some(true))
}

/// Redacts all values but keeps the structure, like Envoy.
fn redact(value: &mut Value) {
    match value {
        Value::Object(object) => object
            .iter_mut()
            .filter(|(name, _)| *name != "@type")
            .for_each(|(_, v)| redact(v)),
        Value::Array(elements) => elements.iter_mut().for_each(redact),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => *value = REDACTED.into(),
    }
}

fn sort_struct(object: &mut Map<String, Value>) {
    object.sort_keys();
    object.values_mut().for_each(sort_value);
}

fn sort_value(value: &mut Value) {
    match value {
        Value::Object(object) => sort_struct(object),
        Value::Array(elements) => elements.iter_mut().for_each(sort_value),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use prost::{Message, Name};
    use serde_json::json;

    use super::*;
    use crate::xds::encode;
    use crate::xds::pb::core::{Metadata, TransportSocket, transport_socket};
    use crate::xds::pb::tls::UpstreamTlsContext;
    use crate::xds::pb::wkt::{self, Any};

    fn printed<M: Message + Name>(message: &M) -> Value {
        Printer::new()
            .unwrap()
            .to_json(&M::type_url(), &message.encode_to_vec())
            .unwrap()
    }

    #[test]
    fn names_are_envoys_and_any_is_expanded() {
        let context = UpstreamTlsContext {
            sni: "reviews".into(),
            ..Default::default()
        };
        let any = Any {
            type_url: UpstreamTlsContext::type_url(),
            value: context.encode_to_vec(),
        };
        let socket = TransportSocket {
            name: "tls".into(),
            config_type: Some(transport_socket::ConfigType::TypedConfig(any)),
        };
        assert_eq!(
            printed(&socket),
            json!({"name": "tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "reviews",
            }})
        );
    }

    #[test]
    fn private_keys_are_hidden_and_certificates_are_not() {
        let secret = encode::certificate("CHAIN", "KEY", "1");
        let shown = Printer::new()
            .unwrap()
            .to_json(secret.kind.type_url(), &secret.body)
            .unwrap();
        assert_eq!(
            shown["tls_certificate"]["certificate_chain"]["inline_bytes"],
            "Q0hBSU4="
        );
        assert_eq!(shown["tls_certificate"]["private_key"]["inline_bytes"], REDACTED);
    }

    #[test]
    fn maps_are_sorted() {
        let fields = |keys: &[&str]| wkt::Struct {
            fields: keys
                .iter()
                .map(|key| ((*key).to_owned(), wkt::Value::default()))
                .collect(),
        };
        let metadata = Metadata {
            filter_metadata: HashMap::from([
                ("b".to_owned(), fields(&["4", "3", "2", "1"])),
                ("a".to_owned(), fields(&[])),
            ]),
            ..Default::default()
        };
        let shown = printed(&metadata);
        assert_eq!(
            shown.to_string(),
            r#"{"filter_metadata":{"a":{},"b":{"1":null,"2":null,"3":null,"4":null}}}"#
        );
    }

    #[test]
    fn unknown_types_and_fields_are_errors() {
        let printer = Printer::new().unwrap();
        assert!(matches!(
            printer.to_json("type.googleapis.com/x", &[]),
            Err(JsonError::UnknownType(_))
        ));
        let cut_off = printer.to_json(&Any::type_url(), &[0x0a, 9]);
        assert!(matches!(cut_off, Err(JsonError::NoMessage(..))));
    }
}
