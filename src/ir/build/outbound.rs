//! The outbound part of the configuration, shared by proxies with the same outbound view. It
//! consists of units by host and by port; an edit rebuilds only those it touches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::Conflict;
use super::cluster::{self, HostUnit};
use super::fixed;
use super::import::Imports;
use super::port::{self, PortKey, PortUnit};
use super::scope::Scope;
use super::view::OutboundView;
use crate::ir::node::InterceptionMode;
use crate::ir::{NodeConfig, ResourceName};
use crate::mesh::config::MeshConfig;
use crate::mesh::service::Service;
use crate::mesh::sidecar::Sidecar;
use crate::mesh::{Mesh, Touched};
use crate::name::Hostname;

/// Outbound configuration of all proxies with one view.
#[derive(Clone, Debug)]
pub struct Outbound {
    view: OutboundView,
    sidecar: Option<Arc<Sidecar>>,
    settings: Arc<MeshConfig>,
    imports: Imports,
    orphans: OrdSet<Hostname>,
    hosts: OrdMap<Hostname, Arc<HostUnit>>,
    ports: OrdMap<PortKey, Arc<PortUnit>>,
    readers: OrdMap<Hostname, OrdSet<PortKey>>,
    sockets: OrdSet<ResourceName>,
    /// Ports with conflicts.
    crowded: OrdSet<PortKey>,
    config: NodeConfig,
}

/// Builds the outbound part from scratch.
pub fn build_outbound(mesh: &Mesh, view: &OutboundView) -> Outbound {
    let mut outbound = Outbound {
        view: view.clone(),
        sidecar: None,
        settings: mesh.config.clone(),
        imports: Imports::default(),
        orphans: OrdSet::new(),
        hosts: OrdMap::new(),
        ports: OrdMap::new(),
        readers: OrdMap::new(),
        sockets: OrdSet::new(),
        crowded: OrdSet::new(),
        config: NodeConfig::default(),
    };
    outbound.rebuild(mesh);
    outbound
}

impl Outbound {
    /// Updates the part after an edit. Unchanged values keep their `Arc`; if nothing changed,
    /// returns `self`.
    pub fn update(self: &Arc<Self>, mesh: &Mesh, view: &OutboundView, touched: &Touched) -> Arc<Outbound> {
        let mut next = Outbound::clone(self);
        next.view = view.clone();
        let sidecar = sidecar_of(mesh, view);
        let other = *view != self.view || sidecar != self.sidecar || *mesh.config != *self.settings;
        if touched.all || other {
            next.rebuild(mesh);
        } else {
            next.apply(mesh, touched);
        }
        match next.is_same(self) {
            true => self.clone(),
            false => Arc::new(next),
        }
    }

    /// The view it was built for.
    pub fn view(&self) -> &OutboundView {
        &self.view
    }

    /// Its clusters, endpoints, listeners and routes.
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// Listeners that bind a socket, except `virtualOutbound`.
    pub(super) fn sockets(&self) -> impl Iterator<Item = &ResourceName> {
        self.sockets.iter()
    }

    /// Services that lost an address conflict.
    pub(super) fn conflicts(&self) -> impl Iterator<Item = &Conflict> {
        let crowded = self.crowded.iter().filter_map(|key| self.ports.get(key));
        crowded.flat_map(|unit| &unit.conflicts)
    }

    /// Whether nothing was replaced, including the state for later updates.
    fn is_same(&self, other: &Self) -> bool {
        let (config, its) = (&self.config, &other.config);
        self.view == other.view
            && self.sidecar == other.sidecar
            && Arc::ptr_eq(&self.settings, &other.settings)
            && self.imports.is_same(&other.imports)
            && self.orphans.ptr_eq(&other.orphans)
            && self.hosts.ptr_eq(&other.hosts)
            && self.ports.ptr_eq(&other.ports)
            && config.clusters.ptr_eq(&its.clusters)
            && config.listeners.ptr_eq(&its.listeners)
    }

    fn scope<'a>(&'a self, mesh: &'a Mesh) -> Scope<'a> {
        Scope {
            mesh,
            view: &self.view,
            sidecar: self.sidecar.as_deref(),
            imports: &self.imports,
        }
    }

    /// Rebuilds all units, keeping values that turn out equal.
    fn rebuild(&mut self, mesh: &Mesh) {
        self.sidecar = sidecar_of(mesh, &self.view);
        self.settings = mesh.config.clone();
        self.find_imports(mesh);
        self.find_orphans(mesh);
        let known = self.hosts.keys().cloned();
        let hosts: BTreeSet<Hostname> = known
            .chain(mesh.services().map(|service| service.key.host.clone()))
            .collect();
        let dedicated: Vec<PortKey> = self.scope(mesh).dedicated_keys().collect();
        let keys = self.ports.keys().cloned().chain(mesh.ports().map(PortKey::Port));
        let keys: BTreeSet<PortKey> = keys.chain(dedicated).collect();
        self.put_fixed(mesh);
        hosts.iter().for_each(|host| self.put_host(mesh, host));
        keys.iter().for_each(|key| self.put_port(mesh, key));
    }

