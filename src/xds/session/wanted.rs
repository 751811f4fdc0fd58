//! The names a client subscribes to.

use std::collections::BTreeSet;

use imbl::ordmap::DiffItem;

use crate::ir::ResourceName;
use crate::xds::snapshot::ResourceSet;

/// A set of names. Clients of a large mesh subscribe to thousands, usually to all that exist, so
/// the set can share the keys of the target's map instead of storing them per client.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Its keys are in the set; its values are ignored.
    shared: ResourceSet,
    /// Further names in the set.
    others: BTreeSet<ResourceName>,
}

impl Wanted {
    /// Whether a name is in the set.
    pub fn contains(&self, name: &ResourceName) -> bool {
        self.shared.contains_key(name) || self.others.contains(name)
    }

    /// The names, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &ResourceName> {
        self.shared.keys().chain(&self.others)
    }

    pub(super) fn insert(&mut self, name: ResourceName) {
        if !self.shared.contains_key(&name) {
            self.others.insert(name);
        }
    }

    /// Returns whether it was in the set.
    pub(super) fn remove(&mut self, name: &ResourceName) -> bool {
        self.others.remove(name) || self.shared.remove(name).is_some()
    }

    /// Shares the keys of this map, all of which must be in the set. The cost is proportional to
    /// the difference from the previous map.
    pub(super) fn share(&mut self, map: &ResourceSet) {
        for item in self.shared.diff(map) {
            match item {
                DiffItem::Add(name, _) => drop(self.others.remove(name)),
                DiffItem::Remove(name, _) => drop(self.others.insert(name.clone())),
                DiffItem::Update { .. } => {}
            }
        }
        self.shared = map.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::resource::{Resource, ResourceType};
    use std::sync::Arc;

    fn map(names: &[&str], body: &'static [u8]) -> ResourceSet {
        let resource = |name: &&str| {
            let resource = Resource::new(ResourceType::Endpoints, (*name).into(), body, [].into());
            (resource.name.clone(), Arc::new(resource))
        };
        names.iter().map(resource).collect()
    }

    fn all(wanted: &Wanted) -> BTreeSet<&str> {
        let names: Vec<&str> = wanted.iter().map(|name| &**name).collect();
        assert!(names.iter().all(|name| wanted.contains(&(*name).into())));
        let set: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(set.len(), names.len(), "a name is in it twice");
        set
    }

    #[test]
    fn sharing_keeps_the_names() {
        let mut wanted = Wanted::default();
        for name in ["a", "b", "c", "d"] {
            wanted.insert(name.into());
        }
        for target in [
            map(&["a", "b"], b"1"),
            map(&["a", "b", "c"], b"2"),
            map(&["b", "d"], b"1"),
        ] {
            wanted.share(&target);
            assert_eq!(all(&wanted), ["a", "b", "c", "d"].into());
            assert!(wanted.shared.ptr_eq(&target));
            assert!(wanted.others.iter().all(|name| !target.contains_key(name)));
        }
        wanted.insert("b".into());
        wanted.remove(&"b".into());
        wanted.remove(&"a".into());
        wanted.remove(&"x".into());
        assert_eq!(all(&wanted), ["c", "d"].into());
    }
}
