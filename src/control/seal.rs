//! Sealing: encodes a node's configuration into xDS resources. Only what changed is encoded, and
//! each resource is checked against Envoy's validation rules before it is sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::ir::{Cluster, ClusterEndpoints, Listener, NodeConfig, Origins, ResourceName, RouteConfig};
use crate::xds::encode::{self, EncodedRoute, Reencoded};
use crate::xds::resource::{Resource, ResourceType};
use crate::xds::rules::{self, RuleBreak};
use crate::xds::snapshot::Snapshot;

/// An element of the IR that becomes one resource.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    /// CDS.
    Cluster(Arc<Cluster>),
    /// EDS.
    Endpoints(Arc<ClusterEndpoints>),
    /// LDS.
    Listener(Arc<Listener>),
    /// RDS.
    Route(Arc<RouteConfig>),
}

/// A resource that violates Envoy's validation rules and is not sent.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    /// Type of the resource.
    pub kind: ResourceType,
    /// Name of the resource.
    pub name: ResourceName,
    /// The violations.
    pub breaks: Vec<RuleBreak>,
    /// The objects it was built from.
    pub origins: Origins,
}

impl Piece {
    /// Pointer equality.
    pub(super) fn is(&self, other: &Piece) -> bool {
        match (self, other) {
            (Piece::Cluster(a), Piece::Cluster(b)) => Arc::ptr_eq(a, b),
            (Piece::Endpoints(a), Piece::Endpoints(b)) => Arc::ptr_eq(a, b),
            (Piece::Listener(a), Piece::Listener(b)) => Arc::ptr_eq(a, b),
            (Piece::Route(a), Piece::Route(b)) => Arc::ptr_eq(a, b),
            (Piece::Cluster(_) | Piece::Endpoints(_) | Piece::Listener(_) | Piece::Route(_), _) => false,
        }
    }

    /// Encodes and validates the element.
    ///
    /// # Errors
    ///
    /// If Envoy would reject the resource.
    pub(super) fn seal(&self) -> Result<Arc<Resource>, Broken> {
        let resource = match self {
            Piece::Cluster(cluster) => encode::cluster(cluster),
            Piece::Endpoints(endpoints) => encode::endpoints(endpoints),
            Piece::Listener(listener) => encode::listener(listener),
            Piece::Route(route) => encode::route(route),
        };
        let checked = rules::check(&resource);
        judged(resource, checked)
    }

    /// Secrets that refer to certificate files on the proxy's host.
    fn file_secrets(&self) -> Vec<Resource> {
        match self {
            Piece::Cluster(cluster) => encode::file_secrets(cluster),
            Piece::Endpoints(_) | Piece::Listener(_) | Piece::Route(_) => Vec::new(),
        }
    }
}

/// Combines a resource with the result of its validation.
fn judged(resource: Resource, checked: Result<(), Vec<RuleBreak>>) -> Result<Arc<Resource>, Broken> {
    match checked {
        Ok(()) => Ok(Arc::new(resource)),
        Err(breaks) => {
            let Resource {
                kind, name, origins, ..
            } = resource;
            Err(Broken {
                kind,
                name,
                breaks,
                origins,
            })
        }
    }
}

/// The differences of two configurations: the new element by name, `None` if it was removed. The
/// cost is proportional to the difference.
pub(super) fn differences(old: &NodeConfig, new: &NodeConfig) -> Vec<(ResourceType, ResourceName, Option<Piece>)> {
    let clusters = changed(&old.clusters, &new.clusters, Piece::Cluster);
    let endpoints = changed(&old.endpoints, &new.endpoints, Piece::Endpoints);
    let listeners = changed(&old.listeners, &new.listeners, Piece::Listener);
    let routes = changed(&old.routes, &new.routes, Piece::Route);
    let of = |kind| move |(name, piece)| (kind, name, piece);
    let mut all: Vec<_> = clusters.map(of(ResourceType::Cluster)).collect();
    all.extend(endpoints.map(of(ResourceType::Endpoints)));
    all.extend(listeners.map(of(ResourceType::Listener)));
    all.extend(routes.map(of(ResourceType::Route)));
    all
}

fn changed<'a, T: PartialEq>(
    old: &'a OrdMap<ResourceName, Arc<T>>,
    new: &'a OrdMap<ResourceName, Arc<T>>,
    piece: impl Fn(Arc<T>) -> Piece + 'a,
) -> impl Iterator<Item = (ResourceName, Option<Piece>)> + 'a {
    old.diff(new).map(move |item| match item {
        DiffItem::Add(name, value) | DiffItem::Update { new: (name, value), .. } => {
            (name.clone(), Some(piece(value.clone())))
        }
        DiffItem::Remove(name, _) => (name.clone(), None),
    })
}

/// A configuration in encoded form, updated incrementally.
#[derive(Debug, Default)]
pub(super) struct Sealed {
    config: NodeConfig,
    snapshot: Snapshot,
    /// Route configurations as they are in the snapshot.
    routes: BTreeMap<ResourceName, EncodedRoute>,
    broken: BTreeMap<(ResourceType, ResourceName), Broken>,
}

impl Sealed {
    /// Updates to a changed configuration. A resource that fails validation keeps its previous
    /// version.
    pub(super) fn update(&mut self, config: &NodeConfig) {
        for (kind, name, piece) in differences(&self.config, config) {
            self.broken.remove(&(kind, name.clone()));
            let sealed = match &piece {
                Some(Piece::Route(route)) => Some(self.seal_route(route)),
                Some(piece) => Some(piece.seal()),
                None => None,
            };
            match sealed {
                Some(Ok(resource)) => drop(self.snapshot.set_mut(kind).insert(name, resource)),
                Some(Err(broken)) => drop(self.broken.insert((kind, name), broken)),
                None => {
                    self.snapshot.set_mut(kind).remove(&name);
                    if kind == ResourceType::Route {
                        self.routes.remove(&name);
                    }
                }
            }
            for secret in piece.iter().flat_map(Piece::file_secrets) {
                self.snapshot
                    .set_mut(ResourceType::Secret)
                    .insert(secret.name.clone(), Arc::new(secret));
            }
        }
        self.config = config.clone();
    }

    /// Encodes and validates the changed parts of a route configuration.
    fn seal_route(&mut self, route: &RouteConfig) -> Result<Arc<Resource>, Broken> {
        let former = self.routes.entry(route.name.clone()).or_default();
        let Reencoded {
            resource,
            encoded,
            news,
        } = former.follow(route);
        let checked = rules::check_route(&resource, &news, encoded.domains());
        if checked.is_ok() {
            *former = encoded;
        }
        judged(resource, checked)
    }

    /// The encoded resources.
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Resources that are not sent because Envoy would reject them.
    pub(super) fn broken(&self) -> impl Iterator<Item = &Broken> {
        self.broken.values()
    }
}
