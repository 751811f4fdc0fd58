//! Sealing: from what a node needs to resources, of which only what changed is encoded, and each is
//! held against Envoy's own rules before it is sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::ir::{Cluster, ClusterEndpoints, Listener, NodeConfig, Origins, ResourceName, RouteConfig};
use crate::xds::encode::{self, EncodedRoute, Reencoded};
use crate::xds::resource::{Resource, ResourceType};
use crate::xds::rules::{self, RuleBreak};
use crate::xds::snapshot::Snapshot;

/// A part of a node's configuration that becomes one resource.
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

/// A resource that breaks Envoy's own rules and is not sent.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    /// The resource's type.
    pub kind: ResourceType,
    /// The resource's name.
    pub name: ResourceName,
    /// What is wrong with it.
    pub breaks: Vec<RuleBreak>,
    /// The objects it was made from.
    pub origins: Origins,
}

impl Piece {
    /// Whether this is the very same value.
    pub(super) fn is(&self, other: &Piece) -> bool {
        match (self, other) {
            (Piece::Cluster(a), Piece::Cluster(b)) => Arc::ptr_eq(a, b),
            (Piece::Endpoints(a), Piece::Endpoints(b)) => Arc::ptr_eq(a, b),
            (Piece::Listener(a), Piece::Listener(b)) => Arc::ptr_eq(a, b),
            (Piece::Route(a), Piece::Route(b)) => Arc::ptr_eq(a, b),
            (Piece::Cluster(_) | Piece::Endpoints(_) | Piece::Listener(_) | Piece::Route(_), _) => false,
        }
    }

    /// Encodes the piece and checks the result.
    ///
    /// # Errors
    /// When Envoy would refuse it.
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

    /// The secrets by which the piece names files of the proxy's host.
    fn file_secrets(&self) -> Vec<Resource> {
        match self {
            Piece::Cluster(cluster) => encode::file_secrets(cluster),
            Piece::Endpoints(_) | Piece::Listener(_) | Piece::Route(_) => Vec::new(),
        }
    }
}

/// A resource as it is sent, unless it breaks rules.
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

/// Where two configurations differ: the new piece under each name, none where it is gone. The cost
/// follows the difference.
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

/// A configuration as resources, kept in step with it.
#[derive(Debug, Default)]
pub(super) struct Sealed {
    config: NodeConfig,
    snapshot: Snapshot,
    /// Route configurations as they are in the snapshot.
    routes: BTreeMap<ResourceName, EncodedRoute>,
    broken: BTreeMap<(ResourceType, ResourceName), Broken>,
}

impl Sealed {
    /// Follows a changed configuration. What breaks a rule keeps its former resource.
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

    /// Encodes and checks what is new in a route configuration.
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

    /// The resources.
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What is not sent because Envoy would refuse it.
    pub(super) fn broken(&self) -> impl Iterator<Item = &Broken> {
        self.broken.values()
    }
}
