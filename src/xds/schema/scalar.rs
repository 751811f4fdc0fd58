//! Scalar types and their wire format.

use prost::bytes::Buf;
use prost::encoding::decode_varint;

use super::{Value, WireValue, wire_fields};

/// A scalar type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::xds) enum Scalar {
    /// Signed integers in two's complement, and enums.
    Int,
    /// Unsigned integers.
    Uint,
    /// `sint32` and `sint64`.
    Zigzag,
    Fixed32,
    Fixed64,
    Float,
    Double,
    Bool,
    String,
    Bytes,
}

impl Scalar {
    /// The default value.
    pub(in crate::xds) fn zero(self) -> Value<'static> {
        match self {
            Scalar::Int | Scalar::Uint | Scalar::Zigzag | Scalar::Fixed32 | Scalar::Fixed64 => Value::Int(0),
            Scalar::Float | Scalar::Double => Value::Float(0.0),
            Scalar::Bool => Value::Bool(false),
            Scalar::String => Value::Text(""),
            Scalar::Bytes => Value::Bytes(&[]),
        }
    }

    /// Decodes a value of the message; `None` if it has the wrong wire type.
    pub(in crate::xds) fn read<'a>(self, message: &'a [u8], value: &WireValue) -> Option<Value<'a>> {
        match (self, value) {
            (Scalar::Int, WireValue::Varint(number)) => Some(Value::Int(number.cast_signed().into())),
            (Scalar::Uint, WireValue::Varint(number)) => Some(Value::Int((*number).into())),
            (Scalar::Zigzag, WireValue::Varint(number)) => {
                let magnitude = (number >> 1).cast_signed();
                Some(Value::Int((magnitude ^ -(number & 1).cast_signed()).into()))
            }
            (Scalar::Bool, WireValue::Varint(number)) => Some(Value::Bool(*number != 0)),
            (Scalar::Fixed64, WireValue::Fixed64(bits)) => Some(Value::Int((*bits).into())),
            (Scalar::Double, WireValue::Fixed64(bits)) => Some(Value::Float(f64::from_bits(*bits))),
            (Scalar::Fixed32, WireValue::Fixed32(bits)) => Some(Value::Int((*bits).into())),
            (Scalar::Float, WireValue::Fixed32(bits)) => Some(Value::Float(f32::from_bits(*bits).into())),
            (Scalar::String, WireValue::Bytes(place)) => {
                std::str::from_utf8(&message[place.clone()]).ok().map(Value::Text)
            }
            (Scalar::Bytes, WireValue::Bytes(place)) => Some(Value::Bytes(&message[place.clone()])),
            (_, WireValue::Varint(_) | WireValue::Fixed64(_) | WireValue::Fixed32(_) | WireValue::Bytes(_)) => None,
        }
    }

    /// Decodes a wrapper message (`google.protobuf.UInt32Value` etc.).
    pub(in crate::xds) fn wrapped(self, message: &[u8]) -> Option<Value<'_>> {
        let mut value = Some(self.zero());
        for field in wire_fields(message) {
            value = field.and_then(|field| self.read(message, &field.value));
        }
        value
    }

    /// Whether repeated values may be packed.
    pub(in crate::xds) fn packs(self) -> bool {
        match self {
            Scalar::String | Scalar::Bytes => false,
            Scalar::Int
            | Scalar::Uint
            | Scalar::Zigzag
            | Scalar::Fixed32
            | Scalar::Fixed64
            | Scalar::Float
            | Scalar::Double
            | Scalar::Bool => true,
        }
    }

    /// Decodes a packed field. Yields `None` at a malformed value and ends.
    pub(in crate::xds) fn unpack(self, mut packed: &[u8]) -> impl Iterator<Item = Option<Value<'static>>> + '_ {
        std::iter::from_fn(move || {
            if packed.is_empty() {
                return None;
            }
            let value = self.take(&mut packed);
            if value.is_none() {
                packed = &[];
            }
            Some(value)
        })
    }

    fn take(self, packed: &mut &[u8]) -> Option<Value<'static>> {
        let value = match self {
            Scalar::Fixed64 | Scalar::Double => WireValue::Fixed64(packed.try_get_u64_le().ok()?),
            Scalar::Fixed32 | Scalar::Float => WireValue::Fixed32(packed.try_get_u32_le().ok()?),
            Scalar::Int | Scalar::Uint | Scalar::Zigzag | Scalar::Bool => {
                WireValue::Varint(decode_varint(packed).ok()?)
            }
            Scalar::String | Scalar::Bytes => return None,
        };
        self.read(&[], &value)
    }
}

/// Decodes a `google.protobuf.Duration` to nanoseconds.
pub(in crate::xds) fn nanoseconds(message: &[u8]) -> Option<i128> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in wire_fields(message) {
        let field = field?;
        let WireValue::Varint(number) = field.value else {
            return None;
        };
        match field.number {
            1 => seconds = number.cast_signed(),
            2 => nanos = number.cast_signed(),
            _ => return None,
        }
    }
    Some(i128::from(seconds) * 1_000_000_000 + i128::from(nanos))
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::xds::pb::wkt::{Duration, Int32Value};

    #[test]
    fn wrapped_values_and_durations_are_read() {
        let bytes = Int32Value { value: -3 }.encode_to_vec();
        assert_eq!(Scalar::Int.wrapped(&bytes), Some(Value::Int(-3)));
        assert_eq!(Scalar::String.wrapped(&[]), Some(Value::Text("")));
        assert_eq!(Scalar::String.wrapped(&[0x0a, 1, 0xff]), None);
        let bytes = Duration { seconds: -1, nanos: 5 }.encode_to_vec();
        assert_eq!(nanoseconds(&bytes), Some(-999_999_995));
    }

    #[test]
    fn packed_values_are_read_one_by_one() {
        let values: Vec<_> = Scalar::Uint.unpack(&[1, 0xac, 2]).collect();
        assert_eq!(values, [Some(Value::Int(1)), Some(Value::Int(300))]);
        let values: Vec<_> = Scalar::Double.unpack(&[0, 0]).collect();
        assert_eq!(values, [None]);
        assert_eq!(Scalar::Zigzag.read(&[], &WireValue::Varint(3)), Some(Value::Int(-2)));
    }
}
