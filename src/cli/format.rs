//! In what form a command answers, and values as YAML or JSON.

use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::Value;

/// What `-o` can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Yaml,
    Json,
}

/// What is said to people, or to programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    Text,
    Json,
}

impl Format {
    /// Writes a value, with a line feed at the end.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(self, value: &Value, out: &mut dyn Write) -> io::Result<()> {
        let text = match self {
            Format::Yaml => yaml(value)?,
            Format::Json => serde_json::to_string_pretty(value).map_err(io::Error::other)? + "\n",
        };
        out.write_all(text.as_bytes())
    }
}

/// One line for every text that has no line feed, however long: so it can be searched.
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
    fn both_forms_say_the_same() {
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
    fn a_long_text_stays_in_its_line() {
        let long = format!("{} {}", "x".repeat(100), "y".repeat(100));
        assert_eq!(written(Format::Yaml, &json!({"a": long})), format!("a: {long}\n"));
    }
}