    /// Rebuilds the units an edit touched.
    fn apply(&mut self, mesh: &Mesh, touched: &Touched) {
        self.settings = mesh.config.clone();
        let mut hosts = self.expand(mesh, &touched.hosts);
        let mut keys: BTreeSet<PortKey> = touched.ports.iter().copied().map(PortKey::Port).collect();
        for host in &touched.hosts {
            hosts.extend(self.refresh_imports(mesh, host));
        }
        for host in &hosts {
            if self.refresh_orphan(mesh, host) {
                keys.insert(PortKey::Port(80));
            }
            keys.extend(self.readers.get(host).into_iter().flatten().cloned());
            keys.extend(ports_of(mesh, host).map(PortKey::Port));
            self.put_host(mesh, host);
        }
        for wildcard in covering_rules(mesh, &hosts) {
            let was = self.orphans.contains(&wildcard);
            self.refresh_orphan(mesh, &wildcard);
            if was != self.orphans.contains(&wildcard) {
                keys.insert(PortKey::Port(80));
                keys.extend(self.readers.get(&wildcard).into_iter().flatten().cloned());
            }
        }
        if !hosts.is_empty() || !keys.is_empty() {
            keys.extend(self.wide_keys(mesh));
        }
        keys.iter().for_each(|key| self.put_port(mesh, key));
    }

    /// The touched hosts, including all hosts matched by wildcards among them.
    fn expand(&self, mesh: &Mesh, touched: &BTreeSet<Hostname>) -> BTreeSet<Hostname> {
        let mut hosts = touched.clone();
        let wildcards: Vec<&Hostname> = touched.iter().filter(|host| host.is_wildcard()).collect();
        if !wildcards.is_empty() {
            let known = self.hosts.keys().chain(self.readers.keys()).chain(self.orphans.iter());
            let all = known.chain(mesh.services().map(|service| &service.key.host));
            hosts.extend(
                all.filter(|host| wildcards.iter().any(|wildcard| wildcard.covers(host)))
                    .cloned(),
            );
        }
        hosts
    }

    /// Listeners for several ports depend on every service.
    fn wide_keys(&self, mesh: &Mesh) -> Vec<PortKey> {
        let scope = self.scope(mesh);
        let wide = |key: &PortKey| {
            let socket = matches!(key, PortKey::Unix(_));
            socket || scope.dedicated(key).is_some_and(|egress| egress.any_port())
        };
        scope.dedicated_keys().filter(wide).collect()
    }

    fn find_imports(&mut self, mesh: &Mesh) {
        let mut imports = Imports::default();
        let scope = self.scope(mesh);
        if scope.is_limited() {
            for (host, _) in mesh.virtual_service_hosts() {
                imports.refresh(&scope, host);
            }
        }
        if imports != self.imports {
            self.imports = imports;
        }
    }

    /// Hosts whose visibility changed with the VirtualServices for `host`.
    fn refresh_imports(&mut self, mesh: &Mesh, host: &Hostname) -> BTreeSet<Hostname> {
        let mut imports = std::mem::take(&mut self.imports);
        let scope = self.scope(mesh);
        let changed = match scope.is_limited() {
            true => imports.refresh(&scope, host),
            false => BTreeSet::new(),
        };
        self.imports = imports;
        changed
    }

    fn find_orphans(&mut self, mesh: &Mesh) {
        let scope = self.scope(mesh);
        let named = mesh.virtual_service_hosts().map(|(host, _)| host);
        let orphans = named.filter(|host| is_orphan(&scope, host)).cloned().collect();
        if self.orphans != orphans {
            self.orphans = orphans;
        }
    }

    /// Re-evaluates whether a host is an orphan; returns whether it was or is one.
    fn refresh_orphan(&mut self, mesh: &Mesh, host: &Hostname) -> bool {
        let is = is_orphan(&self.scope(mesh), host);
        let was = self.orphans.contains(host);
        match (was, is) {
            (false, true) => {
                self.orphans.insert(host.clone());
            }
            (true, false) => {
                self.orphans.remove(host);
            }
            (true, true) | (false, false) => {}
        }
        was || is
    }

    fn put_fixed(&mut self, mesh: &Mesh) {
        let scope = self.scope(mesh);
        let intercepted = self.view.mode != InterceptionMode::None;
        let listener = fixed::virtual_outbound(&self.view, &mesh.config, &scope.outbound_policy());
        let name = listener.name.clone();
        match intercepted {
            true => put(&mut self.config.listeners, name, Arc::new(listener)),
            false if self.config.listeners.contains_key(&name) => drop(self.config.listeners.remove(&name)),
            false => {}
        }
        for cluster in [fixed::passthrough(&mesh.config), fixed::black_hole(&mesh.config)] {
            put(&mut self.config.clusters, cluster.name.clone(), Arc::new(cluster));
        }
    }

