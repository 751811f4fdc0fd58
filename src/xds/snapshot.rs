//! Everything one proxy should have, consistent at one moment.

use std::sync::Arc;

use imbl::OrdMap;

use super::resource::{Resource, ResourceType};
use crate::ir::ResourceName;

/// The resources of one type, by name. Persistent: sets of successive snapshots share what did not
/// change, so the difference of two is found by comparing pointers.
pub type ResourceSet = OrdMap<ResourceName, Arc<Resource>>;

/// A consistent set of resources: every endpoint, secret and route that its clusters and listeners
/// name is in it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The generation of the directory it was made from.
    pub generation: u64,
    sets: [ResourceSet; ResourceType::ALL.len()],
}

impl Snapshot {
    /// An empty snapshot of a generation.
    pub fn new(generation: u64) -> Self {
        Self {
            generation,
            sets: Default::default(),
        }
    }

    /// The resources of a type.
    pub fn set(&self, kind: ResourceType) -> &ResourceSet {
        &self.sets[kind as usize]
    }

    /// The resources of a type, to change them.
    pub fn set_mut(&mut self, kind: ResourceType) -> &mut ResourceSet {
        &mut self.sets[kind as usize]
    }
}

/// The names under which two sets differ, in order. The cost follows the difference.
pub fn changed_names<'a>(old: &'a ResourceSet, new: &'a ResourceSet) -> impl Iterator<Item = &'a ResourceName> {
    old.diff(new).map(|item| match item {
        imbl::ordmap::DiffItem::Add(name, _)
        | imbl::ordmap::DiffItem::Remove(name, _)
        | imbl::ordmap::DiffItem::Update { new: (name, _), .. } => name,
    })
}
