//! Renders diagnostics as text.

mod json;
mod sarif;

use std::borrow::Cow;
use std::fmt::Write as _;

use annotate_snippets::renderer::{self, Style};
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};

pub use self::json::json;
pub use self::sarif::sarif;

use super::excerpt::{Excerpt, Mark, excerpts};
use super::{Diagnostic, Severity};

/// A diagnostic for a terminal: `path:line:column: error[CODE]: message`, an excerpt and the help.
/// Ends with a newline.
///
/// `color` adds ANSI escapes; the caller decides whether the output supports them.
pub fn text(diagnostic: &Diagnostic, color: bool) -> String {
    let mut text = headline(diagnostic, color);
    text.push('\n');
    let body = body(diagnostic);
    if !body.is_empty() {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        text.push_str(&renderer.render(&[body]));
        text.push('\n');
    }
    text
}

/// A diagnostic in one line, for logs: `path:line:column: error[CODE]: message`.
pub fn line(diagnostic: &Diagnostic) -> String {
    headline(diagnostic, false)
}

fn headline(diagnostic: &Diagnostic, color: bool) -> String {
    let (bold, mark) = if color {
        (renderer::DEFAULT_EMPHASIS_STYLE, mark_style(diagnostic.severity))
    } else {
        (Style::new(), Style::new())
    };
    let mut line = String::new();
    if let Some(place) = diagnostic.place() {
        line = format!("{bold}{}:{bold:#} ", one_line(&place.display()));
    }
    let (severity, code) = (diagnostic.severity.as_str(), diagnostic.code);
    let message = one_line(&diagnostic.message);
    // Writing to a `String` cannot fail.
    let _ = write!(line, "{mark}{severity}[{code}]{mark:#}{bold}: {message}{bold:#}");
    line
}

fn mark_style(severity: Severity) -> Style {
    match severity {
        Severity::Error => renderer::DEFAULT_ERROR_STYLE,
        Severity::Warning => renderer::DEFAULT_WARNING_STYLE,
        Severity::Info => renderer::DEFAULT_INFO_STYLE,
    }
}

fn level(severity: Severity) -> Level<'static> {
    match severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Info => Level::INFO,
    }
}

/// Everything after the first line.
fn body(diagnostic: &Diagnostic) -> Group<'_> {
    let mut group = Group::with_level(level(diagnostic.severity));
    let mut notes = Vec::new();
    for (at, excerpt) in excerpts(&diagnostic.labels).into_iter().enumerate() {
        if at == 0 {
            group = group.element(snippet(excerpt, None));
        } else if excerpt.is_shifted {
            // The renderer would compute columns from the truncated line.
            notes.extend(excerpt.marks.iter().map(|mark| note(excerpt.origin, mark)));
        } else {
            let origin = excerpt.origin;
            group = group.element(snippet(excerpt, Some(origin)));
        }
    }
    let notes = notes.into_iter().map(|note| Level::NOTE.message(note));
    let help = diagnostic.help.iter().map(|help| Level::HELP.message(harmless(help)));
    group.elements(notes.chain(help))
}

fn snippet<'a>(excerpt: Excerpt<'a>, origin: Option<&'a str>) -> Snippet<'a, Annotation<'a>> {
    let annotation = |mark: Mark<'a>| {
        let kind = if mark.primary {
            AnnotationKind::Primary
        } else {
            AnnotationKind::Context
        };
        kind.span(mark.span)
            .label((!mark.text.is_empty()).then(|| one_line(mark.text)))
    };
    Snippet::source(excerpt.text)
        .line_start(excerpt.first_line)
        .path(origin)
        .fold(false)
        .annotations(excerpt.marks.into_iter().map(annotation))
}

fn note(origin: &str, mark: &Mark<'_>) -> String {
    let (line, column) = mark.position;
    one_line(&format!("{origin}:{line}:{column}: {}", mark.text))
}

/// Untrusted text, in one line.
fn one_line(text: &str) -> String {
    harmless(text).replace('\n', " ")
}

