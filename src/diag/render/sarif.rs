//! Diagnostics as SARIF 2.1.0, for code scanning services and editors.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::diag::{Code, Diagnostic, Label, Place, Severity};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// Diagnostics as a SARIF log with one run, and all codes as its rules.
pub fn sarif(diagnostics: &[Diagnostic]) -> Value {
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": env!("CARGO_PKG_NAME"),
                "version": env!("CARGO_PKG_VERSION"),
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": Code::ALL.iter().map(|code| rule(*code)).collect::<Value>(),
            } },
            "columnKind": "unicodeCodePoints",
            "results": diagnostics.iter().map(result).collect::<Value>(),
        }],
    })
}

fn rule(code: Code) -> Value {
    json!({
        "id": code.as_str(),
        "name": code.name(),
        "shortDescription": { "text": code.explanation() },
        "defaultConfiguration": { "level": level(code.severity()) },
    })
}

fn result(diagnostic: &Diagnostic) -> Value {
    let mut text = diagnostic.message.clone();
    if let Some(help) = &diagnostic.help {
        text = format!("{text}\nhelp: {help}");
    }
    let mut labels = diagnostic.labels.iter();
    let primary = labels
        .next()
        .map(|label| json!({ "physicalLocation": location(&label.place) }));
    json!({
        "ruleId": diagnostic.code.as_str(),
        "ruleIndex": Code::ALL.iter().position(|code| *code == diagnostic.code),
        "level": level(diagnostic.severity),
        "message": { "text": text },
        "locations": primary.into_iter().collect::<Value>(),
        "relatedLocations": labels.enumerate().map(related).collect::<Value>(),
    })
}

fn related((at, label): (usize, &Label)) -> Value {
    let mut value = json!({ "id": at, "physicalLocation": location(&label.place) });
    if !label.text.is_empty() {
        value["message"] = json!({ "text": label.text });
    }
    value
}

fn location(place: &Place) -> Value {
    let (line, column) = place.position();
    let (end_line, end_column) = place.end_position();
    json!({
        "artifactLocation": { "uri": uri(&place.source.origin) },
        "region": { "startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column },
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// A path as a URI reference: relative paths stay relative, reserved characters are escaped (RFC
/// 3986).
fn uri(path: &str) -> String {
    let path = path.strip_prefix("./").unwrap_or(path);
    let mut uri = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => uri.push(char::from(byte)),
            // Writing to a `String` cannot fail.
            escaped => drop(write!(uri, "%{escaped:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::SourceText;

    #[test]
    fn a_result_names_its_rule_and_its_region() {
        let source = SourceText::new("./mesh/ä b.yaml", "a: b\nc: d\n");
        let place = |span| Place {
            source: source.clone(),
            span,
        };
        let diagnostic = Diagnostic::new(Code::UnknownField, "no field `c`")
            .at(place(5..6))
            .label(place(0..1), "near this")
            .help("remove it");
        let log = sarif(&[diagnostic]);
        let run = &log["runs"][0];
        let result = &run["results"][0];
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(run["tool"]["driver"]["rules"][index]["id"], "TS0002");
        assert_eq!(
            result["locations"],
            json!([{ "physicalLocation": {
                "artifactLocation": { "uri": "mesh/%C3%A4%20b.yaml" },
                "region": { "startLine": 2, "startColumn": 1, "endLine": 2, "endColumn": 2 },
            } }])
        );
        assert_eq!(result["relatedLocations"][0]["message"]["text"], "near this");
        assert_eq!(result["message"]["text"], "no field `c`\nhelp: remove it");
        assert_eq!(result["level"], "error");
    }

    #[test]
    fn every_code_is_a_rule_and_none_twice() {
        let log = sarif(&[]);
        let rules = log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
        let ids: std::collections::BTreeSet<_> = rules.iter().map(|rule| rule["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), Code::ALL.len());
        assert_eq!(log["runs"][0]["results"], json!([]));
    }

    #[test]
    fn absolute_paths_become_file_uris() {
        assert_eq!(uri("/etc/mesh/a#1.yaml"), "file:///etc/mesh/a%231.yaml");
    }

    #[test]
    fn a_problem_outside_any_file_has_no_location() {
        let log = sarif(&[Diagnostic::new(Code::IrrelevantKind, "nothing")]);
        let result = &log["runs"][0]["results"][0];
        assert_eq!((&result["locations"], &result["level"]), (&json!([]), &json!("note")));
    }
}
