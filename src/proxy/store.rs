//! What the control plane sent, compiled, and what of it is in force.
//!
//! Plain state without I/O, owned by the control thread. Workers see [`Published`].

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prost::Message;

use super::config::{self, Compiled, Names};
use super::listener::{ListenAddress, Listener};
use super::slot::Slot;
use super::upstream::cluster::{Cluster, ClusterConfig};
use super::upstream::host::{Endpoints, Host, HostSet, HostState, Target};
use crate::xds::pb;

/// What workers look up by name. Everything else they reach by way of it.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Clusters in force.
    pub(crate) clusters: HashMap<Arc<str>, Arc<Slot<Cluster>>>,
    /// Listeners in force.
    pub(crate) listeners: HashMap<Arc<str>, Arc<Listener>>,
    /// The same by address.
    pub(crate) by_address: HashMap<ListenAddress, Arc<Listener>>,
}

/// The state.
#[derive(Debug, Default)]
pub(crate) struct Store {
    names: Names,
    published: Arc<ArcSwap<Published>>,
    clusters: HashMap<Arc<str>, Arc<Slot<Cluster>>>,
    listeners: HashMap<Arc<str>, Arc<Listener>>,
}

impl Store {
    /// What workers see.
    pub(crate) fn published(&self) -> Arc<ArcSwap<Published>> {
        self.published.clone()
    }

    /// Takes a cluster.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn put_cluster(&mut self, bytes: &[u8]) -> Compiled<()> {
        let message = pb::cluster::Cluster::decode(bytes)?;
        let compiled = config::cluster::cluster(&message, &mut self.names)?;
        let hosts = host_set(&compiled.config, &compiled.endpoints);
        let cluster = Cluster {
            hosts: ArcSwap::from_pointee(hosts),
            breakers: compiled.breakers,
            stats: Arc::default(),
            config: compiled.config,
        };
        let slot = self.names.clusters.of(&message.name);
        slot.set(Some(Arc::new(cluster)));
        self.clusters.insert(slot.name().clone(), slot);
        Ok(())
    }

    /// Takes a listener.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn put_listener(&mut self, bytes: &[u8]) -> Compiled<Arc<Listener>> {
        let message = pb::listener::Listener::decode(bytes)?;
        let listener = Arc::new(config::listener::listener(&message, &mut self.names)?);
        self.listeners.insert(listener.name.clone(), listener.clone());
        Ok(listener)
    }

    /// Lets workers see what has changed.
    pub(crate) fn publish(&self) {
        self.published.store(Arc::new(Published {
            clusters: self.clusters.clone(),
            listeners: self.listeners.clone(),
            by_address: self
                .listeners
                .values()
                .map(|one| (one.address.clone(), one.clone()))
                .collect(),
        }));
    }
}

/// The hosts of endpoints that have addresses.
fn host_set(config: &ClusterConfig, endpoints: &Endpoints) -> HostSet {
    let mut hosts: Vec<_> = endpoints
        .localities
        .iter()
        .flat_map(|group| group.endpoints.iter().map(move |endpoint| (group, endpoint)))
        .filter_map(|(group, endpoint)| {
            let Target::Address(address) = &endpoint.target else {
                return None;
            };
            Some(Arc::new(Host {
                address: address.clone(),
                hostname: endpoint.hostname.clone(),
                weight: endpoint.weight,
                locality: group.locality.clone(),
                priority: group.priority,
                eds_healthy: endpoint.healthy,
                transport: config.transport.clone(),
                state: Arc::new(HostState::default()),
            }))
        })
        .collect();
    hosts.sort_by_key(|host| host.priority);
    HostSet {
        balancer: super::upstream::balance::Balancer::new(config.policy, &hosts),
        hosts,
        made: std::time::Instant::now(),
    }
}
