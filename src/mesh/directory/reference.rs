//! References of VirtualServices, and whether their targets exist.

use std::collections::BTreeSet;

use super::Directory;
use super::retain::Target;
use crate::api::FieldPath;
use crate::mesh::destination_rule::DestinationRule;
use crate::mesh::lower::service::{ServiceSource, SourcePort};
use crate::mesh::service::ServiceKey;
use crate::mesh::store::covering_hosts;
use crate::mesh::virtual_service::{Destination, VirtualService};
use crate::name::{Hostname, Namespace, ObjectId};

/// All targets of a VirtualService.
pub(super) fn targets(rules: &VirtualService) -> BTreeSet<Target> {
    rules.destinations().flat_map(targets_of).collect()
}

/// Targets of a destination: its host, and its port and subset if given.
pub(super) fn targets_of(destination: &Destination) -> impl Iterator<Item = Target> + use<> {
    let host = &destination.host;
    let port = destination.port.map(|port| Target::Port(host.clone(), port));
    let subset = destination
        .subset
        .as_ref()
        .map(|name| Target::Subset(host.clone(), name.clone()));
    [Some(Target::Host(host.clone())), port, subset].into_iter().flatten()
}

impl Target {
    /// The field of the destination at `at` that holds the reference, and the message if the target
    /// does not exist.
    pub(super) fn missing(&self, at: &FieldPath) -> (FieldPath, String) {
        match self {
            Target::Host(host) => (at.field("host"), format!("no service has the host `{host}`")),
            Target::Port(host, port) => (at.field("port").field("number"), format!("`{host}` has no port {port}")),
            Target::Subset(host, name) => (
                at.field("subset"),
                format!("no DestinationRule defines the subset `{name}` for `{host}`"),
            ),
        }
    }
}

impl Directory {
    /// Whether an object in force defines the target.
    pub(super) fn is_live(&self, target: &Target) -> bool {
        match target {
            Target::Host(host) => self.index.namespaces.has(host),
            Target::Port(host, port) => self.sources_named(host).any(|source| has_port(source, *port)),
            Target::Subset(host, name) => !self.subset_rules(host, name).is_empty(),
        }
    }

    /// The authoritative definition of a service.
    pub(super) fn source(&self, key: &ServiceKey) -> Option<&std::sync::Arc<ServiceSource>> {
        let first = self.index.sources.get(key).next()?;
        self.form(&first.id)?.service()
    }

    /// The authoritative definitions of a host's services, one per namespace.
    pub(super) fn sources_named(&self, host: &Hostname) -> impl Iterator<Item = &ServiceSource> {
        let namespaces = self.index.namespaces.get(host);
        namespaces.filter_map(|namespace| {
            self.source(&ServiceKey {
                host: host.clone(),
                namespace: namespace.clone(),
            })
            .map(|source| &**source)
        })
    }

    /// The DestinationRules that define this subset of a host: in each namespace, those for the
    /// most specific host.
    pub(super) fn subset_rules(&self, host: &Hostname, name: &str) -> Vec<&ObjectId> {
        let mut decided: BTreeSet<&Namespace> = BTreeSet::new();
        let mut found = Vec::new();
        for candidate in covering_hosts(host) {
            let ids: Vec<&ObjectId> = self.index.rules.get(&candidate).collect();
            let asked = ids.iter().filter(|id| !decided.contains(&id.namespace));
            found.extend(
                asked
                    .copied()
                    .filter(|id| self.rule(id).is_some_and(|rule| has_subset(rule, name))),
            );
            decided.extend(ids.iter().map(|id| &id.namespace));
        }
        found
    }

    /// A DestinationRule in force.
    pub(super) fn rule(&self, id: &ObjectId) -> Option<&DestinationRule> {
        self.form(id)?.destination_rule().map(|rule| &**rule)
    }
}

fn has_port(source: &ServiceSource, number: u16) -> bool {
    port(source, number).is_some()
}

/// The port of a source by its number.
pub(super) fn port(source: &ServiceSource, number: u16) -> Option<&SourcePort> {
    source.ports.iter().find(|port| port.port.number == number)
}

fn has_subset(rule: &DestinationRule, name: &str) -> bool {
    rule.subsets.iter().any(|subset| &*subset.name == name)
}
