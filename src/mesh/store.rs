//! The mesh as persistent maps, and its queries.
//!
//! Each query takes a few look-ups and never iterates over the mesh. Where Istio lets the oldest
//! object win, the lowest [`Rank`] wins.

mod edit;

use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use super::config::MeshConfig;
use super::destination_rule::DestinationRule;
use super::few::SmallMap;
use super::groups::Groups;
use super::peer_authentication::{MutualTlsMode, PeerAuthentication};
use super::service::{Service, ServiceKey};
use super::sidecar::Sidecar;
use super::virtual_service::VirtualService;
use super::workload::{Workload, WorkloadGroup};
use super::{ExportTo, Labels, selects};
use crate::name::{Hostname, Kind, Namespace, ObjectId, WorkloadName};

/// Precedence of an object: by path, then position in the file. It replaces Istio's creation time,
/// which files do not have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank {
    /// The file.
    pub origin: Arc<str>,
    /// The object's position in it, from 0.
    pub position: usize,
}

impl Rank {
    /// Position of an object that is not ranked within its file yet.
    pub(super) const UNPLACED: usize = usize::MAX;

    /// Rank of an object that is not ranked within its file yet.
    pub(super) fn unplaced(origin: Arc<str>) -> Self {
        Self {
            origin,
            position: Self::UNPLACED,
        }
    }

    /// Rank of a retained object: after all existing ones.
    pub(super) fn retained(id: &ObjectId) -> Self {
        Self {
            origin: format!("{}{id}", char::MAX).into(),
            position: 0,
        }
    }
}

/// The linked model of the whole directory.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    /// Mesh-wide settings.
    pub config: Arc<MeshConfig>,
    services: OrdMap<ServiceKey, (Rank, Arc<Service>)>,
    hosts: Groups<Hostname, Namespace>,
    ports: Groups<u16, ServiceKey>,
    aliases: Groups<Hostname, ServiceKey>,
    endpoint_addresses: Groups<IpAddr, ServiceKey>,
    workloads: OrdMap<ObjectId, Arc<Workload>>,
    workload_groups: OrdMap<ObjectId, Arc<WorkloadGroup>>,
    workload_addresses: Groups<IpAddr, ObjectId>,
    virtual_services: ByHost<VirtualService>,
    destination_rules: ByHost<DestinationRule>,
    client_labels: OrdMap<ClientLabel, usize>,
    sidecars: OrdMap<Namespace, Ranked<Sidecar>>,
    peer_authentications: OrdMap<Namespace, Ranked<PeerAuthentication>>,
}

/// A label by which rules distinguish clients, with its value if only one value matters.
type ClientLabel = (Arc<str>, Option<Arc<str>>);

/// Objects by host, in order of precedence.
type ByHost<T> = OrdMap<Hostname, Ranked<T>>;

/// Objects in order of precedence. Ranks may be equal temporarily while an edit reorders objects.
type Ranked<T> = SmallMap<(Rank, ObjectId), Arc<T>>;

