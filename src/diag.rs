//! Diagnostics: problems that a user can act on.

mod code;
mod excerpt;
pub mod render;
mod text;

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

pub use code::Code;
pub use text::{SourceText, Start};

/// A range of bytes in a text.
#[derive(Clone, Debug)]
pub struct Place {
    /// The text.
    pub source: Arc<SourceText>,
    /// The byte range; may be empty.
    pub span: Range<usize>,
}

impl Place {
    /// `path:line:column`.
    pub fn display(&self) -> String {
        let (line, column) = self.position();
        format!("{}:{line}:{column}", self.source.origin)
    }

    /// Line and column of the start, both from 1.
    pub fn position(&self) -> (usize, usize) {
        self.source.position(self.span.start)
    }

    /// Line and column of the first byte after the span, both from 1.
    pub fn end_position(&self) -> (usize, usize) {
        self.source.position(self.span.end)
    }

    /// Byte offset of its start in the origin.
    pub fn offset(&self) -> usize {
        self.source.start().bytes + self.span.start
    }

    fn sort_key(&self) -> (&str, usize) {
        (&self.source.origin, self.offset())
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.sort_key() == other.sort_key() && self.span.len() == other.span.len()
    }
}

impl Eq for Place {}

/// Severity of a diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Informational; no action needed.
    Info,
    /// Served as written, but likely not as intended.
    Warning,
    /// The object, or a part of it, is not served as written.
    Error,
}

impl Severity {
    /// `info`, `warning` or `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// A place with an explanation. The first label of a diagnostic is the primary one; the others are
/// related places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The place.
    pub place: Place,
    /// The explanation; may be empty.
    pub text: String,
}

/// A problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its code.
    pub code: Code,
    /// Its severity.
    pub severity: Severity,
    /// What is wrong and why, in one sentence.
    pub message: String,
    /// Places, the primary one first. Empty only for problems outside of files.
    pub labels: Vec<Label>,
    /// How to fix it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic with the default severity of its code, without a place.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity(),
            message: message.into(),
            labels: Vec::new(),
            help: None,
        }
    }

    /// Adds a place; the first one is primary.
    #[must_use]
    pub fn at(self, place: Place) -> Self {
        self.label(place, "")
    }

    /// Adds a place with an explanation.
    #[must_use]
    pub fn label(mut self, place: Place, text: impl Into<String>) -> Self {
        self.labels.push(Label {
            place,
            text: text.into(),
        });
        self
    }

    /// Sets the help text.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Overrides the severity.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// The primary place.
    pub fn place(&self) -> Option<&Place> {
        self.labels.first().map(|label| &label.place)
    }

    /// Display order: by path, position, then severity, errors first.
    pub fn display_order(&self, other: &Self) -> Ordering {
        let key = |d: &Self| d.place().map(|p| (p.source.origin.clone(), p.offset()));
        key(self)
            .cmp(&key(other))
            .then_with(|| other.severity.cmp(&self.severity))
    }
}
