//! Checks that hosts, ports and destinations of a VirtualService exist, and that no other one takes
//! precedence for its hosts.

use std::collections::BTreeSet;

use crate::api::virtual_service as api;
use crate::api::{FieldPath, Object, Spec};
use crate::diag::{Code, Severity};
use crate::mesh::directory::Directory;
use crate::mesh::directory::entry::{Entry, InForce};
use crate::mesh::directory::retain::Target;
use crate::mesh::lower::Finding;
use crate::mesh::lower::service::ServiceSource;
use crate::mesh::virtual_service::VirtualService;
use crate::name::{Hostname, resolve_short_name};

/// Checks a VirtualService.
pub(super) fn check(directory: &Directory, written: &InForce) -> Vec<Finding> {
    let mut found = Vec::new();
    let Some(rules) = written.form.virtual_service() else {
        return found;
    };
    conflicts(directory, rules, &mut found);
    unknown_hosts(directory, rules, &mut found);
    unknown_ports(directory, rules, &mut found);
    let Spec::VirtualService(spec) = &written.object.spec else {
        return found;
    };
    let references = References {
        directory,
        object: &written.object,
        entry: directory.entry(&written.object.id),
    };
    for (at, destination) in destinations(spec) {
        references.destination(&at, destination, &mut found);
    }
    found
}

/// Hosts for which another VirtualService takes precedence, if some proxy sees both.
fn conflicts(directory: &Directory, rules: &VirtualService, found: &mut Vec<Finding>) {
    let Some(own) = directory.entry(&rules.id) else { return };
    for (index, host) in rules.hosts.iter().enumerate() {
        let rivals = directory.mesh.virtual_services_naming(host);
        let older = rivals
            .filter(|other| directory.entry(&other.id).is_some_and(|entry| entry.rank < own.rank))
            .find(|other| seen_together(rules, other));
        let Some(older) = older else { continue };
        let at = FieldPath::root().field("spec").field("hosts").index(index);
        let message = format!(
            "{} already defines the host `{host}` and takes precedence: its routes are served",
            older.id
        );
        let mut finding = Finding::new(Code::ConflictingMeshGatewayVirtualServiceHosts, &at, message);
        let position = older.hosts.iter().position(|other| other == host).unwrap_or(0);
        let there = FieldPath::root().field("spec").field("hosts").index(position);
        finding
            .related(&older.id, there, "the routes of this one are served")
            .help(
                "merge the routes into one VirtualService; of several, the first by path, then by position, is served",
            );
        found.push(finding);
    }
}

/// Hosts without a service. As in Istio, HTTP routes for them still apply on port 80; others do not
/// apply at all.
fn unknown_hosts(directory: &Directory, rules: &VirtualService, found: &mut Vec<Finding>) {
    for (index, host) in rules.hosts.iter().enumerate() {
        let target = Target::Host(host.clone());
        if host.is_wildcard() || directory.is_live(&target) || directory.retained.contains_key(&target) {
            continue;
        }
        let effect = match rules.http.is_empty() {
            true => "these routes apply to nothing",
            false => "these routes only apply to requests on port 80",
        };
        let at = FieldPath::root().field("spec").field("hosts").index(index);
        let message = format!("no service has the host `{host}`: {effect}");
        let mut finding = Finding::new(Code::ReferencedResourceNotFound, &at, message);
        finding.severity(Severity::Warning).help(hint_host(directory, host));
        found.push(finding);
    }
}

/// Ports in matches that no host has, if all hosts are known.
fn unknown_ports(directory: &Directory, rules: &VirtualService, found: &mut Vec<Finding>) {
    let mut numbers = BTreeSet::new();
    for host in &rules.hosts {
        if host.is_wildcard() || directory.sources_named(host).next().is_none() {
            return;
        }
        let sources = directory.sources_named(host);
        numbers.extend(sources.flat_map(|source| &source.ports).map(|port| port.port.number));
    }
    for (at, port) in matched_ports(rules)
        .into_iter()
        .filter(|(_, port)| !numbers.contains(port))
    {
        let known: Vec<String> = numbers.iter().map(u16::to_string).collect();
        let message = format!("no host of this VirtualService has port {port}: this match is never used");
        let mut finding = Finding::new(Code::SchemaWarning, &at, message);
        finding.help(format!("use the port that clients call: {}", known.join(", ")));
        found.push(finding);
    }
}

/// The `port` of every match and its path.
fn matched_ports(rules: &VirtualService) -> Vec<(FieldPath, u16)> {
    let http = rules
        .http
        .iter()
        .map(|route| route.matches.iter().map(|m| m.port).collect());
    let tls = rules
        .tls
        .iter()
        .map(|route| route.matches.iter().map(|m| m.l4.port).collect());
    let tcp = rules
        .tcp
        .iter()
        .map(|route| route.matches.iter().map(|m| m.port).collect());
    let protocols: [(&str, Vec<Vec<Option<u16>>>); 3] =
        [("http", http.collect()), ("tls", tls.collect()), ("tcp", tcp.collect())];
    let mut found = Vec::new();
    for (protocol, routes) in protocols {
        for (route, matches) in routes.into_iter().enumerate() {
            for (index, port) in matches.into_iter().enumerate() {
                let at = FieldPath::root().field("spec").field(protocol).index(route);
                found.extend(port.map(|port| (at.field("match").index(index).field("port"), port)));
            }
        }
    }
    found
}