/// Queries.
impl Mesh {
    /// Every service, by host and namespace.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().map(|(_, service)| service)
    }

    /// The service with a key.
    pub fn service_at(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key).map(|(_, service)| service)
    }

    /// The service that `host` denotes for a proxy in `client`: that of its own namespace, else a
    /// Kubernetes Service, else the oldest visible one.
    pub fn service(&self, host: &Hostname, client: &Namespace) -> Option<&Arc<Service>> {
        let seen = self.hosts.get(host).filter_map(|namespace| {
            self.services.get(&ServiceKey {
                host: host.clone(),
                namespace: namespace.clone(),
            })
        });
        seen.filter(|(_, service)| service.export_to.covers(client))
            .min_by_key(|(rank, service)| (service.key.namespace != *client, !service.kubernetes, rank))
            .map(|(_, service)| service)
    }

    /// The services with this host in all namespaces, with their precedence.
    pub fn services_named(&self, host: &Hostname) -> impl Iterator<Item = (&Rank, &Arc<Service>)> {
        self.hosts.get(host).filter_map(|namespace| {
            let key = ServiceKey {
                host: host.clone(),
                namespace: namespace.clone(),
            };
            self.services.get(&key).map(|(rank, service)| (rank, service))
        })
    }

    /// Whether rules distinguish client proxies by this label: `sourceLabels` by the given value,
    /// `failoverPriority` and `trafficDistribution` by any. Other labels do not affect a proxy's
    /// outbound configuration.
    pub fn tells_clients_apart(&self, key: &Arc<str>, value: &Arc<str>) -> bool {
        let is_named = |value: Option<&Arc<str>>| self.client_labels.contains_key(&(key.clone(), value.cloned()));
        is_named(None) || is_named(Some(value))
    }

    /// Whether a service with this host exists, visible or not.
    pub fn has_host(&self, host: &Hostname) -> bool {
        self.hosts.has(host)
    }

    /// The precedence of a service.
    pub fn service_rank(&self, key: &ServiceKey) -> Option<&Rank> {
        self.services.get(key).map(|(rank, _)| rank)
    }

    /// Every service port number in use, ascending.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.keys().copied()
    }

    /// Services with this port, oldest first.
    pub fn services_on_port(&self, port: u16) -> Vec<&Arc<Service>> {
        let keys = self.ports.get(&port);
        let mut found: Vec<_> = keys.filter_map(|key| self.services.get(key)).collect();
        found.sort_by_key(|(rank, _)| rank);
        found.into_iter().map(|(_, service)| service).collect()
    }

    /// Services that are aliases of this host (`externalName`).
    pub fn aliases_of(&self, host: &Hostname) -> impl Iterator<Item = &Arc<Service>> {
        let keys = self.aliases.get(host);
        keys.filter_map(|key| self.service_at(key))
    }

    /// Services with an endpoint at this address, oldest first.
    pub fn services_at_address(&self, address: IpAddr) -> Vec<&Arc<Service>> {
        let keys = self.endpoint_addresses.get(&address);
        let mut found: Vec<_> = keys.filter_map(|key| self.services.get(key)).collect();
        found.sort_by_key(|(rank, _)| rank);
        found.into_iter().map(|(_, service)| service).collect()
    }

    /// The workload of a WorkloadEntry.
    pub fn workload(&self, id: &ObjectId) -> Option<&Arc<Workload>> {
        self.workloads.get(id)
    }

    /// The WorkloadGroup with this name.
    pub fn workload_group(&self, group: &WorkloadName) -> Option<&Arc<WorkloadGroup>> {
        self.workload_groups.get(&group.object(Kind::WorkloadGroup))
    }

    /// Every WorkloadGroup.
    pub fn workload_groups(&self) -> impl Iterator<Item = &Arc<WorkloadGroup>> {
        self.workload_groups.values()
    }

    /// Every workload.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// The workloads at an address.
    pub fn workloads_at(&self, address: IpAddr) -> impl Iterator<Item = &Arc<Workload>> {
        let ids = self.workload_addresses.get(&address);
        ids.filter_map(|id| self.workloads.get(id))
    }

    /// The VirtualService for `host` and a proxy in `client`: the oldest visible one for the most
    /// specific host.
    pub fn virtual_service(&self, host: &Hostname, client: &Namespace) -> Option<&Arc<VirtualService>> {
        self.virtual_services_covering(host)
            .find(|rule| rule.export_to.covers(client))
    }

    /// VirtualServices that match `host`: the most specific host first, the oldest first among
    /// equal ones.
    pub fn virtual_services_covering(&self, host: &Hostname) -> impl Iterator<Item = &Arc<VirtualService>> {
        covering(&self.virtual_services, host).flat_map(|rules| rules.values())
    }

    /// Hosts of VirtualServices, with the VirtualServices for each, oldest first.
    pub fn virtual_service_hosts(
        &self,
    ) -> impl Iterator<Item = (&Hostname, impl Iterator<Item = &Arc<VirtualService>>)> {
        self.virtual_services.iter().map(|(host, rules)| (host, rules.values()))
    }

    /// VirtualServices for exactly this host, oldest first.
    pub fn virtual_services_naming(&self, host: &Hostname) -> impl Iterator<Item = &Arc<VirtualService>> {
        self.virtual_services
            .get(host)
            .into_iter()
            .flat_map(|rules| rules.values())
    }

    /// The DestinationRule for a service and a proxy in `client` (Istio's `destinationRule`): from
    /// the client's namespace, else the service's, else the root namespace; within a namespace, for
    /// the most specific host. Rules for the same host are merged if the `exportTo` of each
    /// includes that of its predecessors.
    ///
    /// A rule whose `exportTo` excludes its own namespace does not apply there.
    pub fn destination_rule(&self, service: &ServiceKey, client: &Namespace) -> Option<Arc<DestinationRule>> {
        let root = &self.config.root_namespace;
        let own = (client != root).then_some(client);
        let levels = own.into_iter().chain([&service.namespace, root]);
        levels.into_iter().find_map(|level| {
            covering(&self.destination_rules, &service.host).find_map(|rules| {
                let seen = |rule: &&Arc<DestinationRule>| match &rule.export_to {
                    // Only rules without `exportTo`, by the mesh's default: these are visible in
                    // their own namespace.
                    ExportTo::Nobody => level == client,
                    named => named.covers(client),
                };
                let visible = rules.values().filter(|rule| rule.id.namespace == *level);
                merge_rules(visible.filter(seen))
            })
        })
    }

    /// DestinationRules for exactly this host, oldest first.
    pub fn destination_rules_naming(&self, host: &Hostname) -> impl Iterator<Item = &Arc<DestinationRule>> {
        self.destination_rules
            .get(host)
            .into_iter()
            .flat_map(|rules| rules.values())
    }

    /// Hosts of DestinationRules.
    pub fn destination_rule_hosts(&self) -> impl Iterator<Item = &Hostname> {
        self.destination_rules.keys()
    }

    /// The Sidecar of a workload: the oldest in its namespace that selects it, else the oldest
    /// there without selector, else the one without selector in the root namespace.
    pub fn sidecar(&self, namespace: &Namespace, labels: &Labels) -> Option<&Arc<Sidecar>> {
        let of = |namespace| {
            self.sidecars
                .get(namespace)
                .into_iter()
                .flat_map(|sidecars| sidecars.values())
        };
        let selected = of(namespace).find(|s| s.selector.as_ref().is_some_and(|selector| selects(selector, labels)));
        let general = |namespace| of(namespace).find(|s| s.selector.is_none());
        selected
            .or_else(|| general(namespace))
            .or_else(|| general(&self.config.root_namespace))
    }

    /// Sidecars of a namespace, oldest first.
    pub fn sidecars_of(&self, namespace: &Namespace) -> impl Iterator<Item = &Arc<Sidecar>> {
        self.sidecars
            .get(namespace)
            .into_iter()
            .flat_map(|sidecars| sidecars.values())
    }

    /// The mutual TLS mode of a workload's port. Precedence is port, workload, namespace, mesh; the
    /// default is PERMISSIVE. `port` is a workload port; `None` asks for ports without their own
    /// mode.
    pub fn mutual_tls_mode(&self, namespace: &Namespace, labels: &Labels, port: Option<u16>) -> MutualTlsMode {
        let workload = self.peer_authentication_of(namespace, labels);
        let by_port = workload.and_then(|policy| {
            port.and_then(|port| policy.ports.iter().find(|(number, _)| *number == port))
                .and_then(|(_, mode)| *mode)
        });
        by_port
            .or_else(|| workload.and_then(|policy| policy.mode))
            .unwrap_or_else(|| self.namespace_mutual_tls(namespace))
    }

    /// The oldest PeerAuthentication with a selector that selects the workload.
    pub fn peer_authentication_of(&self, namespace: &Namespace, labels: &Labels) -> Option<&Arc<PeerAuthentication>> {
        let policies = self.peer_authentications.get(namespace)?.values();
        policies
            .into_iter()
            .find(|p| p.selector.as_ref().is_some_and(|selector| selects(selector, labels)))
    }

    /// The mode for workloads in the namespace without a PeerAuthentication of their own.
    pub fn namespace_mutual_tls(&self, namespace: &Namespace) -> MutualTlsMode {
        let general = |namespace: &Namespace| {
            let policies = self.peer_authentications.get(namespace)?.values();
            policies.into_iter().find(|policy| policy.selector.is_none())?.mode
        };
        general(namespace)
            .or_else(|| general(&self.config.root_namespace))
            .unwrap_or(MutualTlsMode::Permissive)
    }
}

