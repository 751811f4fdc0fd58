//! Applies changes to a directory: updates entries, determines what is in force and propagates the
//! consequences.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use super::entry::{Entry, Version, Written};
use super::index::Index;
use super::{Change, Directory, config};
use crate::api::Object;
use crate::diag::Place;
use crate::mesh::lower::{Context, Form, Lowered, lower};
use crate::mesh::service::ServiceKey;
use crate::mesh::{Mesh, Rank, Touched};
use crate::name::{Kind, ObjectId};

/// An edit in progress.
pub(super) struct Edit<'d> {
    /// The directory before the edit.
    pub(super) old: &'d Directory,
    /// The directory being built.
    pub(super) new: Directory,
    /// Whether the mesh configuration changed, so that everything is rebuilt.
    pub(super) afresh: bool,
    /// What the edit touches so far.
    pub(super) touched: Touched,
    /// Objects whose entries changed.
    pub(super) changed: BTreeSet<ObjectId>,
    /// Services to be relinked.
    pub(super) services: BTreeSet<ServiceKey>,
    /// DestinationRules to be put into the mesh again.
    pub(super) rules: BTreeSet<ObjectId>,
    /// VirtualServices whose references must be resolved again.
    pub(super) routes: BTreeSet<ObjectId>,
    /// VirtualServices whose routes change because of what they refer to.
    pub(super) affected: BTreeSet<ObjectId>,
    /// Objects to be checked again against others.
    pub(super) recheck: BTreeSet<ObjectId>,
}

impl<'d> Edit<'d> {
    /// Starts an edit.
    pub(super) fn new(old: &'d Directory) -> Self {
        Self {
            old,
            new: old.clone(),
            afresh: false,
            touched: Touched::default(),
            changed: BTreeSet::new(),
            services: BTreeSet::new(),
            rules: BTreeSet::new(),
            routes: BTreeSet::new(),
            affected: BTreeSet::new(),
            recheck: BTreeSet::new(),
        }
    }

    /// Applies the changes.
    pub(super) fn run(mut self, changes: &[Change]) -> (Directory, Touched) {
        let changes = last_of_each(changes);
        let config_map = self.configure(&changes);
        for change in &changes {
            self.write(change, config_map.as_ref());
        }
        self.rank();
        for id in self.changed.clone() {
            self.put_in_force(&id);
        }
        self.settle();
        self.serve();
        self.touch_endpoints_of_policies();
        self.check();
        self.note_problems();
        (self.new, self.touched)
    }

    /// Applies a new mesh configuration; if it differs, every object is lowered again. Returns the
    /// result of lowering the ConfigMap that holds it.
    fn configure(&mut self, changes: &[&Change]) -> Option<Lowered<Form>> {
        let options = self.old.options.clone();
        let mut config_map = None;
        for change in changes {
            match change {
                Change::MeshConfig(text) => self.new.settings.put_file(text.as_ref(), &options),
                Change::Put(object) if config::is_config_map(&object.id, &options) => {
                    config_map = Some(self.new.settings.put_config_map(object, &options));
                }
                Change::Remove(id) if config::is_config_map(id, &options) => self.new.settings.remove_config_map(),
                Change::Put(_) | Change::Broken { .. } | Change::Remove(_) => {}
            }
        }
        let config = self.new.settings.config(&options);
        if *config != *self.old.context.config {
            self.start_afresh(Context { config });
        }
        config_map
    }

    fn start_afresh(&mut self, context: Context) {
        self.afresh = true;
        self.touched = Touched::everything();
        self.new.mesh = Mesh::new((*context.config).clone());
        self.new.index = Index::default();
        self.new.served_rules = OrdMap::new();
        let old = std::mem::take(&mut self.new.entries);
        let relower = |entry: &Entry| {
            let mut entry = entry.clone();
            if let Written::Object(version) = &entry.written
                && version.object.id.kind != Kind::ConfigMap
            {
                entry.written = Written::Object(Version::of(version.object.clone(), &context));
            }
            entry.in_force = entry.in_force.and_then(|in_force| in_force.lowered_again(&context));
            Arc::new(entry)
        };
        let entries: OrdMap<ObjectId, Arc<Entry>> =
            old.iter().map(|(id, entry)| (id.clone(), relower(entry))).collect();
        for (id, entry) in &entries {
            self.new.index.origins.insert(entry.rank.origin.clone(), id.clone());
        }
        let retained = std::mem::take(&mut self.new.retained);
        self.new.retained = retained
            .into_iter()
            .map(|(target, retained)| (target, retained.lowered_again(&context)))
            .collect();
        self.changed = entries.keys().cloned().collect();
        self.new.entries = entries;
        self.new.context = context;
    }

