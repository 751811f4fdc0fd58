//! Indexes by which an edit finds the objects it affects without iterating over the others.

use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use super::super::groups::Groups;
use super::super::service::{Address, ServiceKey};
use super::super::{Labels, Rank, selects};
use crate::name::{Hostname, Kind, Namespace, ObjectId};

/// A label of workloads in a namespace. The empty pair matches every workload: selectors without
/// labels are filed under it, and all workloads of the namespace.
type Pair = (Namespace, Arc<str>, Arc<str>);

/// Selectors, each filed under one of its labels, so that those selecting a workload are found
/// quickly.
#[derive(Clone, Debug, Default)]
pub(super) struct Selectors {
    by_pair: Groups<Pair, ObjectId>,
    chosen: OrdMap<ObjectId, Pair>,
    selectors: OrdMap<ObjectId, Labels>,
}

impl Selectors {
    pub(super) fn put(&mut self, id: &ObjectId, selector: Option<&Labels>) {
        if let Some(pair) = self.chosen.remove(id) {
            self.by_pair.remove(&pair, id);
            self.selectors.remove(id);
        }
        if let Some(selector) = selector {
            let pair = self.rarest(&id.namespace, selector);
            self.by_pair.insert(pair.clone(), id.clone());
            self.chosen.insert(id.clone(), pair);
            self.selectors.insert(id.clone(), selector.clone());
        }
    }

    /// The label of a selector under which the fewest selectors are filed.
    fn rarest(&self, namespace: &Namespace, selector: &Labels) -> Pair {
        let pairs = selector
            .iter()
            .map(|(key, value)| (namespace.clone(), key.clone(), value.clone()));
        pairs
            .min_by_key(|pair| self.by_pair.len(pair))
            .unwrap_or_else(|| any_label(namespace))
    }

    /// The objects in the namespace whose selectors match these labels.
    pub(super) fn selecting<'i>(&'i self, namespace: &Namespace, labels: &'i Labels) -> Vec<&'i ObjectId> {
        let pairs = labels
            .iter()
            .map(|(key, value)| (namespace.clone(), key.clone(), value.clone()));
        let candidates = pairs
            .chain([any_label(namespace)])
            .flat_map(|pair| self.by_pair.get(&pair).collect::<Vec<_>>());
        candidates
            .filter(|id| {
                self.selectors
                    .get(*id)
                    .is_some_and(|selector| selects(selector, labels))
            })
            .collect()
    }
}

fn any_label(namespace: &Namespace) -> Pair {
    (namespace.clone(), Arc::default(), Arc::default())
}

/// Workloads by each of their labels.
#[derive(Clone, Debug, Default)]
pub(super) struct WorkloadLabels {
    by_pair: Groups<Pair, ObjectId>,
}

impl WorkloadLabels {
    pub(super) fn put(&mut self, id: &ObjectId, old: Option<&Labels>, new: Option<&Labels>) {
        for pair in pairs(id, old) {
            self.by_pair.remove(&pair, id);
        }
        for pair in pairs(id, new) {
            self.by_pair.insert(pair, id.clone());
        }
    }

    /// Workloads with the rarest label of a selector; the caller checks the others.
    pub(super) fn candidates<'i>(
        &'i self,
        namespace: &Namespace,
        selector: &Labels,
    ) -> impl Iterator<Item = &'i ObjectId> + use<'i> {
        let pairs = selector
            .iter()
            .map(|(key, value)| (namespace.clone(), key.clone(), value.clone()));
        let rarest = pairs
            .min_by_key(|pair| self.by_pair.len(pair))
            .unwrap_or_else(|| any_label(namespace));
        self.by_pair.get(&rarest)
    }
}

fn pairs<'l>(id: &'l ObjectId, labels: Option<&'l Labels>) -> impl Iterator<Item = Pair> + 'l {
    let own = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| (id.namespace.clone(), key.clone(), value.clone()));
    let any = labels.is_some().then(|| any_label(&id.namespace));
    own.chain(any)
}

/// Hosts, searchable by suffix.
#[derive(Clone, Debug, Default)]
pub(super) struct Endings(OrdMap<Box<str>, Hostname>);

impl Endings {
    pub(super) fn insert(&mut self, host: &Hostname) {
        self.0.insert(reversed(host.as_str()), host.clone());
    }

    pub(super) fn remove(&mut self, host: &Hostname) {
        self.0.remove(&reversed(host.as_str()));
    }

    /// The hosts matched by `host`, including itself.
    pub(super) fn covered_by<'i>(&'i self, host: &'i Hostname) -> impl Iterator<Item = &'i Hostname> {
        let ending = reversed(host.as_str().trim_start_matches('*'));
        let from = self.0.range(ending.clone()..);
        from.take_while(move |(key, _)| key.starts_with(&*ending))
            .map(|(_, known)| known)
            .filter(|known| host.covers(known))
    }
}

