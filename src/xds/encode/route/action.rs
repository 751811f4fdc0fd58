//! Route actions.

mod retry;

use std::sync::Arc;
use std::time::Duration;

use super::to_add;
use crate::ir::ResourceName;
use crate::ir::route::{Forward, RouteAction, WeightedCluster};
use crate::mesh::destination_rule::HashKey;
use crate::mesh::virtual_service::{DirectResponse, PathRewrite, Redirect, RedirectPath, RedirectPort};
use crate::name::Percent;
use crate::xds::encode::value::{boolean, duration, regex, runtime_fraction, strings, uint32};
use crate::xds::pb::core::DataSource;
use crate::xds::pb::core::data_source::Specifier;
use crate::xds::pb::matcher::RegexMatchAndSubstitute;
use crate::xds::pb::route::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
use crate::xds::pb::route::route::Action;
use crate::xds::pb::route::route_action::hash_policy::{
    ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
};
use crate::xds::pb::route::route_action::{
    ClusterSpecifier, HashPolicy, HostRewriteSpecifier, MaxStreamDuration, RequestMirrorPolicy,
};
use crate::xds::pb::route::weighted_cluster::{ClusterWeight, cluster_weight};
use crate::xds::pb::route::{self, DirectResponseAction, RedirectAction};

pub(super) fn action(action: &RouteAction) -> Action {
    match action {
        RouteAction::Forward(forward) => Action::Route(self::forward(forward)),
        RouteAction::Redirect(redirect) => Action::Redirect(self::redirect(redirect)),
        RouteAction::Direct(response) => Action::DirectResponse(direct(response)),
    }
}

fn forward(forward: &Forward) -> route::RouteAction {
    let host_rewrite = match &forward.clusters[..] {
        [only] => only.host_rewrite.as_ref().or(forward.host_rewrite.as_ref()),
        _ => forward.host_rewrite.as_ref(),
    };
    let retry = forward.retry.as_ref().filter(|retry| retry.attempts > 0);
    route::RouteAction {
        cluster_specifier: clusters(&forward.clusters),
        host_rewrite_specifier: host_rewrite.map(|host| HostRewriteSpecifier::HostRewriteLiteral(host.to_string())),
        timeout: Some(duration(forward.timeout.unwrap_or(Duration::ZERO))),
        max_stream_duration: forward.timeout.is_none().then(client_deadline),
        retry_policy: retry.map(|retry| retry::policy(retry, forward.retry_other_hosts)),
        request_mirror_policies: forward.mirrors.iter().map(mirror).collect(),
        hash_policy: forward.hash.iter().map(hash_policy).collect(),
        ..rewrite(forward.path_rewrite.as_ref())
    }
}

/// Without a timeout in the route, the client's `grpc-timeout` applies. This must not be combined
/// with `timeout`, which Envoy would then ignore, for gRPC and everything else. (Istio sets the
/// field's predecessor `max_grpc_timeout`, which is deprecated.)
fn client_deadline() -> MaxStreamDuration {
    MaxStreamDuration {
        grpc_timeout_header_max: Some(duration(Duration::ZERO)),
        ..Default::default()
    }
}

fn rewrite(rewrite: Option<&PathRewrite>) -> route::RouteAction {
    match rewrite {
        None => route::RouteAction::default(),
        Some(PathRewrite::Prefix(prefix)) => route::RouteAction {
            prefix_rewrite: prefix.to_string(),
            ..Default::default()
        },
        Some(PathRewrite::Regex(pattern, substitution)) => route::RouteAction {
            regex_rewrite: Some(RegexMatchAndSubstitute {
                pattern: Some(regex(pattern)),
                substitution: substitution.to_string(),
            }),
            ..Default::default()
        },
    }
}

fn clusters(clusters: &[WeightedCluster]) -> Option<ClusterSpecifier> {
    match clusters {
        [] => None,
        [only] => Some(ClusterSpecifier::Cluster(only.cluster.to_string())),
        several => Some(ClusterSpecifier::WeightedClusters(route::WeightedCluster {
            clusters: several.iter().map(cluster_weight).collect(),
            ..Default::default()
        })),
    }
}

fn cluster_weight(cluster: &WeightedCluster) -> ClusterWeight {
    let host = |host: &Arc<str>| cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host.to_string());
    ClusterWeight {
        name: cluster.cluster.to_string(),
        weight: Some(uint32(cluster.weight)),
        request_headers_to_add: to_add(&cluster.request_headers),
        request_headers_to_remove: strings(&cluster.request_headers.remove),
        response_headers_to_add: to_add(&cluster.response_headers),
        response_headers_to_remove: strings(&cluster.response_headers.remove),
        host_rewrite_specifier: cluster.host_rewrite.as_ref().map(host),
        ..Default::default()
    }
}

