//! Services visible to a proxy with a Sidecar only as destinations of a visible VirtualService.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;

use super::scope::Scope;
use crate::name::Hostname;

/// Destinations of visible VirtualServices, reference-counted, so that an edit of one rule is
/// cheap.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Imports {
    by_rule_host: OrdMap<Hostname, Arc<BTreeSet<Hostname>>>,
    counts: OrdMap<Hostname, usize>,
}

impl Imports {
    /// Whether a VirtualService routes to the host.
    pub(super) fn contains(&self, host: &Hostname) -> bool {
        self.counts.contains_key(host)
    }

    /// Whether nothing was replaced.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.by_rule_host.ptr_eq(&other.by_rule_host)
    }

    /// Re-evaluates the VirtualServices for exactly this host. Returns the destinations added or
    /// removed.
    pub(super) fn refresh(&mut self, scope: &Scope<'_>, host: &Hostname) -> BTreeSet<Hostname> {
        let new = destinations(scope, host);
        let old = self.by_rule_host.get(host).cloned().unwrap_or_default();
        if *old == new {
            return BTreeSet::new();
        }
        let mut changed = BTreeSet::new();
        for gone in old.difference(&new) {
            if self.uncount(gone) {
                changed.insert(gone.clone());
            }
        }
        for come in new.difference(&old) {
            let count = self.counts.entry(come.clone()).or_default();
            *count += 1;
            if *count == 1 {
                changed.insert(come.clone());
            }
        }
        match new.is_empty() {
            true => self.by_rule_host.remove(host),
            false => self.by_rule_host.insert(host.clone(), Arc::new(new)),
        };
        changed
    }

    /// Drops one reference; returns whether it was the last.
    fn uncount(&mut self, host: &Hostname) -> bool {
        let Some(count) = self.counts.get_mut(host) else {
            return false;
        };
        *count -= 1;
        let last = *count == 0;
        if last {
            self.counts.remove(host);
        }
        last
    }
}

/// Destinations of the visible VirtualServices for exactly this host.
fn destinations(scope: &Scope<'_>, host: &Hostname) -> BTreeSet<Hostname> {
    let rules = scope.mesh.virtual_services_naming(host);
    rules
        .filter(|rule| scope.takes(rule))
        .flat_map(|rule| rule.destinations())
        .map(|destination| destination.host.clone())
        .collect()
}
