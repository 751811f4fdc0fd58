//! Types of plain scalars.

use super::Value;

/// The value of a plain scalar: null and booleans of YAML 1.1, as in Kubernetes, a number, or a
/// string.
pub(super) fn plain(text: &str) -> Value {
    if matches!(text, "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    match boolean(text) {
        Some(bool) => Value::Bool(bool, text.into()),
        None if is_number(text) => Value::Number(text.into()),
        None => Value::String(text.into()),
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => Some(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => Some(false),
        _ => None,
    }
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return false;
    }
    let digits = |rest: &str, radix| !rest.is_empty() && rest.chars().all(|c| c == '_' || c.is_digit(radix));
    match unsigned.as_bytes() {
        [b'0', b'x', ..] => digits(&unsigned[2..], 16),
        [b'0', b'o', ..] => digits(&unsigned[2..], 8),
        [b'0', b'b', ..] => digits(&unsigned[2..], 2),
        [b'.', ..] if matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") => true,
        _ if unsigned.contains('_') => unsigned.replace('_', "").parse::<f64>().is_ok(),
        _ => unsigned.parse::<f64>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_plain_scalars() {
        for number in [
            "1", "-1", "+1", "1.10", ".5", "1e3", "1e999", "0x1F", "0o17", "0b1", "1_000", "007", ".inf", "-.INF",
        ] {
            assert_eq!(plain(number), Value::Number(number.into()), "{number}");
        }
        for string in [
            "a",
            "1s",
            "1.2.3",
            "0x",
            "0xg",
            "-",
            "+",
            ".",
            "inf",
            "nan",
            "infinity",
            "1 2",
            "- 1",
            "10.0.0.0/8",
            "_1",
        ] {
            assert_eq!(plain(string), Value::String(string.into()), "{string}");
        }
        assert_eq!(plain("off"), Value::Bool(false, "off".into()));
        assert_eq!(plain("~"), Value::Null);
    }
}
