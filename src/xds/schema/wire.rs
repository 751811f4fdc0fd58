//! Schema-independent parsing of protobuf's wire format.

use std::ops::Range;

use prost::bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};

/// A field of a serialized message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::xds) struct WireField {
    pub(in crate::xds) number: u32,
    /// Byte range of key and value in the message.
    pub(in crate::xds) place: Range<usize>,
    pub(in crate::xds) value: WireValue,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::xds) enum WireValue {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// Byte range of the content in the message.
    Bytes(Range<usize>),
}

/// The fields of a serialized message, in order. Yields `None` at malformed input and ends.
pub(in crate::xds) fn wire_fields(message: &[u8]) -> impl Iterator<Item = Option<WireField>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= message.len() {
            return None;
        }
        let field = read_field(message, at);
        at = field.as_ref().map_or(message.len(), |field| field.place.end);
        Some(field)
    })
}

fn read_field(message: &[u8], start: usize) -> Option<WireField> {
    let mut rest = &message[start..];
    let (number, wire_type) = decode_key(&mut rest).ok()?;
    let value = match wire_type {
        WireType::Varint => WireValue::Varint(decode_varint(&mut rest).ok()?),
        WireType::SixtyFourBit => WireValue::Fixed64(rest.try_get_u64_le().ok()?),
        WireType::ThirtyTwoBit => WireValue::Fixed32(rest.try_get_u32_le().ok()?),
        WireType::LengthDelimited => {
            let len = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            let from = message.len() - rest.len();
            rest = rest.get(len..)?;
            WireValue::Bytes(from..from + len)
        }
        WireType::StartGroup | WireType::EndGroup => return None,
    };
    Some(WireField {
        number,
        place: start..message.len() - rest.len(),
        value,
    })
}

/// The type URL of an `Any` and the byte range of its message; `None` if malformed. The message may
/// be absent if it has no fields.
pub(in crate::xds) fn any_parts(any: &[u8]) -> Option<(&str, Range<usize>)> {
    let (mut url, mut value) = (0..0, 0..0);
    for field in wire_fields(any) {
        let field = field?;
        match (field.number, field.value) {
            (1, WireValue::Bytes(place)) => url = place,
            (2, WireValue::Bytes(place)) => value = place,
            (_, WireValue::Varint(_) | WireValue::Fixed64(_) | WireValue::Fixed32(_) | WireValue::Bytes(_)) => {
                return None;
            }
        }
    }
    Some((std::str::from_utf8(&any[url]).ok()?, value))
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::xds::pb::core::SocketAddress;
    use crate::xds::pb::core::socket_address::PortSpecifier;

    #[test]
    fn fields_have_their_byte_ranges() {
        let bytes = SocketAddress {
            address: "::1".into(),
            port_specifier: Some(PortSpecifier::PortValue(300)),
            ..Default::default()
        }
        .encode_to_vec();
        let fields: Vec<_> = wire_fields(&bytes).map(Option::unwrap).collect();
        assert_eq!(fields[0].value, WireValue::Bytes(2..5));
        assert_eq!((fields[1].number, &fields[1].value), (3, &WireValue::Varint(300)));
        assert_eq!(fields[1].place, 5..8);
    }

    #[test]
    fn truncated_messages_are_rejected() {
        for bytes in [&[0x0a, 5, 1][..], &[0x0a], &[0x08], &[0x0b], &[0x09, 1]] {
            assert_eq!(wire_fields(bytes).last(), Some(None), "{bytes:?}");
        }
    }
}
