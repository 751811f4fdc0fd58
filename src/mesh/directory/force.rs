//! Puts forms of objects in force: updates the indexes, and records which dependents must be
//! updated.

use std::sync::Arc;

use super::edit::Edit;
use super::index::{SourceRef, ip};
use crate::mesh::destination_rule::DestinationRule;
use crate::mesh::lower::Form;
use crate::mesh::lower::endpoint_slice::EndpointSource;
use crate::mesh::lower::service::ServiceSource;
use crate::mesh::peer_authentication::PeerAuthentication;
use crate::mesh::service::ServiceKey;
use crate::mesh::sidecar::Sidecar;
use crate::mesh::workload::Workload;
use crate::mesh::{Labels, Rank, selects};
use crate::name::{Hostname, Kind, Namespace, ObjectId};

/// A form with its rank, before and after an edit.
struct Move<'m, T> {
    id: &'m ObjectId,
    before: Option<(&'m Rank, &'m Arc<T>)>,
    after: Option<(&'m Rank, &'m Arc<T>)>,
}

impl<'m, T> Move<'m, T> {
    fn forms(&self) -> impl Iterator<Item = &'m Arc<T>> {
        self.before.into_iter().chain(self.after).map(|(_, form)| form)
    }
}

impl Edit<'_> {
    /// Determines which form of an object is in force: the written one, or the last good one if it
    /// has errors. VirtualServices are determined later, when all their targets are known.
    pub(super) fn put_in_force(&mut self, id: &ObjectId) {
        if id.kind == Kind::VirtualService {
            self.routes.insert(id.clone());
            return;
        }
        self.update(id, |entry| {
            if let Some(candidate) = entry.candidate() {
                entry.in_force = Some(candidate);
            }
        });
        let before = self.before(id).and_then(|entry| entry.ranked_form());
        let entry = self.new.entries.get(id).cloned();
        let after = entry.as_ref().and_then(|entry| entry.ranked_form());
        if before == after {
            return;
        }
        self.recheck.insert(id.clone());
        self.replace(id, before, after);
    }

    fn replace(&mut self, id: &ObjectId, before: Option<(&Rank, &Form)>, after: Option<(&Rank, &Form)>) {
        fn of<'m, T>(
            id: &'m ObjectId,
            before: Option<(&'m Rank, &'m Form)>,
            after: Option<(&'m Rank, &'m Form)>,
            pick: impl Fn(&'m Form) -> Option<&'m Arc<T>>,
        ) -> Move<'m, T> {
            let pick = |side: Option<(&'m Rank, &'m Form)>| side.and_then(|(rank, form)| Some((rank, pick(form)?)));
            Move {
                id,
                before: pick(before),
                after: pick(after),
            }
        }
        match id.kind {
            Kind::Service | Kind::ServiceEntry => self.move_service(&of(id, before, after, Form::service)),
            Kind::EndpointSlice | Kind::Endpoints => self.move_endpoints(&of(id, before, after, Form::endpoints)),
            Kind::WorkloadEntry => self.move_workload(&of(id, before, after, Form::workload)),
            Kind::WorkloadGroup => {
                // Not part of any proxy's configuration: it is used when a workload registers.
                let group = after.and_then(|(_, form)| form.workload_group());
                self.new.mesh.put_workload_group(id, group.cloned());
            }
            Kind::Sidecar => self.move_sidecar(&of(id, before, after, Form::sidecar)),
            Kind::DestinationRule => self.move_rule(&of(id, before, after, Form::destination_rule)),
            Kind::PeerAuthentication => self.move_policy(&of(id, before, after, Form::peer_authentication)),
            Kind::ConfigMap | Kind::VirtualService => {}
        }
    }

    fn move_service(&mut self, moved: &Move<'_, ServiceSource>) {
        let reference = |rank: &Rank, source: &ServiceSource| SourceRef {
            entry: !source.kubernetes,
            rank: rank.clone(),
            id: source.id.clone(),
        };
        if let Some((rank, source)) = moved.before {
            for key in &source.keys {
                self.new.index.remove_source(key, &reference(rank, source));
            }
        }
        if let Some((rank, source)) = moved.after {
            for key in &source.keys {
                self.new.index.add_source(key, reference(rank, source));
            }
        }
        let selector = moved.after.and_then(|(_, source)| source.selector.as_ref());
        self.new.index.selectors.put(moved.id, selector);
        for key in moved.forms().flat_map(|source| &source.keys) {
            self.services.insert(key.clone());
            self.definition_changed(&key.host);
        }
        if moved.id.kind == Kind::Service {
            let name = (moved.id.namespace.clone(), moved.id.name.clone());
            self.recheck.extend(self.new.index.slices.get(&name).cloned());
        }
    }

    /// Schedules checks of what refers to a host and of its other definitions.
    fn definition_changed(&mut self, host: &Hostname) {
        self.affected.extend(self.new.index.referrers.get(host).cloned());
        self.recheck.extend(self.new.index.egress_proxies.get(host).cloned());
        let routes = self.new.mesh.virtual_services_naming(host);
        self.recheck.extend(routes.map(|rules| rules.id.clone()));
        let namespaces = self.new.index.namespaces.get(host).map(|namespace| ServiceKey {
            host: host.clone(),
            namespace: namespace.clone(),
        });
        for key in namespaces {
            let sources = self.new.index.sources.get(&key).map(|source| source.id.clone());
            self.recheck.extend(sources);
        }
    }

    fn move_endpoints(&mut self, moved: &Move<'_, EndpointSource>) {
        let ips = |source: &EndpointSource| -> Vec<_> {
            let endpoints = source.groups.iter().flat_map(|group| &group.endpoints);
            endpoints.map(|endpoint| endpoint.ip).collect()
        };
        if let Some((_, source)) = moved.before {
            self.new.index.slices.remove(&service_name(source), moved.id);
            for ip in ips(source) {
                self.new.index.slice_addresses.remove(&ip, moved.id);
            }
        }
        if let Some((_, source)) = moved.after {
            self.new.index.slices.insert(service_name(source), moved.id.clone());
            for ip in ips(source) {
                self.new.index.slice_addresses.insert(ip, moved.id.clone());
            }
        }
        for source in moved.forms() {
            self.link_slice(source);
        }
    }

    /// Schedules linking of the Service of an EndpointSlice.
    fn link_slice(&mut self, source: &EndpointSource) {
        let service = ObjectId {
            kind: Kind::Service,
            namespace: source.id.namespace.clone(),
            name: source.service.clone(),
        };
        self.link_object(&service);
        self.recheck.insert(source.id.clone());
    }

    /// Schedules linking of the services an object defines.
    fn link_object(&mut self, id: &ObjectId) {
        let live = self.new.form(id).and_then(Form::service);
        let retained = self.new.retained_hosts().filter(|source| source.id == *id);
        let keys = live.into_iter().chain(retained).flat_map(|source| &source.keys);
        self.services.extend(keys.cloned());
    }

    fn move_workload(&mut self, moved: &Move<'_, Workload>) {
        let labels = |side: Option<(&Rank, &Arc<Workload>)>| side.map(|(_, workload)| workload.labels.clone());
        let (before, after) = (labels(moved.before), labels(moved.after));
        self.new.index.labels.put(moved.id, before.as_deref(), after.as_deref());
        if let Some(ip) = moved.before.and_then(|(_, workload)| ip(&workload.address)) {
            self.new.index.addresses.remove(&ip, moved.id);
        }
        if let Some(ip) = moved.after.and_then(|(_, workload)| ip(&workload.address)) {
            self.new.index.addresses.insert(ip, moved.id.clone());
        }
        let after = moved.after.map(|(_, workload)| workload.clone());
        self.new.mesh.put_workload(moved.id, after);
        self.touched.workloads = true;
        for workload in moved.forms() {
            self.workload_changed(&moved.id.namespace, workload);
        }
    }

    fn workload_changed(&mut self, namespace: &Namespace, workload: &Workload) {
        let selecting = self.new.index.selectors.selecting(namespace, &workload.labels);
        for id in selecting.into_iter().cloned().collect::<Vec<_>>() {
            self.link_object(&id);
            self.recheck.insert(id);
        }
        let retained = self.new.retained_hosts().filter(|source| {
            let selector = source.selector.as_ref();
            source.id.namespace == *namespace && selector.is_some_and(|selector| selects(selector, &workload.labels))
        });
        self.services.extend(retained.flat_map(|source| &source.keys).cloned());
        let Some(ip) = ip(&workload.address) else { return };
        self.touched.addresses.insert(ip);
        let slices: Vec<ObjectId> = self.new.index.slice_addresses.get(&ip).cloned().collect();
        for id in slices {
            if let Some(source) = self.new.form(&id).and_then(Form::endpoints).cloned() {
                self.link_slice(&source);
            }
        }
    }

    fn move_sidecar(&mut self, moved: &Move<'_, Sidecar>) {
        let before = moved.before.map(|(rank, sidecar)| (rank, &**sidecar));
        self.new.mesh.replace_sidecar(before, moved.after);
        self.touched.sidecars = true;
        if let Some(proxy) = moved.before.and_then(|(_, sidecar)| sidecar.egress_proxy()) {
            self.new.index.egress_proxies.remove(&proxy.host, moved.id);
        }
        if let Some(proxy) = moved.after.and_then(|(_, sidecar)| sidecar.egress_proxy()) {
            self.new
                .index
                .egress_proxies
                .insert(proxy.host.clone(), moved.id.clone());
        }
        let selector = moved.after.and_then(|(_, sidecar)| sidecar.selector.as_ref());
        self.new.index.selectors.put(moved.id, selector);
        self.policy_changed(moved.id, moved.after.is_some());
        let selectors: Vec<Labels> = moved.forms().filter_map(|sidecar| sidecar.selector.clone()).collect();
        for selector in selectors {
            self.recheck_sidecars(&moved.id.namespace, &selector);
        }
    }

    /// Schedules checks of Sidecars that may select the same workloads.
    fn recheck_sidecars(&mut self, namespace: &Namespace, selector: &Labels) {
        let workloads = self.new.selected(namespace, selector);
        let ids = workloads.flat_map(|workload| self.new.index.selectors.selecting(namespace, &workload.labels));
        let sidecars: Vec<ObjectId> = ids.filter(|id| id.kind == Kind::Sidecar).cloned().collect();
        self.recheck.extend(sidecars);
    }

    fn move_rule(&mut self, moved: &Move<'_, DestinationRule>) {
        if let Some((_, rule)) = moved.before {
            self.new.index.rules.remove(&rule.host, moved.id);
        }
        if let Some((_, rule)) = moved.after {
            self.new.index.rules.insert(rule.host.clone(), moved.id.clone());
        }
        self.rules.insert(moved.id.clone());
        for rule in moved.forms() {
            let index = &self.new.index;
            self.affected.extend(index.referrers.covered_by(&rule.host).cloned());
            self.recheck
                .extend(index.egress_proxies.covered_by(&rule.host).cloned());
        }
    }

    fn move_policy(&mut self, moved: &Move<'_, PeerAuthentication>) {
        let before = moved.before.map(|(rank, policy)| (rank, &**policy));
        self.new.mesh.replace_peer_authentication(before, moved.after);
        // The workloads concerned are not known here: some are known by their tokens only.
        let scopes = moved
            .forms()
            .map(|policy| policy.scope(&self.new.context.config.root_namespace));
        let scopes: Vec<_> = scopes.collect();
        self.touched.policies.extend(scopes);
        self.policy_changed(moved.id, moved.after.is_some());
    }

    /// Schedules checks of all objects of the kind in the namespace.
    fn policy_changed(&mut self, id: &ObjectId, is_there: bool) {
        let scope = (id.kind, id.namespace.clone());
        if is_there {
            self.new.index.policies.insert(scope.clone(), id.clone());
        } else {
            self.new.index.policies.remove(&scope, id);
        }
        let general: Vec<ObjectId> = self.new.index.policies.get(&scope).cloned().collect();
        self.recheck.extend(general);
    }
}

fn service_name(source: &EndpointSource) -> (Namespace, Arc<str>) {
    (source.id.namespace.clone(), source.service.clone())
}