fn reversed(text: &str) -> Box<str> {
    text.chars().rev().collect()
}

/// Sort key of a service's definitions: Kubernetes Services first, then by precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SourceRef {
    /// Whether it is a ServiceEntry.
    pub(super) entry: bool,
    /// Its precedence.
    pub(super) rank: Rank,
    /// The object.
    pub(super) id: ObjectId,
}

/// All indexes of a directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// The objects that define a service.
    pub(super) sources: Groups<ServiceKey, SourceRef>,
    /// The namespaces that define a service of this host.
    pub(super) namespaces: Groups<Hostname, Namespace>,
    /// The same hosts, by suffix.
    pub(super) hosts: Endings,
    /// DestinationRules in force by host.
    pub(super) rules: Groups<Hostname, ObjectId>,
    /// PeerAuthentications and Sidecars by namespace.
    pub(super) policies: Groups<(Kind, Namespace), ObjectId>,
    /// EndpointSlices and Endpoints by their Service.
    pub(super) slices: Groups<(Namespace, Arc<str>), ObjectId>,
    /// EndpointSlices and Endpoints by the addresses in them.
    pub(super) slice_addresses: Groups<IpAddr, ObjectId>,
    /// Selectors of Services, ServiceEntries and Sidecars.
    pub(super) selectors: Selectors,
    /// Workloads by label.
    pub(super) labels: WorkloadLabels,
    /// Workloads by address.
    pub(super) addresses: Groups<IpAddr, ObjectId>,
    /// VirtualServices by destination host.
    pub(super) referrers: Groups<Hostname, ObjectId>,
    /// Sidecars by the host of their egress proxy.
    pub(super) egress_proxies: Groups<Hostname, ObjectId>,
    /// Objects by their file.
    pub(super) origins: Groups<Arc<str>, ObjectId>,
}

impl Index {
    /// Adds a definition of a service.
    pub(super) fn add_source(&mut self, key: &ServiceKey, source: SourceRef) {
        self.sources.insert(key.clone(), source);
        self.namespaces.insert(key.host.clone(), key.namespace.clone());
        self.hosts.insert(&key.host);
    }

    /// Removes a definition of a service.
    pub(super) fn remove_source(&mut self, key: &ServiceKey, source: &SourceRef) {
        self.sources.remove(key, source);
        if !self.sources.has(key) {
            self.namespaces.remove(&key.host, &key.namespace);
        }
        if !self.namespaces.has(&key.host) {
            self.hosts.remove(&key.host);
        }
    }
}

/// The IP address, if it is one.
pub(super) fn ip(address: &Address) -> Option<IpAddr> {
    match address {
        Address::Ip(ip) => Some(*ip),
        Address::Name(_) | Address::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| (Arc::from(*k), Arc::from(*v))).collect()
    }

    fn id(name: &str) -> ObjectId {
        ObjectId {
            kind: Kind::Service,
            namespace: Namespace::default(),
            name: name.into(),
        }
    }

    #[test]
    fn selectors_are_found_by_the_labels_they_select() {
        let mut selectors = Selectors::default();
        for n in 0..10 {
            let name = n.to_string();
            selectors.put(&id(&name), Some(&labels(&[("app", &name), ("env", "prod")])));
        }
        selectors.put(&id("all"), Some(&labels(&[])));
        let found = |labels: &Labels| -> Vec<String> {
            let ids = selectors.selecting(&Namespace::default(), labels);
            ids.into_iter().map(|id| id.name.to_string()).collect()
        };
        assert_eq!(
            found(&labels(&[("app", "3"), ("env", "prod"), ("x", "y")])),
            ["3", "all"]
        );
        assert_eq!(found(&labels(&[("app", "3")])), ["all"]);
        selectors.put(&id("3"), None);
        assert_eq!(selectors.chosen.len(), 10);
    }

    #[test]
    fn hosts_are_found_by_their_endings() {
        let mut endings = Endings::default();
        for host in ["a.b.c", "b.c", "x.c", "*.b.c", "b.cc"] {
            endings.insert(&host.parse().unwrap());
        }
        let found = |endings: &Endings, host: &str| -> Vec<String> {
            let host = host.parse().unwrap();
            endings.covered_by(&host).map(ToString::to_string).collect()
        };
        assert_eq!(found(&endings, "*.b.c"), ["*.b.c", "a.b.c"]);
        assert_eq!(found(&endings, "b.c"), ["b.c"]);
        assert_eq!(found(&endings, "*").len(), 5);
        endings.remove(&"a.b.c".parse().unwrap());
        assert_eq!(found(&endings, "*.b.c"), ["*.b.c"]);
    }
}