/// Untrusted text, without control characters that could affect a terminal.
fn harmless(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\n';
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace('\t', " ").replace(steers, "\u{fffd}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::{Code, Place, SourceText};

    const SERVICE: &str =
        "hosts:\n- reviews\nhttp:\n- route:\n  - destination:\n      host: reviews\n      subset: v9\n";

    fn place(source: &std::sync::Arc<SourceText>, needle: &str) -> Place {
        let start = source.text.find(needle).unwrap();
        Place {
            source: source.clone(),
            span: start..start + needle.len(),
        }
    }

    fn dangling() -> Diagnostic {
        let routes = SourceText::new("mesh/routes.yaml", SERVICE);
        let rules = SourceText::new("mesh/rules.yaml", "subsets:\n- name: v1\n- name: v2\n");
        Diagnostic::new(Code::ReferencedResourceNotFound, "the service has no subset `v9`")
            .label(place(&routes, "v9"), "not defined")
            .label(place(&routes, "host: reviews"), "of this service")
            .label(place(&rules, "subsets"), "the subsets are defined here")
            .help("did you mean `v2`?")
    }

    #[test]
    fn every_label_is_shown_with_its_line() {
        let expected = [
            "mesh/routes.yaml:7:15: error[IST0101]: the service has no subset `v9`",
            "  |",
            "6 |       host: reviews",
            "  |       ------------- of this service",
            "7 |       subset: v9",
            "  |               ^^ not defined",
            "  |",
            " ::: mesh/rules.yaml:1:1",
            "  |",
            "1 | subsets:",
            "  | ------- the subsets are defined here",
            "  |",
            "  = help: did you mean `v2`?",
            "",
        ];
        assert_eq!(text(&dangling(), false), expected.join("\n"));
    }

    #[test]
    fn the_first_line_is_the_line_for_logs() {
        let text = text(&dangling(), false);
        assert_eq!(text.lines().next().unwrap(), line(&dangling()));
    }

    #[test]
    fn color_only_adds_escapes() {
        let colored = text(&dangling(), true);
        let escape = regex::Regex::new("\u{1b}\\[[0-9;]*m").unwrap();
        assert!(colored.contains("\u{1b}[91merror[IST0101]"), "{colored:?}");
        assert_eq!(escape.replace_all(&colored, ""), text(&dangling(), false));
    }

    #[test]
    fn a_diagnostic_outside_of_files_has_no_place() {
        let diagnostic = Diagnostic::new(Code::IrrelevantKind, "nothing to do").help("rest");
        assert_eq!(text(&diagnostic, false), "info[TS0012]: nothing to do\n = help: rest\n");
        assert_eq!(
            text(&Diagnostic::new(Code::IrrelevantKind, "a"), false),
            "info[TS0012]: a\n"
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let source = SourceText::new("a\u{1b}[2J.yaml", "name: \u{1b}[2J\n");
        let diagnostic = Diagnostic::new(Code::InvalidValue, "bad\nvalue \u{1b}[2J\u{7}")
            .label(place(&source, "\u{1b}[2J"), "this \u{1b}[2J")
            .help("not \u{1b}[2J");
        let text = text(&diagnostic, false);
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        assert!(line(&diagnostic).ends_with("error[TS0006]: bad value \u{fffd}[2J\u{fffd}"));
    }

    #[test]
    fn a_single_long_line_is_truncated() {
        let source = SourceText::new(
            "a.json",
            format!("{}NEEDLE{}THREAD", "x".repeat(1 << 20), "y".repeat(1 << 20)),
        );
        let other = SourceText::new("b.yaml", "a: b");
        let diagnostic = Diagnostic::new(Code::InvalidValue, "bad")
            .at(place(&other, "b"))
            .label(place(&source, "NEEDLE"), "first")
            .label(place(&other, "a"), "second");
        let text = text(&diagnostic, false);
        assert!(text.contains("= note: a.json:1:1048577: first"), "{text}");
        assert!(text.len() < 1000);
        let alone = super::text(
            &Diagnostic::new(Code::InvalidValue, "bad").at(place(&source, "NEEDLE")),
            false,
        );
        assert!(alone.starts_with("a.json:1:1048577: error[TS0006]: bad\n"), "{alone}");
        assert!(
            alone.contains("NEEDLE") && alone.contains("^^^^^^") && alone.len() < 1000,
            "{alone}"
        );
    }
}
