//! Explains YAML syntax errors.

use std::ops::Range;

use serde_saphyr::granit_parser::{ErrorKind, ScanError};

use super::MAX_DEPTH;
use crate::diag::{Code, Diagnostic};
use crate::source::document::Document;

/// The diagnostic for a parser error.
pub(super) fn describe(document: &Document, error: &ScanError) -> Diagnostic {
    let text = document.text();
    let span = span(text, error);
    let (message, help) = explain(error.kind(), text, span.start);
    let start = span.start;
    let place = document.place(span);
    let mut problem = Diagnostic::new(Code::InvalidYaml, message).at(place);
    problem.help = template(document, start).or(help);
    problem
}

/// Help for a line with a Helm or Go template, where `at` is a byte of the document.
pub(super) fn template(document: &Document, at: usize) -> Option<String> {
    let text = &document.source.text;
    let start = text.get(..at)?.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text.get(start..)?.lines().next()?;
    line.contains("{{")
        .then(|| "`{{` begins a template: render the file first, for instance with `helm template`".to_owned())
}

/// The character at the error, as a byte range of the document.
fn span(text: &str, error: &ScanError) -> Range<usize> {
    let characters = error.marker().index();
    let mut start = text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at);
    // The parser reports the start of the value that it takes the tab to be part of.
    if *error.kind() == ErrorKind::TabInPlainScalar {
        start = indenting_tab(text, start).unwrap_or(start);
    }
    let len = text[start..].chars().next().map_or(0, char::len_utf8);
    start..start + len
}

/// The first tab used as indentation on a line after this byte.
fn indenting_tab(text: &str, from: usize) -> Option<usize> {
    let line_ends = text[from..].match_indices('\n').map(|(at, _)| from + at + 1);
    let tab = |start: usize| {
        let line = text[start..].lines().next()?;
        let content = line.find(|character| character != ' ' && character != '\t')?;
        Some(start + line[..content].find('\t')?)
    };
    line_ends.filter_map(tab).next()
}

/// The message, and help where it is possible.
fn explain(kind: &ErrorKind, text: &str, at: usize) -> (String, Option<String>) {
    let help = |message: &str, help: &str| (message.to_owned(), Some(help.to_owned()));
    match kind {
        ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar
        | ErrorKind::TabAtBlockScalarStart => help("a tab cannot indent YAML", "indent with spaces"),
        ErrorKind::UnclosedQuotedScalar => help("this quote is never closed", "add the closing quote"),
        ErrorKind::UnclosedFlowCollection { open } => {
            let close = closing(*open);
            (
                format!("this `{open}` is never closed"),
                Some(format!("add the closing `{close}`")),
            )
        }
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            let expected = closing(*open);
            (
                format!("this `{open}` is followed by a `{close}`"),
                Some(format!("`{expected}` closes it")),
            )
        }
        ErrorKind::MisplacedFlowCollectionEnd => help("unmatched closing bracket", "remove it"),
        ErrorKind::InvalidColonPlacement => help("unexpected `:`", "is an earlier `[` or `{` never closed?"),
        ErrorKind::UnexpectedCharacter { character } => (
            format!("`{}` cannot start a value", character.escape_debug()),
            Some("put the value into quotes".to_owned()),
        ),
        ErrorKind::UnknownQuotedScalarEscape => help(
            "invalid escape sequence in a double-quoted value",
            "write `\\\\` for a backslash, or use single quotes",
        ),
        ErrorKind::UnknownAnchor => help(
            "there is no anchor of this name before this line",
            "an anchor is written `&name`",
        ),
        ErrorKind::RecursionLimitExceeded => (format!("nested more than {MAX_DEPTH} levels deep"), None),
        ErrorKind::ExpectedBlockMappingKey => help(
            "invalid indentation: no line above has the same indentation",
            "indent it like the other entries of its map or list",
        ),
        ErrorKind::ExpectedBlockSequenceEntry => help(
            "expected a `-`, as on the lines above",
            "indent the line if it belongs to something else",
        ),
        ErrorKind::SimpleKeyExpected => help(
            "this is not a map entry",
            "write `key: value`, with a space after the colon",
        ),
        ErrorKind::MappingValueNotAllowed => misplaced_entry(text, at),
        other => (format!("invalid YAML: {other}"), None),
    }
}

fn closing(open: char) -> char {
    if open == '[' { ']' } else { '}' }
}

