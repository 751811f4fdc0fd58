//! Builds services from the objects that define them and their endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Labels;
use super::lower::endpoint_slice::{EndpointAddress, EndpointSource};
use super::lower::service::{ServiceSource, SourcePort};
use super::service::{Address, Endpoint, Locality, NODE, Resolution, Service, ServiceKey};
use super::workload::Workload;
use crate::name::{Hostname, ObjectId};

/// Inputs of a service.
pub(super) struct Parts<'p> {
    /// Host and namespace.
    pub(super) key: &'p ServiceKey,
    /// The objects that define it, the authoritative one first, each with the WorkloadEntries it
    /// selects; never empty.
    pub(super) sources: Vec<(&'p Arc<ServiceSource>, Vec<&'p Arc<Workload>>)>,
    /// EndpointSlices and Endpoints of the Kubernetes Service.
    pub(super) slices: Vec<&'p Arc<EndpointSource>>,
    /// Ports that were removed but are still referred to.
    pub(super) retained_ports: Vec<&'p SourcePort>,
}

/// Builds the service. `workload_at` finds the workload with an address.
pub(super) fn link<'p>(
    parts: &Parts<'p>,
    workload_at: &dyn Fn(IpAddr) -> Option<&'p Arc<Workload>>,
) -> Option<Service> {
    let (first, _) = parts.sources.first()?;
    let ports = Ports::new(first, &parts.retained_ports);
    let mut endpoints = Vec::new();
    for (source, selected) in &parts.sources {
        let listed = source.listed.iter().map(|workload| (workload, None));
        let selected = selected.iter().map(|workload| (&***workload, Some(&workload.id)));
        for (workload, entry) in listed.chain(selected) {
            endpoints.extend(ports.of_workload(source, workload, entry));
        }
    }
    for slice in &parts.slices {
        endpoints.extend(ports.of_slice(first, slice, workload_at));
    }
    if endpoints.is_empty() {
        endpoints.extend(ports.of_host(first, &parts.key.host));
    }
    dedup(&mut endpoints);
    Some(Service {
        key: parts.key.clone(),
        name: first.id.name.clone(),
        origins: origins(parts),
        addresses: addresses(parts),
        ports: ports.all().map(|port| port.port.clone()).collect(),
        resolution: first.resolution,
        external: first.external,
        kubernetes: first.kubernetes,
        headless: first.headless,
        alias: first.alias.clone(),
        export_to: first.export_to.clone(),
        subject_alt_names: first.subject_alt_names.clone(),
        traffic_distribution: first.traffic_distribution,
        endpoints: endpoints.into(),
    })
}

/// The defining objects, followed by those that list endpoints. Workloads are omitted because there
/// are many; values built from them record them separately.
fn origins(parts: &Parts<'_>) -> Vec<ObjectId> {
    let sources = parts.sources.iter().map(|(source, _)| source.id.clone());
    sources
        .chain(parts.slices.iter().map(|slice| slice.id.clone()))
        .collect()
}

fn addresses(parts: &Parts<'_>) -> Vec<ipnet::IpNet> {
    let mut found = Vec::new();
    for address in parts.sources.iter().flat_map(|(source, _)| &source.addresses) {
        if !found.contains(address) {
            found.push(*address);
        }
    }
    found
}

/// Ports of a service: those of the authoritative source, and retained ones.
struct Ports<'p> {
    own: &'p [SourcePort],
    retained: Vec<&'p SourcePort>,
}

