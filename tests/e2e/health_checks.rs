//! Active health checks: which hosts they eject and restore, when, and what the statistics and the admin API report.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use topsail::xds::ResourceType::{Cluster, Endpoints};

use super::harness::alone::{Alone, cluster, cluster_http2, http_listener, socket};
use super::harness::wire::next_head;
use super::harness::{Ads, Backend, Plane, eventually, get};
use crate::on_each_plane;

on_each_plane! {
    an_unexpected_status_ejects_a_host_at_once_and_the_healthy_threshold_restores_it,
    a_cluster_is_warm_after_the_first_result_of_every_host,
    network_and_retriable_failures_count_towards_the_unhealthy_threshold,
    check_timeouts_are_reported_as_such,
    check_responses_can_mark_a_host_degraded_or_fail_it_immediately,
    an_immediate_fail_header_in_a_normal_response_ejects_the_host,
    http_check_requests_are_sent_as_configured,
    http_checks_match_response_bodies_and_service_names,
    tcp_checks_connect_or_wait_for_the_expected_bytes,
    grpc_checks_follow_the_serving_status_of_the_service,
    checks_use_the_transport_socket_of_the_cluster,
    healthy_hosts_removed_by_eds_stay_until_a_check_fails,
    invalid_health_checks_are_rejected,
}

/// A host whose test queues the response to each health check; all other requests are answered at once.
struct Host {
    address: SocketAddr,
    answers: mpsc::UnboundedSender<String>,
    heads: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

/// The queued responses, and the heads of the checks received.
type Answers = Arc<(
    tokio::sync::Mutex<mpsc::UnboundedReceiver<String>>,
    Arc<Mutex<Vec<String>>>,
)>;

impl Host {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (answers, receive) = mpsc::unbounded_channel();
        let (address, heads) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<_>>>::default());
        let shared: Answers = Arc::new((receive.into(), heads.clone()));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, shared.clone()));
            }
        });
        Self {
            address,
            answers,
            heads,
            task: task.abort_handle(),
        }
    }

    /// Queues the response to one check.
    fn says(&self, status: u16, headers: &str, body: &str) {
        let answer = format!(
            "HTTP/1.1 {status} A\r\ncontent-length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        self.answers.send(answer).unwrap();
    }

    /// Closes the connection of one check instead of answering.
    fn closes(&self) {
        self.answers.send(String::new()).unwrap();
    }

    /// The heads of the checks so far.
    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, shared: Answers) -> std::io::Result<()> {
    let mut read = Vec::new();
    while let Some(head) = next_head(&mut stream, &mut read).await? {
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        if !path.starts_with("/check") {
            let header = match &*path {
                "/fails" => "x-envoy-immediate-health-check-fail: 1\r\n",
                _ => "",
            };
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{header}\r\nok");
            stream.write_all(answer.as_bytes()).await?;
            continue;
        }
        if let Some((_, rest)) = head.split_once("content-length: ") {
            let length: usize = rest.lines().next().unwrap().parse().unwrap();
            while read.len() < length {
                stream.read_buf(&mut read).await?;
            }
            read.drain(..length);
        }
        shared.1.lock().unwrap().push(head);
        let mut next = [0];
        let answer = tokio::select! {
            answer = async { shared.0.lock().await.recv().await } => answer.unwrap_or_default(),
            // The checker has closed the connection.
            _ = stream.peek(&mut next) => String::new(),
        };
        if answer.is_empty() {
            return Ok(());
        }
        stream.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

/// The cluster with this health check, which by default is repeated quickly and practically never times out.
fn checked(mut cluster: Value, check: Value, more: Value) -> Value {
    let mut all = json!({
        "timeout": "100s", "interval": "0.02s", "no_traffic_interval": "0.02s",
        "unhealthy_threshold": 2, "healthy_threshold": 2,
    });
    for fields in [check, more] {
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    }
    cluster["health_checks"] = json!([all]);
    cluster["common_lb_config"] = json!({"healthy_panic_threshold": {"value": 0}});
    cluster
}

fn by_http(host: &Host, http: Value, more: Value) -> Value {
    let mut check = json!({"path": "/check"});
    check.as_object_mut().unwrap().extend(http.as_object().unwrap().clone());
    checked(cluster("a", host.address), json!({"http_health_check": check}), more)
}

async fn unready(which: Plane, clusters: &[Value]) -> Alone {
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]);
    let listener = http_listener("in", "OUTBOUND", routes, json!({}));
    let mut alone = Alone::unready(which, &[listener], clusters).await;
    alone.sidecar.allow_log("hc failed");
    alone
}

