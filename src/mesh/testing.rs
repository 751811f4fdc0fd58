//! Test helpers for the mesh.

use std::sync::Arc;

use super::directory::{Applied, Change, Directory, Options};
use crate::api::{self, Object, ReadOptions};
use crate::diag::{Diagnostic, SourceText};
use crate::source::document::split;

/// Parses the objects of a text, which must be valid.
pub(crate) fn objects(origin: &str, text: &str) -> Vec<Arc<Object>> {
    let source = SourceText::new(origin, text);
    let mut objects = Vec::new();
    for document in split(&source) {
        let read = api::read(&document, &ReadOptions::default());
        assert!(read.diagnostics.is_empty(), "{:#?}", read.diagnostics);
        objects.extend(read.objects.into_iter().map(Arc::new));
    }
    objects
}

/// Changes that add the objects of a text.
pub(crate) fn puts(origin: &str, text: &str) -> Vec<Change> {
    objects(origin, text).into_iter().map(Change::Put).collect()
}

/// A directory with one file.
pub(crate) fn load(text: &str) -> Applied {
    Directory::new(Options::default()).apply(&puts("a.yaml", text))
}

/// `CODE@line` for each diagnostic, or `CODE@file:line` if there are several files.
pub(crate) fn brief(diagnostics: &[Diagnostic]) -> Vec<String> {
    let one = |diagnostic: &Diagnostic| {
        let place = diagnostic.place().expect("every diagnostic of the mesh has a place");
        let (line, _) = place.position();
        match &*place.source.origin {
            "a.yaml" => format!("{}@{line}", diagnostic.code),
            other => format!("{}@{other}:{line}", diagnostic.code),
        }
    };
    diagnostics.iter().map(one).collect()
}

/// Checks the diagnostics of a text whose lines end with `#!` and the expected codes, separated by
/// blanks.
pub(crate) fn expect_as_marked(text: &str) {
    let mut expected = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        if let Some((_, codes)) = content.split_once("#!") {
            expected.extend(codes.split_whitespace().map(|code| format!("{code}@{line}")));
        }
    }
    expected.sort();
    let diagnostics = load(text).directory.diagnostics();
    let mut found = brief(&diagnostics);
    found.sort();
    assert_eq!(found, expected, "{text}\n{diagnostics:#?}");
}
