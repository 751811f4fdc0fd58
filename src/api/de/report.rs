//! Collects the problems found while deserializing an object.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Range;

use crate::api::suggest;
use crate::diag::{Code, Diagnostic, Place, Severity};
use crate::source::document::Document;
use crate::source::node::{Key, Node};

/// Problems of one object, and the nodes to be treated as absent.
pub(in crate::api) struct Report<'d> {
    document: &'d Document,
    /// Report unknown fields as warnings.
    lenient: bool,
    /// Severity of unsupported fields.
    unsupported: Severity,
    found: RefCell<Found>,
}

#[derive(Default)]
struct Found {
    diagnostics: Vec<Diagnostic>,
    poisoned: HashSet<usize>,
    keys: HashSet<usize>,
}

impl<'d> Report<'d> {
    pub(in crate::api) fn new(document: &'d Document, lenient: bool) -> Self {
        Self {
            document,
            lenient,
            unsupported: Severity::Error,
            found: RefCell::default(),
        }
    }

    /// Sets the severity of unsupported fields, for documents in which one does not invalidate the
    /// rest.
    #[must_use]
    pub(in crate::api) fn unsupported_is(mut self, severity: Severity) -> Self {
        self.unsupported = severity;
        self
    }

    pub(in crate::api) fn finish(self) -> Vec<Diagnostic> {
        self.found.into_inner().diagnostics
    }

    /// Whether an error has been reported.
    pub(in crate::api) fn has_errors(&self) -> bool {
        let found = self.found.borrow();
        found
            .diagnostics
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }

    /// Reports a value of the wrong type or format.
    pub(in crate::api) fn invalid(&self, span: &Range<usize>, message: impl Into<String>) {
        self.add(Diagnostic::new(Code::InvalidValue, message).at(self.place(span)));
    }

    /// Reports a value of the wrong type or format, with help.
    pub(super) fn invalid_with(&self, span: &Range<usize>, message: String, help: String) {
        let problem = Diagnostic::new(Code::InvalidValue, message).at(self.place(span));
        self.add(problem.help(help));
    }

    pub(in crate::api) fn place(&self, span: &Range<usize>) -> Place {
        self.document.place(span.clone())
    }

    pub(in crate::api) fn add(&self, problem: Diagnostic) {
        self.found.borrow_mut().diagnostics.push(problem);
    }

    /// Reports an unknown field.
    pub(in crate::api) fn unknown_field(&self, key: &Key, fields: &[&str]) {
        if !self.first_time(key) {
            return;
        }
        let severity = if self.lenient {
            Severity::Warning
        } else {
            Severity::Error
        };
        self.add(self.unknown(key, fields).severity(severity));
    }

    /// Reports an unknown field of a oneof. Always an error: ignoring it would leave the oneof
    /// empty, which changes the meaning of the whole object.
    pub(super) fn unknown_choice(&self, key: &Key, choices: &[&str]) {
        if self.first_time(key) {
            self.add(self.unknown(key, choices));
        }
    }

    fn unknown(&self, key: &Key, fields: &[&str]) -> Diagnostic {
        let mut problem = Diagnostic::new(
            Code::UnknownField,
            format!("unknown field `{}`", key.text.escape_debug()),
        )
        .at(self.place(&key.span));
        problem.help = suggest::help(&key.text, fields);
        problem
    }

    /// Reports a field given in both camelCase and its original protobuf name.
    pub(super) fn given_twice(&self, key: &Key, first: &Key) {
        if self.first_time(key) {
            let problem = Diagnostic::new(
                Code::InvalidValue,
                format!("`{}` and `{}` are the same field", first.text, key.text),
            );
            let problem = problem.at(self.place(&key.span));
            self.add(problem.label(self.place(&first.span), "first set here"));
        }
    }

    pub(super) fn unsupported(&self, span: &Range<usize>, name: &str) {
        let problem = Diagnostic::new(Code::UnsupportedField, format!("`{name}` is not supported yet"));
        let problem = match self.unsupported {
            Severity::Error => problem.help("remove it; ignoring it would change traffic"),
            Severity::Warning | Severity::Info => problem.help("it has no effect"),
        };
        self.add(problem.severity(self.unsupported).at(self.place(span)));
    }

    /// Treats the node as absent from now on.
    pub(super) fn poison(&self, node: &Node) {
        self.found.borrow_mut().poisoned.insert(std::ptr::from_ref(node).addr());
    }

    pub(super) fn is_poisoned(&self, node: &Node) -> bool {
        let found = self.found.borrow();
        !found.poisoned.is_empty() && found.poisoned.contains(&std::ptr::from_ref(node).addr())
    }

    /// Whether the key is reported for the first time; a restarted pass meets it again.
    fn first_time(&self, key: &Key) -> bool {
        self.found.borrow_mut().keys.insert(std::ptr::from_ref(key).addr())
    }
}