async fn start(which: Plane, clusters: &[Value]) -> Alone {
    let mut alone = unready(which, clusters).await;
    alone.sidecar.ready().await;
    alone
}

/// The health flags of a host.
async fn flags(alone: &Alone, host: SocketAddr) -> String {
    let clusters = alone.sidecar.admin("/clusters").await;
    let flags = clusters
        .lines()
        .find_map(|line| line.split_once(&format!("{host}::health_flags::")));
    flags.map_or("", |(_, flags)| flags).to_owned()
}

/// Waits until a host has these health flags.
async fn becomes(alone: &Alone, host: SocketAddr, expected: &str) {
    eventually(expected, async || {
        let flags = flags(alone, host).await;
        (flags == expected).then_some(()).ok_or(flags)
    })
    .await;
}

/// Waits until these are the health check statistics that are not zero.
async fn counted(alone: &Alone, expected: &[(&str, u64)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, value)| ((*name).to_owned(), *value))
        .collect();
    eventually("the statistics match", async || {
        let stats = alone.sidecar.stats("^cluster.a.health_check").await;
        let stats = stats.into_iter().filter(|(_, value)| *value > 0);
        let stats = stats.map(|(name, value)| (name.replace("cluster.a.health_check.", ""), value));
        let stats: Vec<_> = stats.collect();
        (stats == expected).then_some(()).ok_or(format!("{stats:?}"))
    })
    .await;
}

/// Waits until a request is answered with this status.
async fn answers(alone: &Alone, status: u16) {
    eventually(&format!("the status is {status}"), async || {
        let answer = get(alone.listener(0), "a", "/").send().await?;
        (answer.status == status).then_some(()).ok_or(answer.status.to_string())
    })
    .await;
}

async fn an_unexpected_status_ejects_a_host_at_once_and_the_healthy_threshold_restores_it(which: Plane) {
    let host = Host::start().await;
    host.says(200, "", "");
    let alone = start(which, &[by_http(&host, json!({}), json!({}))]).await;
    // The first result applies at once, whatever the threshold.
    answers(&alone, 200).await;
    becomes(&alone, host.address, "healthy").await;
    counted(&alone, &[("attempt", 2), ("healthy", 1), ("success", 1)]).await;
    host.says(500, "", "");
    becomes(&alone, host.address, "/failed_active_hc").await;
    answers(&alone, 503).await;
    counted(&alone, &[("attempt", 3), ("failure", 1), ("success", 1)]).await;
    let members = alone
        .sidecar
        .stats("^cluster.a.membership_(healthy|total|excluded)$")
        .await;
    assert_eq!(
        members.into_values().collect::<Vec<_>>(),
        [0, 0, 1],
        "excluded, healthy, total"
    );
    host.says(200, "", "");
    counted(&alone, &[("attempt", 4), ("failure", 1), ("success", 2)]).await;
    assert_eq!(flags(&alone, host.address).await, "/failed_active_hc");
    host.says(200, "", "");
    becomes(&alone, host.address, "healthy").await;
    answers(&alone, 200).await;
    counted(
        &alone,
        &[("attempt", 5), ("failure", 1), ("healthy", 1), ("success", 3)],
    )
    .await;
    let json: Value = serde_json::from_str(&alone.sidecar.admin("/clusters?format=json").await).unwrap();
    let health = &json["cluster_statuses"][0]["host_statuses"][0]["health_status"];
    assert_eq!(*health, json!({"eds_health_status": "HEALTHY"}));
}