/// Values of all hosts that match `host`, the most specific first.
fn covering<'a, T>(index: &'a ByHost<T>, host: &Hostname) -> impl Iterator<Item = &'a Ranked<T>> {
    // Wildcards sort before all other hosts, so the first key tells whether there are any.
    let wildcards = index.keys().next().is_some_and(Hostname::is_wildcard);
    let depth = if wildcards { usize::MAX } else { 1 };
    covering_hosts(host)
        .take(depth)
        .filter_map(|candidate| index.get(&candidate))
}

/// Hosts that match `host`, the most specific first: itself, then wildcards of decreasing length.
pub(super) fn covering_hosts(host: &Hostname) -> impl Iterator<Item = Hostname> {
    let text = host.as_str().trim_start_matches('*').to_owned();
    let wildcards = (usize::from(!host.is_wildcard())..=text.len()).filter_map(move |at| {
        text.get(at..)
            .and_then(|ending| format!("*{ending}").parse::<Hostname>().ok())
    });
    std::iter::once(host.clone()).chain(wildcards.filter({
        let host = host.clone();
        move |candidate| *candidate != host
    }))
}

/// Istio's merge of visible rules for the same host, oldest first (`mergeDestinationRule` and
/// `SidecarScope.DestinationRule`). A rule is merged into its predecessors if its `exportTo`
/// includes theirs; otherwise it stands alone, and the last one that does is used.
fn merge_rules<'a>(rules: impl Iterator<Item = &'a Arc<DestinationRule>>) -> Option<Arc<DestinationRule>> {
    let mut merged: Vec<Arc<DestinationRule>> = Vec::new();
    for rule in rules {
        let mut joined = false;
        for into in merged
            .iter_mut()
            .filter(|into| rule.export_to.includes(&into.export_to))
        {
            join(Arc::make_mut(into), rule);
            joined = true;
        }
        if !joined {
            merged.push(rule.clone());
        }
    }
    merged.pop()
}

