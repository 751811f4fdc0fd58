//! The places of resources that others name.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::source::SecretSource;
use crate::proxy::http::route::RouteTable;
use crate::proxy::slot::Slot;
use crate::proxy::stats::Shared;
use crate::proxy::tls::{Certificate, TrustAnchors};
use crate::proxy::trace::{NodeNames, Tracers};
use crate::proxy::upstream::cluster::Cluster;

/// All places, by name. A place is made when it is first named and given up when nothing names it any more and nothing
/// lies in it: see [`Names::sweep`].
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Clusters.
    pub(crate) clusters: Places<Cluster>,
    /// Route tables of RDS.
    pub(crate) routes: Places<RouteTable>,
    /// Certificates and trust anchors of SDS.
    pub(crate) secrets: Secrets,
    /// The clusters by which servers can be reached; none: they are not known, and not asked for.
    pub(crate) servers: Option<HashSet<String>>,
    /// Tracers.
    pub(crate) tracers: Tracers,
    /// Who this proxy is.
    pub(crate) node: NodeNames,
    /// Statistics that several count in.
    pub(crate) stats: Shared,
}

/// The places of one type.
#[derive(Debug)]
pub(crate) struct Places<T>(HashMap<Arc<str>, Arc<Slot<T>>>);

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Places<T> {
    /// The place of a name.
    pub(crate) fn of(&mut self, name: &str) -> Arc<Slot<T>> {
        if let Some(slot) = self.0.get(name) {
            return slot.clone();
        }
        let slot = Arc::new(Slot::new(name));
        self.0.insert(slot.name().clone(), slot.clone());
        slot
    }

    /// The place of a name, if it has been named.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Slot<T>>> {
        self.0.get(name)
    }

    /// The names that something names.
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

    /// Empties the places that nothing names.
    pub(crate) fn clear_unnamed(&self) {
        let unnamed = self.0.values().filter(|slot| Arc::strong_count(slot) == 1);
        unnamed.for_each(|slot| slot.set(None));
    }

    fn sweep(&mut self) {
        self.0
            .retain(|_, slot| Arc::strong_count(slot) > 1 || slot.get().is_some());
    }
}

/// Secrets by where they come from.
#[derive(Debug, Default)]
pub(crate) struct Secrets(HashMap<SecretSource, SecretPlaces>);

/// The secrets of one source.
#[derive(Debug, Default)]
pub(crate) struct SecretPlaces {
    /// Certificates.
    pub(crate) certificates: Places<Certificate>,
    /// Trust anchors.
    pub(crate) trust: Places<TrustAnchors>,
}

impl SecretPlaces {
    /// The names that something names.
    pub(crate) fn named(&self) -> impl Iterator<Item = &Arc<str>> {
        self.certificates.named().chain(self.trust.named())
    }

    fn has(&self, name: &str) -> bool {
        let certificate = self.certificates.get(name).is_some_and(|slot| slot.get().is_some());
        certificate || self.trust.get(name).is_some_and(|slot| slot.get().is_some())
    }
}

impl Secrets {
    /// Those of a source.
    pub(crate) fn of(&mut self, source: SecretSource) -> &mut SecretPlaces {
        self.0.entry(source).or_default()
    }

    /// The same, if something has named any.
    pub(crate) fn get(&self, source: &SecretSource) -> Option<&SecretPlaces> {
        self.0.get(source)
    }

    /// Whether a secret is there.
    pub(crate) fn has(&self, source: &SecretSource, name: &str) -> bool {
        self.get(source).is_some_and(|places| places.has(name))
    }

    /// The names of the secrets that are there.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0
            .values()
            .flat_map(|places| places.certificates.filled().chain(places.trust.filled()))
    }

    /// The sources of secrets that something names.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &SecretSource> {
        let named = self.0.iter().filter(|(_, places)| places.named().next().is_some());
        named.map(|(source, _)| source)
    }

    /// Empties the places that nothing names. Those of the bootstrap do not come again and stay.
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
    /// Gives up the places that nothing names and nothing lies in.
    pub(crate) fn sweep(&mut self) {
        self.clusters.sweep();
        self.routes.sweep();
        self.secrets.sweep();
        self.tracers.sweep();
        self.stats.sweep();
    }
}
