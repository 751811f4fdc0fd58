//! Intermediate representation: the configuration of one proxy, independent of protobuf.
//!
//! A [`NodeConfig`] consists of four maps of named, immutable values. The maps are persistent:
//! changing one route creates a map that shares everything else with its predecessor, so later
//! stages find changes by comparing pointers.

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

/// The name of an xDS resource.
pub type ResourceName = Arc<str>;

/// The complete configuration of one proxy.
#[derive(Clone, Debug, Default)]
pub struct NodeConfig {
    /// Clusters (CDS).
    pub clusters: OrdMap<ResourceName, Arc<Cluster>>,
    /// Endpoints (EDS) of clusters with [`cluster::Discovery::Eds`], by cluster name.
    pub endpoints: OrdMap<ResourceName, Arc<ClusterEndpoints>>,
    /// Listeners (LDS).
    pub listeners: OrdMap<ResourceName, Arc<Listener>>,
    /// Route configurations (RDS).
    pub routes: OrdMap<ResourceName, Arc<RouteConfig>>,
}

/// The objects a value was built from, the most specific one first and the rest sorted and
/// deduplicated. Not sent to proxies; used to map a NACK back to a line of a file.
pub type Origins = Arc<[ObjectId]>;
