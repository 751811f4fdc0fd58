//! Findings of lowering. They refer to fields instead of lines, so they stay valid when an object
//! moves within its file.

use std::collections::BTreeMap;

use super::Context;
use crate::api::{FieldPath, Object, Places};
use crate::diag::{Code, Diagnostic, Severity};
use crate::name::{Namespace, ObjectId};

/// A problem of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The diagnostic code.
    pub code: Code,
    /// The severity.
    pub severity: Severity,
    /// The field.
    pub at: FieldPath,
    /// What is wrong and why, in one sentence.
    pub message: String,
    /// How to fix it.
    pub help: Option<String>,
    /// Related fields of other objects.
    pub related: Vec<Related>,
}

/// A field of another object that a finding refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// The object.
    pub id: ObjectId,
    /// The field.
    pub at: FieldPath,
    /// Its label.
    pub text: String,
}

impl Finding {
    /// A finding with the default severity of its code.
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

    /// Sets the help text.
    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Overrides the severity.
    pub fn severity(&mut self, severity: Severity) -> &mut Self {
        self.severity = severity;
        self
    }

    /// Adds a related field of another object.
    pub fn related(&mut self, id: &ObjectId, at: impl Into<FieldPath>, text: impl Into<String>) -> &mut Self {
        self.related.push(Related {
            id: id.clone(),
            at: at.into(),
            text: text.into(),
        });
        self
    }

    /// Converts the findings of an object to diagnostics; `find` looks up related objects. The text
    /// of each object is parsed once, however many findings there are.
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

/// The result of lowering.
#[derive(Clone, Debug, PartialEq)]
pub struct Lowered<T> {
    /// The lowered form; `None` if there is an error.
    pub value: Option<T>,
    /// All findings.
    pub findings: Vec<Finding>,
}

impl<T> Lowered<T> {
    /// A result without findings.
    pub fn fine(value: T) -> Self {
        Self {
            value: Some(value),
            findings: Vec::new(),
        }
    }

    /// Maps the value.
    pub fn map<U>(self, into: impl FnOnce(T) -> U) -> Lowered<U> {
        Lowered {
            value: self.value.map(into),
            findings: self.findings,
        }
    }
}

/// Collects the findings of an object.
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

    /// Reports a value that Istio's validation rejects.
    pub(super) fn error(&mut self, at: &FieldPath, message: impl Into<String>) -> &mut Finding {
        self.add(Code::SchemaValidationError, at, message)
    }

    /// Reports a value that Istio's validation warns about.
    pub(super) fn warning(&mut self, at: &FieldPath, message: impl Into<String>) -> &mut Finding {
        self.add(Code::SchemaWarning, at, message)
    }

    /// Reports a value without effect.
    pub(super) fn info(&mut self, at: &FieldPath, message: impl Into<String>) -> &mut Finding {
        self.warning(at, message).severity(Severity::Info)
    }

    pub(super) fn add(&mut self, code: Code, at: &FieldPath, message: impl Into<String>) -> &mut Finding {
        let index = self.findings.len();
        self.findings.push(Finding::new(code, at, message));
        &mut self.findings[index]
    }

    /// Whether an error has been reported.
    pub(super) fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// The result: `value`, unless an error was reported.
    pub(super) fn finish<T>(self, value: T) -> Lowered<T> {
        Lowered {
            value: (!self.has_errors()).then_some(value),
            findings: self.findings,
        }
    }

    /// Like [`Report::finish`], for a value that is `None` only if an error was reported.
    pub(super) fn finish_some<T>(self, value: Option<T>) -> Lowered<T> {
        let Lowered { value, findings } = self.finish(value);
        Lowered {
            value: value.flatten(),
            findings,
        }
    }
}
