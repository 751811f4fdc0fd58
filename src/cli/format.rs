//! Output formats, and serialization of values as YAML or JSON.

use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::Value;

/// Formats for documents (`-o`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Yaml,
    Json,
}

/// Formats for messages: for people, or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    Text,
    Json,
}

impl Format {
    /// Writes a value, with a trailing newline.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn write(self, value: &Value, out: &mut dyn Write) -> io::Result<()> {
        let text = match self {
            Format::Yaml => yaml(value)?,
            Format::Json => serde_json::to_string_pretty(value).map_err(io::Error::other)? + "\n",
        };
        out.write_all(text.as_bytes())
    }
}

/// Serializes as YAML without folding, so that strings without line breaks stay on one line and can be
/// searched.
fn yaml(value: &Value) -> io::Result<String> {
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    serde_saphyr::to_string_with_options(value, options).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(format: Format, value: &Value) -> String {
        let mut out = Vec::new();
        format.write(value, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn yaml_and_json_round_trip() {
        let value = json!({
            "texts": ["1", "1.0", "on", "y", "~", "", "null", "0x10", "2024-01-01", "a: b", "- a", "#a", "é\u{1}", "a\nb\n"],
            "long": "x".repeat(500) + " y",
            "others": [1, 1.5, true, null, {}, []],
        });
        for format in [Format::Yaml, Format::Json] {
            let text = written(format, &value);
            assert!(text.ends_with('\n') && !text.ends_with("\n\n"));
            assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), value, "{text}");
        }
    }

    #[test]
    fn long_strings_are_not_folded() {
        let long = format!("{} {}", "x".repeat(100), "y".repeat(100));
        assert_eq!(written(Format::Yaml, &json!({"a": long})), format!("a: {long}\n"));
    }
}
