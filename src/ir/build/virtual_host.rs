//! Route configurations: virtual hosts for the services of a port and for hosts that exist only in
//! VirtualServices.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::chain;
use super::naming;
use super::route;
use super::routing::Routing;
use crate::ir::route::{Route, RouteAction, RouteConfig, VirtualHost};
use crate::ir::{Origins, ResourceName};
use crate::mesh::config::OutboundPolicy;
use crate::mesh::service::{Protocol, Resolution, Service, ServicePort};
use crate::mesh::virtual_service::{DirectResponse, VirtualService};
use crate::name::{Hostname, ObjectId};

/// A service port to be routed, and its VirtualService.
#[derive(Clone, Copy)]
pub(super) struct Exposed<'a> {
    /// The service.
    pub(super) service: &'a Arc<Service>,
    /// The port.
    pub(super) port: &'a ServicePort,
    /// The effective protocol; the Sidecar's egress listener may override that of the port.
    pub(super) protocol: Protocol,
    /// The VirtualService that routes its requests.
    pub(super) rule: Option<&'a Arc<VirtualService>>,
}

impl Exposed<'_> {
    /// Whether it has HTTP routes.
    pub(super) fn is_routed(&self) -> bool {
        let protocol = self.port.protocol;
        self.service.resolution != Resolution::Alias && (protocol.is_http() || protocol == Protocol::Auto)
    }

    fn origins(&self) -> Origins {
        let rule = self.rule.map(|rule| &rule.id);
        origins(rule.into_iter().chain(&self.service.origins))
    }
}

/// A host of a VirtualService without a service, on a port.
pub(super) struct Virtual<'a> {
    /// The host.
    pub(super) host: Hostname,
    /// The port.
    pub(super) port: u16,
    /// The VirtualService.
    pub(super) rule: &'a Arc<VirtualService>,
}

/// Inputs of a route configuration.
pub(super) struct Content<'a> {
    /// The name.
    pub(super) name: ResourceName,
    /// Services, oldest first.
    pub(super) exposed: Vec<Exposed<'a>>,
    /// Hosts without a service.
    pub(super) virtuals: Vec<Virtual<'a>>,
    /// Whether all services are on the listener's port; otherwise requests name the port.
    pub(super) one_port: bool,
    /// Policy for requests to unknown hosts.
    pub(super) otherwise: OutboundPolicy,
}

/// The route configuration of a listener shared by services. A domain belongs to the first that
/// claims it: hosts of VirtualServices precede services without one, older precede younger.
pub(super) fn shared<'a>(routing: &mut Routing<'a>, content: &Content<'a>) -> RouteConfig {
    let mut claims = Claims::new(content);
    for host in &content.virtuals {
        let routes = route::routes(routing, host.rule, host.port);
        claims.virtual_host(host, routes);
    }
    let (routed, plain): (Vec<_>, Vec<_>) = content
        .exposed
        .iter()
        .map(|exposed| (exposed, routes_of(routing, exposed)))
        .partition(|(_, (_, by_rule))| *by_rule);
    for (exposed, (routes, _)) in routed.into_iter().chain(plain) {
        let domains = domains(routing, exposed.service);
        claims.service(exposed, domains, routes);
    }
    let mut virtual_hosts = claims.done;
    virtual_hosts.sort_by(|a, b| a.name.cmp(&b.name));
    let origins = origins(virtual_hosts.iter().flat_map(|host| host.origins.iter()));
    if let OutboundPolicy::EgressProxy(proxy) = &content.otherwise {
        // Its HTTP version counts like that of any cluster.
        routing.target(proxy, 0);
    }
    virtual_hosts.push(Arc::new(catch_all(&content.otherwise)));
    RouteConfig {
        name: content.name.clone(),
        virtual_hosts,
        ignore_port: content.one_port,
        origins,
    }
}

