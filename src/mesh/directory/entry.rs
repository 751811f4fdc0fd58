//! An object of the directory: what its document says, and which form of it is in force.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use super::retain::{Target, Why};
use crate::api::{FieldPath, Object};
use crate::diag::{Code, Diagnostic, Place};
use crate::mesh::Rank;
use crate::mesh::lower::{Context, Finding, Form, Lowered, lower};
use crate::name::{Hostname, Kind, ObjectId};

/// An object to be stored: it is in force, or outlives its document.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// The object.
    pub object: Arc<Object>,
    /// Why it is kept.
    pub why: Why,
}

/// An object of the directory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its precedence.
    pub(super) rank: Rank,
    /// What its document says.
    pub(super) written: Written,
    /// The form in force.
    pub(super) in_force: Option<InForce>,
    /// For a VirtualService in force: its targets that are served, retained ones included.
    pub(super) resolved: BTreeSet<Target>,
    /// For a VirtualService: its destination hosts, as written and as in force.
    pub(super) refers_to: BTreeSet<Hostname>,
    /// Findings of checks against other objects.
    pub(super) cross: Vec<Finding>,
}

/// The content of a document.
#[derive(Clone, Debug)]
pub(super) enum Written {
    /// A valid object.
    Object(Arc<Version>),
    /// An error at this place.
    Broken(Place),
}

/// An object and its lowered form.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) object: Arc<Object>,
    pub(super) lowered: Lowered<Form>,
    /// Findings of lowering with locations, computed on first use.
    placed: OnceLock<Vec<Diagnostic>>,
}

impl Version {
    pub(super) fn new(object: Arc<Object>, lowered: Lowered<Form>) -> Arc<Self> {
        Arc::new(Self {
            object,
            lowered,
            placed: OnceLock::new(),
        })
    }

    /// Lowers an object.
    pub(super) fn of(object: Arc<Object>, context: &Context) -> Arc<Self> {
        let lowered = lower(&object, context);
        Self::new(object, lowered)
    }
}

/// The form of an object that is in force.
#[derive(Clone, Debug)]
pub(super) struct InForce {
    pub(super) object: Arc<Object>,
    pub(super) form: Form,
}

impl InForce {
    /// Lowers the same object with other settings.
    pub(super) fn lowered_again(self, context: &Context) -> Option<Self> {
        let form = match self.form {
            Form::Inert if self.object.id.kind == Kind::ConfigMap => Form::Inert,
            Form::Inert
            | Form::Service(_)
            | Form::Endpoints(_)
            | Form::Workload(_)
            | Form::WorkloadGroup(_)
            | Form::Sidecar(_)
            | Form::VirtualService(_)
            | Form::DestinationRule(_)
            | Form::PeerAuthentication(_) => lower(&self.object, context).value?,
        };
        Some(Self { form, ..self })
    }
}

impl Entry {
    /// A new entry without a rank yet.
    pub(super) fn new(object: &Arc<Object>) -> Self {
        Self {
            rank: Rank::unplaced(object.order.origin.clone()),
            written: Written::Broken(object.document.place(object.extent.clone())),
            in_force: None,
            resolved: BTreeSet::new(),
            refers_to: BTreeSet::new(),
            cross: Vec::new(),
        }
    }

    /// The form in force and its rank.
    pub(super) fn ranked_form(&self) -> Option<(&Rank, &Form)> {
        let in_force = self.in_force.as_ref()?;
        Some((&self.rank, &in_force.form))
    }

    /// Position in the file of the object, or of the error in it.
    pub(super) fn order(&self) -> (usize, usize) {
        match &self.written {
            Written::Object(version) => (version.object.order.document, version.object.order.item),
            Written::Broken(place) => (place.offset(), 0),
        }
    }

    /// The object as written or, if that is invalid, as in force.
    pub(super) fn object(&self) -> Option<&Object> {
        match &self.written {
            Written::Object(version) => Some(&version.object),
            Written::Broken(_) => self.in_force.as_ref().map(|in_force| &*in_force.object),
        }
    }

    /// The object as written.
    pub(super) fn version(&self) -> Option<&Arc<Version>> {
        match &self.written {
            Written::Object(version) => Some(version),
            Written::Broken(_) => None,
        }
    }

    /// The written form, if it has no errors.
    pub(super) fn candidate(&self) -> Option<InForce> {
        let version = self.version()?;
        Some(InForce {
            object: version.object.clone(),
            form: version.lowered.value.clone()?,
        })
    }

    /// Whether the form in force differs from what is written.
    pub(super) fn serves_last_good(&self) -> bool {
        match (&self.in_force, self.version()) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(in_force), Some(version)) => !Arc::ptr_eq(&in_force.object, &version.object),
        }
    }

    /// Whether it has diagnostics.
    pub(super) fn has_problems(&self) -> bool {
        let found = self
            .version()
            .is_some_and(|version| !version.lowered.findings.is_empty());
        found || !self.cross.is_empty() || self.serves_last_good()
    }

    /// Its diagnostics; `find` looks up other objects.
    pub(super) fn diagnostics<'o>(&self, find: &dyn Fn(&ObjectId) -> Option<&'o Object>) -> Vec<Diagnostic> {
        let mut all = Vec::new();
        if let Some(version) = self.version() {
            let place = || Finding::diagnostics(&version.object, &version.lowered.findings, find);
            all.extend(version.placed.get_or_init(place).iter().cloned());
            all.extend(Finding::diagnostics(&version.object, &self.cross, find));
        }
        all.extend(self.last_good());
        all
    }

    fn last_good(&self) -> Option<Diagnostic> {
        let in_force = self.in_force.as_ref().filter(|_| self.serves_last_good())?;
        let place = match &self.written {
            Written::Object(version) => version.object.place(FieldPath::root()),
            Written::Broken(place) => place.clone(),
        };
        let id = &in_force.object.id;
        let message = format!("the last valid version of {id} stays in effect");
        let help = "fix the errors to apply this version, or delete the object";
        Some(Diagnostic::new(Code::LastGoodServed, message).at(place).help(help))
    }
}
