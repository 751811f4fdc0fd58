//! Routes of a VirtualService's `http` rules for one proxy and port.

use std::sync::Arc;

use super::naming;
use super::routing::{Routing, Target};
use crate::ir::ResourceName;
use crate::ir::route::{Forward, HeaderMatch, PathMatch, Route, RouteAction, RouteMatch, WeightedCluster};
use crate::mesh::config::MeshConfig;
use crate::mesh::virtual_service::{
    HeaderChanges, HeaderOps, HttpAction, HttpForward, HttpMatch, HttpRoute, Mirror, Redirect, RedirectPort,
    RetryPolicy, StringMatch, VirtualService, WeightedDestination,
};
use crate::name::Percent;

/// The routes of a VirtualService for requests on `port`: one per match that can apply to the
/// proxy, up to the first catch-all. Empty if none applies.
pub(super) fn routes(routing: &mut Routing<'_>, rule: &VirtualService, port: u16) -> Vec<Route> {
    let mut routes = Vec::new();
    'all: for http in &rule.http {
        let everything = [HttpMatch::default()];
        let matches: &[HttpMatch] = if http.matches.is_empty() {
            &everything
        } else {
            &http.matches
        };
        for entry in matches {
            if entry.port.is_some_and(|only| only != port) || !routing.is_source(&entry.source) {
                continue;
            }
            let route = route(routing, rule, http, entry, port);
            let catch_all = is_catch_all(&route.matcher);
            routes.push(route);
            if catch_all {
                break 'all;
            }
        }
    }
    // Routes are retained and most virtual hosts have one, while a growing vector reserves four.
    routes.shrink_to_fit();
    routes
}

/// The route to a service without a VirtualService.
pub(super) fn default_route(routing: &mut Routing<'_>, target: &Target) -> Route {
    let config = &routing.scope.mesh.config;
    let hash = target.hash().cloned();
    let forward = Forward {
        retry_other_hosts: other_hosts(&config.retry, hash.is_some()),
        hash,
        ..forward_to(target.cluster.clone(), config)
    };
    Route {
        name: "default".into(),
        operation: format!("{}/*", naming::host_port(target.host.as_str(), target.port)).into(),
        ..anything(RouteAction::Forward(Box::new(forward)))
    }
}

/// A catch-all route without a name.
pub(super) fn anything(action: RouteAction) -> Route {
    Route {
        name: "".into(),
        matcher: RouteMatch {
            path: PathMatch::Prefix("/".into()),
            ignore_case: false,
            headers: Vec::new(),
            query: Vec::new(),
        },
        action,
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        fault: None,
        cors: None,
        operation: "".into(),
        config: None,
        stat_prefix: "".into(),
    }
}

/// Forwards to one cluster, with the mesh's retry policy and no timeout.
fn forward_to(cluster: ResourceName, config: &MeshConfig) -> Forward {
    Forward {
        clusters: vec![alone(cluster)],
        path_rewrite: None,
        host_rewrite: None,
        timeout: None,
        retry: retry(None, config),
        retry_other_hosts: false,
        mirrors: Vec::new(),
        hash: None,
    }
}

/// Forwards to one cluster, without retries.
pub(super) fn forward_untouched(cluster: ResourceName) -> RouteAction {
    RouteAction::Forward(Box::new(Forward {
        clusters: vec![alone(cluster)],
        path_rewrite: None,
        host_rewrite: None,
        timeout: None,
        retry: None,
        retry_other_hosts: false,
        mirrors: Vec::new(),
        hash: None,
    }))
}

fn alone(cluster: ResourceName) -> WeightedCluster {
    WeightedCluster {
        cluster,
        weight: 1,
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        host_rewrite: None,
    }
}

