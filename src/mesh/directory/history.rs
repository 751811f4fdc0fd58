//! Differences between what two directories keep, so that the cost of persisting an edit is
//! proportional to it.

use super::Directory;
use super::entry::{Entry, Kept};
use super::retain::{self, Why};
use crate::api::Object;
use crate::name::ObjectId;
use std::sync::Arc;

/// Differences in what two directories keep.
#[derive(Clone, Debug, Default)]
pub struct KeptChanges {
    /// Added or changed in the later one.
    pub new: Vec<Kept>,
    /// Removed or changed since the earlier one.
    pub gone: Vec<Kept>,
}

/// Equality for finding changes: the same object in force, from a document with the same text. An
/// object from an edited document counts as changed even if its content did not, e.g. after an edit
/// of comments or of other list items, so that the previous text need not be stored.
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        match (self.object_in_force(), other.object_in_force()) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a.document.hash == b.document.hash && a == b,
            (a, b) => a.is_none() && b.is_none(),
        }
    }
}

impl Entry {
    fn object_in_force(&self) -> Option<&Arc<Object>> {
        self.in_force.as_ref().map(|in_force| &in_force.object)
    }
}

impl Directory {
    /// An object as written, else as in force.
    pub fn object(&self, id: &ObjectId) -> Option<&Object> {
        let entry = self.entry(id)?;
        entry
            .object()
            .or_else(|| entry.object_in_force().map(|object| &**object))
    }

    /// The changes in what is kept since an earlier directory.
    pub fn kept_since(&self, earlier: &Directory) -> KeptChanges {
        let mut changes = KeptChanges::default();
        for item in earlier.entries.diff(&self.entries) {
            let (old, new) = match item {
                imbl::ordmap::DiffItem::Add(_, new) => (None, Some(new)),
                imbl::ordmap::DiffItem::Update {
                    old: (_, old),
                    new: (_, new),
                } => (Some(old), Some(new)),
                imbl::ordmap::DiffItem::Remove(_, old) => (Some(old), None),
            };
            let kept = |entry: Option<&Arc<Entry>>| {
                let object = entry.and_then(|entry| entry.object_in_force().cloned());
                object.map(|object| Kept {
                    object,
                    why: Why::InForce,
                })
            };
            changes.gone.extend(kept(old));
            changes.new.extend(kept(new));
        }
        let (before, now): (Vec<Kept>, Vec<Kept>) = (
            retain::kept(&earlier.retained).collect(),
            retain::kept(&self.retained).collect(),
        );
        changes
            .gone
            .extend(before.iter().filter(|kept| !now.contains(kept)).cloned());
        changes
            .new
            .extend(now.into_iter().filter(|kept| !before.contains(kept)));
        changes
    }
}
