//! Edits of the mesh; each keeps the indexes up to date.

use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use super::{ClientLabel, Mesh, Rank, Ranked};
use crate::mesh::config::MeshConfig;
use crate::mesh::destination_rule::DestinationRule;
use crate::mesh::peer_authentication::PeerAuthentication;
use crate::mesh::service::{Address, Service, ServiceKey};
use crate::mesh::sidecar::Sidecar;
use crate::mesh::virtual_service::VirtualService;
use crate::mesh::workload::{Workload, WorkloadGroup};
use crate::name::ObjectId;

impl Mesh {
    /// An empty mesh with these settings.
    pub fn new(config: MeshConfig) -> Self {
        Self {
            config: Arc::new(config),
            ..Self::default()
        }
    }

    /// Adds or replaces (`Some`) or removes (`None`) a service.
    pub fn put_service(&mut self, key: &ServiceKey, service: Option<(Rank, Arc<Service>)>) {
        if let Some((_, old)) = self.services.remove(key) {
            self.hosts.remove(&key.host, &key.namespace);
            for port in &old.ports {
                self.ports.remove(&port.number, key);
            }
            if let Some(target) = &old.alias {
                self.aliases.remove(target, key);
            }
            for label in distribution_labels(&old) {
                uncount(&mut self.client_labels, &label);
            }
            for address in endpoint_addresses(&old) {
                self.endpoint_addresses.remove(&address, key);
            }
        }
        if let Some((rank, service)) = service {
            self.hosts.insert(key.host.clone(), key.namespace.clone());
            for port in &service.ports {
                self.ports.insert(port.number, key.clone());
            }
            if let Some(target) = &service.alias {
                self.aliases.insert(target.clone(), key.clone());
            }
            for label in distribution_labels(&service) {
                *self.client_labels.entry(label).or_default() += 1;
            }
            for address in endpoint_addresses(&service) {
                self.endpoint_addresses.insert(address, key.clone());
            }
            self.services.insert(key.clone(), (rank, service));
        }
    }

    /// Adds, replaces or removes a workload.
    pub fn put_workload(&mut self, id: &ObjectId, workload: Option<Arc<Workload>>) {
        if let Some(Address::Ip(ip)) = self.workloads.remove(id).map(|old| old.address.clone()) {
            self.workload_addresses.remove(&ip, id);
        }
        if let Some(workload) = workload {
            if let Address::Ip(ip) = workload.address {
                self.workload_addresses.insert(ip, id.clone());
            }
            self.workloads.insert(id.clone(), workload);
        }
    }

    /// Adds, replaces or removes a WorkloadGroup.
    pub fn put_workload_group(&mut self, id: &ObjectId, group: Option<Arc<WorkloadGroup>>) {
        match group {
            Some(group) => self.workload_groups.insert(id.clone(), group),
            None => self.workload_groups.remove(id),
        };
    }

    /// Replaces `old` by `new` under the hosts of each.
    pub fn replace_virtual_service(
        &mut self,
        old: Option<(&Rank, &VirtualService)>,
        new: Option<(&Rank, &Arc<VirtualService>)>,
    ) {
        if let Some((rank, rule)) = old {
            rule.hosts
                .iter()
                .for_each(|host| drop_ranked(&mut self.virtual_services, host, rank, &rule.id));
            rule.source_labels()
                .for_each(|(key, value)| uncount(&mut self.client_labels, &(key.clone(), Some(value.clone()))));
        }
        if let Some((rank, rule)) = new {
            for (key, value) in rule.source_labels() {
                let label = (key.clone(), Some(value.clone()));
                *self.client_labels.entry(label).or_default() += 1;
            }
            for host in &rule.hosts {
                self.virtual_services
                    .entry(host.clone())
                    .or_default()
                    .insert((rank.clone(), rule.id.clone()), rule.clone());
            }
        }
    }

    /// Replaces `old` by `new` under the host of each.
    pub fn replace_destination_rule(
        &mut self,
        old: Option<(&Rank, &DestinationRule)>,
        new: Option<(&Rank, &Arc<DestinationRule>)>,
    ) {
        if let Some((rank, rule)) = old {
            drop_ranked(&mut self.destination_rules, &rule.host, rank, &rule.id);
            rule.failover_labels()
                .for_each(|key| uncount(&mut self.client_labels, &(key.into(), None)));
        }
        if let Some((rank, rule)) = new {
            rule.failover_labels()
                .for_each(|key| *self.client_labels.entry((key.into(), None)).or_default() += 1);
            self.destination_rules
                .entry(rule.host.clone())
                .or_default()
                .insert((rank.clone(), rule.id.clone()), rule.clone());
        }
    }

    /// Replaces `old` by `new`.
    pub fn replace_sidecar(&mut self, old: Option<(&Rank, &Sidecar)>, new: Option<(&Rank, &Arc<Sidecar>)>) {
        if let Some((rank, sidecar)) = old {
            drop_ranked(&mut self.sidecars, &sidecar.id.namespace, rank, &sidecar.id);
        }
        if let Some((rank, sidecar)) = new {
            self.sidecars
                .entry(sidecar.id.namespace.clone())
                .or_default()
                .insert((rank.clone(), sidecar.id.clone()), sidecar.clone());
        }
    }

    /// Replaces `old` by `new`.
    pub fn replace_peer_authentication(
        &mut self,
        old: Option<(&Rank, &PeerAuthentication)>,
        new: Option<(&Rank, &Arc<PeerAuthentication>)>,
    ) {
        if let Some((rank, policy)) = old {
            drop_ranked(&mut self.peer_authentications, &policy.id.namespace, rank, &policy.id);
        }
        if let Some((rank, policy)) = new {
            self.peer_authentications
                .entry(policy.id.namespace.clone())
                .or_default()
                .insert((rank.clone(), policy.id.clone()), policy.clone());
        }
    }
}

fn endpoint_addresses(service: &Service) -> impl Iterator<Item = IpAddr> {
    service.endpoints.iter().filter_map(|endpoint| match &endpoint.address {
        Address::Ip(ip) => Some(*ip),
        Address::Name(_) | Address::Unix(_) => None,
    })
}

/// Labels by which a service's `trafficDistribution` distinguishes clients.
fn distribution_labels(service: &Service) -> impl Iterator<Item = ClientLabel> + use<> {
    let setting = service.traffic_distribution.locality_lb();
    let labels = setting.into_iter().flat_map(|setting| setting.failover_labels());
    labels.map(|label| (label.into(), None))
}

fn uncount(counts: &mut OrdMap<ClientLabel, usize>, label: &ClientLabel) {
    let Some(count) = counts.get_mut(label) else { return };
    *count -= 1;
    if *count == 0 {
        counts.remove(label);
    }
}

fn drop_ranked<K: Ord + Clone, T>(index: &mut OrdMap<K, Ranked<T>>, key: &K, rank: &Rank, id: &ObjectId) {
    let Some(values) = index.get_mut(key) else { return };
    values.remove(&(rank.clone(), id.clone()));
    if values.is_empty() {
        index.remove(key);
    }
}