fn route(routing: &mut Routing<'_>, rule: &VirtualService, http: &HttpRoute, entry: &HttpMatch, port: u16) -> Route {
    let matcher = matcher(entry);
    let mut headers = http.headers.clone();
    let (action, target) = match &http.action {
        HttpAction::Forward(forward) => {
            let (forward, target) = self::forward(routing, forward, &mut headers, port);
            (RouteAction::Forward(Box::new(forward)), target)
        }
        HttpAction::Redirect(redirect) => (RouteAction::Redirect(at_port(redirect, port)), None),
        HttpAction::Direct(response) => (RouteAction::Direct(response.clone()), None),
    };
    Route {
        name: route_name(&http.name, &entry.name),
        operation: operation(rule, target.as_ref(), &matcher.path, port),
        matcher,
        action,
        request_headers: headers.request,
        response_headers: headers.response,
        fault: http.fault.clone(),
        cors: http.cors.clone(),
        config: Some((rule.id.clone(), rule.api_version.clone())),
        stat_prefix: entry.stat_prefix.clone(),
    }
}

fn route_name(route: &Arc<str>, entry: &Arc<str>) -> Arc<str> {
    match entry.is_empty() {
        true => route.clone(),
        false => format!("{route}.{entry}").into(),
    }
}

/// `decorator.operation`: the single destination, else the VirtualService, and the path.
fn operation(rule: &VirtualService, target: Option<&Target>, path: &PathMatch, port: u16) -> Arc<str> {
    let place = match target {
        Some(target) => naming::host_port(target.host.as_str(), target.port),
        None => format!("{}:{port}", rule.id.name).into(),
    };
    match path {
        PathMatch::Prefix(prefix) => format!("{place}{prefix}*").into(),
        PathMatch::Exact(path) | PathMatch::Regex(path) => format!("{place}{path}").into(),
    }
}

fn is_catch_all(matcher: &RouteMatch) -> bool {
    let path = match &matcher.path {
        PathMatch::Prefix(prefix) => matches!(&**prefix, "" | "/"),
        PathMatch::Regex(regex) => matches!(&**regex, "*" | ".*"),
        PathMatch::Exact(_) => false,
    };
    path && matcher.headers.is_empty() && matcher.query.is_empty()
}

fn matcher(entry: &HttpMatch) -> RouteMatch {
    let pseudo = [
        (":scheme", &entry.scheme),
        (":method", &entry.method),
        (":authority", &entry.authority),
    ];
    let pseudo = pseudo.into_iter().filter_map(|(name, value)| {
        Some(HeaderMatch {
            name: name.into(),
            value: Some(value.clone()?),
            invert: false,
        })
    });
    let header = |invert: bool| {
        move |(name, value): &(Arc<str>, Option<StringMatch>)| HeaderMatch {
            name: name.to_ascii_lowercase().into(),
            value: value.clone(),
            invert,
        }
    };
    let present = entry.headers.iter().map(header(false));
    let absent = entry.without_headers.iter().map(header(true));
    RouteMatch {
        path: match &entry.uri {
            None => PathMatch::Prefix("/".into()),
            Some(StringMatch::Prefix(prefix)) => PathMatch::Prefix(prefix.clone()),
            Some(StringMatch::Exact(path)) => PathMatch::Exact(path.clone()),
            Some(StringMatch::Regex(regex)) => PathMatch::Regex(regex.clone()),
        },
        ignore_case: entry.ignore_uri_case,
        headers: present.chain(absent).chain(pseudo).collect(),
        query: entry.query_params.clone(),
    }
}

/// Resolves a redirect port taken from the request, which is the listener's port; omitted if it is
/// the scheme's default.
fn at_port(redirect: &Redirect, port: u16) -> Redirect {
    let default = match redirect.scheme.as_deref() {
        Some("https") => 443,
        Some(_) | None => 80,
    };
    let derived = match redirect.port {
        RedirectPort::RequestPort if port == default => RedirectPort::ProtocolDefault,
        RedirectPort::RequestPort => RedirectPort::Number(port),
        RedirectPort::Unset | RedirectPort::Number(_) | RedirectPort::ProtocolDefault => redirect.port,
    };
    Redirect {
        port: derived,
        ..redirect.clone()
    }
}

