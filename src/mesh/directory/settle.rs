//! Determines which form of a VirtualService is in force and which targets it retains.
//!
//! A dangling reference is contained. If the VirtualService was edited, its last good form stays in
//! force. If the target was removed, it is retained. If the reference was never good, the route
//! responds 503 and the rest of the object applies.

use std::collections::BTreeSet;

use imbl::OrdSet;

use super::edit::Edit;
use super::entry::{Entry, InForce};
use super::reference::targets;
use super::retain::{Retained, Target};
use crate::mesh::lower::Form;
use crate::mesh::service::ServiceKey;
use crate::name::{Hostname, ObjectId};

impl Edit<'_> {
    /// Settles every VirtualService that changed or refers to something that did.
    pub(super) fn settle(&mut self) {
        self.routes.extend(self.affected.iter().cloned());
        for id in self.routes.clone() {
            self.settle_one(&id);
        }
    }

    fn settle_one(&mut self, id: &ObjectId) {
        let in_force = self.new.entry(id).and_then(|entry| self.decide(entry));
        let referred = in_force.as_ref().map(|in_force| targets_of_form(&in_force.form));
        let resolved: BTreeSet<Target> = referred
            .into_iter()
            .flatten()
            .filter(|target| self.new.is_live(target) || self.was_served(id, target))
            .collect();
        let before = self.old.entry(id).map(|entry| &entry.resolved);
        for target in before.into_iter().flatten().chain(&resolved) {
            let gone = resolved.contains(target) && !self.new.is_live(target);
            self.retain(target, id, gone);
        }
        let written = self.new.entry(id).and_then(Entry::candidate);
        let refers_to = hosts(in_force.iter().chain(&written));
        self.refer(id, &refers_to);
        self.update(id, |entry| {
            entry.in_force = in_force;
            entry.resolved = resolved;
            entry.refers_to = refers_to;
        });
    }

    /// The written form, unless it has errors, or has dangling references although those of the form
    /// in force were all served.
    fn decide(&self, entry: &Entry) -> Option<InForce> {
        let Some(written) = entry.candidate() else {
            return entry.in_force.clone();
        };
        let last = entry
            .in_force
            .as_ref()
            .filter(|last| last.form.virtual_service().is_some());
        match last {
            Some(last) if last.object != written.object && was_good(entry, last) && !self.is_good(&written) => {
                Some(last.clone())
            }
            Some(_) | None => Some(written),
        }
    }

    fn is_good(&self, written: &InForce) -> bool {
        targets_of_form(&written.form)
            .iter()
            .all(|target| self.new.is_live(target))
    }

    /// Whether a target of an object was served before the edit.
    fn was_served(&self, id: &ObjectId, target: &Target) -> bool {
        let resolved = self.old.entry(id).is_some_and(|entry| entry.resolved.contains(target));
        resolved || self.old.retained.contains_key(target)
    }

    /// Records whether an object in force refers to a removed target.
    fn retain(&mut self, target: &Target, referrer: &ObjectId, gone: bool) {
        if !gone {
            let Some(retained) = self.new.retained.get_mut(target) else {
                return;
            };
            retained.referrers.remove(referrer);
            if retained.referrers.is_empty() {
                self.serve_again(target);
                self.new.retained.remove(target);
            }
            return;
        }
        if !self.new.retained.contains_key(target) {
            let objects = self.old.definition(target).into_iter();
            let retained = Retained {
                objects: objects.filter_map(|object| self.in_these_settings(object)).collect(),
                referrers: OrdSet::new(),
            };
            self.new.retained.insert(target.clone(), retained);
        }
        // A restored target has no referrers yet, but is served from the start.
        self.serve_again(target);
        if let Some(retained) = self.new.retained.get_mut(target) {
            retained.referrers.insert(referrer.clone());
        }
    }

    fn in_these_settings(&self, object: InForce) -> Option<InForce> {
        if self.afresh {
            object.lowered_again(&self.new.context)
        } else {
            Some(object)
        }
    }

    /// Schedules an update of what a target belongs to, after it is retained or released.
    fn serve_again(&mut self, target: &Target) {
        let objects = self.new.retained.get(target).map(|retained| retained.objects.clone());
        let objects = objects.unwrap_or_default();
        match target {
            Target::Host(host) | Target::Port(host, _) => {
                let live = self.new.index.namespaces.get(host).map(|namespace| ServiceKey {
                    host: host.clone(),
                    namespace: namespace.clone(),
                });
                self.services.extend(live);
                let routes = self.new.mesh.virtual_services_naming(host);
                self.recheck.extend(routes.map(|rules| rules.id.clone()));
                let sources = objects.iter().filter_map(|in_force| in_force.form.service());
                let keys = sources.flat_map(|source| &source.keys).filter(|key| key.host == *host);
                self.services.extend(keys.cloned());
            }
            Target::Subset(..) => {
                self.rules
                    .extend(objects.into_iter().map(|in_force| in_force.object.id.clone()));
            }
        }
    }

    /// Updates the index of destination hosts.
    fn refer(&mut self, id: &ObjectId, hosts: &BTreeSet<Hostname>) {
        if let Some(before) = self.before(id) {
            for host in before.refers_to.difference(hosts) {
                self.new.index.referrers.remove(host, id);
            }
        }
        for host in hosts {
            self.new.index.referrers.insert(host.clone(), id.clone());
        }
    }
}

/// Whether all targets of a form were served.
fn was_good(entry: &Entry, last: &InForce) -> bool {
    targets_of_form(&last.form).is_subset(&entry.resolved)
}

fn targets_of_form(form: &Form) -> BTreeSet<Target> {
    form.virtual_service().map(|rules| targets(rules)).unwrap_or_default()
}

fn hosts<'f>(forms: impl Iterator<Item = &'f InForce>) -> BTreeSet<Hostname> {
    let rules = forms.filter_map(|in_force| in_force.form.virtual_service());
    rules
        .flat_map(|rules| rules.destinations())
        .map(|destination| destination.host.clone())
        .collect()
}