    fn put_host(&mut self, mesh: &Mesh, host: &Hostname) {
        let new = cluster::host_unit(&self.scope(mesh), host);
        let old = self.hosts.get(host).cloned().unwrap_or_default();
        if *old == new {
            return;
        }
        replace(&mut self.config.clusters, old.clusters.keys(), &new.clusters);
        replace(&mut self.config.endpoints, old.endpoints.keys(), &new.endpoints);
        match new.clusters.is_empty() {
            true => self.hosts.remove(host),
            false => self.hosts.insert(host.clone(), Arc::new(new)),
        };
    }

    fn put_port(&mut self, mesh: &Mesh, key: &PortKey) {
        let old = self.ports.get(key).cloned().unwrap_or_default();
        let new = port::port_unit(self.scope(mesh), &self.orphans, key).keeping(&old);
        if *old == new {
            return;
        }
        replace(&mut self.config.listeners, old.listeners.keys(), &new.listeners);
        replace(&mut self.config.routes, old.routes.keys(), &new.routes);
        for name in old.listeners.keys() {
            self.sockets.remove(name);
        }
        let bound = new.listeners.iter().filter(|(_, listener)| listener.bind);
        self.sockets.extend(bound.map(|(name, _)| name.clone()));
        match new.conflicts.is_empty() {
            true => self.crowded.remove(key),
            false => self.crowded.insert(key.clone()),
        };
        for gone in old.reads.difference(&new.reads) {
            forget(&mut self.readers, gone, key);
        }
        for come in new.reads.difference(&old.reads) {
            self.readers.entry(come.clone()).or_default().insert(key.clone());
        }
        match new == PortUnit::default() {
            true => self.ports.remove(key),
            false => self.ports.insert(key.clone(), Arc::new(new)),
        };
    }
}

fn sidecar_of(mesh: &Mesh, view: &OutboundView) -> Option<Arc<Sidecar>> {
    let id = view.sidecar.as_ref()?;
    mesh.sidecars_of(&id.namespace)
        .find(|sidecar| sidecar.id == *id)
        .cloned()
}

/// Whether a visible VirtualService exists for the host, but no visible service.
fn is_orphan(scope: &Scope<'_>, host: &Hostname) -> bool {
    let named = scope.mesh.virtual_services_naming(host).any(|rule| scope.takes(rule));
    named && !has_service(scope, host)
}

fn has_service(scope: &Scope<'_>, host: &Hostname) -> bool {
    match host.is_wildcard() {
        false => scope.service(host).is_some(),
        true => {
            let below = |service: &&Arc<Service>| host.covers(&service.key.host);
            let mut services = scope.mesh.services().filter(below);
            services.any(|service| scope.service(&service.key.host).is_some())
        }
    }
}

/// Wildcard hosts of VirtualServices that match one of the hosts.
fn covering_rules(mesh: &Mesh, hosts: &BTreeSet<Hostname>) -> Vec<Hostname> {
    // Wildcards sort before all other hosts.
    let named = mesh.virtual_service_hosts().map(|(host, _)| host);
    let wildcards = named.take_while(|host| host.is_wildcard());
    let covering = wildcards.filter(|wildcard| hosts.iter().any(|host| wildcard.covers(host)));
    covering.cloned().collect()
}

/// Ports of the services of this host.
fn ports_of(mesh: &Mesh, host: &Hostname) -> impl Iterator<Item = u16> {
    let services = mesh.services_named(host);
    services.flat_map(|(_, service)| service.ports.iter().map(|port| port.number))
}

/// Inserts a value unless an equal one exists.
fn put<T: PartialEq>(map: &mut OrdMap<ResourceName, Arc<T>>, name: ResourceName, value: Arc<T>) {
    if map.get(&name).is_none_or(|old| *old != value) {
        map.insert(name, value);
    }
}

/// Removes the old names and inserts the new values, keeping equal ones.
fn replace<'a, T: PartialEq>(
    map: &mut OrdMap<ResourceName, Arc<T>>,
    old: impl Iterator<Item = &'a ResourceName>,
    new: &BTreeMap<ResourceName, Arc<T>>,
) {
    for name in old.filter(|name| !new.contains_key(*name)) {
        map.remove(name);
    }
    for (name, value) in new {
        put(map, name.clone(), value.clone());
    }
}

fn forget(readers: &mut OrdMap<Hostname, OrdSet<PortKey>>, host: &Hostname, key: &PortKey) {
    let Some(keys) = readers.get_mut(host) else { return };
    keys.remove(key);
    if keys.is_empty() {
        readers.remove(host);
    }
}
