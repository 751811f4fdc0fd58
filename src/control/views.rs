//! From the mesh to snapshots. Proxies with the same [`NodeView`] share a snapshot, and an edit
//! rebuilds only the parts it affects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::seal::{Broken, Piece, Sealed, differences};
use crate::ir::build::{
    Conflict, Inbound, Outbound, OutboundView, build_inbound, build_outbound, combine, outbound_view,
};
use crate::ir::{NodeView, ResourceName};
use crate::mesh::{Mesh, Touched};
use crate::xds::resource::{Resource, ResourceType};
use crate::xds::snapshot::Snapshot;

/// Snapshots of all views in use.
#[derive(Debug, Default)]
pub(super) struct Views {
    calls: BTreeMap<OutboundView, Calls>,
    nodes: BTreeMap<NodeView, Node>,
}

/// Configuration shared by all proxies with the same outbound view.
#[derive(Debug)]
struct Calls {
    built: Arc<Outbound>,
    sealed: Sealed,
}

/// A resource that is not part of the shared outbound configuration.
#[derive(Debug)]
struct Own {
    /// The IR element it is encoded from.
    piece: Piece,
    /// Its validation failure, if any.
    broken: Option<Broken>,
    /// The last valid resource.
    good: Option<Arc<Resource>>,
}

/// State of one view.
#[derive(Debug)]
struct Node {
    inbound: Arc<Inbound>,
    whole: Arc<SharedView>,
}

/// Configuration shared by views with equal outbound and inbound configuration, such as replicas of
/// a workload, whose views differ only by address.
#[derive(Debug)]
struct SharedView {
    calls: OutboundView,
    /// Resources outside the shared outbound configuration.
    own: BTreeMap<(ResourceType, ResourceName), Arc<Own>>,
    conflicts: Vec<Conflict>,
    snapshot: Arc<Snapshot>,
}

impl Views {
    /// Applies an edit: builds a new snapshot for every view in use and drops the others.
    pub(super) fn update(&mut self, mesh: &Mesh, touched: &Touched, generation: u64, in_use: &BTreeSet<NodeView>) {
        let calls: BTreeMap<&NodeView, OutboundView> =
            in_use.iter().map(|view| (view, outbound_view(mesh, view))).collect();
        let kept: BTreeSet<&OutboundView> = calls.values().collect();
        self.calls.retain(|view, _| kept.contains(view));
        for (view, calls) in &mut self.calls {
            calls.built = calls.built.update(mesh, view, touched);
            calls.sealed.update(calls.built.config());
        }
        // Empty the map: only nodes of this generation may be shared.
        let mut former = std::mem::take(&mut self.nodes);
        for (view, calls) in calls {
            let former = former.remove(view);
            let inbound = match &former {
                Some(former) => former.inbound.update(mesh, view, touched),
                None => Arc::new(build_inbound(mesh, view)),
            };
            self.build(mesh, view, calls, inbound, former.as_ref(), generation);
        }
    }

    /// Drops views that are no longer in use.
    pub(super) fn trim(&mut self, mesh: &Mesh, in_use: &BTreeSet<NodeView>) {
        let kept: BTreeSet<OutboundView> = in_use.iter().map(|view| outbound_view(mesh, view)).collect();
        self.calls.retain(|view, _| kept.contains(view));
        self.nodes.retain(|view, _| in_use.contains(view));
    }

    /// The snapshot of a view, built on first use.
    pub(super) fn snapshot(&mut self, mesh: &Mesh, view: &NodeView, generation: u64) -> Arc<Snapshot> {
        match self.nodes.get(view) {
            Some(node) => node.whole.snapshot.clone(),
            None => {
                let inbound = Arc::new(build_inbound(mesh, view));
                self.build(mesh, view, outbound_view(mesh, view), inbound, None, generation)
            }
        }
    }

    /// Resources that are not sent because Envoy would reject them.
    pub(super) fn broken(&self) -> impl Iterator<Item = &Broken> {
        let shared = self.calls.values().flat_map(|calls| calls.sealed.broken());
        let own = self.wholes().flat_map(|whole| whole.own.values());
        shared.chain(own.filter_map(|own| own.broken.as_ref()))
    }

    /// Listeners omitted because another listener of the same proxy has their address.
    pub(super) fn conflicts(&self) -> impl Iterator<Item = &Conflict> {
        self.wholes().flat_map(|whole| &whole.conflicts)
    }