/// Merges subsets, keeping the first of each name, and keeps the first traffic policy.
fn join(into: &mut DestinationRule, rule: &DestinationRule) {
    for subset in &rule.subsets {
        if !into.subsets.iter().any(|known| known.name == subset.name) {
            into.subsets.push(subset.clone());
        }
    }
    if into.policy == Default::default() {
        into.policy = rule.policy.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::testing::load;

    fn hosts(host: &str) -> Vec<String> {
        covering_hosts(&host.parse().unwrap()).map(|h| h.to_string()).collect()
    }

    #[test]
    fn the_most_specific_host_comes_first() {
        let all = hosts("a.bc.d");
        assert_eq!(all.first().map(String::as_str), Some("a.bc.d"));
        assert_eq!(all.last().map(String::as_str), Some("*"));
        let position = |wanted: &str| all.iter().position(|h| h == wanted).unwrap();
        assert!(position("*.bc.d") < position("*.d"));
    }

    /// The subsets that clients in `b` and `c` see for a host in namespace `a` whose rules have the
    /// given `exportTo` and the subsets `v0`, `v1` … in turn.
    fn subsets_seen(exports: &[&str]) -> [String; 2] {
        let mut text =
            "{apiVersion: v1, kind: Service, metadata: {name: s, namespace: a}, spec: {ports: [{port: 80}]}}"
                .to_owned();
        for (at, export) in exports.iter().enumerate() {
            text += &format!(
                "\n---\n{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: r{at}, namespace: a}}, \
                 spec: {{host: s, exportTo: [{export}], subsets: [{{name: v{at}, labels: {{version: v{at}}}}}]}}}}"
            );
        }
        let mesh = load(&text).directory.mesh().clone();
        let key = ServiceKey {
            host: "s.a.svc.cluster.local".parse().unwrap(),
            namespace: "a".parse().unwrap(),
        };
        ["b", "c"].map(|client| {
            let rule = mesh.destination_rule(&key, &client.parse().unwrap());
            let subsets = rule
                .iter()
                .flat_map(|rule| rule.subsets.iter().map(|subset| &*subset.name));
            subsets.collect::<Vec<_>>().join(" ")
        })
    }

    #[test]
    fn rules_are_merged_if_their_export_includes_the_others() {
        assert_eq!(subsets_seen(&["b, c", "c, b"]), ["v0 v1", "v0 v1"]);
        assert_eq!(subsets_seen(&["b", "b, c"]), ["v0 v1", "v1"], "the narrow one has both");
        assert_eq!(
            subsets_seen(&["\"*\"", "b"]),
            ["v1", "v0"],
            "where both are seen the last counts"
        );
        assert_eq!(subsets_seen(&["b", "\"*\""]), ["v1", "v1"]);
        assert_eq!(subsets_seen(&["b", "c"]), ["v0", "v1"]);
    }

    #[test]
    fn a_rule_that_is_not_exported_to_its_own_namespace_does_not_apply_there() {
        let text = "
{apiVersion: v1, kind: Service, metadata: {name: s, namespace: a}, spec: {ports: [{port: 80}]}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r, namespace: a}, spec: {host: s, exportTo: [b]}}
";
        let mesh = load(text).directory.mesh().clone();
        let service = mesh.services().next().unwrap().key.clone();
        let applies = |client: &str| mesh.destination_rule(&service, &client.parse().unwrap()).is_some();
        assert_eq!(["a", "b", "c"].map(applies), [false, true, false]);
    }

    #[test]
    fn a_wildcard_is_covered_by_shorter_ones_only() {
        assert!(!hosts("*.d").contains(&"*x.d".to_owned()));
        assert_eq!(hosts("*.d").first().map(String::as_str), Some("*.d"));
        assert_eq!(hosts("*.d").iter().filter(|h| *h == "*.d").count(), 1);
    }
}
