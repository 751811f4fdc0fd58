//! Statistics: the bundled proxy has all that Envoy counts in a mesh, with the same names.

use std::collections::BTreeSet;

use crate::between_planes;
use crate::harness::{App, Plane};
use crate::web::{Web, routed};

between_planes! {
    the_proxy_has_every_statistic_that_envoy_counts,
}

/// Parts of the names of statistics that only Envoy has, and why.
const ONLY_ENVOYS: [(&str, &str); 11] = [
    ("xds-grpc", "the xDS stream does not go through a cluster"),
    ("listener.admin.", "the admin interface is not a listener"),
    ("http.admin.", "the admin interface has no connection manager"),
    (
        "http.async-client.",
        "the proxy's own requests do not go through a connection manager",
    ),
    ("sds.topsail-token.", "token files are read on demand"),
    ("sigalgs.", "rustls does not report signature algorithms"),
    (
        "curves.X25519MLKEM768",
        "the planes prefer different key exchange groups",
    ),
    (
        "ssl.certificate.",
        "`days_until_first_cert_expiring` covers all certificates",
    ),
    ("ssl_context_update_by_sds", "TLS contexts are created on demand"),
    (".worker_", "the workers share one set of statistics"),
    ("server.stats_recent_lookups", "there are no lookups by name"),
];

/// The statistics that are not zero, and all statistics, without the test's own names and addresses.
async fn of(app: &App) -> (BTreeSet<String>, BTreeSet<String>) {
    let stats = app.sidecar.stats(".").await;
    let kind = |name: &str| {
        let after = |end: &str| name.rsplit_once(end).map_or(name, |(_, rest)| rest).to_owned();
        if name.starts_with("cluster.xds-grpc") || name.starts_with("listener.admin.") || name.starts_with("http.a") {
            name.to_owned()
        } else if name.starts_with("cluster.") {
            format!("cluster.*.{}", after(";."))
        } else if name.starts_with("listener.") {
            // An address with its port, perhaps followed by the stat prefix of a connection manager.
            let rest = name.split_once('_').map_or(name, |(_, rest)| rest);
            let rest = rest.split_once('.').map_or(rest, |(_, rest)| rest);
            match rest.strip_prefix("http.") {
                Some(rest) => format!(
                    "listener.*.http.{}",
                    rest.rsplit_once(';').map_or(rest, |(_, rest)| rest)
                ),
                None => format!("listener.*.{rest}"),
            }
        } else if name.starts_with("http.") {
            let rest = after(";.");
            let rest = rest.strip_prefix("rds.").map_or(rest.clone(), |rest| {
                format!("rds.*.{}", rest.rsplit_once('.').map_or(rest, |(_, rest)| rest))
            });
            format!("http.*.{rest}")
        } else {
            name.to_owned()
        }
    };
    let used = stats.iter().filter(|(_, value)| **value > 0);
    let used = used.map(|(name, _)| kind(name)).collect();
    (used, stats.keys().map(|name| kind(name)).collect())
}

async fn counted(plane: Plane) -> (BTreeSet<String>, BTreeSet<String>) {
    let rules = "
- match: [{uri: {prefix: /moved}}]
  redirect: {uri: /new}
- match: [{uri: {prefix: /fault}}]
  fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
  route: [{destination: {host: HOST}}]
- route: [{destination: {host: HOST}}]
  retries: {attempts: 2, retryOn: 5xx}
  timeout: 2s
";
    let web = Web::start(plane, &[routed("web", rules)]).await;
    web.reachable("web").await;
    for (path, status, host) in [
        ("/", 200, ""),
        ("/moved", 301, ""),
        ("/fault", 418, ""),
        ("/", 503, "503"),
        ("/", 404, "404"),
    ] {
        let call = web.get("web", path);
        let call = if host.is_empty() {
            call
        } else {
            call.header("x-echo-status", host)
        };
        call.expect(status).await;
    }
    // Two gRPC calls: one with a message, and one that ends with a gRPC status.
    for (path, body) in [("/", "\0\0\0\0\u{3}abc"), ("/fault", "")] {
        let call = web.get("web", path).method(http::Method::POST);
        call.header("content-type", "application/grpc")
            .body(body)
            .expect(200)
            .await;
    }
    web.get("nobody", "/").send().await.unwrap();
    let (client, server) = (of(&web.client).await, of(&web.v1).await);
    (&client.0 | &server.0, &client.1 | &server.1)
}

async fn the_proxy_has_every_statistic_that_envoy_counts() {
    let (envoys, _) = counted(Plane::Envoy).await;
    let (_, ours) = counted(Plane::Topsail).await;
    let known = |name: &&String| !ONLY_ENVOYS.iter().any(|(part, _)| name.contains(part));
    let missing: Vec<_> = envoys.difference(&ours).filter(known).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
