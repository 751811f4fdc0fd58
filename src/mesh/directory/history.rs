//! What a directory keeps that an earlier one did not, so that the cost of storing an edit follows
//! its size.

use super::Directory;
use super::entry::{Entry, Kept};
use super::retain::{self, Why};
use crate::api::Object;
use crate::name::ObjectId;
use std::sync::Arc;

/// The difference between what two directories keep.
#[derive(Clone, Debug, Default)]
pub struct KeptChanges {
    /// What the later one keeps, and the earlier one did not, or not so.
    pub new: Vec<Kept>,
    /// What the earlier one kept, and the later one does not, or not so.
    pub gone: Vec<Kept>,
}

/// For finding what changed: entries are equal when they have the same object in force, of the same
/// text. What is kept of an object says the same after an edit of its document's comments or of other
/// items of its list; that it stands in another text counts all the same, so that no former text has
/// to be kept for it.
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
    /// An object as its document says, else as it is in force.
    pub fn object(&self, id: &ObjectId) -> Option<&Object> {
        let entry = self.entry(id)?;
        entry
            .object()
            .or_else(|| entry.object_in_force().map(|object| &**object))
    }

    /// What this directory keeps that an earlier one did not, and the other way round.
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
