//! Compiling what routes do.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::{Inherited, mutations, retry};
use crate::proxy::config::headers::name_of;
use crate::proxy::config::value::{self, number};
use crate::proxy::config::{At, Compiled, Names, Refusal, filter};
use crate::proxy::format::Format;
use crate::proxy::http::Upgrades;
use crate::proxy::http::route::{
    Connect, Destination, DirectResponse, Forward, HashKey, HashPolicy, HostRewrite, Mirror, PathRewrite, Redirect,
    RedirectPath, RouteAction, StreamLimit, Timeouts, WeightedCluster, WeightedClusters,
};
use crate::xds::pb::core::RoutingPriority;
use crate::xds::pb::matcher::RegexMatchAndSubstitute;
use crate::xds::pb::route;
use crate::xds::pb::route::redirect_action::{PathRewriteSpecifier, SchemeRewriteSpecifier};
use crate::xds::pb::route::route::Action;
use crate::xds::pb::route::route_action::hash_policy::PolicySpecifier;
use crate::xds::pb::route::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, RequestMirrorPolicy,
};
use crate::xds::pb::route::weighted_cluster::{ClusterWeight, cluster_weight};

/// Envoy's default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// Compiles a route's action.
pub(super) fn action(action: Option<&Action>, inherited: Inherited<'_>, names: &mut Names) -> Compiled<RouteAction> {
    match action {
        Some(Action::Route(forward)) => Ok(RouteAction::Forward(Box::new(
            self::forward(forward, inherited, names).at("route")?,
        ))),
        Some(Action::Redirect(redirect)) => Ok(RouteAction::Redirect(Box::new(
            self::redirect(redirect).at("redirect")?,
        ))),
        Some(Action::DirectResponse(direct)) => Ok(RouteAction::Direct(
            self::direct(direct, inherited.most_own).at("direct_response")?,
        )),
        Some(Action::FilterAction(_) | Action::NonForwardingAction(_)) => Err(Refusal::not_implemented("this action")),
        None => Err(Refusal::new("an action is required")),
    }
}

fn forward(message: &route::RouteAction, inherited: Inherited<'_>, names: &mut Names) -> Compiled<Forward> {
    let own = retry::policy(message.retry_policy.as_ref())?;
    let stream = message.max_stream_duration.as_ref().map(|stream| StreamLimit {
        whole: stream.max_stream_duration.as_ref().map(value::duration),
        grpc_max: stream.grpc_timeout_header_max.as_ref().map(value::duration),
    });
    let response = value::limit(message.timeout.as_ref(), Some(DEFAULT_TIMEOUT));
    Ok(Forward {
        destination: destination(message.cluster_specifier.as_ref(), inherited, names)?,
        cluster_not_found: match message.cluster_not_found_response_code() {
            ClusterNotFoundResponseCode::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            ClusterNotFoundResponseCode::NotFound => StatusCode::NOT_FOUND,
            ClusterNotFoundResponseCode::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
        },
        path_rewrite: path_rewrite(message)?,
        host_rewrite: host_rewrite(message.host_rewrite_specifier.as_ref())?,
        append_forwarded_host: message.append_x_forwarded_host,
        timeouts: Timeouts {
            response: response.filter(|_| stream.is_none()),
            idle: message.idle_timeout.as_ref().map(value::duration),
            stream,
        },
        retry: own.or_else(|| inherited.retry.cloned()),
        mirrors: mirrors(&message.request_mirror_policies, names)?,
        hash: hash_policies(&message.hash_policy)?,
        high_priority: message.priority() == RoutingPriority::High,
        upgrades: upgrades(message).at("upgrade_configs")?,
        connect: connect(message)?,
    })
}

fn upgrades(message: &route::RouteAction) -> Compiled<Upgrades> {
    let all = message.upgrade_configs.iter();
    let rules = all.map(|one| (one.upgrade_type.as_str(), value::truth(one.enabled.as_ref(), true)));
    Upgrades::new(rules).map_err(|twice| Refusal::new(format!("duplicate `{twice}`")))
}

