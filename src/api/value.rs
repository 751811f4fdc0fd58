//! Value types of protobuf's JSON mapping and of Kubernetes that serde does not provide.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, Visitor};

/// Newtype name by which [`Unsupported`] is recognized by the deserializer.
pub(super) const UNSUPPORTED: &str = "$unsupported";

/// Type of an Istio field that is not supported yet. It has no values: setting the field is
/// reported as TS0005 and its object is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unsupported {}

impl<'de> Deserialize<'de> for Unsupported {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Refuse;
        impl Visitor<'_> for Refuse {
            type Value = Unsupported;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("no value, because this field is not supported yet")
            }
        }
        deserializer.deserialize_newtype_struct(UNSUPPORTED, Refuse)
    }
}

/// Type of a field that is accepted and has no meaning outside of Kubernetes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// A duration in the format of protobuf's JSON mapping (`1.5s`) or Go (`1m30s`, `100ms`). Never
/// negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub std::time::Duration);

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as `1.5s`, `100ms` or `1m30s`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                parse_duration(text)
                    .map(Duration)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Read)
    }
}

/// Parses a sum of decimal numbers with units like Go's `time.ParseDuration`, but without negative
/// values.
fn parse_duration(text: &str) -> Option<std::time::Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(std::time::Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanoseconds = 0_u64;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        nanoseconds = nanoseconds.checked_add(in_nanoseconds(number, unit)?)?;
        rest = tail;
    }
    // Go stores durations as a signed 64-bit count of nanoseconds.
    (nanoseconds <= i64::MAX.unsigned_abs()).then(|| std::time::Duration::from_nanos(nanoseconds))
}

/// Converts a decimal number with a unit; digits below a nanosecond are truncated.
fn in_nanoseconds(number: &str, unit: &str) -> Option<u64> {
    let unit: u64 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanoseconds = whole.checked_mul(unit)?;
    let mut step = unit;
    for digit in fraction.bytes() {
        step /= 10;
        nanoseconds = nanoseconds.checked_add(u64::from(digit - b'0').checked_mul(step)?)?;
    }
    Some(nanoseconds)
}

/// Bytes, encoded in base64 as in protobuf's JSON mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bytes(pub Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                decode_base64(text)
                    .map(Bytes)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Other("text that is not base64"), &self))
            }
        }
        deserializer.deserialize_str(Read)
    }
}

/// Accepts the standard and URL-safe alphabets, with or without padding, like protobuf's JSON
/// mapping.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let text: String = text.split_ascii_whitespace().collect();
    let text = text.trim_end_matches('=');
    STANDARD_NO_PAD
        .decode(text)
        .or_else(|_| URL_SAFE_NO_PAD.decode(text))
        .ok()
}

/// A port by number or name: Kubernetes' `IntOrString`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum IntOrString {
    /// A number.
    Int(i64),
    /// A name; quoted digits are a name too, as in Kubernetes.
    String(String),
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = IntOrString;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port number or a port name")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<IntOrString, E> {
                Ok(IntOrString::Int(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<IntOrString, E> {
                Ok(IntOrString::String(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_protobuf_and_go_formats() {
        let nanoseconds = |text| parse_duration(text).map(|d| d.as_nanos());
        assert_eq!(nanoseconds("1.5s"), Some(1_500_000_000));
        assert_eq!(nanoseconds("1m30s"), Some(90_000_000_000));
        assert_eq!(nanoseconds("100ms"), Some(100_000_000));
        assert_eq!(nanoseconds(".5h"), Some(1_800_000_000_000));
        assert_eq!(nanoseconds("1.000000001s"), Some(1_000_000_001));
        assert_eq!(nanoseconds("7µs"), Some(7_000));
        for zero in ["0", "0s", "0h0m0s"] {
            assert_eq!(nanoseconds(zero), Some(0), "{zero}");
        }
        for bad in [
            "",
            "5",
            "s",
            ".s",
            "1.2.3s",
            "-1s",
            "1 s",
            "1d",
            "9999999999h",
            "99999999999999999999s",
            "1s2",
        ] {
            assert_eq!(nanoseconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn bytes_take_both_alphabets_with_and_without_padding() {
        assert_eq!(decode_base64("aGk="), Some(b"hi".to_vec()));
        assert_eq!(decode_base64("aGk"), Some(b"hi".to_vec()));
        assert_eq!(decode_base64("-_8="), decode_base64("+/8"));
        assert_eq!(decode_base64("?"), None);
    }
}
