//! The hosts of a cluster, made of what is said of its endpoints.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::balance::Balancer;
use super::cluster::{ClusterConfig, Transport};
use super::host::{Endpoint, Endpoints, Host, HostAddress, HostSet, HostState, LocalityEndpoints, Target};

impl HostSet {
    /// The hosts of the endpoints that have addresses. What is known of a host that `before` has under the same address
    /// is kept.
    pub(crate) fn build(config: &ClusterConfig, endpoints: &Endpoints, before: Option<&HostSet>, now: Instant) -> Self {
        let known: HashMap<&HostAddress, &Arc<HostState>> = before
            .iter()
            .flat_map(|set| set.hosts.iter().map(|host| (&host.address, &host.state)))
            .collect();
        let groups = endpoints.localities.iter();
        let all = groups.flat_map(|group| group.endpoints.iter().map(move |endpoint| (group, endpoint)));
        let mut hosts: Vec<_> = all
            .filter_map(|(group, endpoint)| host(config, group, endpoint, &known).map(Arc::new))
            .collect();
        hosts.sort_by_key(|host| host.priority);
        Self {
            balancer: Balancer::new(config.policy, &hosts),
            hosts,
            made: now,
        }
    }

    /// Marks the hosts that `next` does not have as removed.
    pub(crate) fn retire(&self, next: &HostSet) {
        for host in &self.hosts {
            let stays = next.hosts.iter().any(|one| Arc::ptr_eq(&one.state, &host.state));
            if !stays {
                host.state.removed.store(true, Relaxed);
            }
        }
    }

    /// Marks all hosts as removed.
    pub(crate) fn retire_all(&self) {
        for host in &self.hosts {
            host.state.removed.store(true, Relaxed);
        }
    }
}

fn host(
    config: &ClusterConfig,
    group: &LocalityEndpoints,
    endpoint: &Endpoint,
    known: &HashMap<&HostAddress, &Arc<HostState>>,
) -> Option<Host> {
    let Target::Address(address) = &endpoint.target else {
        return None;
    };
    Some(Host {
        address: address.clone(),
        hostname: endpoint.hostname.clone(),
        weight: endpoint.weight,
        locality: group.locality.clone(),
        priority: group.priority,
        eds_healthy: endpoint.healthy,
        transport: transport(config, endpoint),
        state: known.get(address).map_or_else(Arc::default, |state| Arc::clone(state)),
    })
}

/// The first transport whose labels the endpoint has, or the cluster's.
fn transport(config: &ClusterConfig, endpoint: &Endpoint) -> Transport {
    let fits = |labels: &[(String, String)]| labels.iter().all(|label| endpoint.transport_labels.contains(label));
    let found = config.transports.iter().find(|one| fits(&one.labels));
    found.map_or(&config.transport, |one| &one.transport).clone()
}