async fn a_cluster_is_warm_after_the_first_result_of_every_host(which: Plane) {
    let hosts = [Host::start().await, Host::start().await];
    let mut cluster = by_http(&hosts[0], json!({}), json!({}));
    let endpoint = |host: &Host| json!({"endpoint": {"address": socket(host.address)}});
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = hosts.iter().map(endpoint).collect();
    let mut alone = unready(which, &[cluster]).await;
    eventually("both are checked", async || {
        let heads: Vec<_> = hosts.iter().map(|host| host.heads().len()).collect();
        (heads == [1, 1]).then_some(()).ok_or(format!("{heads:?}"))
    })
    .await;
    hosts[0].says(200, "", "");
    // The first host is checked again: its first result has been processed.
    eventually("the next check", async || match hosts[0].heads().len() {
        2 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    assert!(
        topsail::envoy::get(alone.admin(), "/ready")
            .await
            .is_ok_and(|(status, _)| status == 503)
    );
    // A failure is a result, too.
    hosts[1].says(404, "", "");
    alone.sidecar.ready().await;
    becomes(&alone, hosts[0].address, "healthy").await;
    becomes(&alone, hosts[1].address, "/failed_active_hc").await;
    for _ in 0..4 {
        get(alone.listener(0), "a", "/").expect(200).await;
    }
}

async fn network_and_retriable_failures_count_towards_the_unhealthy_threshold(which: Plane) {
    let host = Host::start().await;
    host.says(204, "", "");
    let http = json!({
        "expected_statuses": [{"start": 204, "end": 205}],
        "retriable_statuses": [{"start": 500, "end": 504}],
    });
    let alone = start(which, &[by_http(&host, http, json!({}))]).await;
    becomes(&alone, host.address, "healthy").await;
    host.closes();
    counted(
        &alone,
        &[
            ("attempt", 3),
            ("failure", 1),
            ("healthy", 1),
            ("network_failure", 1),
            ("success", 1),
        ],
    )
    .await;
    host.says(204, "", "");
    host.says(503, "", "");
    counted(
        &alone,
        &[
            ("attempt", 5),
            ("failure", 2),
            ("healthy", 1),
            ("network_failure", 1),
            ("success", 2),
        ],
    )
    .await;
    host.closes();
    becomes(&alone, host.address, "/failed_active_hc").await;
    counted(
        &alone,
        &[("attempt", 6), ("failure", 3), ("network_failure", 2), ("success", 2)],
    )
    .await;
    // A status that is neither expected nor retriable ejects the host at once.
    host.says(204, "", "");
    host.says(204, "", "");
    becomes(&alone, host.address, "healthy").await;
    host.says(200, "", "");
    becomes(&alone, host.address, "/failed_active_hc").await;
}

async fn check_timeouts_are_reported_as_such(which: Plane) {
    let host = Host::start().await;
    let alone = start(which, &[by_http(&host, json!({}), json!({"timeout": "0.1s"}))]).await;
    becomes(&alone, host.address, "/failed_active_hc/active_hc_timeout").await;
    let stats = alone.sidecar.stats("^cluster.a.health_check").await;
    let [failures, network] =
        ["failure", "network_failure"].map(|name| stats[&format!("cluster.a.health_check.{name}")]);
    assert_eq!(failures, network);
    let json: Value = serde_json::from_str(&alone.sidecar.admin("/clusters?format=json").await).unwrap();
    let health = &json["cluster_statuses"][0]["host_statuses"][0]["health_status"];
    let expected =
        json!({"eds_health_status": "HEALTHY", "failed_active_health_check": true, "active_hc_timeout": true});
    assert_eq!(*health, expected);
    // A port without a listener.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = checked(cluster("a", nobody), json!({"tcp_health_check": {}}), json!({}));
    let alone = start(which, &[refused]).await;
    becomes(&alone, nobody, "/failed_active_hc").await;
}

async fn check_responses_can_mark_a_host_degraded_or_fail_it_immediately(which: Plane) {
    let host = Host::start().await;
    host.says(200, "", "");
    let alone = start(which, &[by_http(&host, json!({}), json!({}))]).await;
    host.says(200, "x-envoy-degraded: 1\r\n", "");
    becomes(&alone, host.address, "/degraded_active_hc").await;
    answers(&alone, 200).await;
    counted(
        &alone,
        &[("attempt", 3), ("degraded", 1), ("healthy", 1), ("success", 2)],
    )
    .await;
    let degraded = alone.sidecar.stats("^cluster.a.membership_degraded$").await;
    assert_eq!(degraded["cluster.a.membership_degraded"], 1);
    host.says(503, "x-envoy-immediate-health-check-fail: 1\r\n", "");
    let flags = "/failed_active_hc/degraded_active_hc/excluded_via_immediate_hc_fail";
    becomes(&alone, host.address, flags).await;
    let excluded = alone.sidecar.stats("^cluster.a.membership_excluded$").await;
    assert_eq!(excluded["cluster.a.membership_excluded"], 1);
    // The header is ignored in successful checks.
    for _ in 0..2 {
        host.says(200, "x-envoy-immediate-health-check-fail: 1\r\n", "");
    }
    becomes(&alone, host.address, "healthy").await;
    answers(&alone, 200).await;
}

async fn an_immediate_fail_header_in_a_normal_response_ejects_the_host(which: Plane) {
    let host = Host::start().await;
    host.says(200, "", "");
    let alone = start(which, &[by_http(&host, json!({}), json!({}))]).await;
    let answer = get(alone.listener(0), "a", "/fails").expect(200).await;
    assert_eq!(answer.header("x-envoy-immediate-health-check-fail"), "1");
    becomes(&alone, host.address, "/failed_active_hc/excluded_via_immediate_hc_fail").await;
    answers(&alone, 503).await;
    counted(
        &alone,
        &[("attempt", 2), ("failure", 1), ("passive_failure", 1), ("success", 1)],
    )
    .await;
    host.says(200, "", "");
    host.says(200, "", "");
    becomes(&alone, host.address, "healthy").await;
    answers(&alone, 200).await;
}

async fn http_check_requests_are_sent_as_configured(which: Plane) {
    let host = Host::start().await;
    let plain = by_http(&host, json!({}), json!({}));
    let alone = unready(which, &[plain]).await;
    let asked = async |count: usize| {
        eventually("the checks arrive", async || {
            let heads = host.heads();
            (heads.len() == count)
                .then(|| heads[count - 1].clone())
                .ok_or(format!("{heads:?}"))
        })
        .await
    };
    let lines = |head: &str| {
        let (first, rest) = head.split_once("\r\n").unwrap();
        let mut rest: Vec<_> = rest
            .split("\r\n")
            .filter(|line| !line.is_empty())
            .map(str::to_lowercase)
            .collect();
        rest.sort();
        (first.to_owned(), rest)
    };
    let head = asked(1).await;
    assert_eq!(
        lines(&head),
        (
            "GET /check HTTP/1.1".to_owned(),
            vec!["host: a".to_owned(), "user-agent: envoy/hc".to_owned()]
        )
    );
    host.says(200, "", "");
    drop(alone);
    let other = Host::start().await;
    let mut rich = by_http(
        &other,
        json!({
            "path": "/check?deep=1", "host": "shop.example", "method": "POST",
            "send": {"text": "50494e47"},
            "request_headers_to_add": [
                {"header": {"key": "x-a", "value": "1"}},
                {"header": {"key": "user-agent", "value": "probe"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
            ],
        }),
        json!({}),
    );
    // Nothing listens at the address of the host, only at its health check port.
    let endpoint = &mut rich["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    endpoint["address"] = socket("127.0.0.1:1".parse().unwrap());
    endpoint["health_check_config"] = json!({"port_value": other.address.port()});
    let alone = unready(which, &[rich]).await;
    let head = eventually("the check arrives", async || {
        other.heads().first().cloned().ok_or(String::new())
    })
    .await;
    let expected = ["content-length: 4", "host: shop.example", "user-agent: probe", "x-a: 1"];
    let (first, rest) = lines(&head);
    assert_eq!(
        (first.as_str(), rest.as_slice()),
        ("POST /check?deep=1 HTTP/1.1", &expected.map(str::to_owned)[..])
    );
    drop(alone);
    // A host name for the checks of one endpoint, and an endpoint with checks disabled.
    let third = Host::start().await;
    let mut named = by_http(&third, json!({"host": "shop.example"}), json!({}));
    let endpoints = &mut named["load_assignment"]["endpoints"][0]["lb_endpoints"];
    endpoints[0]["endpoint"]["health_check_config"] = json!({"hostname": "one.example"});
    let unchecked: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let more = json!({"endpoint": {"address": socket(unchecked), "health_check_config": {"disable_active_health_check": true}}});
    endpoints.as_array_mut().unwrap().push(more);
    third.says(500, "", "");
    let alone = start(which, &[named]).await;
    assert!(lines(&third.heads()[0]).1.contains(&"host: one.example".to_owned()));
    becomes(&alone, third.address, "/failed_active_hc").await;
    becomes(&alone, unchecked, "healthy").await;
}

async fn http_checks_match_response_bodies_and_service_names(which: Plane) {
    let host = Host::start().await;
    let service = "x-envoy-upstream-healthchecked-cluster: shop-7\r\n";
    host.says(200, service, "all is fine");
    let http = json!({
        // "all" and "fine".
        "receive": [{"text": "616c6c"}, {"text": "66696e65"}],
        "service_name_matcher": {"prefix": "shop"},
    });
    let alone = start(which, &[by_http(&host, http, json!({}))]).await;
    becomes(&alone, host.address, "healthy").await;
    counted(
        &alone,
        &[("attempt", 2), ("healthy", 1), ("success", 1), ("verify_cluster", 1)],
    )
    .await;
    host.says(200, service, "fine, all");
    becomes(&alone, host.address, "/failed_active_hc").await;
    host.says(200, service, "all is fine");
    host.says(200, service, "all fine");
    becomes(&alone, host.address, "healthy").await;
    host.says(200, "x-envoy-upstream-healthchecked-cluster: bank\r\n", "all fine");
    becomes(&alone, host.address, "/failed_active_hc").await;
    counted(
        &alone,
        &[("attempt", 6), ("failure", 2), ("success", 3), ("verify_cluster", 4)],
    )
    .await;
}

/// A TCP host that answers each read with this and closes the connection after this many answers.
async fn echoes(answer: &'static str, closes_after: usize) -> (SocketAddr, AbortHandle) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut read = [0; 64];
                for _ in 0..closes_after {
                    match stream.read(&mut read).await {
                        Ok(1..) if stream.write_all(answer.as_bytes()).await.is_ok() => {}
                        _ => return,
                    }
                }
            });
        }
    });
    (address, task.abort_handle())
}

