//! Building the host set of a cluster from its endpoints.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::balance::Balancer;
use super::cluster::ClusterConfig;
use super::health_check::HealthCheck;
use super::health_check::state::Checked;
use super::host::{
    EdsHealth, Endpoint, Endpoints, Host, HostAddress, HostSet, HostState, LocalityEndpoints, Shares, Target,
};

impl HostSet {
    /// Builds the host set of the endpoints that have addresses. A host with the same address as one in `before` keeps
    /// its state, and if that is of the same version of the cluster its health by checks. As in Envoy, those that are
    /// healthy by checks stay, even if there is no endpoint any more.
    pub(crate) fn build<'a>(
        config: &ClusterConfig,
        endpoints: &Endpoints,
        before: impl IntoIterator<Item = &'a HostSet>,
        now: Instant,
    ) -> Self {
        let mut known = Known::of(config, before);
        let groups = endpoints.localities.iter();
        let all = groups.flat_map(|group| group.endpoints.iter().map(move |endpoint| (group, endpoint)));
        let mut hosts: Vec<_> = all
            .filter_map(|(group, endpoint)| host(config, group, endpoint, &mut known).map(Arc::new))
            .collect();
        hosts.extend(known.kept(config, &hosts));
        hosts.sort_by_key(|host| host.priority);
        Self::of(config, hosts, Arc::new(shares(endpoints)), now)
    }

    /// A set of these hosts, which are sorted.
    pub(crate) fn of(config: &ClusterConfig, hosts: Vec<Arc<Host>>, shares: Arc<Shares>, now: Instant) -> Self {
        for host in hosts.iter().filter(|host| host.healthy()) {
            host.state.healthy_since.get_or_init(|| now);
        }
        Self {
            settled: config.slow_start.and_then(|slow_start| slow_start.end(&hosts, now)),
            balancer: Balancer::new(config, &hosts, &shares, now),
            hosts,
            shares,
            made: now,
        }
    }

    /// The same hosts, with a load balancer for their present health and age. Only what discovery has removed and what
    /// is unhealthy by now goes.
    pub(crate) fn rebalanced(&self, config: &ClusterConfig, now: Instant) -> Self {
        Self {
            made: self.made,
            ..Self::of(config, self.staying(), self.shares.clone(), now)
        }
    }

    fn staying(&self) -> Vec<Arc<Host>> {
        let staying = self.hosts.iter().filter(|host| !host.has_left());
        staying.cloned().collect()
    }

    /// Marks the hosts that are not in `next` as removed.
    pub(crate) fn retire(&self, next: &HostSet) {
        let stay: HashSet<*const HostState> = next.hosts.iter().map(|host| Arc::as_ptr(&host.state)).collect();
        for host in &self.hosts {
            if !stay.contains(&Arc::as_ptr(&host.state)) {
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

fn shares(endpoints: &Endpoints) -> Shares {
    let mut localities: Vec<(u32, Arc<_>, u32)> = Vec::new();
    for group in &endpoints.localities {
        let known = localities
            .iter()
            .any(|(priority, locality, _)| *priority == group.priority && *locality == group.locality);
        if !known {
            localities.push((group.priority, group.locality.clone(), group.weight));
        }
    }
    Shares {
        overprovisioning: endpoints.overprovisioning,
        localities,
    }
}

/// What is known of hosts from sets before.
#[derive(Default)]
struct Known {
    states: HashMap<HostAddress, Arc<HostState>>,
    /// Hosts that are checked by the same version of the cluster.
    checked: HashMap<HostAddress, Arc<Host>>,
}

impl Known {
    fn of<'a>(config: &ClusterConfig, before: impl IntoIterator<Item = &'a HostSet>) -> Self {
        let mut known = Self::default();
        for host in before.into_iter().flat_map(|set| &set.hosts) {
            let state = known.states.entry(host.address.clone());
            state.or_insert_with(|| host.state.clone());
            let is_of = |health: &Arc<HealthCheck>| host.checked.as_ref().is_some_and(|checked| checked.is_of(health));
            if config.health_check.as_ref().is_some_and(is_of) {
                known.checked.insert(host.address.clone(), host.clone());
            }
        }
        known
    }

    /// The health of an endpoint's host, if it is to be checked.
    fn checked(&mut self, config: &ClusterConfig, address: &HostAddress, endpoint: &Endpoint) -> Option<Arc<Checked>> {
        let health = config.health_check.as_ref()?;
        let target = endpoint.check.as_deref();
        if target.is_some_and(|target| target.disabled) {
            return None;
        }
        let before = self.checked.get(address).and_then(|host| host.checked.clone());
        let checked = before.filter(|checked| checked.is_for(target));
        let new = || Arc::new(Checked::new(health, address, endpoint.check.clone()));
        let checked = checked.unwrap_or_else(new);
        checked.set_leaving(false);
        Some(checked)
    }

    /// Hosts that are not among `hosts` and stay, because they are healthy.
    fn kept(&self, config: &ClusterConfig, hosts: &[Arc<Host>]) -> Vec<Arc<Host>> {
        if self.checked.is_empty() || !config.health_check.as_ref().is_some_and(|health| health.keeps_healthy) {
            return Vec::new();
        }
        let stay: HashSet<&HostAddress> = hosts.iter().map(|host| &host.address).collect();
        let mut kept: Vec<_> = self
            .checked
            .values()
            .filter(|host| !stay.contains(&host.address))
            .collect();
        kept.retain(|host| host.eds != EdsHealth::Unhealthy && leaves(host));
        kept.sort_by(|a, b| a.address.cmp(&b.address));
        kept.into_iter().cloned().collect()
    }
}

/// Marks a host as one that stays only until it fails; `false` if it has failed already.
fn leaves(host: &Host) -> bool {
    host.checked.as_ref().is_some_and(|checked| {
        checked.set_leaving(true);
        !checked.failed()
    })
}

fn host(config: &ClusterConfig, group: &LocalityEndpoints, endpoint: &Endpoint, known: &mut Known) -> Option<Host> {
    let Target::Address(address) = &endpoint.target else {
        return None;
    };
    Some(Host {
        address: address.clone(),
        hostname: endpoint.hostname.clone(),
        weight: endpoint.weight,
        locality: group.locality.clone(),
        priority: group.priority,
        eds: endpoint.health,
        transport: config.transport_for(&endpoint.transport_labels),
        checked: known.checked(config, address, endpoint),
        state: known.states.entry(address.clone()).or_default().clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::upstream::balance::testing::{address, cluster_config, endpoints};

    #[test]
    fn what_is_known_of_a_host_outlives_its_endpoint_and_ends_with_its_address() {
        let config = cluster_config();
        let now = Instant::now();
        let first = HostSet::build(&config, &endpoints(&[(1, 0), (2, 0)]), None, now);
        first.hosts[1].state.stats.rq_total.store(7, Relaxed);
        let second = HostSet::build(&config, &endpoints(&[(2, 1), (3, 0)]), Some(&first), now);
        first.retire(&second);
        assert_eq!(second.hosts[0].address, address(3));
        assert_eq!(second.hosts[1].state.stats.rq_total.load(Relaxed), 7);
        let removed: Vec<_> = first
            .hosts
            .iter()
            .map(|host| host.state.removed.load(Relaxed))
            .collect();
        assert_eq!(removed, [true, false]);
    }

    #[test]
    fn an_address_that_is_given_twice_is_one_host_for_what_is_counted() {
        let set = HostSet::build(&cluster_config(), &endpoints(&[(1, 0), (1, 1)]), None, Instant::now());
        assert!(Arc::ptr_eq(&set.hosts[0].state, &set.hosts[1].state));
    }
}
