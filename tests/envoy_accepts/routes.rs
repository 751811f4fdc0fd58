//! Routes for validation by Envoy, with all matches and actions.

use std::sync::Arc;
use std::time::Duration;

use topsail::ir::Origins;
use topsail::ir::route::{
    Forward, HeaderMatch, PathMatch, Route, RouteAction, RouteConfig, RouteMatch, VirtualHost, WeightedCluster,
};
use topsail::mesh::destination_rule::HashKey;
use topsail::mesh::virtual_service::{
    Cors, DirectResponse, Fault, FaultAbort, HeaderOps, PathRewrite, Redirect, RedirectPath, RedirectPort, RetryPolicy,
    StringMatch,
};
use topsail::name::{Kind, ObjectId, Percent};
use topsail::xds::{Resource, encode};

/// Route configurations.
pub(crate) fn all() -> Vec<Resource> {
    let mut routes = matches();
    routes.extend(forwards().into_iter().map(to));
    routes.extend(answers());
    routes.push(with_everything());
    let configs = [
        config("80", vec![host("reviews:80", &["reviews", "reviews.default"], routes)]),
        config("empty", vec![]),
        config(
            "no-routes",
            vec![host("a", &["a"], vec![]), host("block_all", &["*"], vec![])],
        ),
    ];
    configs.iter().map(encode::route).collect()
}

/// Route configurations that Envoy rejects.
pub(crate) fn broken() -> Vec<Resource> {
    let one = |name: &str, route| config(name, vec![host("a", &["*"], vec![route])]);
    let weighted = |weights: &[u32]| Forward {
        clusters: weights.iter().map(|weight| cluster("x", *weight)).collect(),
        ..forward()
    };
    let headers = |name: &str| Route {
        request_headers: HeaderOps {
            set: vec![(name.into(), "x".into())],
            ..Default::default()
        },
        ..route()
    };
    let direct = |status| Route {
        action: RouteAction::Direct(DirectResponse { status, body: None }),
        ..route()
    };
    let faulty = |fault| Route {
        fault: Some(fault),
        ..route()
    };
    [
        config(
            "duplicate",
            vec![host("a", &["a"], vec![]), host("b", &["b", "A"], vec![])],
        ),
        config("no-domains", vec![host("a", &[], vec![])]),
        one("no-cluster", to(weighted(&[]))),
        one("weights", to(weighted(&[0, 0]))),
        one("overflow", to(weighted(&[u32::MAX, 1]))),
        one(
            "regex",
            Route {
                matcher: path(PathMatch::Regex("(".into())),
                ..route()
            },
        ),
        one(
            "rewrite",
            to(Forward {
                path_rewrite: Some(PathRewrite::Regex("(".into(), "".into())),
                ..forward()
            }),
        ),
        one("path-header", headers(":path")),
        one("host-header", headers("host")),
        one("status", direct(100)),
        one(
            "delay",
            faulty(Fault {
                delay: Some((Duration::ZERO, Percent::FULL)),
                abort: None,
            }),
        ),
        one(
            "abort",
            faulty(Fault {
                delay: None,
                abort: Some((FaultAbort::Http(42), Percent::FULL)),
            }),
        ),
    ]
    .iter()
    .map(encode::route)
    .collect()
}

/// A route configuration with one route, for inline use in a listener.
pub(crate) fn inline(name: &str) -> Arc<RouteConfig> {
    Arc::new(config(
        name,
        vec![host("inbound|http|80", &["*"], vec![with_everything()])],
    ))
}

fn config(name: &str, hosts: Vec<VirtualHost>) -> RouteConfig {
    RouteConfig {
        name: name.into(),
        virtual_hosts: hosts.into_iter().map(Arc::new).collect(),
        ignore_port: true,
        origins: Origins::from([]),
    }
}

fn host(name: &str, domains: &[&str], routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name: name.into(),
        domains: domains.iter().map(|domain| Arc::from(*domain)).collect(),
        routes,
        attempt_count: true,
        origins: Origins::from([]),
    }
}

fn route() -> Route {
    Route {
        name: "default".into(),
        matcher: path(PathMatch::Prefix("/".into())),
        action: RouteAction::Forward(Box::new(forward())),
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        fault: None,
        cors: None,
        operation: "".into(),
        config: None,
        stat_prefix: "".into(),
    }
}

fn path(path: PathMatch) -> RouteMatch {
    RouteMatch {
        path,
        ignore_case: false,
        headers: Vec::new(),
        query: Vec::new(),
    }
}

fn forward() -> Forward {
    Forward {
        clusters: vec![cluster("outbound|80||reviews", 1)],
        path_rewrite: None,
        host_rewrite: None,
        timeout: None,
        retry: None,
        retry_other_hosts: true,
        mirrors: Vec::new(),
        hash: None,
    }
}

fn cluster(name: &str, weight: u32) -> WeightedCluster {
    WeightedCluster {
        cluster: name.into(),
        weight,
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        host_rewrite: None,
    }
}

fn to(forward: Forward) -> Route {
    Route {
        action: RouteAction::Forward(Box::new(forward)),
        ..route()
    }
}

fn headers() -> HeaderOps {
    HeaderOps {
        set: vec![("x-set".into(), "1".into())],
        add: vec![("x-add".into(), "%START_TIME%".into())],
        remove: vec!["x-gone".into()],
    }
}