fn connect(message: &route::RouteAction) -> Compiled<Option<Connect>> {
    let mut connect = None;
    for (index, upgrade) in message.upgrade_configs.iter().enumerate() {
        let Some(config) = &upgrade.connect_config else {
            continue;
        };
        if !upgrade.upgrade_type.eq_ignore_ascii_case("CONNECT") {
            let refusal = Refusal::new(format!(
                "it is only valid for CONNECT, not for `{}`",
                upgrade.upgrade_type
            ));
            return Err(refusal.within("connect_config")).at_index("upgrade_configs", index);
        }
        connect = Some(Connect {
            proxy_header: config.proxy_protocol_config.as_ref().map(value::proxy_header),
            allow_post: config.allow_post,
        });
    }
    Ok(connect)
}

fn mirrors(policies: &[RequestMirrorPolicy], names: &mut Names) -> Compiled<Vec<Mirror>> {
    let mirror = |(index, policy): (usize, &RequestMirrorPolicy)| {
        if policy.cluster.is_empty() {
            return Err(Refusal::not_implemented("cluster_header")).at_index("request_mirror_policies", index);
        }
        if value::truth(policy.trace_sampled.as_ref(), false) {
            let refusal = Refusal::not_implemented("a span of a copy").within("trace_sampled");
            return Err(refusal).at_index("request_mirror_policies", index);
        }
        Ok(Mirror {
            cluster: names.clusters.of(&policy.cluster),
            per_million: value::runtime_per_million(policy.runtime_fraction.as_ref()).unwrap_or(1_000_000),
            keep_host: policy.disable_shadow_host_suffix_append,
            sampled: value::truth(policy.trace_sampled.as_ref(), true),
        })
    };
    policies.iter().enumerate().map(mirror).collect()
}

fn hash_policies(policies: &[route::route_action::HashPolicy]) -> Compiled<Vec<HashPolicy>> {
    let policies = policies.iter().enumerate();
    policies
        .map(|(index, policy)| {
            Ok(HashPolicy {
                key: hash_key(policy.policy_specifier.as_ref()).at_index("hash_policy", index)?,
                terminal: policy.terminal,
            })
        })
        .collect()
}

fn hash_key(specifier: Option<&PolicySpecifier>) -> Compiled<HashKey> {
    Ok(match specifier {
        Some(PolicySpecifier::Header(header)) => HashKey::Header(name_of(&header.header_name).at("header")?),
        Some(PolicySpecifier::Cookie(cookie)) => HashKey::Cookie {
            name: cookie.name.as_str().into(),
            path: cookie.path.as_str().into(),
            ttl: cookie.ttl.as_ref().map(value::duration),
            attributes: cookie
                .attributes
                .iter()
                .map(|attribute| (attribute.name.as_str().into(), attribute.value.as_str().into()))
                .collect(),
        },
        Some(PolicySpecifier::ConnectionProperties(_)) => HashKey::SourceIp,
        Some(PolicySpecifier::QueryParameter(parameter)) => HashKey::Query(parameter.name.as_str().into()),
        Some(PolicySpecifier::FilterState(_)) => return Err(Refusal::not_implemented("filter_state")),
        None => return Err(Refusal::new("a policy is required")),
    })
}

fn destination(
    specifier: Option<&ClusterSpecifier>,
    inherited: Inherited<'_>,
    names: &mut Names,
) -> Compiled<Destination> {
    match specifier {
        Some(ClusterSpecifier::Cluster(name)) => Ok(Destination::Cluster(names.clusters.of(name))),
        Some(ClusterSpecifier::ClusterHeader(name)) => Ok(Destination::Header(name_of(name).at("cluster_header")?)),
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            let clusters = weighted.clusters.iter().enumerate();
            let clusters = clusters
                .map(|(index, one)| {
                    weighted_cluster(one, inherited, names).at_index("weighted_clusters.clusters", index)
                })
                .collect::<Compiled<Vec<_>>>()?;
            let sum = clusters.iter().map(|cluster| cluster.weight).sum();
            if sum == 0 {
                return Err(Refusal::new("the sum of the weights must not be zero").within("weighted_clusters"));
            }
            Ok(Destination::Weighted(WeightedClusters { total: sum, clusters }))
        }
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_) | ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            Err(Refusal::not_implemented("a cluster specifier plugin"))
        }
        None => Err(Refusal::new("a cluster is required")),
    }
}

fn weighted_cluster(message: &ClusterWeight, inherited: Inherited<'_>, names: &mut Names) -> Compiled<WeightedCluster> {
    let host_rewrite = match message.host_rewrite_specifier.as_ref() {
        Some(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)) => Some(host_value(host)?),
        None => None,
    };
    Ok(WeightedCluster {
        cluster: names.clusters.of(&message.name),
        weight: u64::from(number(message.weight.as_ref(), 0)),
        headers: mutations(message)?,
        host_rewrite,
        overrides: filter::overrides(&message.typed_per_filter_config, names)?.within(inherited.overrides),
    })
}

