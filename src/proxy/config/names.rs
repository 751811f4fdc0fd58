//! The places of resources that others name.

use std::collections::HashMap;
use std::sync::Arc;

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
    /// Certificates of SDS.
    pub(crate) certificates: Places<Certificate>,
    /// Trust anchors of SDS.
    pub(crate) trust: Places<TrustAnchors>,
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

impl Names {
    /// Gives up the places that nothing names and nothing lies in.
    pub(crate) fn sweep(&mut self) {
        self.clusters.sweep();
        self.routes.sweep();
        self.certificates.sweep();
        self.trust.sweep();
        self.tracers.sweep();
        self.stats.sweep();
    }
}
