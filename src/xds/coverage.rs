//! What of a serialised message a reader would not read.
//!
//! A client that takes a message must not pass over a field that changes what happens. The reader's table says which
//! fields of which messages it knows; this walks a message, through nested ones and `Any`s, and finds the first that
//! it does not.

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

/// Finds the first field of a message that would not be read. `cover` is asked with a message's full name and a field's;
/// it knows none of the fields of a message that it does not know.
///
/// # Errors
/// That field.
pub fn check(type_url: &str, message: &[u8], cover: &impl Fn(&str, &str) -> Cover) -> Result<(), Unread> {
    let found = MessageType::of_url(type_url).ok_or_else(|| Unread::new(format!("`{type_url}`")))?;
    self::message(found, message, cover)
}

fn message(kind: &MessageType, bytes: &[u8], cover: &impl Fn(&str, &str) -> Cover) -> Result<(), Unread> {
    let layout = kind.layout();
    let mut counts = vec![0_usize; layout.fields.len()];
    for found in wire_fields(bytes) {
        let found = found.ok_or_else(|| Unread::new("a message that cannot be read"))?;
        let Some((at, field)) = layout.field(found.number) else {
            return Err(Unread::new(format!("field {} of `{}`", found.number, kind.name)));
        };
        let step = || match field.repeated {
            true => format!("{}[{}]", field.name, counts[at]),
            false => field.name.clone(),
        };
        match cover(&kind.name, &field.name) {
            Cover::Whole => {}
            Cover::Unread if is_zero(&found) => {}
            Cover::Unread => return Err(Unread::new("this field").within(field.name.clone())),
            Cover::Read => value(field.kind, bytes, &found, cover).map_err(|unread| unread.within(step()))?,
        }
        counts[at] += 1;
    }
    Ok(())
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

fn value(kind: Kind, bytes: &[u8], found: &WireField, cover: &impl Fn(&str, &str) -> Cover) -> Result<(), Unread> {
    let WireValue::Bytes(place) = &found.value else {
        return Ok(());
    };
    let content = &bytes[place.clone()];
    match kind {
        Kind::Scalar(_) | Kind::Duration | Kind::Wrapper(_) => Ok(()),
        Kind::Message(message) if message.name.starts_with("google.protobuf.") => Ok(()),
        Kind::Message(message) => self::message(message, content, cover),
        Kind::Any => any(content, cover),
        Kind::MapEntry(entry) => {
            for found in wire_fields(content).flatten().filter(|found| found.number == 2) {
                if let Some((_, field)) = entry.layout().field(2) {
                    value(field.kind, content, &found, cover)?;
                }
            }
            Ok(())
        }
    }
}

fn any(bytes: &[u8], cover: &impl Fn(&str, &str) -> Cover) -> Result<(), Unread> {
    let (url, value) = any_parts(bytes).ok_or_else(|| Unread::new("a message that cannot be read"))?;
    check(url, &bytes[value], cover)
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

    fn unread<M: Message + Name>(message: &M) -> Option<(String, String)> {
        let result = check(&M::type_url(), &message.encode_to_vec(), &cover);
        result.err().map(|unread| (unread.path.join("."), unread.what))
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
        assert_eq!(unread(&outer("")), None);
        let found = unread(&outer("x"));
        assert_eq!(
            found,
            Some(("socket_address.resolver_name".into(), "this field".into()))
        );
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
        let found = unread(&socket(any));
        assert_eq!(found, Some(("typed_config.resolver_name".into(), "this field".into())));
        let strange = Any {
            type_url: "a/b".into(),
            ..Default::default()
        };
        assert_eq!(unread(&socket(strange)), Some(("typed_config".into(), "`a/b`".into())));
    }

    #[test]
    fn numbers_that_the_message_does_not_have_are_found() {
        let found = check(&Address::type_url(), &[0xf8, 0x3f, 1], &cover).unwrap_err();
        assert_eq!(found.what, "field 1023 of `envoy.config.core.v3.Address`");
    }
}