async fn tcp_checks_connect_or_wait_for_the_expected_bytes(which: Plane) {
    let pong = json!({"send": {"text": "50494e47"}, "receive": [{"text": "504f"}, {"text": "4e47"}]});
    let (good, _good) = echoes("PONG", usize::MAX).await;
    let (bad, _bad) = echoes("NOPE", usize::MAX).await;
    let (hasty, _hasty) = echoes("PONG", 1).await;
    let check = |tcp: Value, more: Value| (json!({"tcp_health_check": tcp}), more);
    for (host, (check, more), expected) in [
        (good, check(json!({}), json!({})), "healthy"),
        (good, check(pong.clone(), json!({})), "healthy"),
        (good, check(pong.clone(), json!({"reuse_connection": false})), "healthy"),
        (
            hasty,
            check(pong.clone(), json!({"reuse_connection": false})),
            "healthy",
        ),
        // A reused connection that is closed between checks is a failure.
        (
            hasty,
            check(
                pong.clone(),
                json!({"unhealthy_threshold": 1, "healthy_threshold": 1000}),
            ),
            "/failed_active_hc",
        ),
        (
            bad,
            check(pong, json!({"timeout": "0.1s"})),
            "/failed_active_hc/active_hc_timeout",
        ),
    ] {
        let alone = start(which, &[checked(cluster("a", host), check, more)]).await;
        becomes(&alone, host, expected).await;
    }
}

