//! Updates the mesh with what is in force or retained, and records what is touched.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Directory;
use super::edit::Edit;
use super::index::{SourceRef, ip};
use super::retain::folded;
use crate::mesh::destination_rule::{DestinationRule, PolicyWithPorts};
use crate::mesh::link::{Parts, link};
use crate::mesh::lower::Form;
use crate::mesh::lower::endpoint_slice::EndpointSource;
use crate::mesh::lower::service::ServiceSource;
use crate::mesh::peer_authentication::hosts_affected;
use crate::mesh::service::{Endpoint, Service, ServiceKey};
use crate::mesh::store::covering_hosts;
use crate::mesh::virtual_service::VirtualService;
use crate::mesh::workload::Workload;
use crate::mesh::{Labels, Rank, selects};
use crate::name::{Hostname, Namespace, ObjectId};

/// The port on which hosts of VirtualServices without a service are served.
const HTTP: u16 = 80;

impl Edit<'_> {
    /// Updates the mesh.
    pub(super) fn serve(&mut self) {
        for key in std::mem::take(&mut self.services) {
            self.serve_service(&key);
        }
        for id in std::mem::take(&mut self.rules) {
            self.serve_rule(&id);
        }
        for id in self.routes.clone() {
            self.serve_routes(&id);
        }
    }

    fn serve_service(&mut self, key: &ServiceKey) {
        let before = self.new.mesh.service_at(key).cloned();
        let rank_before = self.new.mesh.service_rank(key).cloned();
        let after = self.new.link(key);
        let same = match (&before, &after) {
            (Some(before), Some((_, after))) => **before == *after,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if same && rank_before.as_ref() == after.as_ref().map(|(rank, _)| rank) {
            return;
        }
        self.recheck_rules(&key.host);
        self.touch_service(key, before.as_deref(), after.as_ref().map(|(_, service)| service));
        let shared = after.map(|(rank, service)| match before {
            Some(before) if same => (rank, before),
            Some(_) | None => (rank, Arc::new(service)),
        });
        self.new.mesh.put_service(key, shared);
    }

    /// Adds the services whose outbound configuration depends on changed PeerAuthentications.
    pub(super) fn touch_endpoints_of_policies(&mut self) {
        if !self.afresh {
            let affected = hosts_affected(&self.old.mesh, &self.new.mesh, &self.touched.policies);
            self.touched.hosts.extend(affected);
        }
    }

    fn touch_service(&mut self, key: &ServiceKey, before: Option<&Service>, after: Option<&Service>) {
        let sides = || before.into_iter().chain(after);
        self.touched.hosts.insert(key.host.clone());
        self.touched
            .hosts
            .extend(sides().filter_map(|service| service.alias.clone()));
        self.touched
            .ports
            .extend(sides().flat_map(|service| &service.ports).map(|port| port.number));
        if before.is_none() || after.is_none() {
            self.touched.ports.insert(HTTP);
        }
        let same_but_endpoints = before
            .zip(after)
            .is_some_and(|(before, after)| before.without_endpoints() == after.without_endpoints());
        let endpoints = |service: Option<&Service>| -> HashSet<Endpoint> {
            service
                .iter()
                .flat_map(|service| service.endpoints.iter().cloned())
                .collect()
        };
        let (before, after) = (endpoints(before), endpoints(after));
        let differ: Vec<&Endpoint> = if same_but_endpoints {
            before.symmetric_difference(&after).collect()
        } else {
            before.union(&after).collect()
        };
        let addresses: Vec<IpAddr> = differ
            .into_iter()
            .filter_map(|endpoint| ip(&endpoint.address))
            .collect();
        self.touched.addresses.extend(addresses);
    }

    /// Schedules checks of the DestinationRules for a host.
    fn recheck_rules(&mut self, host: &Hostname) {
        for candidate in covering_hosts(host) {
            self.recheck.extend(self.new.index.rules.get(&candidate).cloned());
        }
    }

    fn serve_rule(&mut self, id: &ObjectId) {
        let before = self.new.served_rules.get(id).cloned().unwrap_or_default();
        let after = self.new.rules_to_serve(id);
        if before == after {
            return;
        }
        for (rank, rule) in &before {
            self.new.mesh.replace_destination_rule(Some((rank, rule)), None);
        }
        for (rank, rule) in &after {
            self.new.mesh.replace_destination_rule(None, Some((rank, rule)));
        }
        let hosts: BTreeSet<Hostname> = before.iter().chain(&after).map(|(_, rule)| rule.host.clone()).collect();
        for host in &hosts {
            let rivals = self.new.mesh.destination_rules_naming(host).map(|rule| rule.id.clone());
            self.recheck.extend(rivals);
        }
        self.touched.hosts.extend(hosts);
        if after.is_empty() {
            self.new.served_rules.remove(id);
        } else {
            self.new.served_rules.insert(id.clone(), after);
        }
    }

    fn serve_routes(&mut self, id: &ObjectId) {
        let side = |(rank, form)| Form::virtual_service(form).map(|rules| (rank, rules));
        let before = self.before(id).and_then(|entry| entry.ranked_form()).and_then(side);
        let entry = self.new.entries.get(id).cloned();
        let after = entry.as_ref().and_then(|entry| entry.ranked_form()).and_then(side);
        if before != after {
            let before = before.map(|(rank, rules)| (rank, &**rules));
            self.new.mesh.replace_virtual_service(before, after);
        } else if !self.affected.contains(id) {
            return;
        }
        for (_, rules) in before.into_iter().chain(after) {
            self.touch_routes(rules, before != after);
        }
    }

    fn touch_routes(&mut self, rules: &VirtualService, changed: bool) {
        for host in &rules.hosts {
            self.touched.hosts.insert(host.clone());
            if !self.new.mesh.has_host(host) {
                self.touched.ports.insert(HTTP);
            }
            if changed {
                let rivals = self
                    .new
                    .mesh
                    .virtual_services_naming(host)
                    .map(|rules| rules.id.clone());
                self.recheck.extend(rivals);
            }
        }
        if changed {
            let destinations = rules.destinations().map(|destination| destination.host.clone());
            self.touched.hosts.extend(destinations);
        }
    }
}

