//! Statistics: what Envoy counts in the mesh, the bundled proxy counts by the same names.

use std::collections::BTreeSet;

use crate::between_planes;
use crate::harness::{App, Plane};
use crate::web::{Web, routed};

between_planes! {
    what_envoy_counts_is_counted,
}

/// Parts of the names of what only Envoy counts here, and why.
const ONLY_ENVOYS: [(&str, &str); 11] = [
    ("xds-grpc", "the control plane's stream is no traffic of a cluster"),
    ("listener.admin.", "the admin interface is no listener"),
    ("http.admin.", "neither has it a connection manager"),
    (
        "http.async-client.",
        "the proxy's own requests are none of a connection manager",
    ),
    (
        "sds.topsail-token.",
        "the token is read from its file when it is needed",
    ),
    ("sigalgs.", "rustls does not tell them"),
    (
        "curves.X25519MLKEM768",
        "of what both ends know each plane prefers another",
    ),
    ("ssl.certificate.", "`days_until_first_cert_expiring` says it of all"),
    ("ssl_context_update_by_sds", "contexts are made when they are needed"),
    (".worker_", "workers share the work, and what is counted"),
    ("server.stats_recent_lookups", "nothing is looked up by name"),
];

/// The statistics that are not zero and those that are there at all, without what is the test's own in their names.
async fn of(app: &App) -> (BTreeSet<String>, BTreeSet<String>) {
    let stats = app.sidecar.stats(".").await;
    let kind = |name: &str| {
        let after = |end: &str| name.rsplit_once(end).map_or(name, |(_, rest)| rest).to_owned();
        if name.starts_with("cluster.xds-grpc") || name.starts_with("listener.admin.") || name.starts_with("http.a") {
            name.to_owned()
        } else if name.starts_with("cluster.") {
            format!("cluster.*.{}", after(";."))
        } else if name.starts_with("listener.") {
            // An address and its port, and perhaps a connection manager of the same name.
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
    // Calls of gRPC: one with a message, one that ends with a status of gRPC.
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

async fn what_envoy_counts_is_counted() {
    let (envoys, _) = counted(Plane::Envoy).await;
    let (_, ours) = counted(Plane::Topsail).await;
    let known = |name: &&String| !ONLY_ENVOYS.iter().any(|(part, _)| name.contains(part));
    let missing: Vec<_> = envoys.difference(&ours).filter(known).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