async fn grpc_checks_follow_the_serving_status_of_the_service(which: Plane) {
    let (grpc, health) = Backend::grpc("grpc").await;
    health
        .set_service_status("shop", tonic_health::ServingStatus::Serving)
        .await;
    let check = |service: &str| json!({"grpc_health_check": {"service_name": service, "authority": "shop.example"}});
    let of = |service: &str| {
        checked(
            cluster_http2("a", grpc.address()),
            check(service),
            json!({"healthy_threshold": 1}),
        )
    };
    let alone = start(which, &[of("shop")]).await;
    becomes(&alone, grpc.address(), "healthy").await;
    health
        .set_service_status("shop", tonic_health::ServingStatus::NotServing)
        .await;
    becomes(&alone, grpc.address(), "/failed_active_hc").await;
    health
        .set_service_status("shop", tonic_health::ServingStatus::Serving)
        .await;
    becomes(&alone, grpc.address(), "healthy").await;
    // Checks of an unknown service fail.
    let alone = start(which, &[of("bank")]).await;
    becomes(&alone, grpc.address(), "/failed_active_hc").await;
    // The empty service name stands for the whole server.
    let alone = start(which, &[of("")]).await;
    becomes(&alone, grpc.address(), "healthy").await;
    // An HTTP check over HTTP/2.
    let http2 = json!({"http_health_check": {"path": "/a", "codec_client_type": "HTTP2"}});
    let web = Backend::http("web").await;
    let alone = start(which, &[checked(cluster_http2("a", web.address()), http2, json!({}))]).await;
    becomes(&alone, web.address(), "healthy").await;
}

