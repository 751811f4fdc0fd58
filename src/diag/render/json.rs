//! Diagnostics as JSON.

use serde_json::{Value, json};

use crate::diag::{Diagnostic, Label};

/// Diagnostics as an array of objects: `code`, `name`, `severity`, `message`, `file`, `line`,
/// `column`, `endLine`, `endColumn`, `labels` (the primary one first) and `help`.
///
/// Lines and columns count from 1, columns in characters; the end is exclusive. They are `null` for
/// a problem outside of files.
pub fn json(diagnostics: &[Diagnostic]) -> Value {
    diagnostics.iter().map(diagnostic).collect()
}

fn diagnostic(diagnostic: &Diagnostic) -> Value {
    let place = diagnostic.place();
    let start = place.map(|place| place.position());
    let end = place.map(|place| place.end_position());
    json!({
        "code": diagnostic.code.as_str(),
        "name": diagnostic.code.name(),
        "severity": diagnostic.severity,
        "message": diagnostic.message,
        "file": place.map(|place| &*place.source.origin),
        "line": start.map(|(line, _)| line),
        "column": start.map(|(_, column)| column),
        "endLine": end.map(|(line, _)| line),
        "endColumn": end.map(|(_, column)| column),
        "labels": diagnostic.labels.iter().map(label).collect::<Value>(),
        "help": diagnostic.help,
    })
}

fn label(label: &Label) -> Value {
    let (line, column) = label.place.position();
    let (end_line, end_column) = label.place.end_position();
    json!({
        "text": label.text,
        "file": &*label.place.source.origin,
        "line": line,
        "column": column,
        "endLine": end_line,
        "endColumn": end_column,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::{Code, Place, SourceText};

    #[test]
    fn every_field_is_there() {
        let source = SourceText::new("mesh/a.yaml", "a: ä\nhosts:\n  - b\n");
        let place = |span| Place {
            source: source.clone(),
            span,
        };
        let diagnostic = Diagnostic::new(Code::UnknownField, "no field `hosts`")
            .at(place(3..12))
            .label(place(14..17), "with this");
        assert_eq!(
            json(&[diagnostic]),
            json!([{
                "code": "TS0002", "name": "UnknownField", "severity": "error", "message": "no field `hosts`",
                "file": "mesh/a.yaml", "line": 1, "column": 4, "endLine": 2, "endColumn": 7,
                "labels": [
                    { "text": "", "file": "mesh/a.yaml", "line": 1, "column": 4, "endLine": 2, "endColumn": 7 },
                    { "text": "with this", "file": "mesh/a.yaml", "line": 3, "column": 2, "endLine": 3, "endColumn": 5 },
                ],
                "help": null,
            }])
        );
    }

    #[test]
    fn a_diagnostic_outside_of_files_has_no_place() {
        let value = json(&[Diagnostic::new(Code::EmptyFile, "nothing").help("write something")]);
        assert_eq!(value[0]["file"], Value::Null);
        assert_eq!(value[0]["endColumn"], Value::Null);
        assert_eq!(value[0]["labels"], json!([]));
        assert_eq!(value[0]["help"], "write something");
    }
}
