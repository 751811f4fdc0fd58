//! The bundled proxy's admin interface over HTTP, as used by Envoy's tools.

#![cfg(test)]

mod config_dump;
mod proxy;
mod statistics;

use std::time::{Duration, Instant};

use http::StatusCode;
use proxy::Proxy;

#[tokio::test]
async fn a_static_proxy_is_live_at_once_and_reports_its_node() {
    let proxy = Proxy::start().await;
    assert_eq!(proxy.text("/ready").await, "LIVE\n");
    let info = proxy.json("/server_info").await;
    assert_eq!(info["state"], "LIVE");
    assert_eq!(
        info["node"]["id"],
        "sidecar~127.0.0.1~a.default~default.svc.cluster.local"
    );
    assert_eq!(info["command_line_options"]["concurrency"], 1);
    assert!(info["uptime_current_epoch"].as_str().unwrap().ends_with('s'), "{info}");
    assert_eq!(proxy.text("/init_dump").await, "{}\n");
    let memory = proxy.json("/memory").await;
    assert!(
        memory["allocated"].as_str().unwrap().parse::<u64>().unwrap() > 1 << 20,
        "{memory}"
    );
}

#[tokio::test]
async fn startup_memory_is_released() {
    let proxy = Proxy::start().await;
    let resident = async || -> u64 {
        let memory = proxy.json("/memory").await;
        memory["total_physical_bytes"].as_str().unwrap().parse().unwrap()
    };
    let (at_first, give_up) = (resident().await, Instant::now() + Duration::from_secs(30));
    while resident().await > at_first / 10 * 9 {
        assert!(
            Instant::now() < give_up,
            "{at_first} bytes at first, {} now",
            resident().await
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(proxy.text("/ready").await, "LIVE\n");
}

#[tokio::test]
async fn listeners_and_clusters_have_text_and_json() {
    let proxy = Proxy::start().await;
    assert_eq!(
        proxy.text("/listeners").await,
        format!("echo::{}\nmetrics::{}\n", proxy.echo, proxy.metrics)
    );
    let listeners = proxy.json("/listeners?format=json").await;
    let address = &listeners["listener_statuses"][1]["local_address"]["socket_address"];
    assert_eq!(address["port_value"], proxy.metrics.port());
    let clusters = proxy.text("/clusters").await;
    for line in [
        "admin::observability_name::admin;".to_owned(),
        "admin::default_priority::max_connections::1024".to_owned(),
        format!("admin::{}::health_flags::healthy", proxy.admin),
        format!("admin::{}::weight::1", proxy.admin),
        format!("admin::{}::rq_total::0", proxy.admin),
    ] {
        assert!(
            clusters.lines().any(|other| other == line),
            "{line} is not in\n{clusters}"
        );
    }
    let clusters = proxy.json("/clusters?format=json").await;
    let host = &clusters["cluster_statuses"][0]["host_statuses"][0];
    assert_eq!(host["health_status"]["eds_health_status"], "HEALTHY");
    assert_eq!(host["address"]["socket_address"]["port_value"], proxy.admin.port());
    assert_eq!(proxy.text("/clusters?filter=nobody").await, "");
}

#[tokio::test]
async fn wrong_paths_and_methods_get_envoys_responses() {
    let proxy = Proxy::start().await;
    let (status, body) = proxy.get("/nope").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(
        body.starts_with("invalid path. admin commands are:\n  /: Admin home page\n"),
        "{body}"
    );
    let (status, body) = proxy.get("/quitquitquit").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(body, "Method GET not allowed, POST required.");
    for bad in ["/stats?filter=(", "/stats?format=x", "/clusters?filter=("] {
        assert_eq!(proxy.get(bad).await.0, StatusCode::BAD_REQUEST, "{bad}");
    }
    assert!(
        proxy
            .text("/help")
            .await
            .contains("  /drain_listeners (POST): drain listeners\n")
    );
    assert!(proxy.text("/").await.contains("<a href=\"/stats/prometheus\">"));
}

#[tokio::test]
async fn healthcheck_fail_and_quitquitquit() {
    let mut proxy = Proxy::start().await;
    assert_eq!(
        proxy.post("/healthcheck/fail").await,
        (StatusCode::OK, "OK\n".to_owned())
    );
    assert_eq!(
        proxy.get("/ready").await,
        (StatusCode::SERVICE_UNAVAILABLE, "DRAINING\n".to_owned())
    );
    assert_eq!(proxy.text("/stats?filter=^server.state$").await, "server.state: 1\n");
    proxy.post("/healthcheck/ok").await;
    assert_eq!(proxy.text("/ready").await, "LIVE\n");
    assert_eq!(proxy.post("/quitquitquit").await.0, StatusCode::OK);
    assert!(proxy.ended().await.success());
}

#[tokio::test]
async fn drained_listeners_accept_no_connections() {
    let proxy = Proxy::start().await;
    proxy.post("/drain_listeners?inboundonly").await;
    assert_eq!(
        proxy.ask(proxy.metrics, "/stats/prometheus").await.unwrap().0,
        StatusCode::OK
    );
    proxy.post("/drain_listeners").await;
    proxy.refuses(proxy.metrics).await;
    assert_eq!(proxy.text("/ready").await, "LIVE\n");
}

#[tokio::test]
async fn log_levels_change_at_runtime() {
    let proxy = Proxy::start().await;
    assert!(
        proxy
            .text("/logging")
            .await
            .starts_with("active loggers:\n  admin: info\n")
    );
    assert_eq!(
        proxy.get("/logging?level=debug").await.0,
        StatusCode::METHOD_NOT_ALLOWED
    );
    let (status, body) = proxy.post("/logging?paths=http:trace,upstream:debug").await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        body.contains("  http: trace\n") && body.contains("  upstream: debug\n"),
        "{body}"
    );
    assert_eq!(proxy.post("/logging?level=loud").await.0, StatusCode::BAD_REQUEST);
    let (_, body) = proxy.post("/logging?level=warning").await;
    assert!(body.contains("  http: warning\n"), "{body}");
}

#[tokio::test]
async fn addresses_in_use_are_reported() {
    let first = Proxy::start().await;
    let (status, log) = first.second().await;
    assert!(!status.success());
    assert!(
        log.contains(&format!("the admin interface cannot be bound to {}", first.admin)),
        "{log}"
    );
}