/// The route configuration of a listener for one service, which matches any host.
pub(super) fn sniffed<'a>(routing: &mut Routing<'a>, exposed: &Exposed<'a>) -> RouteConfig {
    let name = naming::host_port(exposed.service.key.host.as_str(), exposed.port.number);
    let (routes, _) = routes_of(routing, exposed);
    let host = VirtualHost {
        name: name.clone(),
        domains: vec!["*".into()],
        routes,
        attempt_count: true,
        origins: exposed.origins(),
    };
    RouteConfig {
        name,
        origins: host.origins.clone(),
        virtual_hosts: vec![Arc::new(host)],
        ignore_port: true,
    }
}

/// Replaces virtual hosts by equal ones of `old`, to keep their `Arc`.
pub(super) fn keep_equal(new: &mut RouteConfig, old: &RouteConfig) {
    let known: HashMap<&str, &Arc<VirtualHost>> = old.virtual_hosts.iter().map(|host| (&*host.name, host)).collect();
    for host in &mut new.virtual_hosts {
        if let Some(old) = known.get(&*host.name).filter(|old| **old == host) {
            *host = Arc::clone(old);
        }
    }
}

/// Deduplicates the objects: the first stays first, the others are sorted.
pub(super) fn origins<'a>(ids: impl Iterator<Item = &'a ObjectId>) -> Origins {
    let mut ids = ids.peekable();
    let first = ids.peek().copied();
    let rest: BTreeSet<&ObjectId> = ids.filter(|id| Some(*id) != first).collect();
    first.into_iter().chain(rest).cloned().collect()
}

/// The routes of a service port, and whether they come from a VirtualService. If none of its routes
/// applies to the proxy, the default route is used.
fn routes_of<'a>(routing: &mut Routing<'a>, exposed: &Exposed<'a>) -> (Vec<Route>, bool) {
    if let Some(rule) = exposed.rule {
        routing.reads.extend(rule.hosts.iter().cloned());
        let routes = route::routes(routing, rule, exposed.port.number);
        if !routes.is_empty() {
            return (routes, true);
        }
    }
    let target = routing.whole(exposed.service, exposed.port.number);
    (vec![route::default_route(routing, &target)], false)
}

/// Virtual host names and domains already taken.
struct Claims<'a> {
    content: &'a Content<'a>,
    /// Hosts of services, which take precedence over short names of others.
    hosts: BTreeSet<&'a str>,
    names: BTreeSet<Arc<str>>,
    domains: BTreeSet<String>,
    done: Vec<Arc<VirtualHost>>,
}

impl<'a> Claims<'a> {
    fn new(content: &'a Content<'a>) -> Self {
        Self {
            content,
            hosts: content
                .exposed
                .iter()
                .map(|exposed| exposed.service.key.host.as_str())
                .collect(),
            names: BTreeSet::new(),
            domains: BTreeSet::new(),
            done: Vec::new(),
        }
    }

    fn virtual_host(&mut self, host: &Virtual<'_>, routes: Vec<Route>) {
        let domains = Domains {
            full: vec![bracketed(host.host.as_str())],
            expanded: Vec::new(),
        };
        let origins = [host.rule.id.clone()].into();
        self.add(host.host.as_str(), host.port, domains, routes, origins);
    }

    fn service(&mut self, exposed: &Exposed<'_>, domains: Domains, routes: Vec<Route>) {
        let host = exposed.service.key.host.as_str();
        self.add(host, exposed.port.number, domains, routes, exposed.origins());
    }

    fn add(&mut self, host: &str, port: u16, domains: Domains, routes: Vec<Route>, origins: Origins) {
        let name = naming::host_port(host, port);
        if routes.is_empty() || !self.names.insert(name.clone()) {
            return;
        }
        let expanded: Vec<String> = domains
            .expanded
            .into_iter()
            .filter(|domain| !self.hosts.contains(domain.as_str()))
            .collect();
        let wanted = domains.full.into_iter().chain(expanded);
        let wanted: Vec<String> = match self.content.one_port {
            true => wanted.collect(),
            false => wanted.flat_map(|domain| with_port(domain, port)).collect(),
        };
        let mut won = Vec::new();
        for domain in wanted {
            if self.domains.insert(domain.to_ascii_lowercase()) {
                won.push(Arc::from(domain));
            }
        }
        if !won.is_empty() {
            self.done.push(Arc::new(VirtualHost {
                name,
                domains: won,
                routes,
                attempt_count: true,
                origins,
            }));
        }
    }
}