async fn checks_use_the_transport_socket_of_the_cluster(which: Plane) {
    let authority = super::harness::tls::Authority::new("host.example");
    let acceptor = authority.acceptor("host.example", false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await?;
                let mut read = [0; 1024];
                while stream.read(&mut read).await? > 0 {
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                        .await?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    let mut tls = checked(
        cluster("a", host),
        json!({"http_health_check": {"path": "/"}}),
        json!({}),
    );
    tls["transport_socket"] = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "host.example",
        },
    });
    let alone = start(which, &[tls]).await;
    becomes(&alone, host, "healthy").await;
    let handshakes = alone.sidecar.stats("^cluster.a.ssl.handshake$").await;
    assert_eq!(handshakes["cluster.a.ssl.handshake"], 1, "the connection is reused");
    task.abort();
}

async fn healthy_hosts_removed_by_eds_stay_until_a_check_fails(which: Plane) {
    let (stays, fails) = (Host::start().await, Host::start().await);
    let endpoint = |host: &Host| json!({"endpoint": {"address": socket(host.address)}});
    let endpoints = |hosts: &[&Host]| {
        let hosts: Vec<_> = hosts.iter().map(|host| endpoint(host)).collect();
        json!({"cluster_name": "a", "endpoints": [{"lb_endpoints": hosts}]})
    };
    let mut eds = by_http(&stays, json!({}), json!({}));
    eds.as_object_mut().unwrap().remove("load_assignment");
    eds["type"] = json!("EDS");
    eds["eds_cluster_config"] = json!({"eds_config": {"ads": {}, "resource_api_version": "V3"}});
    let ads = Ads::start(|world| {
        world.put(Cluster, &eds);
        world.put(Endpoints, &endpoints(&[&stays, &fails]));
    })
    .await;
    let mut alone = Alone::follow(which, &ads, "DELTA_GRPC").await;
    alone.sidecar.allow_log("hc failed");
    stays.says(200, "", "");
    fails.says(500, "", "");
    eventually("the admin interface answers", async || {
        let answer = topsail::envoy::get(alone.admin(), "/clusters").await;
        answer.map(drop).map_err(|error| error.to_string())
    })
    .await;
    becomes(&alone, stays.address, "healthy").await;
    becomes(&alone, fails.address, "/failed_active_hc").await;
    let dump = alone.sidecar.config_dump().await.to_string();
    assert_eq!(dump.matches("\"health_status\":\"UNHEALTHY\"").count(), 1, "{dump}");
    ads.change(|world| world.put(Endpoints, &endpoints(&[])));
    becomes(&alone, fails.address, "").await;
    becomes(&alone, stays.address, "/pending_dynamic_removal").await;
    // EDS has the host again.
    ads.change(|world| world.put(Endpoints, &endpoints(&[&stays])));
    becomes(&alone, stays.address, "healthy").await;
    ads.change(|world| world.put(Endpoints, &endpoints(&[])));
    becomes(&alone, stays.address, "/pending_dynamic_removal").await;
    stays.says(500, "", "");
    becomes(&alone, stays.address, "").await;
    // An update of the cluster that removes hosts at once.
    eds["ignore_health_on_host_removal"] = json!(true);
    eds["common_lb_config"]["ignore_new_hosts_until_first_hc"] = json!(true);
    ads.change(|world| {
        world.put(Endpoints, &endpoints(&[&stays]));
        world.put(Cluster, &eds);
    });
    (0..100).for_each(|_| stays.says(200, "", ""));
    eventually("the cluster is updated", async || {
        match alone.sidecar.stats("^cluster_manager.cluster_modified$").await {
            stats if stats["cluster_manager.cluster_modified"] == 1 => Ok(()),
            stats => Err(format!("{stats:?}")),
        }
    })
    .await;
    becomes(&alone, stays.address, "healthy").await;
    // A host is excluded until its first check.
    let new = Host::start().await;
    ads.change(|world| world.put(Endpoints, &endpoints(&[&stays, &new])));
    becomes(&alone, new.address, "/failed_active_hc/pending_active_hc").await;
    let excluded = alone.sidecar.stats("^cluster.a.membership_excluded$").await;
    assert_eq!(excluded["cluster.a.membership_excluded"], 1);
    ads.change(|world| world.put(Endpoints, &endpoints(&[])));
    becomes(&alone, stays.address, "").await;
}

async fn invalid_health_checks_are_rejected(which: Plane) {
    let host: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let http = |more: Value| {
        let mut check = json!({"path": "/"});
        check.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"http_health_check": check})
    };
    for check in [
        json!({}),
        json!({"grpc_health_check": {}}),
        json!({"tcp_health_check": {"send": {"text": "0g"}}}),
        json!({"tcp_health_check": {"receive": [{"text": "000"}]}}),
        http(json!({"send": {"text": "00"}})),
        http(json!({"expected_statuses": [{"start": 200, "end": 200}]})),
        http(json!({"retriable_statuses": [{"start": 500, "end": 601}]})),
        http(json!({"method": "CONNECT"})),
        http(json!({"request_headers_to_add": [{"header": {"key": "host", "value": "a"}}]})),
    ] {
        let ads = Ads::start(|world| world.put(Cluster, &checked(cluster("a", host), check.clone(), json!({})))).await;
        let mut alone = Alone::follow(which, &ads, "DELTA_GRPC").await;
        alone.sidecar.allow_log("");
        eventually(&format!("{check} is rejected"), async || {
            let refusals = ads.refusals(Cluster);
            (!refusals.is_empty()).then_some(()).ok_or(String::new())
        })
        .await;
    }
}
