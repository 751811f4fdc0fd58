//! Slots for resources that others refer to by name.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::source::SecretSource;
use crate::proxy::http::route::RouteTable;
use crate::proxy::slot::Slot;
use crate::proxy::stats::Shared;
use crate::proxy::tls::{Certificate, TrustAnchors};
use crate::proxy::trace::{NodeNames, Tracers};
use crate::proxy::upstream::cluster::Cluster;

/// All slots, by name. A slot is created when a resource first refers to its name, and dropped when it is empty and no
/// longer referred to: see [`Names::sweep`].
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Clusters.
    pub(crate) clusters: NamedSlots<Cluster>,
    /// RDS route tables.
    pub(crate) routes: NamedSlots<RouteTable>,
    /// SDS certificates and trust anchors.
    pub(crate) secrets: Secrets,
    /// The clusters by which xDS servers can be reached; `None`: unknown, and not checked.
    pub(crate) servers: Option<HashSet<String>>,
    /// Tracers.
    pub(crate) tracers: Tracers,
    /// The node.
    pub(crate) node: NodeNames,
    /// Statistics that several resources share.
    pub(crate) stats: Shared,
}

/// The slots of one type.
#[derive(Debug)]
pub(crate) struct NamedSlots<T>(HashMap<Arc<str>, Arc<Slot<T>>>);

impl<T> Default for NamedSlots<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> NamedSlots<T> {
    /// The slot of a name; created if there is none.
    pub(crate) fn of(&mut self, name: &str) -> Arc<Slot<T>> {
        if let Some(slot) = self.0.get(name) {
            return slot.clone();
        }
        let slot = Arc::new(Slot::new(name));
        self.0.insert(slot.name().clone(), slot.clone());
        slot
    }

    /// The slot of a name, if there is one.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Slot<T>>> {
        self.0.get(name)
    }

    /// The names that are referred to.
    pub(crate) fn named(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0
            .values()
            .filter(|slot| Arc::strong_count(slot) > 1)
            .map(|slot| slot.name())
    }

    fn filled(&self) -> impl Iterator<Item = &Arc<str>> {
        let filled = self.0.values().filter(|slot| slot.get().is_some());
        filled.map(|slot| slot.name())
    }

    /// Empties the slots that are no longer referred to.
    pub(crate) fn clear_unnamed(&self) {
        let unnamed = self.0.values().filter(|slot| Arc::strong_count(slot) == 1);
        unnamed.for_each(|slot| slot.set(None));
    }

    fn sweep(&mut self) {
        self.0
            .retain(|_, slot| Arc::strong_count(slot) > 1 || slot.get().is_some());
    }
}

/// Secrets, by source.
#[derive(Debug, Default)]
pub(crate) struct Secrets(HashMap<SecretSource, SecretPlaces>);

/// The secrets of one source.
#[derive(Debug, Default)]
pub(crate) struct SecretPlaces {
    /// Certificates.
    pub(crate) certificates: NamedSlots<Certificate>,
    /// Trust anchors.
    pub(crate) trust: NamedSlots<TrustAnchors>,
}

impl SecretPlaces {
    /// The names that are referred to.
    pub(crate) fn named(&self) -> impl Iterator<Item = &Arc<str>> {
        self.certificates.named().chain(self.trust.named())
    }

    fn has(&self, name: &str) -> bool {
        let certificate = self.certificates.get(name).is_some_and(|slot| slot.get().is_some());
        certificate || self.trust.get(name).is_some_and(|slot| slot.get().is_some())
    }
}

impl Secrets {
    /// Those of a source; created if there are none.
    pub(crate) fn of(&mut self, source: SecretSource) -> &mut SecretPlaces {
        self.0.entry(source).or_default()
    }

    /// Those of a source, if there are any.
    pub(crate) fn get(&self, source: &SecretSource) -> Option<&SecretPlaces> {
        self.0.get(source)
    }

    /// Whether a secret has arrived.
    pub(crate) fn has(&self, source: &SecretSource, name: &str) -> bool {
        self.get(source).is_some_and(|places| places.has(name))
    }

    /// The names of secrets that have arrived.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0
            .values()
            .flat_map(|places| places.certificates.filled().chain(places.trust.filled()))
    }

    /// The sources of secrets that are referred to.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &SecretSource> {
        let named = self.0.iter().filter(|(_, places)| places.named().next().is_some());
        named.map(|(source, _)| source)
    }

    /// Empties the slots that are no longer referred to, except those of the bootstrap, which are not sent again.
    pub(crate) fn clear_unnamed(&self) {
        for (_, places) in self.0.iter().filter(|(source, _)| **source != SecretSource::Bootstrap) {
            places.certificates.clear_unnamed();
            places.trust.clear_unnamed();
        }
    }

    fn sweep(&mut self) {
        for places in self.0.values_mut() {
            places.certificates.sweep();
            places.trust.sweep();
        }
        self.0
            .retain(|_, places| !places.certificates.0.is_empty() || !places.trust.0.is_empty());
    }
}

impl Names {
    /// Drops the slots that are empty and no longer referred to.
    pub(crate) fn sweep(&mut self) {
        self.clusters.sweep();
        self.routes.sweep();
        self.secrets.sweep();
        self.tracers.sweep();
        self.stats.sweep();
    }
}
