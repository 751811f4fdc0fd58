//! What one proxy needs, protocol-neutral.
//!
//! A [`NodeConfig`] is four maps of named, immutable values. They are persistent maps: a changed
//! route makes a new map that shares all the rest with the old one, so that later layers find what
//! changed by looking at pointers.

pub mod build;
pub mod cluster;
pub mod listener;
pub mod node;
pub mod route;

use std::sync::Arc;

use imbl::OrdMap;

pub use cluster::{Cluster, ClusterEndpoints};
pub use listener::Listener;
pub use node::NodeView;
pub use route::RouteConfig;

use crate::name::ObjectId;

/// The name of a resource, shared by everything that mentions it.
pub type ResourceName = Arc<str>;

/// Everything one proxy is configured with.
#[derive(Clone, Debug, Default)]
pub struct NodeConfig {
    /// Clusters (CDS).
    pub clusters: OrdMap<ResourceName, Arc<Cluster>>,
    /// Endpoints of the clusters with [`cluster::Discovery::Eds`] (EDS), under the cluster's name.
    pub endpoints: OrdMap<ResourceName, Arc<ClusterEndpoints>>,
    /// Listeners (LDS).
    pub listeners: OrdMap<ResourceName, Arc<Listener>>,
    /// Route configurations (RDS).
    pub routes: OrdMap<ResourceName, Arc<RouteConfig>>,
}

/// The objects a value was made from, the decisive one first. Sorted and without repeats after it.
/// They do not take part in what is sent to a proxy; a refusal finds its line through them.
pub type Origins = Arc<[ObjectId]>;