fn path_rewrite(message: &route::RouteAction) -> Compiled<Option<PathRewrite>> {
    if let Some(rewrite) = &message.regex_rewrite {
        let (regex, substitution) = substitution(rewrite).at("regex_rewrite")?;
        return Ok(Some(PathRewrite::Regex(regex, substitution)));
    }
    if !message.path_rewrite.is_empty() {
        let format = Format::parse(&message.path_rewrite).at("path_rewrite")?;
        return Ok(Some(PathRewrite::Format(format)));
    }
    let prefix =
        (!message.prefix_rewrite.is_empty()).then(|| PathRewrite::Prefix(message.prefix_rewrite.as_str().into()));
    Ok(prefix)
}

/// A regular expression that may match anywhere, and its substitution.
fn substitution(message: &RegexMatchAndSubstitute) -> Compiled<(regex::bytes::Regex, Box<[u8]>)> {
    let pattern = message.pattern.as_ref().map_or("", |pattern| &pattern.regex);
    Ok((
        regex::bytes::Regex::new(pattern)?,
        message.substitution.as_bytes().into(),
    ))
}

fn host_rewrite(specifier: Option<&HostRewriteSpecifier>) -> Compiled<Option<HostRewrite>> {
    Ok(match specifier {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => Some(HostRewrite::Literal(host_value(host)?)),
        Some(HostRewriteSpecifier::AutoHostRewrite(auto)) => auto.value.then_some(HostRewrite::Endpoint),
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => Some(HostRewrite::Header(name_of(name)?)),
        Some(HostRewriteSpecifier::HostRewritePathRegex(_) | HostRewriteSpecifier::HostRewrite(_)) => {
            return Err(Refusal::not_implemented("this way to rewrite the host"));
        }
    })
}

fn host_value(host: &str) -> Compiled<HeaderValue> {
    HeaderValue::from_str(host).map_err(|_| Refusal::new(format!("`{host}` is not a valid host")))
}

fn redirect(message: &route::RedirectAction) -> Compiled<Redirect> {
    let scheme = match message.scheme_rewrite_specifier.as_ref() {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => Some(scheme.as_str().into()),
        Some(SchemeRewriteSpecifier::HttpsRedirect(false)) | None => None,
    };
    let path = match message.path_rewrite_specifier.as_ref() {
        Some(PathRewriteSpecifier::PathRedirect(path)) => Some(RedirectPath::Full(path.as_str().into())),
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => Some(RedirectPath::Prefix(prefix.as_str().into())),
        Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => {
            let (regex, substitution) = substitution(rewrite).at("regex_rewrite")?;
            Some(RedirectPath::Regex(regex, substitution))
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => return Err(Refusal::not_implemented("path_rewrite")),
        None => None,
    };
    let status = match message.response_code {
        1 => StatusCode::FOUND,
        2 => StatusCode::SEE_OTHER,
        3 => StatusCode::TEMPORARY_REDIRECT,
        4 => StatusCode::PERMANENT_REDIRECT,
        _ => StatusCode::MOVED_PERMANENTLY,
    };
    Ok(Redirect {
        scheme,
        host: (!message.host_redirect.is_empty()).then(|| message.host_redirect.as_str().into()),
        port: u16::try_from(message.port_redirect).ok().filter(|port| *port != 0),
        path,
        status,
        strip_query: message.strip_query,
        keep_port: false,
    })
}

fn direct(message: &route::DirectResponseAction, most: usize) -> Compiled<DirectResponse> {
    let status = u16::try_from(message.status)
        .ok()
        .and_then(|status| StatusCode::from_u16(status).ok());
    let body = message.body.as_ref().filter(|body| body.specifier.is_some());
    let body = Bytes::from(body.map(value::data).transpose().at("body")?.unwrap_or_default());
    if body.len() > most {
        let why = format!("response body size is {} bytes; maximum is {most}", body.len());
        return Err(Refusal::new(why).within("body"));
    }
    Ok(DirectResponse {
        status: status
            .ok_or_else(|| Refusal::new(format!("{} is not a valid status", message.status)).within("status"))?,
        body,
    })
}
