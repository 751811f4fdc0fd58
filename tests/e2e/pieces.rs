//! Tests of the harness itself, without a control plane: with an Envoy that has a static configuration.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Backend, Load, Network, Plane, Sidecar, get};

/// An Envoy that forwards all requests from `listener` to `backend`.
async fn forwarder(folder: &tempfile::TempDir, net: &Network, listener: SocketAddr, backend: SocketAddr) -> Sidecar {
    let admin = net.socket(15000);
    let socket = |address: SocketAddr| {
        format!(
            "{{socket_address: {{address: {}, port_value: {}}}}}",
            address.ip(),
            address.port()
        )
    };
    let bootstrap = format!(
        r#"
admin: {{address: {admin}}}
static_resources:
  listeners:
  - name: in
    address: {listener}
    enable_reuse_port: false
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config: {{virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: out}}}}]}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: out
    type: STATIC
    load_assignment: {{cluster_name: out, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {backend}}}}}]}}]}}
"#,
        admin = socket(admin),
        listener = socket(listener),
        backend = socket(backend),
    );
    let path = folder.path().join("envoy.yaml");
    std::fs::write(&path, bootstrap).unwrap();
    Sidecar::start(listener.ip(), &Plane::Envoy.launch(&path, admin).await).await
}

#[tokio::test]
async fn backends_describe_the_requests_that_envoy_forwards() {
    let (folder, net) = (tempfile::tempdir().unwrap(), Network::take());
    let backend = Backend::http("echo-v1").await;
    let listener = net.socket(8080);
    let envoy = forwarder(&folder, &net, listener, backend.address()).await;
    envoy.listens(listener).await;

    let seen = get(listener, "echo", "/a?b=c")
        .header("x-one", "1")
        .header("x-one", "2")
        .expect(200)
        .await
        .seen();
    assert_eq!(
        (seen.backend.as_str(), seen.authority.as_str(), seen.path.as_str()),
        ("echo-v1", "echo", "/a?b=c")
    );
    assert_eq!(
        (seen.protocol.as_str(), seen.headers["x-one"].as_str()),
        ("HTTP/1.1", "1, 2")
    );
    let posted = get(listener, "echo", "/")
        .method(http::Method::POST)
        .body("hello")
        .expect(200)
        .await;
    assert_eq!(
        (posted.seen().body.as_str(), posted.header("x-backend")),
        ("hello", "echo-v1")
    );
    get(listener, "echo", "/")
        .header("x-echo-status", "418")
        .expect(418)
        .await;
    backend.fail_next(1);
    get(listener, "echo", "/").expect(503).await;
    assert_eq!(get(listener, "echo", "/").count(3).await["echo-v1"], 3);
    assert_eq!(backend.seen().len(), 7);
    assert_eq!(
        envoy.stats("http.in.downstream_rq_completed").await["http.in.downstream_rq_completed"],
        7
    );
    assert!(envoy.config_dump().await["configs"].is_array());
}

#[tokio::test]
async fn http2_and_tcp_backends_answer() {
    let backend = Backend::http("echo-v1").await;
    let seen = get(backend.address(), "echo.example", "/two")
        .http2()
        .expect(200)
        .await
        .seen();
    assert_eq!(
        (seen.protocol.as_str(), seen.authority.as_str(), seen.path.as_str()),
        ("HTTP/2.0", "echo.example", "/two")
    );

    let tcp = Backend::tcp("tcp-v1").await;
    let mut stream = TcpStream::connect(tcp.address()).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"tcp-v1:hello");
}

#[tokio::test]
async fn load_counts_responses_and_failures() {
    let backend = Backend::http("echo-v1").await;
    let load = Load::start(get(backend.address(), "echo", "/"), 500);
    while backend.seen().len() < 50 {
        tokio::task::yield_now().await;
    }
    let report = load.stop().await;
    report.assert_lossless();
    assert_eq!(report.answered["echo-v1"], report.sent);

    let load = Load::start(get(backend.address(), "echo", "/"), 500);
    backend.fail_next(3);
    while backend.seen().len() < report.sent + 10 {
        tokio::task::yield_now().await;
    }
    let report = load.stop().await;
    assert_eq!(report.failures.len(), 3, "{:?}", report.failures);
    assert_eq!(report.answered["echo-v1"] + 3, report.sent);
}

#[tokio::test]
async fn load_counts_requests_without_a_response() {
    let net = Network::take();
    let nobody = net.socket(8080);
    let listener = tokio::net::TcpListener::bind(nobody).await.unwrap();
    let load = Load::start(get(nobody, "echo", "/"), 1000);
    // Accept the first connection, so that it has been opened, and close it.
    drop(listener.accept().await.unwrap());
    drop(listener);
    let report = load.stop().await;
    assert!(report.sent > 0);
    assert_eq!(report.failures.len(), report.sent);
}

#[tokio::test]
async fn warnings_in_the_log_of_a_sidecar_are_found() {
    let (folder, net) = (tempfile::tempdir().unwrap(), Network::take());
    let listener = net.socket(8080);
    let mut envoy = forwarder(&folder, &net, listener, net.socket(1)).await;
    assert_eq!(envoy.complaints(), Vec::<String>::new());
    let log = folder.path().join("envoy.log");
    let line = "[2026-01-01 00:00:00.000][1][warning][config] [source/x.cc:1] something of ours is wrong\n";
    std::fs::write(&log, std::fs::read_to_string(&log).unwrap() + line).unwrap();
    assert_eq!(envoy.complaints().len(), 1);
    envoy.allow_log("something of ours");
    assert!(envoy.complaints().is_empty());
}

#[test]
fn networks_are_not_shared() {
    let (one, two) = (Network::take(), Network::take());
    assert_ne!(one.address(), one.address());
    let prefix = |net: &Network| net.address().to_string().rsplit_once('.').unwrap().0.to_owned();
    assert_ne!(prefix(&one), prefix(&two));
}
