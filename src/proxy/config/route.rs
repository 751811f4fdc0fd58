//! Compiling route configurations.

mod action;
mod retry;

use std::sync::Arc;

use http::StatusCode;

use super::value::{number, truth};
use super::{At, Compiled, Names, Refusal, all, filter, headers, matcher, same_name, trace};
use crate::proxy::http::filter::Overrides;
use crate::proxy::http::route::{
    HostIndex, Matched, Mutations, PathMatch, Redirect, RetryPolicy, Route, RouteAction, RouteList, RouteMatch,
    RouteTable, VirtualHost,
};
use crate::xds::ResourceType;
use crate::xds::pb::core::HeaderValueOption;
use crate::xds::pb::route;
use crate::xds::pb::route::virtual_host::TlsRequirementType;
use crate::xds::pb::route::weighted_cluster::ClusterWeight;

/// Envoy's default, in bytes.
const MOST_OWN: u32 = 4096;

/// Compiles the resource `name`.
pub(crate) fn resource(name: &str, bytes: &[u8], names: &mut Names) -> Compiled<RouteTable> {
    let message: route::RouteConfiguration = super::read(ResourceType::Route, bytes)?;
    same_name(name, &message.name).at("name")?;
    table(&message, names)
}

/// Compiles a `RouteConfiguration`.
pub(crate) fn table(message: &route::RouteConfiguration, names: &mut Names) -> Compiled<RouteTable> {
    if truth(message.validate_clusters.as_ref(), false) {
        return Err(Refusal::not_implemented("to look for clusters beforehand").within("validate_clusters"));
    }
    let most_own = number(message.max_direct_response_body_size_bytes.as_ref(), MOST_OWN) as usize;
    let hosts = message.virtual_hosts.iter().enumerate().map(|(index, host)| {
        let compiled = virtual_host(host, most_own, names).at_index("virtual_hosts", index)?;
        Ok((Arc::new(compiled), host.domains.clone()))
    });
    let hosts = all::<_, Vec<_>>(hosts)?;
    let index = HostIndex::new(hosts)
        .map_err(|domain| Refusal::new(format!("two virtual hosts have the domain `{domain}`")))
        .at("virtual_hosts")?;
    Ok(RouteTable {
        hosts: index,
        ignore_port: message.ignore_port_in_host_matching,
        headers: mutations(message)?,
        most_specific_wins: message.most_specific_header_mutations_wins,
    })
}

fn virtual_host(message: &route::VirtualHost, most_own: usize, names: &mut Names) -> Compiled<VirtualHost> {
    let retry = retry::policy(message.retry_policy.as_ref())?;
    let inherited = Inherited {
        retry: retry.as_ref(),
        overrides: &filter::overrides(&message.typed_per_filter_config, names)?,
        most_own,
        host: &message.name,
    };
    let routes = message.routes.iter().enumerate();
    let routes = routes.map(|(index, route)| {
        route_entry(route, inherited, names)
            .at_index("routes", index)
            .map(Arc::new)
    });
    Ok(VirtualHost {
        routes: RouteList::new(all(routes)?),
        headers: mutations(message)?,
        attempt_count: message.include_request_attempt_count,
        attempt_count_in_response: message.include_attempt_count_in_response,
        // `EXTERNAL_ONLY` is `ALL`: without internal address ranges, no request is internal.
        to_https: (message.require_tls() != TlsRequirementType::None).then(|| Box::new(to_https())),
    })
}

/// The redirect of `require_tls`. As in Envoy, header changes of the virtual host and the table do not apply to it.
fn to_https() -> Matched {
    let redirect = Redirect {
        scheme: Some("https".into()),
        host: None,
        port: None,
        path: None,
        status: StatusCode::MOVED_PERMANENTLY,
        strip_query: false,
        keep_port: true,
    };
    let route = Route {
        name: "".into(),
        matcher: RouteMatch {
            path: PathMatch::Prefix("/".into()),
            ignore_case: false,
            headers: Vec::new(),
            query: Vec::new(),
            grpc: false,
            per_million: None,
        },
        action: RouteAction::Redirect(Box::new(redirect)),
        headers: Mutations::default(),
        overrides: Overrides::default(),
        tracing: None,
        stats: None,
        buffer_limit: None,
    };
    Matched {
        host: Arc::default(),
        route: Arc::new(route),
        table: Arc::default(),
    }
}

/// What routes inherit from their virtual host.
#[derive(Clone, Copy)]
struct Inherited<'a> {
    retry: Option<&'a Arc<RetryPolicy>>,
    overrides: &'a Overrides,
    /// `max_direct_response_body_size_bytes`.
    most_own: usize,
    /// The name of the virtual host.
    host: &'a str,
}

fn route_entry(message: &route::Route, inherited: Inherited<'_>, names: &mut Names) -> Compiled<Route> {
    let matcher = message
        .r#match
        .as_ref()
        .ok_or_else(|| Refusal::new("a match is required"))?;
    let limit = message.request_body_buffer_limit.as_ref();
    let overrides = filter::overrides(&message.typed_per_filter_config, names)?.within(inherited.overrides);
    let inherited = Inherited {
        overrides: &overrides,
        ..inherited
    };
    let stat_prefix = Some(&message.stat_prefix).filter(|prefix| !prefix.is_empty());
    let stats = stat_prefix.map(|prefix| format!("vhost.{}.route.{prefix}", inherited.host));
    Ok(Route {
        stats: stats.map(|name| names.stats.own_of_routes.of(&name)),
        name: message.name.as_str().into(),
        matcher: matcher::route(matcher).at("match")?,
        action: action::action(message.action.as_ref(), inherited, names)?,
        headers: mutations(message)?,
        tracing: trace::route(message)?,
        buffer_limit: limit.and_then(|limit| usize::try_from(limit.value).ok()),
        overrides,
    })
}

/// A level with header changes: messages with the same four fields.
trait HeaderLevel {
    /// Additions to and removals from requests.
    fn request(&self) -> (&[HeaderValueOption], &[String]);
    /// The same for responses.
    fn response(&self) -> (&[HeaderValueOption], &[String]);
}

macro_rules! header_level {
    ($($message:ty),*) => {$(
        impl HeaderLevel for $message {
            fn request(&self) -> (&[HeaderValueOption], &[String]) {
                (&self.request_headers_to_add, &self.request_headers_to_remove)
            }

            fn response(&self) -> (&[HeaderValueOption], &[String]) {
                (&self.response_headers_to_add, &self.response_headers_to_remove)
            }
        }
    )*};
}

header_level!(
    route::RouteConfiguration,
    route::VirtualHost,
    route::Route,
    ClusterWeight
);

/// Compiles the header changes of any level.
fn mutations(level: &impl HeaderLevel) -> Compiled<Mutations> {
    let ((request_add, request_remove), (response_add, response_remove)) = (level.request(), level.response());
    Ok(Mutations {
        request: headers::ops("request", request_add, request_remove)?,
        response: headers::ops("response", response_add, response_remove)?,
    })
}
