//! Problems that a user can act on: what, where, why and what to do.

mod code;
mod excerpt;
pub mod render;
mod text;

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

pub use code::Code;
pub use text::{SourceText, Start};

/// A range of bytes in a text: where something stands.
#[derive(Clone, Debug)]
pub struct Place {
    /// The text.
    pub source: Arc<SourceText>,
    /// The bytes meant; may be empty.
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

    /// The byte of the origin at which it starts.
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

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing to do.
    Info,
    /// Served, but likely not what was meant.
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

/// A place with a word about it. The first label of a diagnostic is where the problem is, the
/// others are places that help to understand it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub place: Place,
    /// What stands there; may be empty.
    pub text: String,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The row of the table of codes.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence: what is wrong and why.
    pub message: String,
    /// Where; the first is the primary place. Empty only for problems outside any file.
    pub labels: Vec<Label>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A problem of the code's own severity, at no place yet.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity(),
            message: message.into(),
            labels: Vec::new(),
            help: None,
        }
    }

    /// Adds a place; the first one added is the primary place.
    #[must_use]
    pub fn at(self, place: Place) -> Self {
        self.label(place, "")
    }

    /// Adds a place with a word about it.
    #[must_use]
    pub fn label(mut self, place: Place, text: impl Into<String>) -> Self {
        self.labels.push(Label {
            place,
            text: text.into(),
        });
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Replaces the severity of the code.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// The primary place.
    pub fn place(&self) -> Option<&Place> {
        self.labels.first().map(|label| &label.place)
    }

    /// The order in which diagnostics are shown: by path, then position, worst first.
    pub fn display_order(&self, other: &Self) -> Ordering {
        let key = |d: &Self| d.place().map(|p| (p.source.origin.clone(), p.offset()));
        key(self)
            .cmp(&key(other))
            .then_with(|| other.severity.cmp(&self.severity))
    }
}
