//! Finds fields of a serialized message that its reader ignores.
//!
//! A client must not silently ignore a field that affects behaviour. The reader supplies a table of
//! the fields it supports per message type; this module walks a message, including nested messages
//! and `Any`s, and reports all other fields that are set.

use super::schema::{Kind, MessageType, WireField, WireValue, any_parts, wire_fields};

/// How a reader treats a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// Supported; a message in it is checked by the same table.
    Read,
    /// Supported as a whole; its content is not checked.
    Whole,
    /// Not supported.
    Unread,
}

/// An unsupported field that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Path to the field.
    pub path: Vec<String>,
    /// Description of the field or message.
    pub what: String,
}

impl Unread {
    fn new(what: impl Into<String>) -> Self {
        Self {
            path: Vec::new(),
            what: what.into(),
        }
    }

    fn within(mut self, step: String) -> Self {
        self.path.insert(0, step);
        self
    }
}

/// Finds unsupported fields, each once. `cover` is called with the full name of a message and the
/// name of a field; for an unknown message it returns [`Cover::Unread`] for all fields.
pub fn unread(type_url: &str, message: &[u8], cover: &impl Fn(&str, &str) -> Cover) -> Vec<Unread> {
    match MessageType::of_url(type_url) {
        Some(found) => self::message(found, message, cover),
        None => vec![Unread::new(format!("`{type_url}`"))],
    }
}

fn message(kind: &MessageType, bytes: &[u8], cover: &impl Fn(&str, &str) -> Cover) -> Vec<Unread> {
    let layout = kind.layout();
    let mut counts = vec![0_usize; layout.fields.len()];
    let mut unread = Vec::new();
    for found in wire_fields(bytes) {
        let Some(found) = found else {
            unread.push(Unread::new("a message that cannot be read"));
            break;
        };
        let Some((at, field)) = layout.field(found.number) else {
            unread.push(Unread::new(format!("field {} of `{}`", found.number, kind.name)));
            continue;
        };
        let step = || match field.repeated {
            true => format!("{}[{}]", field.name, counts[at]),
            false => field.name.clone(),
        };
        match cover(&kind.name, &field.name) {
            Cover::Whole => {}
            Cover::Unread if is_zero(&found) || counts[at] > 0 => {}
            Cover::Unread => unread.push(Unread::new("this field").within(field.name.clone())),
            Cover::Read => {
                let within = value(field.kind, bytes, &found, cover);
                unread.extend(within.into_iter().map(|unread| unread.within(step())));
            }
        }
        counts[at] += 1;
    }
    unread
}

/// Zero values, which some writers serialize although they are the default.
fn is_zero(found: &WireField) -> bool {
    match found.value {
        WireValue::Varint(number) => number == 0,
        WireValue::Fixed64(bits) => bits == 0,
        WireValue::Fixed32(bits) => bits == 0,
        WireValue::Bytes(_) => false,
    }
}

fn value(kind: Kind, bytes: &[u8], found: &WireField, cover: &impl Fn(&str, &str) -> Cover) -> Vec<Unread> {
    let WireValue::Bytes(place) = &found.value else {
        return Vec::new();
    };
    let content = &bytes[place.clone()];
    match kind {
        Kind::Scalar(_) | Kind::Duration | Kind::Wrapper(_) => Vec::new(),
        Kind::Message(message) if message.name.starts_with("google.protobuf.") => Vec::new(),
        Kind::Message(message) => self::message(message, content, cover),
        Kind::Any => any(content, cover),
        Kind::MapEntry(entry) => {
            let values = wire_fields(content).flatten().filter(|found| found.number == 2);
            let field = entry.layout().field(2);
            let of = |found| field.map_or_else(Vec::new, |(_, field)| value(field.kind, content, &found, cover));
            values.flat_map(of).collect()
        }
    }
}

fn any(bytes: &[u8], cover: &impl Fn(&str, &str) -> Cover) -> Vec<Unread> {
    match any_parts(bytes) {
        Some((url, value)) => unread(url, &bytes[value], cover),
        None => vec![Unread::new("a message that cannot be read")],
    }
}

#[cfg(test)]
mod tests {
    use prost::{Message, Name};

    use super::*;
    use crate::xds::pb::core::{Address, SocketAddress, TransportSocket, address, transport_socket};
    use crate::xds::pb::wkt::Any;

    fn cover(message: &str, field: &str) -> Cover {
        match (message.rsplit('.').next(), field) {
            (Some("Address" | "TransportSocket"), "name") => Cover::Whole,
            (Some("Address" | "TransportSocket"), _) | (Some("SocketAddress"), "address") => Cover::Read,
            _ => Cover::Unread,
        }
    }

    fn found<M: Message + Name>(message: &M) -> Vec<(String, String)> {
        let found = unread(&M::type_url(), &message.encode_to_vec(), &cover);
        let words = |unread: Unread| (unread.path.join("."), unread.what);
        found.into_iter().map(words).collect()
    }

    fn address(resolver: &str) -> SocketAddress {
        SocketAddress {
            address: "::1".into(),
            resolver_name: resolver.into(),
            ..Default::default()
        }
    }

    #[test]
    fn unsupported_fields_are_found_with_their_path() {
        let outer = |resolver| Address {
            address: Some(address::Address::SocketAddress(address(resolver))),
        };
        assert_eq!(found(&outer("")), []);
        let expected = ("socket_address.resolver_name".into(), "this field".into());
        assert_eq!(found(&outer("x")), [expected]);
    }

    #[test]
    fn any_contents_are_checked() {
        let socket = |any| TransportSocket {
            name: "x".into(),
            config_type: Some(transport_socket::ConfigType::TypedConfig(any)),
        };
        let any = Any {
            type_url: SocketAddress::type_url(),
            value: address("x").encode_to_vec(),
        };
        let expected = ("typed_config.resolver_name".into(), "this field".into());
        assert_eq!(found(&socket(any)), [expected]);
        let strange = Any {
            type_url: "a/b".into(),
            ..Default::default()
        };
        assert_eq!(found(&socket(strange)), [("typed_config".into(), "`a/b`".into())]);
    }

    #[test]
    fn unknown_field_numbers_are_found() {
        let found = unread(&Address::type_url(), &[0xf8, 0x3f, 1], &cover);
        assert_eq!(found, [Unread::new("field 1023 of `envoy.config.core.v3.Address`")]);
    }

    #[test]
    fn all_unsupported_fields_are_found() {
        let socket = SocketAddress {
            resolver_name: "x".into(),
            ipv4_compat: true,
            ..address("")
        };
        let names: Vec<_> = found(&socket).into_iter().map(|(path, _)| path).collect();
        assert_eq!(names, ["resolver_name", "ipv4_compat"]);
    }
}
