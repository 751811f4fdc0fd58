//! Deterministic serialization.
//!
//! The generated types keep protobuf maps in `HashMap`s, so they are serialized in an order that
//! varies between runs. Map entries may come in any order, so they are sorted in place by key; no
//! lengths change.

use std::ops::Range;

use super::schema::{Kind, Layout, MessageType, WireField, WireValue, any_parts, wire_fields};

/// Sorts the maps of a serialized message of this type, recursively.
pub(super) fn sort_maps(type_url: &str, bytes: &mut [u8]) {
    if let Some(message) = MessageType::of_url(type_url) {
        sort_message(bytes, message.layout());
    }
}

fn sort_message(bytes: &mut [u8], layout: &Layout) {
    let fields: Vec<WireField> = wire_fields(bytes).flatten().collect();
    let mut entries: Vec<Range<usize>> = Vec::new();
    let mut map = None;
    for field in fields {
        if map != Some(field.number) {
            sort_entries(bytes, &entries);
            entries.clear();
            map = None;
        }
        let WireValue::Bytes(content) = field.value else {
            continue;
        };
        match layout.field(field.number).map(|(_, known)| known.kind) {
            Some(Kind::Message(message)) => sort_message(&mut bytes[content], message.layout()),
            Some(Kind::Any) => sort_any(&mut bytes[content]),
            Some(Kind::MapEntry(entry)) => {
                sort_message(&mut bytes[content], entry.layout());
                map = Some(field.number);
                entries.push(field.place);
            }
            Some(Kind::Scalar(_) | Kind::Duration | Kind::Wrapper(_)) | None => {}
        }
    }
    sort_entries(bytes, &entries);
}

/// Sorts the content of an `Any`, if its type is known.
fn sort_any(any: &mut [u8]) {
    let Some((url, value)) = any_parts(any) else {
        return;
    };
    if let Some(message) = MessageType::of_url(url) {
        sort_message(&mut any[value], message.layout());
    }
}

/// Sorts the entries of one map, which are adjacent, by key.
fn sort_entries(bytes: &mut [u8], entries: &[Range<usize>]) {
    let [first, .., last] = entries else {
        return;
    };
    let mut order = entries.to_vec();
    order.sort_by(|a, b| key(&bytes[a.clone()]).cmp(&key(&bytes[b.clone()])));
    let sorted: Vec<u8> = order.iter().flat_map(|entry| &bytes[entry.clone()]).copied().collect();
    bytes[first.start..last.end].copy_from_slice(&sorted);
}

/// The key of an entry: its number or its string.
fn key(entry: &[u8]) -> (u64, &[u8]) {
    let Some(Some(WireField {
        value: WireValue::Bytes(content),
        ..
    })) = wire_fields(entry).next()
    else {
        return (0, &[]);
    };
    let entry = &entry[content];
    match wire_fields(entry).flatten().find(|field| field.number == 1) {
        Some(field) => match field.value {
            WireValue::Bytes(text) => (0, &entry[text]),
            WireValue::Varint(number) | WireValue::Fixed64(number) => (number, &[]),
            WireValue::Fixed32(number) => (number.into(), &[]),
        },
        None => (0, &[]),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use prost::{Message, Name};

    use super::*;
    use crate::xds::pb::core::Metadata;
    use crate::xds::pb::route::{Route, RouteConfiguration, VirtualHost};
    use crate::xds::pb::wkt::{Any, Struct, Value, value};

    /// A new `HashMap`, with its own iteration order.
    fn metadata() -> Metadata {
        let text = |text: &str| Value {
            kind: Some(value::Kind::StringValue(text.into())),
        };
        let inner = |keys: &[&str]| Struct {
            fields: keys.iter().map(|key| ((*key).to_owned(), text(key))).collect(),
        };
        let nested = Value {
            kind: Some(value::Kind::StructValue(inner(&["z", "y", "x", "w"]))),
        };
        let outer = Struct {
            fields: HashMap::from([("b".into(), nested), ("a".into(), text("1")), ("c".into(), text("2"))]),
        };
        Metadata {
            filter_metadata: HashMap::from([("two".into(), inner(&["q", "p"])), ("one".into(), outer)]),
            ..Default::default()
        }
    }

    fn route_configuration() -> RouteConfiguration {
        let any = Any {
            type_url: Metadata::type_url(),
            value: metadata().encode_to_vec(),
        };
        let route = Route {
            metadata: Some(metadata()),
            typed_per_filter_config: ["cors", "fault", "rbac"]
                .map(|name| (name.to_owned(), any.clone()))
                .into(),
            ..Default::default()
        };
        RouteConfiguration {
            virtual_hosts: vec![VirtualHost {
                routes: vec![route.clone(), route],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn serialization_is_deterministic_and_equivalent() {
        let canonical = || {
            let mut bytes = route_configuration().encode_to_vec();
            sort_maps(&RouteConfiguration::type_url(), &mut bytes);
            bytes
        };
        let first = canonical();
        for _ in 0..50 {
            assert_eq!(canonical(), first);
        }
        let decoded = RouteConfiguration::decode(&first[..]).unwrap();
        let route = &decoded.virtual_hosts[0].routes[1];
        assert_eq!(route.metadata, Some(metadata()));
        let any = &route.typed_per_filter_config["fault"];
        assert_eq!(Metadata::decode(&any.value[..]).unwrap(), metadata());
    }

    #[test]
    fn unknown_content_is_unchanged() {
        let mut bytes = vec![0x0a, 9, 1];
        sort_maps(&Route::type_url(), &mut bytes);
        sort_maps("type.googleapis.com/unknown", &mut bytes);
        assert_eq!(bytes, [0x0a, 9, 1]);
    }
}