/// The domains of a service.
struct Domains {
    /// Unambiguous domains.
    full: Vec<String>,
    /// Short names, valid in the proxy's namespace only.
    expanded: Vec<String>,
}

/// Domains of a service (Istio's `generateVirtualHostDomains`): host and aliases, each also with a
/// trailing dot; short names of cluster hosts; a wildcard below a headless service; addresses.
fn domains(routing: &mut Routing<'_>, service: &Service) -> Domains {
    let namespace = routing.scope.view.namespace.as_str();
    let aliases = routing.other_names(&service.key.host);
    let mut full = Vec::new();
    let mut expanded = Vec::new();
    for host in std::iter::once(&service.key.host).chain(aliases) {
        full.push(bracketed(host.as_str()));
        if host.as_str().parse::<IpAddr>().is_err() {
            full.push(format!("{host}."));
            expanded.extend(short_forms(host.as_str(), namespace));
        }
    }
    if service.headless {
        let below = |domains: &mut Vec<String>| {
            let wildcards: Vec<_> = domains.iter().map(|domain| format!("*.{domain}")).collect();
            domains.extend(wildcards);
        };
        below(&mut full);
        below(&mut expanded);
    }
    let single = service
        .addresses
        .iter()
        .filter(|net| net.prefix_len() == net.max_prefix_len() && !net.addr().is_unspecified());
    full.extend(single.map(|net| bracketed(&net.addr().to_string())));
    Domains { full, expanded }
}

/// Short names of `reviews.default.svc.cluster.local`: `reviews` (in `default` only),
/// `reviews.default` and `reviews.default.svc`.
fn short_forms(host: &str, namespace: &str) -> Vec<String> {
    let Some((in_cluster, _)) = host.split_once(".svc.") else {
        return Vec::new();
    };
    let Some((name, own)) = in_cluster.split_once('.') else {
        return Vec::new();
    };
    let short = (own == namespace).then(|| name.to_owned());
    let longer = [format!("{in_cluster}.svc"), in_cluster.to_owned()];
    short.into_iter().chain(longer).collect()
}

/// A host as in a `Host` header: IPv6 addresses in brackets.
fn bracketed(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        Ok(IpAddr::V4(_)) | Err(_) => host.to_owned(),
    }
}

/// A domain with the port, and without it for port 80.
fn with_port(domain: String, port: u16) -> Vec<String> {
    let named = format!("{domain}:{port}");
    match port {
        80 => vec![domain, named],
        _ => vec![named],
    }
}

/// The virtual host for requests to unknown hosts.
fn catch_all(policy: &OutboundPolicy) -> VirtualHost {
    let (name, action) = match policy {
        OutboundPolicy::AllowAny | OutboundPolicy::EgressProxy(_) => {
            ("allow_any", route::forward_untouched(chain::unclaimed(policy)))
        }
        OutboundPolicy::RegistryOnly => {
            let refusal = DirectResponse {
                status: 502,
                body: None,
            };
            ("block_all", RouteAction::Direct(refusal))
        }
    };
    VirtualHost {
        name: name.into(),
        domains: vec!["*".into()],
        routes: vec![Route {
            name: name.into(),
            ..route::anything(action)
        }],
        attempt_count: true,
        origins: Origins::default(),
    }
}

/// The VirtualServices of the services, by port, in the services' order.
pub(super) fn attached<'a>(exposed: &[Exposed<'a>]) -> BTreeMap<(u16, &'a ObjectId), &'a Arc<VirtualService>> {
    let rules = exposed
        .iter()
        .filter_map(|exposed| Some((exposed.port.number, exposed.rule?)));
    rules.map(|(port, rule)| ((port, &rule.id), rule)).collect()
}
