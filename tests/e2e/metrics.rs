//! Metrics in Prometheus format: `promtool check metrics` reads those of the proxy and of the control plane.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::harness::alone::{Alone, cluster, http_listener};
use super::harness::{Backend, Network, Plane, Server, get};
use crate::between_planes;

between_planes! {
    proxy_metrics_pass_promtool_at_least_as_well_as_envoys,
}

/// The distinct findings of `promtool check metrics`, without metric names. Panics if the text cannot be parsed.
async fn findings(text: &str) -> BTreeSet<String> {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| {
        panic!("promtool cannot be run ({error}); on Debian: apt-get install -y prometheus");
    });
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    // Status 1 means that the text cannot be parsed, 3 that there are findings.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    let lines = said.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(_, what)| what.to_owned()).collect()
}

async fn of_a_proxy(plane: Plane) -> (String, BTreeSet<String>) {
    let backend = Backend::http("app").await;
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "back"}}]);
    let clusters = [cluster("back", backend.address())];
    let listeners = [http_listener("in", "INBOUND", routes, json!({}))];
    let alone = Alone::start(plane, &listeners, &clusters, json!({})).await;
    for path in ["/", "/a"] {
        get(alone.listener(0), "app.example", path).expect(200).await;
    }
    let text = alone.sidecar.admin("/stats/prometheus").await;
    let findings = findings(&text).await;
    (text, findings)
}

async fn proxy_metrics_pass_promtool_at_least_as_well_as_envoys() {
    let (_, envoys) = of_a_proxy(Plane::Envoy).await;
    let (text, ours) = of_a_proxy(Plane::Topsail).await;
    let more: Vec<_> = ours.difference(&envoys).collect();
    assert!(more.is_empty(), "{more:?}\n{text}");
    for name in [
        "envoy_cluster_upstream_rq_total",
        "envoy_cluster_upstream_rq_pending_total",
        "envoy_cluster_upstream_cx_connect_ms_bucket",
        "envoy_cluster_upstream_cx_length_ms_count",
        "envoy_cluster_membership_change",
        "envoy_cluster_lb_healthy_panic",
        "envoy_http_downstream_rq_http1_total",
        "envoy_http_downstream_cx_destroy",
        "envoy_http_rq_total",
        "envoy_listener_manager_listener_create_success",
        "envoy_server_days_until_first_cert_expiring",
    ] {
        assert!(
            text.lines().any(|line| line.starts_with(&format!("{name}{{"))),
            "{name}\n{text}"
        );
    }
}

#[tokio::test]
async fn control_plane_metrics_pass_promtool() {
    let (network, folder) = (Network::take(), tempfile::tempdir().unwrap());
    let mut server = Server::new(folder.path(), network.address());
    server.start().await;
    let text = topsail::envoy::get(server.admin(), "/metrics").await.unwrap().1;
    let text = classic(&String::from_utf8_lossy(&text));
    let findings = findings(&text).await;
    assert!(findings.is_empty(), "{findings:?}\n{text}");
}

/// Converts OpenMetrics, which the control plane serves, to the older text format, the only one that promtool reads:
/// counters and infos have the names of their samples, and there are no UNIT and EOF lines.
fn classic(text: &str) -> String {
    let suffix = |name: &str| {
        let kind = format!("# TYPE {name} ");
        match text.lines().find_map(|line| line.strip_prefix(&*kind)) {
            Some("counter") => "_total",
            Some("info") => "_info",
            Some(_) | None => "",
        }
    };
    let line = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        ["#", "EOF"] | ["#", "UNIT", ..] => None,
        ["#", "TYPE", name, "info"] => Some(format!("# TYPE {name}_info gauge")),
        ["#", what, name, ref rest @ ..] => Some(format!("# {what} {name}{} {}", suffix(name), rest.join(" "))),
        _ => Some(line.to_owned()),
    };
    text.lines().filter_map(line).map(|line| line + "\n").collect()
}
