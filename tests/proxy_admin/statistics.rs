//! `/stats` and `/stats/prometheus`.

use http::StatusCode;

use super::proxy::Proxy;

#[tokio::test]
async fn requests_are_counted_under_envoys_names_in_every_format() {
    let proxy = Proxy::start().await;
    assert_eq!(
        proxy.ask(proxy.metrics, "/stats/prometheus").await.unwrap().0,
        StatusCode::OK
    );
    assert_eq!(
        proxy.ask(proxy.metrics, "/nowhere").await.unwrap().0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(proxy.ask(proxy.echo, "/ready").await.unwrap().1, "LIVE\n");
    let stats = proxy.text("/stats").await;
    let listener = proxy.metrics.to_string().replace(':', "_");
    for line in [
        "http.metrics;.downstream_rq_total: 2".to_owned(),
        "http.metrics;.downstream_rq_2xx: 1".to_owned(),
        "http.metrics;.downstream_rq_completed: 2".to_owned(),
        "http.metrics;.no_route: 1".to_owned(),
        // A forwarded connection counts as a request, as in Envoy.
        "cluster.admin;.upstream_rq_total: 2".to_owned(),
        "cluster.admin;.upstream_rq_200: 1".to_owned(),
        "cluster.admin;.membership_healthy: 1".to_owned(),
        "listener_manager.total_listeners_active: 2".to_owned(),
        "listener_manager.listener_added: 2".to_owned(),
        "cluster_manager.active_clusters: 1".to_owned(),
        "control_plane.connected_state: 0".to_owned(),
        "server.live: 1".to_owned(),
        "tcp.echo;.downstream_cx_total: 1".to_owned(),
        format!("listener.{listener}.downstream_cx_total: 2"),
    ] {
        assert!(stats.lines().any(|other| other == line), "{line} is not in\n{stats}");
    }
    assert!(stats.contains("\nhttp.metrics;.downstream_rq_time: P0(nan,"), "{stats}");
    let names = proxy.text("/stats?filter=no_route$&usedonly").await;
    assert_eq!(names, "http.metrics;.no_route: 1\n");
    let json = proxy.json("/stats?format=json&filter=no_route").await;
    assert_eq!(json["stats"][0]["value"], 1);
}

#[tokio::test]
async fn prometheus_labels_follow_the_bootstraps_stats_tags() {
    let proxy = Proxy::start().await;
    proxy.ask(proxy.metrics, "/stats/prometheus").await.unwrap();
    let (_, text) = proxy.ask(proxy.metrics, "/stats/prometheus").await.unwrap();
    for line in [
        "# TYPE envoy_cluster_upstream_rq counter",
        "envoy_cluster_upstream_rq{cluster_name=\"admin\",response_code=\"200\"} 1",
        "envoy_http_downstream_rq_total{http_conn_manager_prefix=\"metrics\"} 2",
        "envoy_server_live{} 1",
        "envoy_cluster_upstream_rq_time_count{cluster_name=\"admin\"} 1",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    }
    assert_eq!(
        proxy.text("/stats?format=prometheus&filter=^server.live").await,
        "# TYPE envoy_server_live gauge\nenvoy_server_live{} 1\n"
    );
}

#[tokio::test]
async fn reset_counters_keeps_gauges() {
    let proxy = Proxy::start().await;
    proxy.ask(proxy.metrics, "/nowhere").await.unwrap();
    proxy.post("/reset_counters").await;
    let left = proxy.text("/stats?usedonly&filter=^(http|cluster|listener)\\.").await;
    assert!(
        !left.contains("no_route") && left.contains("membership_total: 1"),
        "{left}"
    );
}
