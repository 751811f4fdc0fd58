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
    /// Resources that are not those of the outbound view.
    own: BTreeMap<(ResourceType, ResourceName), Own>,
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
        self.nodes.retain(|view, _| in_use.contains(view));
        for (view, calls) in &mut self.calls {
            calls.built = calls.built.update(mesh, view, touched);
            calls.sealed.update(calls.built.config());
        }
        for (view, calls) in &calls {
            self.build(mesh, view, calls, Some(touched), generation);
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
            Some(node) => node.snapshot.clone(),
            None => self.build(mesh, view, &outbound_view(mesh, view), None, generation),
        }
    }

    /// Everything that is not sent because Envoy would refuse it.
    pub(super) fn broken(&self) -> impl Iterator<Item = &Broken> {
        let shared = self.calls.values().flat_map(|calls| calls.sealed.broken());
        let own = self.nodes.values().flat_map(|node| node.own.values());
        shared.chain(own.filter_map(|own| own.broken.as_ref()))
    }

    /// Listeners that are left out because another of the same proxy has their address.
    pub(super) fn conflicts(&self) -> impl Iterator<Item = &Conflict> {
        self.nodes.values().flat_map(|node| &node.conflicts)
    }

    fn build(
        &mut self,
        mesh: &Mesh,
        view: &NodeView,
        calls: &OutboundView,
        touched: Option<&Touched>,
        generation: u64,
    ) -> Arc<Snapshot> {
        let calls = self.calls.entry(calls.clone()).or_insert_with(|| {
            let built = Arc::new(build_outbound(mesh, calls));
            let mut sealed = Sealed::default();
            sealed.update(built.config());
            Calls { built, sealed }
        });
        let former = self.nodes.remove(view);
        let inbound = match (&former, touched) {
            (Some(node), Some(touched)) => node.inbound.update(mesh, view, touched),
            (Some(_) | None, _) => Arc::new(build_inbound(mesh, view)),
        };
        let combined = combine(calls.built.clone(), inbound);
        let mut memo = former.map(|node| node.own).unwrap_or_default();
        let mut own = BTreeMap::new();
        let mut snapshot = calls.sealed.snapshot().clone();
        snapshot.generation = generation;
        for (kind, name, piece) in differences(calls.built.config(), &combined.config) {
            let Some(piece) = piece else {
                snapshot.set_mut(kind).remove(&name);
                continue;
            };
            let own_resource = match memo.remove(&(kind, name.clone())) {
                Some(former) if former.piece.is(&piece) => former,
                former => Own::seal(piece, former.and_then(|former| former.good)),
            };
            match &own_resource.good {
                Some(resource) => drop(snapshot.set_mut(kind).insert(name.clone(), resource.clone())),
                None => drop(snapshot.set_mut(kind).remove(&name)),
            }
            own.insert((kind, name), own_resource);
        }
        let snapshot = Arc::new(snapshot);
        let node = Node {
            inbound: combined.inbound,
            own,
            conflicts: combined.conflicts,
            snapshot: snapshot.clone(),
        };
        self.nodes.insert(view.clone(), node);
        snapshot
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
