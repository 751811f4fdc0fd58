//! The state of all objects: what is written, which form of each is in force, and the mesh that
//! results.
//!
//! [`Directory::apply`] applies changes and returns a new directory, which shares everything
//! unaffected with its predecessor; the cost is proportional to the changes. The result depends
//! only on the objects, not on the order of edits, except for what is remembered on purpose: the
//! last good form of objects in error, and removed targets that are still referred to.

mod check;
mod config;
mod edit;
mod entry;
mod force;
mod history;
mod index;
mod reference;
mod retain;
mod serve;
mod settle;

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

pub use entry::Kept;
pub use history::KeptChanges;
pub use retain::{Target, Why};

use super::config::MeshConfig;
use super::destination_rule::DestinationRule;
use super::lower::{Context, Form};
use super::{Mesh, Rank, Touched};
use crate::api::mesh_config::MeshConfigText;
use crate::api::{Object, ReadOptions};
use crate::diag::{Diagnostic, Place};
use crate::name::ObjectId;
use config::Settings;
use edit::Edit;
use entry::Entry;
use index::Index;
use retain::Retained;

/// Settings from outside of the directory.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Defaults for fields the mesh configuration does not set.
    pub base: MeshConfig,
    /// Parser options for the mesh configuration.
    pub read: ReadOptions,
}

/// A change of the directory.
#[derive(Clone, Debug)]
pub enum Change {
    /// The object exists with this content.
    Put(Arc<Object>),
    /// The object exists, but its document has an error here; its last good form stays in force.
    Broken {
        /// The object.
        id: ObjectId,
        /// Where the error is.
        place: Place,
    },
    /// The object was removed.
    Remove(ObjectId),
    /// The `--mesh-config` file has this content; `None` if there is no such file.
    MeshConfig(Option<MeshConfigText>),
}

impl Change {
    /// The object changed; `None` for the `--mesh-config` file.
    pub fn object(&self) -> Option<&ObjectId> {
        match self {
            Change::Put(object) => Some(&object.id),
            Change::Broken { id, .. } | Change::Remove(id) => Some(id),
            Change::MeshConfig(_) => None,
        }
    }
}

/// The result of applying changes.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The directory after the changes.
    pub directory: Directory,
    /// The mesh after the changes.
    pub mesh: Mesh,
    /// What may have changed for proxies.
    pub touched: Touched,
}

/// All objects and the mesh built from them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    options: Arc<Options>,
    settings: Settings,
    context: Context,
    entries: OrdMap<ObjectId, Arc<Entry>>,
    /// Entries with diagnostics.
    problems: OrdSet<ObjectId>,
    index: Index,
    retained: OrdMap<Target, Retained>,
    /// What each DestinationRule contributes to the mesh: the rule itself, and its retained
    /// subsets.
    served_rules: OrdMap<ObjectId, Vec<(Rank, Arc<DestinationRule>)>>,
    mesh: Mesh,
}

impl Directory {
    /// An empty directory.
    pub fn new(options: Options) -> Self {
        let mesh = Mesh::new(options.base.clone());
        Self {
            context: Context {
                config: mesh.config.clone(),
            },
            mesh,
            options: Arc::new(options),
            ..Self::default()
        }
    }

    /// Restores a directory from [`Directory::kept`]: objects in force are in force again, and
    /// retained targets are retained while something refers to them.
    pub fn restore(options: Options, kept: &[Kept]) -> Self {
        let empty = Self::new(options);
        let seed = Self {
            retained: retain::restore(kept, &empty.context),
            ..empty
        };
        let in_force = kept.iter().filter(|kept| kept.why == Why::InForce);
        let puts: Vec<Change> = in_force.map(|kept| Change::Put(kept.object.clone())).collect();
        let mut restored = seed.apply(&puts).directory;
        let retained = restored.retained.into_iter();
        restored.retained = retained
            .filter(|(_, retained)| !retained.referrers.is_empty())
            .collect();
        restored
    }

    /// The current mesh.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Applies changes. If an object is changed several times, the last one wins.
    pub fn apply(&self, changes: &[Change]) -> Applied {
        let (directory, touched) = Edit::new(self).run(changes);
        Applied {
            mesh: directory.mesh.clone(),
            directory,
            touched,
        }
    }

    /// All diagnostics of the objects, in display order.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        let find = |id: &ObjectId| self.entries.get(id).and_then(|entry| entry.object());
        let entries = self.problems.iter().filter_map(|id| self.entries.get(id));
        let mut all: Vec<Diagnostic> = entries.flat_map(|entry| entry.diagnostics(&find)).collect();
        all.extend(self.settings.diagnostics(&find, &self.options));
        all.sort_by(Diagnostic::display_order);
        all
    }

    /// The objects in force, ordered by id.
    pub fn objects_in_force(&self) -> impl Iterator<Item = &Arc<Object>> {
        let in_force = self.entries.values().filter_map(|entry| entry.in_force.as_ref());
        in_force.map(|in_force| &in_force.object)
    }

    /// The objects needed to restore this state: those in force, and those that define retained
    /// targets.
    pub fn kept(&self) -> Vec<Kept> {
        let in_force = self.objects_in_force().map(|object| Kept {
            object: object.clone(),
            why: Why::InForce,
        });
        in_force.chain(retain::kept(&self.retained)).collect()
    }

    /// The last good content of the `--mesh-config` file, also needed to restore this state.
    pub fn mesh_config_file(&self) -> Option<&MeshConfigText> {
        self.settings.file()
    }

    fn entry(&self, id: &ObjectId) -> Option<&Entry> {
        self.entries.get(id).map(|entry| &**entry)
    }

    /// The form of an object that is in force.
    fn form(&self, id: &ObjectId) -> Option<&Form> {
        self.entry(id)?.in_force.as_ref().map(|in_force| &in_force.form)
    }
}

#[cfg(test)]
mod tests;
