//! The directory as the mesh sees it: all objects, which form of each is in force, and what that
//! amounts to.
//!
//! [`Directory::apply`] takes what has changed to a new directory. It shares with the old one what
//! the change does not concern, and its cost follows the size of the change. Nothing here depends
//! on the order in which a directory came about, except what is deliberately remembered: the last
//! good form of an object in error, and what is still referred to although it is gone.

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

/// What does not come from the directory.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Settings that the mesh configuration does not name.
    pub base: MeshConfig,
    /// How the text of the mesh configuration is read.
    pub read: ReadOptions,
}

/// One change.
#[derive(Clone, Debug)]
pub enum Change {
    /// An object is there, as it says.
    Put(Arc<Object>),
    /// An object is there, and its document has a mistake at this place: its last good form stays.
    Broken {
        /// The object.
        id: ObjectId,
        /// The mistake.
        place: Place,
    },
    /// An object is gone.
    Remove(ObjectId),
    /// The mesh configuration in a file of its own; none without one.
    MeshConfig(Option<MeshConfigText>),
}

impl Change {
    /// The object that it is about; none: the mesh configuration in a file of its own.
    pub fn object(&self) -> Option<&ObjectId> {
        match self {
            Change::Put(object) => Some(&object.id),
            Change::Broken { id, .. } | Change::Remove(id) => Some(id),
            Change::MeshConfig(_) => None,
        }
    }
}

/// What a change leads to.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The directory after it.
    pub directory: Directory,
    /// The mesh after it.
    pub mesh: Mesh,
    /// What may be different for proxies.
    pub touched: Touched,
}

/// All objects, and the mesh they make. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    options: Arc<Options>,
    settings: Settings,
    context: Context,
    entries: OrdMap<ObjectId, Arc<Entry>>,
    /// The entries that something is to be said about.
    problems: OrdSet<ObjectId>,
    index: Index,
    retained: OrdMap<Target, Retained>,
    /// What the mesh has of each DestinationRule: itself, and what is retained of it.
    served_rules: OrdMap<ObjectId, Vec<(Rank, Arc<DestinationRule>)>>,
    mesh: Mesh,
}

impl Directory {
    /// A directory without objects.
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

    /// The directory that [`Directory::kept`] described: what was in force is in force again, and
    /// what was retained is retained as far as it is referred to.
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

    /// The mesh.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// The directory and the mesh after changes. Of several changes of an object the last counts.
    pub fn apply(&self, changes: &[Change]) -> Applied {
        let (directory, touched) = Edit::new(self).run(changes);
        Applied {
            mesh: directory.mesh.clone(),
            directory,
            touched,
        }
    }

    /// Everything that is wrong with the objects now, in the order in which it is shown.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        let find = |id: &ObjectId| self.entries.get(id).and_then(|entry| entry.object());
        let entries = self.problems.iter().filter_map(|id| self.entries.get(id));
        let mut all: Vec<Diagnostic> = entries.flat_map(|entry| entry.diagnostics(&find)).collect();
        all.extend(self.settings.diagnostics(&find, &self.options));
        all.sort_by(Diagnostic::display_order);
        all
    }

    /// The objects whose forms are in force, in the order of their ids.
    pub fn objects_in_force(&self) -> impl Iterator<Item = &Arc<Object>> {
        let in_force = self.entries.values().filter_map(|entry| entry.in_force.as_ref());
        in_force.map(|in_force| &in_force.object)
    }

    /// The objects that a server needs to come back to this state: those in force, and those of
    /// which something is retained.
    pub fn kept(&self) -> Vec<Kept> {
        let in_force = self.objects_in_force().map(|object| Kept {
            object: object.clone(),
            why: Why::InForce,
        });
        in_force.chain(retain::kept(&self.retained)).collect()
    }

    /// The last good text of the mesh configuration's own file, which a server needs as well to come
    /// back to this state.
    pub fn mesh_config_file(&self) -> Option<&MeshConfigText> {
        self.settings.file()
    }

    fn entry(&self, id: &ObjectId) -> Option<&Entry> {
        self.entries.get(id).map(|entry| &**entry)
    }

    /// The form in force of an object.
    fn form(&self, id: &ObjectId) -> Option<&Form> {
        self.entry(id)?.in_force.as_ref().map(|in_force| &in_force.form)
    }
}

#[cfg(test)]
mod tests;
