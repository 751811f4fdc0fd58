//! What lowering finds wrong, by field instead of by line, so that it stays true when an object
//! moves in its file.

use std::collections::BTreeMap;

use super::Context;
use crate::api::{FieldPath, Object, Places};
use crate::diag::{Code, Diagnostic, Severity};
use crate::name::{Namespace, ObjectId};

/// One problem of an object, at a field of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The row of the table of codes.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// The field.
    pub at: FieldPath,
    /// One sentence: what is wrong and why.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Fields of other objects that help to understand it.
    pub related: Vec<Related>,
}

/// A field of another object that a finding mentions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// The object.
    pub id: ObjectId,
    /// The field.
    pub at: FieldPath,
    /// What stands there.
    pub text: String,
}

impl Finding {
    /// A problem of the code's own severity.
    pub fn new(code: Code, at: &FieldPath, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity(),
            at: at.clone(),
            message: message.into(),
            help: None,
            related: Vec::new(),
        }
    }

    /// Says what to do.
    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Replaces the severity of the code.
    pub fn severity(&mut self, severity: Severity) -> &mut Self {
        self.severity = severity;
        self
    }

    /// Names a field of another object.
    pub fn related(&mut self, id: &ObjectId, at: impl Into<FieldPath>, text: impl Into<String>) -> &mut Self {
        self.related.push(Related {
            id: id.clone(),
            at: at.into(),
            text: text.into(),
        });
        self
    }

    /// Findings of an object as diagnostics; `find` gives the objects that they mention. The text of each object is read
    /// again once, however many findings there are.
    pub fn diagnostics<'f, 'o>(
        object: &Object,
        findings: impl IntoIterator<Item = &'f Self>,
        find: &dyn Fn(&ObjectId) -> Option<&'o Object>,
    ) -> Vec<Diagnostic> {
        let own = object.places();
        let mut others: BTreeMap<&ObjectId, Option<Places<'o>>> = BTreeMap::new();
        let diagnostic = |finding: &'f Self| {
            let mut diagnostic = Diagnostic::new(finding.code, &finding.message)
                .severity(finding.severity)
                .at(own.place(&finding.at));
            diagnostic.help.clone_from(&finding.help);
            for related in &finding.related {
                let other = others.entry(&related.id);
                if let Some(other) = other.or_insert_with_key(|id| find(id).map(Object::places)) {
                    diagnostic = diagnostic.label(other.place(&related.at), &related.text);
                }
            }
            diagnostic
        };
        findings.into_iter().map(diagnostic).collect()
    }
}

/// What lowering yields.
#[derive(Clone, Debug, PartialEq)]
pub struct Lowered<T> {
    /// The object's meaning; none when it has an error.
    pub value: Option<T>,
    /// Everything that was found.
    pub findings: Vec<Finding>,
}

impl<T> Lowered<T> {
    /// Nothing was found.
    pub fn fine(value: T) -> Self {
        Self {
            value: Some(value),
            findings: Vec::new(),
        }
    }

    /// The same with another value.
    pub fn map<U>(self, into: impl FnOnce(T) -> U) -> Lowered<U> {
        Lowered {
            value: self.value.map(into),
            findings: self.findings,
        }
    }
}

/// Collects findings while an object is lowered.
pub(super) struct Report<'o> {
    pub(super) id: &'o ObjectId,
    pub(super) context: &'o Context,
    findings: Vec<Finding>,
}

impl<'o> Report<'o> {
    pub(super) fn new(id: &'o ObjectId, context: &'o Context) -> Self {
        Self {
            id,
            context,
            findings: Vec::new(),
        }
    }

    pub(super) fn namespace(&self) -> &'o Namespace {
        &self.id.namespace
    }

    /// A value that Istio's validation refuses.
    pub(super) fn error(&mut self, at: &FieldPath, message: impl Into<String>) -> &mut Finding {
        self.add(Code::SchemaValidationError, at, message)
    }

    /// A value that Istio's validation warns about.
    pub(super) fn warning(&mut self, at: &FieldPath, message: impl Into<String>) -> &mut Finding {
        self.add(Code::SchemaWarning, at, message)
    }

    /// A value without effect, which is worth knowing.
    pub(super) fn info(&mut self, at: &FieldPath, message: impl Into<String>) -> &mut Finding {
        self.warning(at, message).severity(Severity::Info)
    }

    pub(super) fn add(&mut self, code: Code, at: &FieldPath, message: impl Into<String>) -> &mut Finding {
        let index = self.findings.len();
        self.findings.push(Finding::new(code, at, message));
        &mut self.findings[index]
    }

    /// Whether an error was found so far.
    pub(super) fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// The value, unless an error was found.
    pub(super) fn finish<T>(self, value: T) -> Lowered<T> {
        Lowered {
            value: (!self.has_errors()).then_some(value),
            findings: self.findings,
        }
    }

    /// As [`Report::finish`], of a value that may be missing only where an error says so.
    pub(super) fn finish_some<T>(self, value: Option<T>) -> Lowered<T> {
        let Lowered { value, findings } = self.finish(value);
        Lowered {
            value: value.flatten(),
            findings,
        }
    }
}