    /// Records what is written.
    fn write(&mut self, change: &Change, config_map: Option<&Lowered<Form>>) {
        match change {
            Change::Put(object) => self.put(object, config_map),
            Change::Broken { id, place } => self.broken(id, place),
            Change::Remove(id) => {
                if let Some(entry) = self.new.entries.remove(id) {
                    self.new.index.origins.remove(&entry.rank.origin, id);
                    self.changed.insert(id.clone());
                }
            }
            Change::MeshConfig(_) => {}
        }
    }

    fn put(&mut self, object: &Arc<Object>, config_map: Option<&Lowered<Form>>) {
        let known = self.new.entry(&object.id);
        let same = known
            .and_then(Entry::version)
            .filter(|version| version.object == *object);
        let lowered = match (same, config_map) {
            (_, Some(lowered)) if config::is_config_map(&object.id, &self.old.options) => lowered.clone(),
            (Some(version), _) => version.lowered.clone(),
            (None, _) => lower(object, &self.new.context),
        };
        let mut entry = known.cloned().unwrap_or_else(|| Entry::new(object));
        if let (Some(version), Some(in_force)) = (same, &mut entry.in_force)
            && Arc::ptr_eq(&version.object, &in_force.object)
        {
            in_force.object = object.clone();
        }
        entry.written = Written::Object(Version::new(object.clone(), lowered));
        self.place(&object.id, entry, object.order.origin.clone());
    }

    fn broken(&mut self, id: &ObjectId, place: &Place) {
        // An object that was never valid is omitted.
        let Some(mut entry) = self.new.entry(id).cloned() else {
            return;
        };
        entry.written = Written::Broken(place.clone());
        self.place(id, entry, place.source.origin.clone());
    }

    /// Assigns an entry to its file.
    fn place(&mut self, id: &ObjectId, mut entry: Entry, origin: Arc<str>) {
        if entry.rank.origin != origin {
            self.new.index.origins.remove(&entry.rank.origin, id);
            entry.rank = Rank::unplaced(origin.clone());
        }
        self.new.index.origins.insert(origin, id.clone());
        self.new.entries.insert(id.clone(), Arc::new(entry));
        self.changed.insert(id.clone());
    }

    /// Ranks the objects of every changed file. A rank changes only if the order does.
    fn rank(&mut self) {
        let origins: BTreeSet<Arc<str>> = self
            .changed
            .iter()
            .filter_map(|id| self.new.entry(id))
            .map(|entry| entry.rank.origin.clone())
            .collect();
        for origin in origins {
            self.rank_file(&origin);
        }
    }

    fn rank_file(&mut self, origin: &Arc<str>) {
        let entries = self
            .new
            .index
            .origins
            .get(origin)
            .filter_map(|id| Some((id, self.new.entry(id)?)));
        let mut ids: Vec<_> = entries
            .map(|(id, entry)| (entry.order(), entry.rank.position, id.clone()))
            .collect();
        ids.sort();
        let placed = ids
            .iter()
            .take_while(|(_, position, _)| *position != Rank::UNPLACED)
            .count();
        let ascending = ids[..placed].is_sorted_by(|(_, a, _), (_, b, _)| a < b);
        let only_new_at_the_end = ids[placed..].iter().all(|(_, position, _)| *position == Rank::UNPLACED);
        let (from, start) = match ids[..placed].last() {
            Some((_, last, _)) if ascending && only_new_at_the_end => (placed, last + 1),
            Some(_) | None => (0, 0),
        };
        for (position, (_, old, id)) in (start..).zip(&ids[from..]) {
            if position != *old {
                self.update(id, |entry| entry.rank.position = position);
                self.changed.insert(id.clone());
            }
        }
    }

    /// Changes an entry.
    pub(super) fn update(&mut self, id: &ObjectId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.new.entries.get_mut(id) {
            change(Arc::make_mut(entry));
        }
    }

    /// The entry before the edit, which the indexes and the mesh reflect.
    pub(super) fn before(&self, id: &ObjectId) -> Option<&'d Entry> {
        if self.afresh { None } else { self.old.entry(id) }
    }

    /// Updates the set of entries with diagnostics.
    fn note_problems(&mut self) {
        let looked_at = self.changed.iter().chain(&self.routes).chain(&self.recheck);
        for id in looked_at {
            if self.new.entries.get(id).is_some_and(|entry| entry.has_problems()) {
                self.new.problems.insert(id.clone());
            } else {
                self.new.problems.remove(id);
            }
        }
    }
}

/// The last change of each object.
fn last_of_each(changes: &[Change]) -> Vec<&Change> {
    let mut last: BTreeMap<Option<&ObjectId>, &Change> = BTreeMap::new();
    for change in changes {
        last.insert(change.object(), change);
    }
    last.into_values().collect()
}
