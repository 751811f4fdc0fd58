//! The complete, consistent configuration of one proxy.

use std::sync::Arc;

use imbl::OrdMap;

use super::resource::{Resource, ResourceType};
use crate::ir::ResourceName;

/// Resources of one type by name. The map is persistent: successive snapshots share unchanged
/// parts, and differences are found by comparing pointers.
pub type ResourceSet = OrdMap<ResourceName, Arc<Resource>>;

/// A consistent set of resources: it includes every endpoint, secret and route its clusters and
/// listeners refer to.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The generation it was built from.
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

    /// The resources of a type, mutable.
    pub fn set_mut(&mut self, kind: ResourceType) -> &mut ResourceSet {
        &mut self.sets[kind as usize]
    }
}

/// Names that differ between two sets, in order. The cost is proportional to the difference.
pub fn changed_names<'a>(old: &'a ResourceSet, new: &'a ResourceSet) -> impl Iterator<Item = &'a ResourceName> {
    old.diff(new).map(|item| match item {
        imbl::ordmap::DiffItem::Add(name, _)
        | imbl::ordmap::DiffItem::Remove(name, _)
        | imbl::ordmap::DiffItem::Update { new: (name, _), .. } => name,
    })
}