impl Directory {
    /// Links a service; also returns its rank.
    fn link(&self, key: &ServiceKey) -> Option<(Rank, Service)> {
        let live: Vec<&SourceRef> = self.index.sources.get(key).collect();
        let mut sources: Vec<&Arc<ServiceSource>> = live
            .iter()
            .filter_map(|source| self.form(&source.id)?.service())
            .collect();
        let retained = sources.is_empty();
        if retained {
            sources = self.retained_sources(key);
        }
        let rank = match live.first() {
            Some(first) => first.rank.clone(),
            None => Rank::retained(&sources.first()?.id),
        };
        let parts = Parts {
            key,
            slices: self.slices(key, &sources, retained),
            retained_ports: self.retained_ports(&key.host),
            sources: sources
                .into_iter()
                .map(|source| (source, self.selected_by(source)))
                .collect(),
        };
        let service = link(&parts, &|ip| self.workload_at(ip, &key.namespace))?;
        Some((rank, service))
    }

    /// EndpointSlices of a Kubernetes Service, including those retained with it.
    fn slices<'d>(
        &'d self,
        key: &ServiceKey,
        sources: &[&Arc<ServiceSource>],
        retained: bool,
    ) -> Vec<&'d Arc<EndpointSource>> {
        let kubernetes = sources.iter().filter(|source| source.kubernetes);
        let mut found: Vec<&Arc<EndpointSource>> = kubernetes
            .flat_map(|source| {
                let name = (source.id.namespace.clone(), source.id.name.clone());
                self.index.slices.get(&name).collect::<Vec<_>>()
            })
            .filter_map(|id| self.form(id)?.endpoints())
            .collect();
        if retained {
            let gone = self
                .retained_slices(key)
                .into_iter()
                .filter(|slice| self.entry(&slice.id).is_none());
            found.extend(gone.collect::<Vec<_>>());
        }
        found
    }

    fn selected_by(&self, source: &ServiceSource) -> Vec<&Arc<Workload>> {
        let selector = source.selector.as_ref();
        let selected = selector.map(|selector| self.selected(&source.id.namespace, selector));
        selected.into_iter().flatten().collect()
    }

    /// The workloads of a namespace that match a selector, ordered by id.
    pub(super) fn selected<'d, 's>(
        &'d self,
        namespace: &Namespace,
        selector: &'s Labels,
    ) -> impl Iterator<Item = &'d Arc<Workload>> + use<'d, 's> {
        let candidates = self.index.labels.candidates(namespace, selector);
        let workloads = candidates.filter_map(|id| self.form(id)?.workload());
        workloads.filter(move |workload| selects(selector, &workload.labels))
    }

    /// The workload at an address, preferably in this namespace.
    fn workload_at(&self, ip: IpAddr, namespace: &Namespace) -> Option<&Arc<Workload>> {
        let ids = self.index.addresses.get(&ip);
        let id = ids.min_by_key(|id| (id.namespace != *namespace, *id))?;
        self.form(id)?.workload()
    }

    /// A DestinationRule with its retained subsets. These form a rule of their own if the rule was
    /// removed, changed its host, or is no longer the most specific for the host.
    fn rules_to_serve(&self, id: &ObjectId) -> Vec<(Rank, Arc<DestinationRule>)> {
        let live = self.entry(id).and_then(|entry| entry.ranked_form());
        let live = live.and_then(|(rank, form)| Some((rank, form.destination_rule()?)));
        let mut rules: Vec<(Rank, Arc<DestinationRule>)> = Vec::new();
        rules.extend(live.map(|(rank, rule)| (rank.clone(), rule.clone())));
        for (host, last, subset) in self.retained_subsets(id) {
            match rules.iter_mut().find(|(_, rule)| rule.host == host) {
                Some((_, rule)) => {
                    let inherits = live.is_some_and(|(_, live)| live.host == rule.host);
                    let subset = if inherits {
                        subset
                    } else {
                        folded(&subset, &last.policy)
                    };
                    Arc::make_mut(rule).subsets.push(subset);
                }
                None => {
                    let alone = DestinationRule {
                        host,
                        subsets: vec![folded(&subset, &last.policy)],
                        policy: PolicyWithPorts::default(),
                        ..DestinationRule::clone(&last)
                    };
                    rules.push((Rank::retained(id), Arc::new(alone)));
                }
            }
        }
        rules
    }
}