fn matches() -> Vec<Route> {
    let values = || {
        [
            None,
            Some(StringMatch::Exact("a".into())),
            Some(StringMatch::Prefix("a".into())),
            Some(StringMatch::Regex("a.*".into())),
        ]
    };
    let header = |name: &str, value, invert| HeaderMatch {
        name: name.into(),
        value,
        invert,
    };
    let headers = ["x-a", ":method", ":authority", ":scheme"]
        .into_iter()
        .flat_map(|name| {
            values()
                .into_iter()
                .flat_map(move |value| [false, true].map(|i| (name, value.clone(), i)))
        })
        .map(|(name, value, invert)| header(name, value, invert))
        .collect();
    let everything = RouteMatch {
        path: PathMatch::Prefix("/v2".into()),
        ignore_case: true,
        headers,
        query: values().into_iter().map(|value| ("q".into(), value)).collect(),
    };
    [
        path(PathMatch::Prefix("".into())),
        path(PathMatch::Exact("/a".into())),
        path(PathMatch::Regex("/a/[0-9]+(/.*)?".into())),
        everything,
    ]
    .into_iter()
    .map(|matcher| Route { matcher, ..route() })
    .collect()
}

fn forwards() -> Vec<Forward> {
    let weighted = WeightedCluster {
        request_headers: headers(),
        response_headers: headers(),
        host_rewrite: Some("ratings".into()),
        ..cluster("outbound|80|v2|reviews", 20)
    };
    let mut all = vec![
        Forward {
            clusters: vec![cluster("outbound|80|v1|reviews", 80), weighted],
            timeout: Some(Duration::from_millis(1500)),
            retry: Some(RetryPolicy::default()),
            ..forward()
        },
        Forward {
            path_rewrite: Some(PathRewrite::Prefix("/new".into())),
            host_rewrite: Some("example.com".into()),
            retry: Some(every_retry()),
            mirrors: vec![
                ("mirror".into(), Percent::FULL),
                ("tenth".into(), Percent::new(0.1).unwrap()),
            ],
            ..forward()
        },
        Forward {
            path_rewrite: Some(PathRewrite::Regex("^/([a-z]+)".into(), r"/\1/x".into())),
            ..forward()
        },
    ];
    all.extend(hashes().map(|hash| Forward {
        hash: Some(hash),
        ..forward()
    }));
    all
}

fn every_retry() -> RetryPolicy {
    RetryPolicy {
        attempts: 3,
        per_try_timeout: Some(Duration::from_millis(100)),
        retry_on: ["5xx", "retriable-status-codes", "reset-before-request"]
            .map(Arc::from)
            .into(),
        status_codes: vec![429, 503],
        remote_localities: true,
        ignore_previous_hosts: Some(true),
        backoff: Some(Duration::from_millis(5)),
    }
}

fn hashes() -> impl Iterator<Item = HashKey> {
    let cookie = |ttl| HashKey::Cookie {
        name: "session".into(),
        path: "/".into(),
        ttl,
        attributes: vec![("SameSite".into(), "Strict".into())],
    };
    [
        HashKey::Header("x-user".into()),
        cookie(None),
        cookie(Some(Duration::ZERO)),
        HashKey::SourceIp,
        HashKey::QueryParameter("user".into()),
    ]
    .into_iter()
}

fn answers() -> Vec<Route> {
    let redirect = |path: Option<RedirectPath>, port, scheme: Option<&str>, code| {
        RouteAction::Redirect(Redirect {
            path,
            authority: Some("example.com".into()),
            port,
            scheme: scheme.map(Into::into),
            code,
        })
    };
    let direct = |body: Option<&[u8]>| {
        RouteAction::Direct(DirectResponse {
            status: 503,
            body: body.map(Into::into),
        })
    };
    let mut actions = vec![direct(None), direct(Some(b"down")), direct(Some(&[0xff, 0]))];
    actions.extend([301, 302, 303, 307, 308].map(|code| redirect(None, RedirectPort::Unset, None, code)));
    actions.push(redirect(
        Some(RedirectPath::Full("/new".into())),
        RedirectPort::Number(8443),
        Some("https"),
        301,
    ));
    actions.push(redirect(
        Some(RedirectPath::Prefix("/new".into())),
        RedirectPort::ProtocolDefault,
        None,
        302,
    ));
    actions.into_iter().map(|action| Route { action, ..route() }).collect()
}

fn with_everything() -> Route {
    let percent = |value| Percent::new(value).unwrap();
    Route {
        name: "reviews.v2".into(),
        request_headers: headers(),
        response_headers: headers(),
        fault: Some(Fault {
            delay: Some((Duration::from_secs(5), percent(0.0001))),
            abort: Some((FaultAbort::Grpc(14), percent(50.0))),
        }),
        cors: Some(Cors {
            allow_origins: vec![StringMatch::Exact("https://a".into()), StringMatch::Regex(".*".into())],
            allow_methods: vec!["GET".into(), "POST".into()],
            allow_headers: vec!["x-a".into()],
            expose_headers: vec!["x-b".into()],
            max_age: Some(Duration::from_secs(86400)),
            allow_credentials: Some(true),
            forward_unmatched_preflights: true,
        }),
        operation: "reviews:80/*".into(),
        config: Some((virtual_service(), "networking.istio.io/v1".into())),
        stat_prefix: "reviews".into(),
        ..route()
    }
}

fn virtual_service() -> ObjectId {
    ObjectId {
        kind: Kind::VirtualService,
        namespace: "default".parse().unwrap(),
        name: "reviews".into(),
    }
}