fn mirror((cluster, share): &(ResourceName, Percent)) -> RequestMirrorPolicy {
    RequestMirrorPolicy {
        cluster: cluster.to_string(),
        runtime_fraction: Some(runtime_fraction(*share)),
        trace_sampled: Some(boolean(false)),
        disable_shadow_host_suffix_append: true,
        ..Default::default()
    }
}

fn hash_policy(key: &HashKey) -> HashPolicy {
    let policy = match key {
        HashKey::Header(name) => PolicySpecifier::Header(Header {
            header_name: name.to_string(),
            ..Default::default()
        }),
        HashKey::Cookie {
            name,
            path,
            ttl,
            attributes,
        } => PolicySpecifier::Cookie(Cookie {
            name: name.to_string(),
            path: path.to_string(),
            ttl: ttl.map(duration),
            attributes: attributes.iter().map(cookie_attribute).collect(),
        }),
        HashKey::SourceIp => PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }),
        HashKey::QueryParameter(name) => PolicySpecifier::QueryParameter(QueryParameter { name: name.to_string() }),
    };
    HashPolicy {
        policy_specifier: Some(policy),
        ..Default::default()
    }
}

fn cookie_attribute((name, value): &(Arc<str>, Arc<str>)) -> CookieAttribute {
    CookieAttribute {
        name: name.to_string(),
        value: value.to_string(),
    }
}

fn redirect(redirect: &Redirect) -> RedirectAction {
    let path = redirect.path.as_ref().map(|path| match path {
        RedirectPath::Full(path) => PathRewriteSpecifier::PathRedirect(path.to_string()),
        RedirectPath::Prefix(prefix) => PathRewriteSpecifier::PrefixRewrite(prefix.to_string()),
    });
    let port = match redirect.port {
        RedirectPort::Number(port) => port,
        // Envoy keeps the port of the request's authority, and drops it if the scheme changes.
        RedirectPort::Unset | RedirectPort::ProtocolDefault | RedirectPort::RequestPort => 0,
    };
    let scheme = |scheme: &Arc<str>| SchemeRewriteSpecifier::SchemeRedirect(scheme.to_string());
    RedirectAction {
        host_redirect: redirect.authority.as_deref().unwrap_or_default().to_owned(),
        port_redirect: port.into(),
        path_rewrite_specifier: path,
        scheme_rewrite_specifier: redirect.scheme.as_ref().map(scheme),
        response_code: response_code(redirect.code).into(),
        ..Default::default()
    }
}

fn response_code(code: u16) -> RedirectResponseCode {
    match code {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    }
}