/// The forward action, and the destination if there is only one, whose header operations are then
/// merged into the route's.
fn forward(
    routing: &mut Routing<'_>,
    http: &HttpForward,
    headers: &mut HeaderChanges,
    port: u16,
) -> (Forward, Option<Target>) {
    let chosen = with_share(&http.destinations);
    let targets: Vec<Target> = chosen
        .iter()
        .map(|weighted| routing.target(&weighted.destination, port))
        .collect();
    let hash = targets.iter().find_map(|target| target.hash()).cloned();
    if let [only] = chosen.as_slice() {
        join(headers, &only.headers);
    }
    let config = routing.scope.mesh.config.clone();
    let policy = http.retries.as_ref().unwrap_or(&config.retry);
    let rewrite = http.rewrite.as_ref();
    let forward = Forward {
        clusters: weighted_clusters(&chosen, &targets),
        path_rewrite: rewrite.and_then(|rewrite| rewrite.path.clone()),
        host_rewrite: headers
            .authority
            .clone()
            .or_else(|| rewrite.and_then(|rewrite| rewrite.authority.clone())),
        timeout: http.timeout,
        retry: retry(http.retries.as_ref(), &config),
        retry_other_hosts: other_hosts(policy, hash.is_some() && targets.len() == 1),
        mirrors: mirrors(routing, &http.mirrors, port),
        hash,
    };
    let only = (targets.len() == 1).then(|| targets.into_iter().next()).flatten();
    (forward, only)
}

/// Destinations with a share: among several, those of weight 0 get none.
fn with_share(destinations: &[WeightedDestination]) -> Vec<&WeightedDestination> {
    let weighted: Vec<_> = destinations.iter().filter(|weighted| weighted.weight > 0).collect();
    match weighted.is_empty() {
        true => destinations.iter().take(1).collect(),
        false => weighted,
    }
}

fn weighted_clusters(chosen: &[&WeightedDestination], targets: &[Target]) -> Vec<WeightedCluster> {
    if let [only] = targets {
        return vec![alone(only.cluster.clone())];
    }
    let pairs = chosen.iter().zip(targets);
    let cluster = |(weighted, target): (&&WeightedDestination, &Target)| WeightedCluster {
        cluster: target.cluster.clone(),
        weight: weighted.weight,
        request_headers: weighted.headers.request.clone(),
        response_headers: weighted.headers.response.clone(),
        host_rewrite: weighted.headers.authority.clone(),
    };
    pairs.map(cluster).collect()
}

fn mirrors(routing: &mut Routing<'_>, mirrors: &[Mirror], port: u16) -> Vec<(ResourceName, Percent)> {
    let copy = |mirror: &Mirror| (routing.target(&mirror.destination, port).cluster, mirror.percent);
    mirrors.iter().map(copy).collect()
}

/// Appends the header operations of a single destination to those of its route.
fn join(route: &mut HeaderChanges, destination: &HeaderChanges) {
    for (to, from) in [
        (&mut route.request, &destination.request),
        (&mut route.response, &destination.response),
    ] {
        to.set.extend_from_slice(&from.set);
        to.add.extend_from_slice(&from.add);
        to.remove.extend_from_slice(&from.remove);
    }
    if destination.authority.is_some() {
        route.authority = destination.authority.clone();
    }
}

/// The route's retry policy, else the mesh's; `None` if disabled.
fn retry(own: Option<&RetryPolicy>, config: &MeshConfig) -> Option<RetryPolicy> {
    Some(own.unwrap_or(&config.retry))
        .filter(|policy| policy.attempts > 0)
        .cloned()
}

/// Whether retries avoid hosts already attempted. Not by default with consistent hashing, which
/// would select the same host again.
fn other_hosts(policy: &RetryPolicy, hashed: bool) -> bool {
    policy.attempts > 0 && policy.ignore_previous_hosts.unwrap_or(!hashed)
}
