//! Route configurations: a virtual host for every service of a port and for hosts that only VirtualServices know.

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

/// A service's port among the routes, with the VirtualService for it.
#[derive(Clone, Copy)]
pub(super) struct Exposed<'a> {
    /// The service.
    pub(super) service: &'a Arc<Service>,
    /// The port.
    pub(super) port: &'a ServicePort,
    /// What listeners take it for: an egress listener of the Sidecar may say otherwise than the port.
    pub(super) protocol: Protocol,
    /// What routes its requests.
    pub(super) rule: Option<&'a Arc<VirtualService>>,
}

impl Exposed<'_> {
    /// Whether it has a place among HTTP routes.
    pub(super) fn is_routed(&self) -> bool {
        let protocol = self.port.protocol;
        self.service.resolution != Resolution::Alias && (protocol.is_http() || protocol == Protocol::Auto)
    }

    fn origins(&self) -> Origins {
        let rule = self.rule.map(|rule| &rule.id);
        origins(rule.into_iter().chain(&self.service.origins))
    }
}

/// A host without a service that a VirtualService routes, on a port.
pub(super) struct Virtual<'a> {
    /// The host.
    pub(super) host: Hostname,
    /// The port.
    pub(super) port: u16,
    /// What routes its requests.
    pub(super) rule: &'a Arc<VirtualService>,
}

/// What a route configuration is made of.
pub(super) struct Content<'a> {
    /// The name.
    pub(super) name: ResourceName,
    /// Services, oldest first.
    pub(super) exposed: Vec<Exposed<'a>>,
    /// Hosts without a service.
    pub(super) virtuals: Vec<Virtual<'a>>,
    /// Whether all services are on the listener's port; else requests name the port.
    pub(super) one_port: bool,
    /// What happens to requests for other hosts.
    pub(super) otherwise: OutboundPolicy,
}

/// The route configuration of a listener that several services share. Domains belong to the first that claims them:
/// hosts of VirtualServices before services without one, the older before the younger.
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
        // Its version of HTTP counts as that of any cluster.
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

/// The route configuration of the listener of one service, whatever host requests name.
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

/// Puts virtual hosts of `old` in the place of equal ones: what did not change is the same value.
pub(super) fn keep_equal(new: &mut RouteConfig, old: &RouteConfig) {
    let known: HashMap<&str, &Arc<VirtualHost>> = old.virtual_hosts.iter().map(|host| (&*host.name, host)).collect();
    for host in &mut new.virtual_hosts {
        if let Some(old) = known.get(&*host.name).filter(|old| **old == host) {
            *host = Arc::clone(old);
        }
    }
}

/// The objects, the first one first and the others sorted.
pub(super) fn origins<'a>(ids: impl Iterator<Item = &'a ObjectId>) -> Origins {
    let mut ids = ids.peekable();
    let first = ids.peek().copied();
    let rest: BTreeSet<&ObjectId> = ids.filter(|id| Some(*id) != first).collect();
    first.into_iter().chain(rest).cloned().collect()
}

/// The routes of a service's port, and whether they are a VirtualService's. One of which nothing applies to the
/// proxy leaves the default route.
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

/// Who has which name and domain.
struct Claims<'a> {
    content: &'a Content<'a>,
    /// Hosts of services, which short forms of others give way to.
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

/// What a service answers to.
struct Domains {
    /// What nobody else can mean.
    full: Vec<String>,
    /// Short forms, as a proxy of one namespace understands them.
    expanded: Vec<String>,
}

/// Istio's `generateVirtualHostDomains`: the host and its other names, each with a final dot too; short forms of
/// hosts in the cluster; any host below a headless service; addresses.
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

/// `reviews.default.svc.cluster.local` as `reviews` (in `default` alone), `reviews.default` and
/// `reviews.default.svc`.
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

/// A host as a `Host` header has it: IPv6 addresses in brackets.
fn bracketed(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        Ok(IpAddr::V4(_)) | Err(_) => host.to_owned(),
    }
}

/// A domain as clients that name the port do; port 80 goes without saying.
fn with_port(domain: String, port: u16) -> Vec<String> {
    let named = format!("{domain}:{port}");
    match port {
        80 => vec![domain, named],
        _ => vec![named],
    }
}

/// What becomes of requests for hosts that nobody claims.
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

/// The VirtualServices of the services exposed, with the ports they are there for, in the services' order.
pub(super) fn attached<'a>(exposed: &[Exposed<'a>]) -> BTreeMap<(u16, &'a ObjectId), &'a Arc<VirtualService>> {
    let rules = exposed
        .iter()
        .filter_map(|exposed| Some((exposed.port.number, exposed.rule?)));
    rules.map(|(port, rule)| ((port, &rule.id), rule)).collect()
}
