//! Services that a limited proxy sees only because a VirtualService it takes leads there.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;

use super::scope::Scope;
use crate::name::Hostname;

/// Destinations of the VirtualServices taken, counted, so that an edit of one rule is cheap.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Imports {
    by_rule_host: OrdMap<Hostname, Arc<BTreeSet<Hostname>>>,
    counts: OrdMap<Hostname, usize>,
}

impl Imports {
    /// Whether some VirtualService leads to the host.
    pub(super) fn contains(&self, host: &Hostname) -> bool {
        self.counts.contains_key(host)
    }

    /// Whether nothing of it was replaced.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.by_rule_host.ptr_eq(&other.by_rule_host)
    }

    /// Looks again at the VirtualServices that name exactly this host. The answer holds the destinations that
    /// came or went.
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

    /// Whether it was the last.
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

/// Where the VirtualServices taken that name exactly this host lead to.
fn destinations(scope: &Scope<'_>, host: &Hostname) -> BTreeSet<Hostname> {
    let rules = scope.mesh.virtual_services_naming(host);
    rules
        .filter(|rule| scope.takes(rule))
        .flat_map(|rule| rule.destinations())
        .map(|destination| destination.host.clone())
        .collect()
}