    /// The distinct values, where neighbouring views share one.
    fn wholes(&self) -> impl Iterator<Item = &SharedView> {
        let mut last = None;
        let wholes = self.nodes.values().map(|node| &*node.whole);
        wholes.filter(move |whole| last.replace(std::ptr::from_ref(*whole)) != Some(std::ptr::from_ref(*whole)))
    }

    fn build(
        &mut self,
        mesh: &Mesh,
        view: &NodeView,
        calls: OutboundView,
        mut inbound: Arc<Inbound>,
        former: Option<&Node>,
        generation: u64,
    ) -> Arc<Snapshot> {
        // In key order, views with the same namespace and labels are adjacent.
        let before = self.nodes.range(..view).next_back();
        let after = self.nodes.range(view..).next();
        let neighbours = [before, after].map(|neighbour| neighbour.map(|(_, node)| node));
        let mut twin = None;
        for node in neighbours.into_iter().flatten() {
            inbound = inbound.sharing(&node.inbound);
            if inbound.is_alike(&node.inbound) && node.whole.calls == calls && node.whole.is_good() {
                twin = Some(node.whole.clone());
                break;
            }
        }
        let whole = twin.unwrap_or_else(|| {
            let shared = self
                .calls
                .entry(calls.clone())
                .or_insert_with(|| Calls::build(mesh, &calls));
            let [former, before, after] =
                [former, neighbours[0], neighbours[1]].map(|node| node.map(|node| &*node.whole));
            let memo = Memo {
                former,
                neighbours: [before, after],
            };
            Arc::new(SharedView::build(calls, shared, inbound.clone(), &memo, generation))
        });
        let snapshot = whole.snapshot.clone();
        self.nodes.insert(view.clone(), Node { inbound, whole });
        snapshot
    }
}

impl Calls {
    fn build(mesh: &Mesh, view: &OutboundView) -> Self {
        let built = Arc::new(build_outbound(mesh, view));
        let mut sealed = Sealed::default();
        sealed.update(built.config());
        Self { built, sealed }
    }
}

impl SharedView {
    /// Combines the outbound and inbound parts.
    fn build(view: OutboundView, calls: &Calls, inbound: Arc<Inbound>, memo: &Memo<'_>, generation: u64) -> Self {
        let combined = combine(calls.built.clone(), inbound);
        let mut own = BTreeMap::new();
        let mut snapshot = calls.sealed.snapshot().clone();
        snapshot.generation = generation;
        for (kind, name, piece) in differences(calls.built.config(), &combined.config) {
            let Some(piece) = piece else {
                snapshot.set_mut(kind).remove(&name);
                continue;
            };
            let place = (kind, name);
            let own_resource = memo.own(&place, piece);
            match &own_resource.good {
                Some(resource) => drop(snapshot.set_mut(kind).insert(place.1.clone(), resource.clone())),
                None => drop(snapshot.set_mut(kind).remove(&place.1)),
            }
            own.insert(place, own_resource);
        }
        Self {
            calls: view,
            own,
            conflicts: combined.conflicts,
            snapshot: Arc::new(snapshot),
        }
    }

    /// Whether all of its resources are valid. Otherwise it serves previous versions in place of
    /// invalid ones, which other views must not inherit.
    fn is_good(&self) -> bool {
        self.own.values().all(|own| own.broken.is_none())
    }
}

/// Resources that may already be encoded.
struct Memo<'a> {
    /// The previous configuration of the same view.
    former: Option<&'a SharedView>,
    /// The current configurations of adjacent views.
    neighbours: [Option<&'a SharedView>; 2],
}

impl Memo<'_> {
    /// The resource of an IR element, encoded unless a memo has it.
    fn own(&self, place: &(ResourceType, ResourceName), piece: Piece) -> Arc<Own> {
        let former = self.former.and_then(|former| former.own.get(place));
        let neighbours = self.neighbours.iter().flatten();
        let theirs = neighbours
            .filter_map(|whole| whole.own.get(place))
            .filter(|own| own.broken.is_none());
        let known = former.into_iter().chain(theirs).find(|own| own.piece.is(&piece));
        known
            .cloned()
            .unwrap_or_else(|| Arc::new(Own::seal(piece, former.and_then(|former| former.good.clone()))))
    }
}

impl Own {
    /// Encodes an IR element; on a validation failure `former` stays in force.
    fn seal(piece: Piece, former: Option<Arc<Resource>>) -> Self {
        let (good, broken) = match piece.seal() {
            Ok(resource) => (Some(resource), None),
            Err(broken) => (former, Some(broken)),
        };
        Self { piece, broken, good }
    }
}
