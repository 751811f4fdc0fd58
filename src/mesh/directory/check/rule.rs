//! Checks a DestinationRule: hosts and ports that do not exist, subsets without endpoints, and
//! settings overridden by rules that take precedence.

use crate::api::FieldPath;
use crate::diag::Code;
use crate::mesh::destination_rule::DestinationRule;
use crate::mesh::directory::Directory;
use crate::mesh::directory::entry::InForce;
use crate::mesh::lower::Finding;
use crate::mesh::selects;
use crate::mesh::service::{Resolution, Service};

/// Checks a DestinationRule.
pub(super) fn check(directory: &Directory, written: &InForce) -> Vec<Finding> {
    let mut found = Vec::new();
    let Some(rule) = written.form.destination_rule() else {
        return found;
    };
    if directory.index.hosts.covered_by(&rule.host).next().is_none() {
        found.push(unknown_host(rule));
    }
    outdone(directory, rule, &mut found);
    if !rule.host.is_wildcard() {
        let services: Vec<&Service> = directory
            .mesh
            .services_named(&rule.host)
            .map(|(_, service)| &**service)
            .collect();
        empty_subsets(rule, &services, &mut found);
        unknown_ports(rule, &services, &mut found);
    }
    found
}

fn unknown_host(rule: &DestinationRule) -> Finding {
    let at = FieldPath::root().field("spec").field("host");
    let message = format!("no service has the host `{}`: this rule has no effect", rule.host);
    let mut finding = Finding::new(Code::UnknownDestinationRuleHost, &at, message);
    finding.help("add a Service or a ServiceEntry for it, or use the fully qualified host");
    finding
}

/// Settings overridden by rules of lower [`Rank`](crate::mesh::Rank) for the host in the same
/// namespace. A rule is merged with those whose `exportTo` it includes, and the first of duplicate
/// settings applies; of visible rules that are not merged the last one applies.
fn outdone(directory: &Directory, rule: &DestinationRule, found: &mut Vec<Finding>) {
    let Some(own) = directory.entry(&rule.id) else { return };
    let named = directory.mesh.destination_rules_naming(&rule.host);
    let older: Vec<_> = named
        .filter(|other| other.id.namespace == rule.id.namespace)
        .filter(|other| directory.entry(&other.id).is_some_and(|entry| entry.rank < own.rank))
        .collect();
    let (older, apart): (Vec<_>, Vec<_>) = older
        .into_iter()
        .filter(|other| rule.export_to.meets(&other.export_to))
        .partition(|other| rule.export_to.includes(&other.export_to));
    let at = FieldPath::root().field("spec");
    if let Some(other) = apart.first() {
        let message = format!(
            "{} is for this host too, but has another `exportTo`: the two are not merged, and where both are seen only \
             this one is in force",
            other.id
        );
        let mut finding = Finding::new(Code::SchemaWarning, &at.field("exportTo"), message);
        finding
            .related(&other.id, at.field("host"), "this one has no effect there")
            .help("use the same `exportTo` in both, or disjoint sets of namespaces");
        found.push(finding);
    }
    let mut add = |first: &DestinationRule, at: FieldPath, there: FieldPath, what: &str| {
        let message = format!("{} already defines {what} for this host and takes precedence", first.id);
        let mut finding = Finding::new(Code::SchemaWarning, &at, message);
        finding
            .related(&first.id, there, "this one is in effect")
            .help("define it in one place; of several, the first by path, then by position, is in effect");
        found.push(finding);
    };
    if rule.policy != Default::default()
        && let Some(first) = older.iter().find(|other| other.policy != Default::default())
    {
        let at = at.field("trafficPolicy");
        add(first, at.clone(), at, "a `trafficPolicy`");
    }
    for (index, subset) in rule.subsets.iter().enumerate() {
        let same = |other: &DestinationRule| other.subsets.iter().position(|known| known.name == subset.name);
        if let Some((first, there)) = older.iter().find_map(|other| Some((other, same(other)?))) {
            let named = |index| at.field("subsets").index(index).field("name");
            add(
                first,
                named(index),
                named(there),
                &format!("a subset `{}`", subset.name),
            );
        }
    }
}

/// Subsets whose labels match no endpoint, for services with known endpoints.
fn empty_subsets(rule: &DestinationRule, services: &[&Service], found: &mut Vec<Finding>) {
    let known = |service: &&Service| service.resolution == Resolution::Static && !service.endpoints.is_empty();
    if services.is_empty() || services.iter().any(|service| !known(service)) {
        return;
    }
    for (index, subset) in rule.subsets.iter().enumerate() {
        let mut endpoints = services.iter().flat_map(|service| service.endpoints.iter());
        if endpoints.any(|endpoint| selects(&subset.labels, &endpoint.labels)) {
            continue;
        }
        let at = FieldPath::root()
            .field("spec")
            .field("subsets")
            .index(index)
            .field("labels");
        let message = format!(
            "no endpoint of `{}` has the labels of the subset `{}`",
            rule.host, subset.name
        );
        let mut finding = Finding::new(Code::DestinationRuleSubsetNotSelectPods, &at, message);
        finding.help("requests to the subset are answered with 503 until a workload has these labels");
        found.push(finding);
    }
}

/// Settings for ports that no service of the host has.
fn unknown_ports(rule: &DestinationRule, services: &[&Service], found: &mut Vec<Finding>) {
    let spec = FieldPath::root().field("spec");
    let own = (spec.field("trafficPolicy"), &rule.policy);
    let subsets = rule.subsets.iter().enumerate();
    let subsets = subsets.map(|(index, subset)| {
        let at = spec.field("subsets").index(index).field("trafficPolicy");
        (at, &subset.policy)
    });
    for (at, policy) in std::iter::once(own).chain(subsets) {
        for (index, (number, _)) in policy.ports.iter().enumerate() {
            let mut ports = services.iter().flat_map(|service| &service.ports);
            if services.is_empty() || ports.any(|port| port.number == *number) {
                continue;
            }
            let at = at.field("portLevelSettings").index(index).field("port").field("number");
            let message = format!("`{}` has no port {number}: these settings have no effect", rule.host);
            let mut finding = Finding::new(Code::SchemaWarning, &at, message);
            finding.help("use the port of the service, not of its endpoints");
            found.push(finding);
        }
    }
}