/// Whether some namespace sees both.
fn seen_together(a: &VirtualService, b: &VirtualService) -> bool {
    a.export_to.shares(&a.id.namespace, &b.export_to, &b.id.namespace)
}

/// Every destination and its path, mirrors included.
fn destinations(spec: &api::VirtualService) -> Vec<(FieldPath, &api::Destination)> {
    let at = FieldPath::root().field("spec");
    let mut found = Vec::new();
    for (index, route) in spec.http.iter().enumerate() {
        let at = at.field("http").index(index);
        for (index, entry) in route.route.iter().enumerate() {
            let at = at.field("route").index(index).field("destination");
            found.extend(entry.destination.as_ref().map(|destination| (at, destination)));
        }
        found.extend(
            route
                .mirror
                .as_ref()
                .map(|destination| (at.field("mirror"), destination)),
        );
        for (index, entry) in route.mirrors.iter().enumerate() {
            let at = at.field("mirrors").index(index).field("destination");
            found.extend(entry.destination.as_ref().map(|destination| (at, destination)));
        }
    }
    let tls = spec.tls.iter().map(|route| &route.route).enumerate();
    let tcp = spec.tcp.iter().map(|route| &route.route).enumerate();
    let tls = tls.map(|(index, routes)| (at.field("tls").index(index), routes));
    let tcp = tcp.map(|(index, routes)| (at.field("tcp").index(index), routes));
    for (at, routes) in tls.chain(tcp) {
        for (index, entry) in routes.iter().enumerate() {
            let at = at.field("route").index(index).field("destination");
            found.extend(entry.destination.as_ref().map(|destination| (at, destination)));
        }
    }
    found
}

/// How dangling references are handled.
struct References<'d> {
    directory: &'d Directory,
    object: &'d Object,
    entry: Option<&'d Entry>,
}

impl References<'_> {
    fn destination(&self, at: &FieldPath, destination: &api::Destination, found: &mut Vec<Finding>) {
        let domain = &self.directory.context.config.domain;
        let Ok(host) = resolve_short_name(&destination.host, &self.object.id.namespace, domain) else {
            return;
        };
        let host_target = Target::Host(host.clone());
        if !self.directory.is_live(&host_target) {
            found.push(self.dangling(at, &host_target, hint_host(self.directory, &host)));
        } else if let Some(port) = &destination.port {
            self.port(at, &host, port.number, found);
        } else {
            self.port_left_out(at, &host, found);
        }
        if destination.subset.is_empty() {
            return;
        }
        let target = Target::Subset(host.clone(), destination.subset.as_str().into());
        if !self.directory.is_live(&target) {
            let hint = "add it to the `subsets` of a DestinationRule for the host".to_owned();
            found.push(self.dangling(at, &target, hint));
        }
    }

    fn port(&self, at: &FieldPath, host: &Hostname, number: u32, found: &mut Vec<Finding>) {
        let number = u16::try_from(number).unwrap_or(0);
        let target = Target::Port(host.clone(), number);
        if self.directory.is_live(&target) {
            return;
        }
        let numbers: Vec<String> = self
            .directory
            .sources_named(host)
            .flat_map(|source| &source.ports)
            .map(|port| port.port.number.to_string())
            .collect();
        let hint = format!("its ports: {}", numbers.join(", "));
        found.push(self.dangling(at, &target, hint));
    }

    /// If a service has several ports, the destination port of the request is used, which the
    /// service may not have.
    fn port_left_out(&self, at: &FieldPath, host: &Hostname, found: &mut Vec<Finding>) {
        let several = |source: &&ServiceSource| source.ports.len() > 1;
        let Some(source) = self.directory.sources_named(host).find(several) else {
            return;
        };
        let message = format!("`{host}` has {} ports, but none is specified here", source.ports.len());
        let mut finding = Finding::new(Code::VirtualServiceDestinationPortSelectorRequired, at, message);
        finding.help("set `port: {number: …}`; without it, requests go to the port the client called");
        found.push(finding);
    }

    /// A dangling reference; the help says which of the three outcomes applies.
    fn dangling(&self, at: &FieldPath, target: &Target, hint: String) -> Finding {
        let (at, what) = target.missing(at);
        let retained = self.directory.retained.contains_key(target);
        let last_good = self.entry.is_some_and(Entry::serves_last_good);
        let (message, fate) = if retained && !last_good {
            (
                format!("{what} any more"),
                "it is kept until this reference is fixed or its object deleted; ",
            )
        } else if last_good {
            (what, "the last valid version of this object stays in effect; ")
        } else {
            (what, "requests are answered with 503; ")
        };
        let mut finding = Finding::new(Code::ReferencedResourceNotFound, &at, message);
        finding.help(format!("{fate}{hint}"));
        finding
    }
}

/// Suggests a host with a similar name.
fn hint_host(directory: &Directory, host: &Hostname) -> String {
    let short = host.as_str().split('.').next().unwrap_or_default();
    let known = directory.index.namespaces.keys();
    let similar = known
        .map(|known| (strsim::jaro_winkler(known.as_str(), host.as_str()), known))
        .filter(|(likeness, known)| *likeness > 0.93 || known.as_str().split('.').next() == Some(short))
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match similar {
        Some((_, known)) => format!("did you mean `{known}`?"),
        None => "add a Service or a ServiceEntry for it".to_owned(),
    }
}
