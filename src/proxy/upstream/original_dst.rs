//! `ORIGINAL_DST` clusters: the host is the original destination of the connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::cluster::Cluster;
use super::host::{EdsHealth, Host, HostAddress, HostSet, HostState};

impl Cluster {
    /// The host at an address, or at another port of it; created on first use.
    pub(super) fn original(&self, destination: SocketAddr, port: Option<u16>) -> Option<Arc<Host>> {
        let address = SocketAddr::new(destination.ip(), port.unwrap_or(destination.port()));
        let address = HostAddress::Ip(address);
        if let Some(host) = find(&self.hosts.load(), &address) {
            if !host.state.used.load(Relaxed) {
                host.state.used.store(true, Relaxed);
            }
            return Some(host.clone());
        }
        self.change_hosts(|set| {
            let place = set.hosts.binary_search_by(|host| host.address.cmp(&address)).err()?;
            let mut hosts = set.hosts.clone();
            hosts.insert(place, Arc::new(self.host_at(address.clone())));
            Some(HostSet::of(&self.config, hosts, set.shares.clone(), Instant::now()))
        });
        find(&self.hosts.load(), &address).cloned()
    }

    /// Removes the hosts that were unused since the last call.
    pub(super) fn forget_unused(&self) {
        self.change_hosts(|set| {
            let mut hosts = set.hosts.clone();
            hosts.retain(|host| host.state.used.swap(false, Relaxed) || host.state.active.load(Relaxed) > 0);
            let forgets = hosts.len() < set.hosts.len();
            forgets.then(|| HostSet::of(&self.config, hosts, set.shares.clone(), set.made))
        });
    }

    fn host_at(&self, address: HostAddress) -> Host {
        let state = HostState::default();
        state.used.store(true, Relaxed);
        Host {
            address,
            hostname: None,
            weight: 1,
            locality: Arc::default(),
            priority: 0,
            eds: EdsHealth::Healthy,
            transport: self.config.transport_for(&[]),
            checked: None,
            state: Arc::new(state),
        }
    }
}

/// Binary search: hosts of original destinations are sorted by address.
fn find<'a>(set: &'a HostSet, address: &HostAddress) -> Option<&'a Arc<Host>> {
    let found = set.hosts.binary_search_by(|host| host.address.cmp(address)).ok()?;
    set.hosts.get(found)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::proxy::upstream::balance::Choice;
    use crate::proxy::upstream::balance::testing::{cluster, cluster_config, endpoints};
    use crate::proxy::upstream::cluster::{Discovery, LbPolicy};

    use super::*;

    fn original(port: Option<u16>) -> Arc<Cluster> {
        let mut config = cluster_config();
        config.discovery = Discovery::OriginalDst(port, Duration::from_secs(5));
        config.policy = LbPolicy::ClusterProvided;
        cluster(config, &endpoints(&[]), Default::default())
    }

    fn choose(cluster: &Cluster, address: &str) -> Arc<Host> {
        let choice = Choice {
            destination: Some(address.parse().unwrap()),
            ..Default::default()
        };
        cluster.choose(&choice).unwrap()
    }

    #[test]
    fn the_host_is_where_the_client_wanted_to_go() {
        let cluster = original(None);
        let first = choose(&cluster, "10.0.0.9:80");
        assert_eq!(first.address.to_string(), "10.0.0.9:80");
        choose(&cluster, "10.0.0.1:80");
        assert!(Arc::ptr_eq(&first, &choose(&cluster, "10.0.0.9:80")));
        assert_eq!(cluster.hosts.load().hosts.len(), 2);
        assert!(cluster.choose(&Choice::default()).is_none());
    }

    #[test]
    fn another_port_may_be_wanted() {
        let host = choose(&original(Some(15006)), "10.0.0.9:80");
        assert_eq!(host.address.to_string(), "10.0.0.9:15006");
    }

    #[test]
    fn a_host_that_nobody_wants_for_an_interval_is_forgotten() {
        let cluster = original(None);
        let (kept, lost) = (choose(&cluster, "10.0.0.1:80"), choose(&cluster, "10.0.0.2:80"));
        let start = Instant::now();
        cluster.upkeep(start);
        cluster.upkeep(start + Duration::from_secs(5));
        assert_eq!(cluster.hosts.load().hosts.len(), 2);
        choose(&cluster, "10.0.0.1:80");
        cluster.upkeep(start + Duration::from_secs(10));
        assert_eq!(cluster.hosts.load().hosts.len(), 1);
        assert!(lost.state.removed.load(Relaxed) && !kept.state.removed.load(Relaxed));
    }
}