impl<'p> Ports<'p> {
    fn new(first: &'p ServiceSource, retained: &[&'p SourcePort]) -> Self {
        let known = |port: &SourcePort| first.ports.iter().any(|own| own.port.number == port.port.number);
        Self {
            own: &first.ports,
            retained: retained.iter().copied().filter(|port| !known(port)).collect(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &SourcePort> {
        self.own.iter().chain(self.retained.iter().copied())
    }

    /// A workload as an endpoint of `source`. Ports of other sources are matched by name.
    fn of_workload(&self, source: &ServiceSource, workload: &Workload, entry: Option<&ObjectId>) -> Option<Endpoint> {
        let reachable = match (&workload.address, source.resolution) {
            // EDS endpoints cannot be host names.
            (Address::Name(_), Resolution::Static) => false,
            (Address::Name(_) | Address::Ip(_) | Address::Unix(_), _) => true,
        };
        let own = self.own.iter().filter_map(|port| {
            let sources = source.ports.iter().find(|other| other.port.name == port.port.name)?;
            Some((port.port.number, workload_port(sources, workload)?))
        });
        let retained = self
            .retained
            .iter()
            .filter_map(|port| Some((port.port.number, workload_port(port, workload)?)));
        let ports: Vec<(u16, u16)> = own.chain(retained).collect();
        (reachable && !ports.is_empty()).then(|| Endpoint {
            address: workload.address.clone(),
            further: workload.further.clone(),
            ports,
            labels: workload.labels.clone(),
            namespace: workload.id.namespace.clone(),
            service_account: workload.service_account.clone(),
            mutual_tls: workload.mutual_tls,
            locality: workload.locality.clone(),
            weight: workload.weight,
            ready: workload.ready,
            workload: entry.map(|id| id.name.clone()),
        })
    }

    fn of_slice<'w>(
        &self,
        source: &ServiceSource,
        slice: &EndpointSource,
        workload_at: &dyn Fn(IpAddr) -> Option<&'w Arc<Workload>>,
    ) -> Vec<Endpoint> {
        let mut found = Vec::new();
        for group in &slice.groups {
            let ports = self.of_names(&group.ports);
            if ports.is_empty() {
                continue;
            }
            for address in &group.endpoints {
                let workload = workload_at(address.ip);
                found.push(slice_endpoint(source, slice, address, ports.clone(), workload));
            }
        }
        found
    }

    /// Pairs of service port and endpoint port with the same name.
    fn of_names(&self, named: &[(Arc<str>, u16)]) -> Vec<(u16, u16)> {
        let number = |port: &SourcePort| {
            let mut named = named.iter();
            named
                .find(|(name, _)| *name == port.port.name)
                .map(|(_, number)| *number)
        };
        let own = self
            .own
            .iter()
            .filter_map(|port| Some((port.port.number, number(port)?)));
        let retained = self
            .retained
            .iter()
            .map(|port| (port.port.number, number(port).unwrap_or(port.port.target)));
        own.chain(retained).collect()
    }

    /// A service with DNS resolution and no endpoints uses its own host.
    fn of_host(&self, source: &ServiceSource, host: &Hostname) -> Option<Endpoint> {
        let resolved = matches!(source.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
        let own = resolved && !host.is_wildcard() && source.selector.is_none();
        own.then(|| Endpoint {
            address: match host.as_str().parse::<IpAddr>() {
                Ok(ip) => Address::Ip(ip),
                Err(_) => Address::Name(host.as_str().into()),
            },
            further: Arc::default(),
            ports: self.all().map(|port| (port.port.number, port.port.target)).collect(),
            labels: Arc::default(),
            namespace: source.id.namespace.clone(),
            service_account: None,
            mutual_tls: false,
            locality: Locality::default(),
            weight: 1,
            ready: true,
            workload: None,
        })
    }
}

/// The workload's port for a service port: 0 for a Unix domain socket; otherwise by the name of the
/// target, by the name of the service port, or the target's number. `None` if the target is a name
/// that the workload lacks.
fn workload_port(port: &SourcePort, workload: &Workload) -> Option<u16> {
    let named = |name: &str| {
        let mut ports = workload.ports.iter();
        ports.find(|(known, _)| **known == *name).map(|(_, number)| *number)
    };
    if matches!(workload.address, Address::Unix(_)) {
        return Some(0);
    }
    match &port.target_name {
        Some(target) => named(target),
        None => named(&port.port.name).or(Some(port.port.target)),
    }
}

/// An address of a slice takes its identity, labels and TLS mode from the WorkloadEntry with that
/// address.
fn slice_endpoint(
    source: &ServiceSource,
    slice: &EndpointSource,
    address: &EndpointAddress,
    ports: Vec<(u16, u16)>,
    workload: Option<&Arc<Workload>>,
) -> Endpoint {
    let zone = || Locality {
        zone: address.zone.clone(),
        ..Locality::default()
    };
    Endpoint {
        address: Address::Ip(address.ip),
        further: Arc::default(),
        ports,
        labels: labels_on(
            &address.node,
            workload.map(|workload| workload.labels.clone()).unwrap_or_default(),
        ),
        namespace: workload.map_or_else(|| slice.id.namespace.clone(), |workload| workload.id.namespace.clone()),
        service_account: workload.and_then(|workload| workload.service_account.clone()),
        mutual_tls: workload.is_some_and(|workload| workload.mutual_tls),
        locality: workload.map_or_else(zone, |workload| workload.locality.clone()),
        weight: workload.map_or(1, |workload| workload.weight),
        ready: address.ready || source.publish_not_ready,
        workload: workload.map(|workload| workload.id.name.clone()),
    }
}

/// Adds the label for the node, if known, unless present (Istio's `AugmentLabels`).
fn labels_on(node: &Arc<str>, mut labels: Arc<Labels>) -> Arc<Labels> {
    if !node.is_empty() && !labels.contains_key(NODE) {
        Arc::make_mut(&mut labels).insert(NODE.into(), node.clone());
    }
    labels
}

/// Removes duplicates by address and ports: a workload may be found in several ways.
fn dedup(endpoints: &mut Vec<Endpoint>) {
    let mut seen: BTreeMap<Address, Vec<Vec<(u16, u16)>>> = BTreeMap::new();
    endpoints.retain(|endpoint| {
        let known = seen.entry(endpoint.address.clone()).or_default();
        let new = !known.contains(&endpoint.ports);
        if new {
            known.push(endpoint.ports.clone());
        }
        new
    });
}
