//! Numbers in the formats of protobuf's JSON mapping and Kubernetes' YAML.

use crate::source::node::Value;

/// Parses an integer: `8080`, `0x1F`, `1_000`, `1e3`, and `"8080"`, since protobuf's JSON mapping
/// quotes 64-bit numbers. Not `010`, which is 8 in YAML 1.1 and 10 in YAML 1.2.
pub(super) fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Number(text) => decimal(text).or_else(|| other_base(text)).or_else(|| whole_float(text)),
        Value::String(text) => decimal(text),
        Value::Null | Value::Bool(..) | Value::Seq(_) | Value::Map(_) => None,
    }
}

/// Parses a finite number.
pub(super) fn float(value: &Value) -> Option<f64> {
    let float = match value {
        Value::Number(text) => match other_base(text) {
            #[expect(clippy::cast_precision_loss, reason = "as every float of a large whole number")]
            Some(integer) => integer as f64,
            None => text.replace('_', "").parse().ok()?,
        },
        Value::String(text) => text.parse().ok()?,
        Value::Null | Value::Bool(..) | Value::Seq(_) | Value::Map(_) => return None,
    };
    float.is_finite().then_some(float)
}

/// Describes an integer of a range.
pub(super) fn range(least: i128, greatest: i128) -> String {
    match (least, greatest) {
        (0, _) => format!("a whole number from 0 to {greatest}"),
        _ => format!("a whole number from {least} to {greatest}"),
    }
}

fn decimal(text: &str) -> Option<i128> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_decimal = unsigned.bytes().all(|b| b.is_ascii_digit() || b == b'_') && !unsigned.starts_with('_');
    if !is_decimal || (unsigned.len() > 1 && unsigned.starts_with('0')) {
        return None;
    }
    text.replace('_', "").parse().ok()
}

fn other_base(text: &str) -> Option<i128> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let radix = match unsigned.get(..2)? {
        "0x" => 16,
        "0o" => 8,
        "0b" => 2,
        _ => return None,
    };
    let magnitude = i128::from_str_radix(&unsigned[2..].replace('_', ""), radix).ok()?;
    Some(if text.starts_with('-') { -magnitude } else { magnitude })
}

/// Parses integers written as `1e3` or `5.0`.
fn whole_float(text: &str) -> Option<i128> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let float: f64 = text.parse().ok()?;
    if !text.contains(['.', 'e', 'E']) || float.fract() != 0.0 || float.abs() > EXACT {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "whole and within range by the check above"
    )]
    Some(float as i128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers() {
        let number = |text: &str| integer(&Value::Number(text.into()));
        for (text, value) in [
            ("0", 0),
            ("-5", -5),
            ("+5", 5),
            ("1_000", 1000),
            ("0x1F", 31),
            ("-0b11", -3),
            ("1e3", 1000),
            ("5.0", 5),
        ] {
            assert_eq!(number(text), Some(value), "{text}");
        }
        for text in ["010", "1.5", "1e99", ".inf", "0x", "-"] {
            assert_eq!(number(text), None, "{text}");
        }
        assert_eq!(
            integer(&Value::String("18446744073709551615".into())),
            Some(u64::MAX.into())
        );
        assert_eq!(integer(&Value::String("0x1F".into())), None);
        assert_eq!(integer(&Value::String(String::new().into())), None);
    }

    #[test]
    fn finite_numbers() {
        let number = |text: &str| float(&Value::Number(text.into()));
        assert_eq!(number("0.0001"), Some(0.0001));
        assert_eq!(number("0x10"), Some(16.0));
        assert_eq!(number(".inf"), None);
        assert_eq!(number("1e999"), None);
        assert_eq!(float(&Value::String("1.5".into())), Some(1.5));
        assert_eq!(float(&Value::String("inf".into())), None);
    }
}