/// A misplaced `key: value`, explained by its line and the previous one.
fn misplaced_entry(text: &str, at: usize) -> (String, Option<String>) {
    let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let before = text[line_start..at].trim_start();
    let above = text[..line_start].lines().rev().find(|line| !line.trim().is_empty());
    let above = above.unwrap_or_default().trim_start();
    let (message, help) = if before.contains(": ") {
        ("an unquoted value cannot contain `: `", "put the value into quotes")
    } else if is_key_without_space(above) {
        (
            "unexpected map entry: the line above is not a map entry",
            "put a space after the colon in the line above",
        )
    } else if above.contains(": ") {
        (
            "this line is indented further than the line above, which already has a value",
            "indent it like the line above",
        )
    } else {
        (
            "unexpected map entry",
            "is the line above a map entry, `key: value` or `key:`?",
        )
    };
    (message.to_owned(), Some(help.to_owned()))
}

/// `key:value`, but not `http://host`.
fn is_key_without_space(line: &str) -> bool {
    let line = line.strip_prefix("- ").unwrap_or(line);
    line.split_once(':')
        .is_some_and(|(_, rest)| !rest.is_empty() && !rest.starts_with([' ', '/', ':']))
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use crate::diag::SourceText;
    use crate::source::document::split;

    /// `line:column message / help` of the only error.
    fn mistake(text: &str) -> String {
        let parsed = parse(&split(&SourceText::new("f", text))[0]);
        assert!(parsed.root.is_none(), "{text}");
        let [problem] = &parsed.diagnostics[..] else {
            panic!("{text}: {:?}", parsed.diagnostics)
        };
        let place = problem.place().unwrap().display();
        format!(
            "{} {} / {}",
            &place[2..],
            problem.message,
            problem.help.as_deref().unwrap_or_default()
        )
    }

    #[test]
    fn common_errors_are_explained_with_help() {
        let cases = [
            ("a:\n\tb: 1\n", "2:2 a tab cannot indent YAML / indent with spaces"),
            (
                "a:\n  b: 1\n\t\n  \tc: 1\n",
                "4:3 a tab cannot indent YAML / indent with spaces",
            ),
            (
                "ü: \"x\nb: 1\n",
                "1:4 this quote is never closed / add the closing quote",
            ),
            ("a: {b: [1\n}\n", "1:8 this `[` is followed by a `}` / `]` closes it"),
            ("a: [1, 2\n", "1:4 this `[` is never closed / add the closing `]`"),
            (
                "a: [1\nb: 2\n",
                "2:2 unexpected `:` / is an earlier `[` or `{` never closed?",
            ),
            (
                "a: b: c\n",
                "1:5 an unquoted value cannot contain `: ` / put the value into quotes",
            ),
            (
                "a:b\nc: 1\n",
                "2:2 unexpected map entry: the line above is not a map entry / put a space after the colon in the line above",
            ),
            (
                "m:\n  name: x\n   namespace: y\n",
                "3:13 this line is indented further than the line above, which already has a value / indent it like the line above",
            ),
            (
                "a\nb: 1\n",
                "2:2 unexpected map entry / is the line above a map entry, `key: value` or `key:`?",
            ),
            (
                "a:\n  b: 1\n c: 2\n",
                "3:2 invalid indentation: no line above has the same indentation / indent it like the other entries of its map or list",
            ),
            (
                "- a\nb: c\n",
                "2:1 expected a `-`, as on the lines above / indent the line if it belongs to something else",
            ),
            (
                "a:\n{{- if .Values.x }}\n  b: 1\n",
                "2:3 invalid YAML: \"-\" is only valid inside a block / `{{` begins a template: render the file first, for instance with `helm template`",
            ),
            ("a: @x\n", "1:4 `@` cannot start a value / put the value into quotes"),
            (
                "a: *nope\n",
                "1:4 there is no anchor of this name before this line / an anchor is written `&name`",
            ),
            (
                "a: \"\\q\"\n",
                "1:4 invalid escape sequence in a double-quoted value / write `\\\\` for a backslash, or use single quotes",
            ),
            (
                "a: 1\n b\nc\n",
                "3:1 this is not a map entry / write `key: value`, with a space after the colon",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(mistake(text), expected, "{text}");
        }
    }

    #[test]
    fn other_errors_use_the_parsers_message() {
        for text in ["a: |x\n  b\n", "a: !<x\n", "%FOO\na: 1\n", "a: *\n", "}"] {
            assert!(!mistake(text).is_empty(), "{text}");
        }
    }
}
