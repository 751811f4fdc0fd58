//! From the mesh to snapshots, by view: every proxy of a view shares one, and an edit costs what it
//! touches.

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

/// The snapshots of all views in use.
#[derive(Debug, Default)]
pub(super) struct Views {
    calls: BTreeMap<OutboundView, Calls>,
    nodes: BTreeMap<NodeView, Node>,
}

/// What proxies of one outbound view share.
#[derive(Debug)]
struct Calls {
    built: Arc<Outbound>,
    sealed: Sealed,
}

/// A resource of one view alone.
#[derive(Debug)]
struct Own {
    /// What it is made from.
    piece: Piece,
    /// What is wrong with it.
    broken: Option<Broken>,
    /// The last that was right.
    good: Option<Arc<Resource>>,
}

/// What proxies of one view share.
#[derive(Debug)]
struct Node {
    inbound: Arc<Inbound>,
    whole: Arc<Whole>,
}

/// What proxies share that call and accept the same: replicas of a workload, whose views differ by address.
#[derive(Debug)]
struct Whole {
    calls: OutboundView,
    /// Resources that are not those of the outbound view.
    own: BTreeMap<(ResourceType, ResourceName), Arc<Own>>,
    conflicts: Vec<Conflict>,
    snapshot: Arc<Snapshot>,
}

impl Views {
    /// Takes in an edit: every view in use gets its new snapshot. Views that nobody has any more are
    /// dropped.
    pub(super) fn update(&mut self, mesh: &Mesh, touched: &Touched, generation: u64, in_use: &BTreeSet<NodeView>) {
        let calls: BTreeMap<&NodeView, OutboundView> =
            in_use.iter().map(|view| (view, outbound_view(mesh, view))).collect();
        let kept: BTreeSet<&OutboundView> = calls.values().collect();
        self.calls.retain(|view, _| kept.contains(view));
        for (view, calls) in &mut self.calls {
            calls.built = calls.built.update(mesh, view, touched);
            calls.sealed.update(calls.built.config());
        }
        // Only what is up to date already may be shared.
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

    /// Drops the views that nobody has any more.
    pub(super) fn trim(&mut self, mesh: &Mesh, in_use: &BTreeSet<NodeView>) {
        let kept: BTreeSet<OutboundView> = in_use.iter().map(|view| outbound_view(mesh, view)).collect();
        self.calls.retain(|view, _| kept.contains(view));
        self.nodes.retain(|view, _| in_use.contains(view));
    }

    /// The snapshot of a view, made if need be.
    pub(super) fn snapshot(&mut self, mesh: &Mesh, view: &NodeView, generation: u64) -> Arc<Snapshot> {
        match self.nodes.get(view) {
            Some(node) => node.whole.snapshot.clone(),
            None => {
                let inbound = Arc::new(build_inbound(mesh, view));
                self.build(mesh, view, outbound_view(mesh, view), inbound, None, generation)
            }
        }
    }

    /// Everything that is not sent because Envoy would refuse it.
    pub(super) fn broken(&self) -> impl Iterator<Item = &Broken> {
        let shared = self.calls.values().flat_map(|calls| calls.sealed.broken());
        let own = self.wholes().flat_map(|whole| whole.own.values());
        shared.chain(own.filter_map(|own| own.broken.as_ref()))
    }

    /// Listeners that are left out because another of the same proxy has their address.
    pub(super) fn conflicts(&self) -> impl Iterator<Item = &Conflict> {
        self.wholes().flat_map(|whole| &whole.conflicts)
    }

    /// What views have, once where neighbours share it.
    fn wholes(&self) -> impl Iterator<Item = &Whole> {
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
        // Views of one namespace and of the same labels stand beside each other.
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
            Arc::new(Whole::build(calls, shared, inbound.clone(), &memo, generation))
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

impl Whole {
    /// Puts the two parts together.
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

    /// Whether all of it can be sent. Else it holds what is in force in its place, which is another thing for
    /// others.
    fn is_good(&self) -> bool {
        self.own.values().all(|own| own.broken.is_none())
    }
}

/// Where resources may be sealed already.
struct Memo<'a> {
    /// Of the same proxies, before.
    former: Option<&'a Whole>,
    /// Of others, now.
    neighbours: [Option<&'a Whole>; 2],
}

impl Memo<'_> {
    /// The resource of a piece, sealed if need be.
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
    /// Seals a piece; `former` stays in force if that cannot be sent.
    fn seal(piece: Piece, former: Option<Arc<Resource>>) -> Self {
        let (good, broken) = match piece.seal() {
            Ok(resource) => (Some(resource), None),
            Err(broken) => (former, Some(broken)),
        };
        Self { piece, broken, good }
    }
}