fn direct(response: &DirectResponse) -> DirectResponseAction {
    let body = response.body.as_deref().map(|body| DataSource {
        specifier: Some(match std::str::from_utf8(body) {
            Ok(text) => Specifier::InlineString(text.to_owned()),
            Err(_) => Specifier::InlineBytes(body.to_vec()),
        }),
        ..Default::default()
    });
    DirectResponseAction {
        status: response.status.into(),
        body,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::mesh::virtual_service::{HeaderOps, RetryPolicy};
    use crate::xds::encode::testing::{forward as plain, printed, weighted};

    fn shown(forward: Forward) -> Value {
        printed(&super::forward(&forward))
    }

    fn redirected(redirect: Redirect) -> Value {
        printed(&super::redirect(&redirect))
    }

    #[test]
    fn several_clusters_are_weighted() {
        assert_eq!(shown(plain())["cluster"], "reviews");
        let v2 = WeightedCluster {
            request_headers: HeaderOps {
                remove: vec!["a".into()],
                ..Default::default()
            },
            host_rewrite: Some("v2".into()),
            ..weighted("v2", 20)
        };
        let split = shown(Forward {
            clusters: vec![weighted("v1", 80), v2],
            ..plain()
        });
        assert_eq!(
            split["weighted_clusters"],
            json!({"clusters": [
                {"name": "v1", "weight": 80},
                {"name": "v2", "weight": 20, "request_headers_to_remove": ["a"], "host_rewrite_literal": "v2"},
            ]})
        );
    }

    #[test]
    fn the_host_rewrite_of_a_single_cluster_takes_precedence() {
        let rewritten = |own: Option<&str>| {
            let cluster = WeightedCluster {
                host_rewrite: own.map(Into::into),
                ..weighted("a", 1)
            };
            shown(Forward {
                clusters: vec![cluster],
                host_rewrite: Some("route".into()),
                ..plain()
            })
        };
        assert_eq!(rewritten(None)["host_rewrite_literal"], "route");
        assert_eq!(rewritten(Some("own"))["host_rewrite_literal"], "own");
    }

    #[test]
    fn the_timeout_is_the_routes_or_else_grpc_timeout() {
        let limited = shown(Forward {
            timeout: Some(Duration::from_millis(1500)),
            ..plain()
        });
        assert_eq!(limited["timeout"], "1.500s");
        assert_eq!(limited["max_stream_duration"], Value::Null);
        let unlimited = shown(plain());
        assert_eq!(unlimited["timeout"], "0s");
        assert_eq!(
            unlimited["max_stream_duration"],
            json!({"grpc_timeout_header_max": "0s"})
        );
    }

    #[test]
    fn zero_attempts_disable_retries() {
        let retried = |attempts| {
            shown(Forward {
                retry: Some(RetryPolicy {
                    attempts,
                    ..Default::default()
                }),
                ..plain()
            })
        };
        assert_eq!(retried(0)["retry_policy"], Value::Null);
        assert_eq!(retried(2)["retry_policy"]["num_retries"], 2);
    }

    #[test]
    fn paths_are_rewritten_by_prefix_or_by_pattern() {
        let rewritten = |rewrite| {
            shown(Forward {
                path_rewrite: Some(rewrite),
                ..plain()
            })
        };
        assert_eq!(rewritten(PathRewrite::Prefix("/new".into()))["prefix_rewrite"], "/new");
        assert_eq!(
            rewritten(PathRewrite::Regex("^/(.*)".into(), r"/x/\1".into()))["regex_rewrite"],
            json!({"pattern": {"regex": "^/(.*)"}, "substitution": r"/x/\1"})
        );
    }

    #[test]
    fn mirrors_get_their_share_and_keep_the_host() {
        let mirrored = shown(Forward {
            mirrors: vec![("mirror".into(), Percent::new(12.5).unwrap())],
            ..plain()
        });
        assert_eq!(
            mirrored["request_mirror_policies"],
            json!([{
                "cluster": "mirror",
                "runtime_fraction": {"default_value": {"numerator": 125_000, "denominator": "MILLION"}},
                "trace_sampled": false,
                "disable_shadow_host_suffix_append": true,
            }])
        );
    }

    #[test]
    fn hash_policies_by_key() {
        let hashed = |key| {
            shown(Forward {
                hash: Some(key),
                ..plain()
            })["hash_policy"][0]
                .clone()
        };
        assert_eq!(
            hashed(HashKey::Header("user".into())),
            json!({"header": {"header_name": "user"}})
        );
        assert_eq!(
            hashed(HashKey::SourceIp),
            json!({"connection_properties": {"source_ip": true}})
        );
        assert_eq!(
            hashed(HashKey::QueryParameter("u".into())),
            json!({"query_parameter": {"name": "u"}})
        );
        let cookie = HashKey::Cookie {
            name: "session".into(),
            path: "/".into(),
            ttl: Some(Duration::ZERO),
            attributes: vec![("SameSite".into(), "Strict".into())],
        };
        assert_eq!(
            hashed(cookie),
            json!({"cookie": {
                "name": "session",
                "ttl": "0s",
                "path": "/",
                "attributes": [{"name": "SameSite", "value": "Strict"}],
            }})
        );
    }

    #[test]
    fn redirects_change_the_given_parts() {
        let full = redirected(Redirect {
            path: Some(RedirectPath::Full("/new".into())),
            authority: Some("example.com".into()),
            port: RedirectPort::Number(8443),
            scheme: Some("https".into()),
            code: 308,
        });
        assert_eq!(
            full,
            json!({
                "host_redirect": "example.com",
                "path_redirect": "/new",
                "response_code": "PERMANENT_REDIRECT",
                "scheme_redirect": "https",
                "port_redirect": 8443,
            })
        );
        let prefix = redirected(Redirect {
            path: Some(RedirectPath::Prefix("/new".into())),
            code: 301,
            ..Default::default()
        });
        assert_eq!(prefix, json!({"prefix_rewrite": "/new"}));
        for (code, name) in [(302, "FOUND"), (303, "SEE_OTHER"), (307, "TEMPORARY_REDIRECT")] {
            let coded = redirected(Redirect {
                code,
                ..Default::default()
            });
            assert_eq!(coded["response_code"], name);
        }
    }

    #[test]
    fn direct_response_bodies_are_strings_if_valid_utf8() {
        let shown = |body: Option<&[u8]>| {
            printed(&direct(&DirectResponse {
                status: 503,
                body: body.map(Into::into),
            }))
        };
        assert_eq!(shown(None), json!({"status": 503}));
        assert_eq!(
            shown(Some(b"down")),
            json!({"status": 503, "body": {"inline_string": "down"}})
        );
        assert_eq!(
            shown(Some(&[0xff])),
            json!({"status": 503, "body": {"inline_bytes": "/w=="}})
        );
    }
}
