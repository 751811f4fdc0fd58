//! What of a serialised message a reader would not read.
//!
//! A client that takes a message must not pass over a field that changes what happens. The reader's table says which
//! fields of which messages it knows; this walks a message, through nested ones and `Any`s, and finds those that it does
//! not.

use super::schema::{Kind, MessageType, WireField, WireValue, any_parts, wire_fields};

/// What a reader does with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// It reads it, and what is in it by the same table.
    Read,
    /// What is in it does not matter.
    Whole,
    /// It does not read it.
    Unread,
}

/// A field that would not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The way to it.
    pub path: Vec<String>,
    /// The field or message, in words.
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

/// Finds the fields of a message that would not be read, each once. `cover` is asked with a message's full name and a
/// field's; it knows none of the fields of a message that it does not know.
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

/// Some writers send zeros, which say nothing.
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
    fn a_field_that_is_set_and_not_read_is_found_where_it_is() {
        let outer = |resolver| Address {
            address: Some(address::Address::SocketAddress(address(resolver))),
        };
        assert_eq!(found(&outer("")), []);
        let expected = ("socket_address.resolver_name".into(), "this field".into());
        assert_eq!(found(&outer("x")), [expected]);
    }

    #[test]
    fn messages_in_any_are_looked_into_and_strange_ones_found() {
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
    fn numbers_that_the_message_does_not_have_are_found() {
        let found = unread(&Address::type_url(), &[0xf8, 0x3f, 1], &cover);
        assert_eq!(found, [Unread::new("field 1023 of `envoy.config.core.v3.Address`")]);
    }

    #[test]
    fn all_fields_are_found() {
        let socket = SocketAddress {
            resolver_name: "x".into(),
            ipv4_compat: true,
            ..address("")
        };
        let names: Vec<_> = found(&socket).into_iter().map(|(path, _)| path).collect();
        assert_eq!(names, ["resolver_name", "ipv4_compat"]);
    }
}
