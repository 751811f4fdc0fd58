//! Load balancing, retries and outlier detection of clusters and routes on live traffic.
//!
//! The bounds for random results are so wide that a correct policy misses them about once in a million runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures::future::join_all;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Barrier, Notify};

use super::harness::alone::{Alone, http_listener, socket};
use super::harness::wire::next_head;
use super::harness::{Backend, Plane, answering, eventually, get};
use crate::on_each_plane;

on_each_plane! {
    retries_go_to_other_hosts,
    a_retry_budget_limits_retries,
    panic_routing_starts_below_the_healthy_panic_threshold,
    locality_weights_split_the_requests,
    load_that_a_priority_cannot_take_spills_to_the_next,
    consecutive_gateway_failures_eject_a_host,
    consecutive_local_origin_failures_eject_a_host,
    ejections_are_counted_by_cause,
    source_ip_hashing_maps_each_address_to_one_host,
    weighted_clusters_split_tcp_connections,
}

/// An address without a listener.
const NOBODY: &str = "127.0.0.1:1";

/// This many backends, named `back-<number>`.
async fn backends(count: usize) -> Vec<Backend> {
    join_all((0..count).map(async |number| Backend::http(&format!("back-{number}")).await)).await
}

fn addresses(backends: &[Backend]) -> Vec<SocketAddr> {
    backends.iter().map(Backend::address).collect()
}

fn endpoint(address: SocketAddr, healthy: bool) -> Value {
    let health = if healthy { "HEALTHY" } else { "UNHEALTHY" };
    json!({"endpoint": {"address": socket(address)}, "health_status": health})
}

/// A cluster of these localities.
fn cluster(name: &str, localities: Value, more: Value) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": localities},
    });
    cluster
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    cluster
}

/// A cluster of these hosts in one locality.
fn cluster_of(name: &str, hosts: &[SocketAddr], more: Value) -> Value {
    let hosts: Vec<_> = hosts.iter().map(|host| endpoint(*host, true)).collect();
    cluster(name, json!([{"lb_endpoints": hosts}]), more)
}

/// A data plane with an HTTP listener and a route for each cluster, whose path is the name of the cluster. `route` are
/// further fields of the route action.
async fn plane(which: Plane, clusters: &[Value], route: Value) -> Alone {
    let routes = clusters.iter().map(|cluster| {
        let mut action = json!({"cluster": cluster["name"]});
        action
            .as_object_mut()
            .unwrap()
            .extend(route.as_object().unwrap().clone());
        json!({"match": {"path": format!("/{}", cluster["name"].as_str().unwrap())}, "route": action})
    });
    let routes: Vec<_> = routes.collect();
    let listener = http_listener("in", "OUTBOUND", json!(routes), json!({}));
    Alone::start(which, &[listener], clusters, json!({})).await
}

/// Sends requests to a cluster and counts the answers of each backend.
async fn count(alone: &Alone, cluster: &str, requests: usize) -> BTreeMap<String, usize> {
    get(alone.listener(0), "web", &format!("/{cluster}"))
        .count(requests)
        .await
}

async fn retries_go_to_other_hosts(which: Plane) {
    let backends = backends(2).await;
    backends[0].fail_next(usize::MAX);
    let hosts = addresses(&backends);
    let clusters = [
        cluster_of("random", &hosts, json!({"lb_policy": "RANDOM"})),
        cluster_of("ring", &hosts, json!({"lb_policy": "RING_HASH"})),
        cluster_of(
            "maglev",
            &hosts,
            json!({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 251}}),
        ),
    ];
    let predicate = json!({
        "name": "envoy.retry_host_predicates.previous_hosts",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
        },
    });
    let route = json!({
        "hash_policy": [{"header": {"header_name": "x-user"}}],
        "retry_policy": {
            "retry_on": "5xx",
            "num_retries": 1,
            "retry_back_off": {"base_interval": "0.001s"},
            "retry_host_predicate": [predicate],
            "host_selection_retry_max_attempts": 50,
        },
    });
    let alone = plane(which, &clusters, route).await;
    for cluster in ["random", "ring", "maglev"] {
        let before = backends[0].seen().len();
        for user in 0..30 {
            let call = get(alone.listener(0), "web", &format!("/{cluster}"));
            let answer = call.header("x-user", &user.to_string()).expect(200).await;
            assert_eq!(answer.header("x-backend"), "back-1");
        }
        // About half of the requests were tried there first.
        let tried = backends[0].seen().len() - before;
        assert!((1..30).contains(&tried), "{cluster}: {tried}");
    }
}

/// A host that answers 503 to first attempts once `first` of them are waiting, and 200 to retries once it is notified.
async fn host_that_waits_for_retries(first: usize) -> (SocketAddr, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (all, may) = (Arc::new(Barrier::new(first)), Arc::new(Notify::new()));
    let may_retry = may.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (all, may) = (all.clone(), may_retry.clone());
            tokio::spawn(async move {
                let mut read = Vec::new();
                while let Some(head) = next_head(&mut stream, &mut read).await? {
                    let status = if head.contains("x-envoy-attempt-count: 1") {
                        all.wait().await;
                        "503 No"
                    } else {
                        may.notified().await;
                        may.notify_one();
                        "200 OK"
                    };
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    (address, may)
}

async fn a_retry_budget_limits_retries(which: Plane) {
    const REQUESTS: usize = 10;
    let (host, may) = host_that_waits_for_retries(REQUESTS).await;
    // With ten active requests, the budget allows two concurrent retries; without one, the default is three.
    let budget = json!({"budget_percent": {"value": 20.0}, "min_retry_concurrency": 1});
    let breakers = json!({"circuit_breakers": {"thresholds": [{"retry_budget": budget}]}});
    let retry = json!({"retry_on": "5xx", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}});
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "back", "retry_policy": retry}}]);
    let mut listener = http_listener("in", "OUTBOUND", routes, json!({}));
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    manager["route_config"]["virtual_hosts"][0]["include_request_attempt_count"] = json!(true);
    let alone = Alone::start(which, &[listener], &[cluster_of("back", &[host], breakers)], json!({})).await;
    let call = get(alone.listener(0), "web", "/");
    let released = async {
        let stats = eventually("every request is retried or refused", async || {
            let stats = alone.sidecar.stats("cluster.back.upstream_rq_retry").await;
            let count = |name: &str| stats[&format!("cluster.back.upstream_rq_{name}")];
            match (count("retry"), count("retry_overflow")) {
                (retried, refused) if retried + refused == REQUESTS as u64 => Ok((retried, refused)),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        may.notify_one();
        stats
    };
    let (answers, (retried, _)) = tokio::join!(join_all((0..REQUESTS).map(|_| call.send())), released);
    assert!((1..=2).contains(&retried), "{retried}");
    let good = answers
        .iter()
        .filter(|answer| answer.as_ref().unwrap().status == 200)
        .count();
    assert_eq!(good as u64, retried);
}

async fn panic_routing_starts_below_the_healthy_panic_threshold(which: Plane) {
    let backends = backends(4).await;
    let hosts: Vec<_> = addresses(&backends)
        .into_iter()
        .enumerate()
        .map(|(number, host)| endpoint(host, number == 0))
        .collect();
    let with = |name, threshold: Value| {
        cluster(
            name,
            json!([{"lb_endpoints": hosts}]),
            json!({"common_lb_config": threshold}),
        )
    };
    let clusters = [
        with("usual", json!({})),
        with("below", json!({"healthy_panic_threshold": {"value": 20.0}})),
        with("never", json!({"healthy_panic_threshold": {"value": 0.0}})),
    ];
    let alone = plane(which, &clusters, json!({})).await;
    for (name, asked) in [("usual", 4), ("below", 1), ("never", 1)] {
        let counts = count(&alone, name, 20).await;
        assert_eq!(counts.len(), asked, "{name}: {counts:?}");
        let panicked = format!("cluster.{name}.lb_healthy_panic");
        assert_eq!(
            alone.sidecar.stats("lb_healthy_panic").await[&panicked] > 0,
            asked > 1,
            "{name}"
        );
    }
}

async fn locality_weights_split_the_requests(which: Plane) {
    let backends = backends(3).await;
    let hosts = addresses(&backends);
    let locality = |zone: &str, weight: u32, hosts: &[SocketAddr]| {
        let hosts: Vec<_> = hosts.iter().map(|host| endpoint(*host, true)).collect();
        json!({"locality": {"zone": zone}, "load_balancing_weight": weight, "lb_endpoints": hosts})
    };
    // The weight is that of the locality, independent of its number of hosts.
    let localities = json!([locality("a", 80, &hosts[..1]), locality("b", 20, &hosts[1..])]);
    let weighted = json!({"common_lb_config": {"locality_weighted_lb_config": {}}});
    let alone = plane(which, &[cluster("back", localities, weighted)], json!({})).await;
    let counts = count(&alone, "back", 200).await;
    let share = 200 - counts["back-0"];
    assert!((12..=68).contains(&share) && counts.len() == 3, "{counts:?}");
}

async fn load_that_a_priority_cannot_take_spills_to_the_next(which: Plane) {
    let backends = backends(3).await;
    let hosts = addresses(&backends);
    // The overprovisioning factor is 1.4.
    let with = |name: &str, well: usize| {
        let near: Vec<_> = (0..2).map(|number| endpoint(hosts[number], number < well)).collect();
        let far = json!({"priority": 1, "lb_endpoints": [endpoint(hosts[2], true)]});
        cluster(name, json!([{"priority": 0, "lb_endpoints": near}, far]), json!({}))
    };
    let alone = plane(which, &[with("well", 2), with("half", 1), with("down", 0)], json!({})).await;
    let counts = count(&alone, "well", 20).await;
    assert_eq!(counts, [("back-0".into(), 10), ("back-1".into(), 10)].into());
    let counts = count(&alone, "half", 200).await;
    assert!(counts.len() == 2 && (28..=92).contains(&counts["back-2"]), "{counts:?}");
    assert_eq!(count(&alone, "down", 20).await, [("back-2".into(), 20)].into());
}

/// Sends requests to a cluster until this many of its hosts are ejected.
async fn until_ejected(alone: &Alone, cluster: &str, hosts: u64) {
    let name = format!("cluster.{cluster}.outlier_detection.ejections_active");
    eventually("a host is ejected", async || {
        get(alone.listener(0), "web", &format!("/{cluster}")).send().await?;
        let active = alone.sidecar.stats("ejections_active").await[&name];
        (active == hosts).then_some(()).ok_or(active.to_string())
    })
    .await;
}

/// The ejection statistics of a cluster that are not zero; checks that all of them exist.
async fn ejections(alone: &Alone, cluster: &str) -> Vec<(String, u64)> {
    let prefix = format!("cluster.{cluster}.outlier_detection.ejections_");
    let stats = alone.sidecar.stats(&prefix).await;
    let stats: Vec<_> = stats
        .iter()
        .map(|(name, value)| (name.trim_start_matches(&prefix), *value))
        .collect();
    let names: Vec<_> = stats.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, EJECTIONS);
    let some = stats.into_iter().filter(|(_, value)| *value > 0);
    some.map(|(name, value)| (name.to_owned(), value)).collect()
}

const EJECTIONS: [&str; 21] = [
    "active",
    "consecutive_5xx",
    "detected_consecutive_5xx",
    "detected_consecutive_gateway_failure",
    "detected_consecutive_local_origin_failure",
    "detected_degradation",
    "detected_failure_percentage",
    "detected_local_origin_failure_percentage",
    "detected_local_origin_success_rate",
    "detected_success_rate",
    "enforced_consecutive_5xx",
    "enforced_consecutive_gateway_failure",
    "enforced_consecutive_local_origin_failure",
    "enforced_failure_percentage",
    "enforced_local_origin_failure_percentage",
    "enforced_local_origin_success_rate",
    "enforced_success_rate",
    "enforced_total",
    "overflow",
    "success_rate",
    "total",
];

/// The statistics after one host was ejected for this cause.
fn one_for(cause: &str) -> Vec<(String, u64)> {
    let names = [
        "active",
        &format!("detected_{cause}"),
        &format!("enforced_{cause}"),
        "enforced_total",
    ];
    names.map(|name| (name.to_owned(), 1)).into()
}

async fn ejections_are_counted_by_cause(which: Plane) {
    let backends = backends(1).await;
    let hosts = addresses(&backends);
    let with = |name: &str, enforcing: u32, most: u32| {
        let detection = json!({"outlier_detection": {
            "consecutive_5xx": 2, "enforcing_consecutive_5xx": enforcing, "max_ejection_percent": most,
            "interval": "100s", "base_ejection_time": "100s",
        }});
        cluster_of(name, &hosts, detection)
    };
    let clusters = [
        with("enforced", 100, 100),
        with("only-seen", 0, 100),
        with("too-many", 100, 10),
    ];
    let alone = plane(which, &clusters, json!({})).await;
    // With Envoy, a worker starts to count anew only after the main thread has processed the detection.
    let fail_twice = async |cluster: &str, expected: &[(&str, u64)]| {
        let call = get(alone.listener(0), "web", &format!("/{cluster}")).header("x-echo-status", "500");
        for _ in 0..2 {
            call.expect(500).await;
        }
        eventually("the failures are counted", async || {
            let actual = ejections(&alone, cluster).await;
            let actual: Vec<_> = actual.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            (actual == expected)
                .then_some(())
                .ok_or(format!("{cluster}: {actual:?}"))
        })
        .await;
    };
    let seen = |times| [("consecutive_5xx", times), ("detected_consecutive_5xx", times)];
    let enforced = [("enforced_consecutive_5xx", 1), ("enforced_total", 1), ("total", 1)];
    fail_twice("enforced", &[&[("active", 1)][..], &seen(1), &enforced].concat()).await;
    for times in [1, 2] {
        fail_twice("only-seen", &[&seen(times)[..], &[("total", times)]].concat()).await;
        fail_twice("too-many", &[&seen(times)[..], &[("overflow", times)]].concat()).await;
    }
}

async fn consecutive_gateway_failures_eject_a_host(which: Plane) {
    let backends = backends(2).await;
    let detection = json!({"outlier_detection": {
        "consecutive_5xx": 1000, "consecutive_gateway_failure": 3, "enforcing_consecutive_gateway_failure": 100,
        "interval": "100s", "base_ejection_time": "100s", "max_ejection_percent": 100,
    }});
    let alone = plane(
        which,
        &[cluster_of("back", &addresses(&backends), detection)],
        json!({}),
    )
    .await;
    // 500 is not a gateway failure.
    let wrong = get(alone.listener(0), "web", "/back").header("x-echo-status", "500");
    for _ in 0..20 {
        wrong.expect(500).await;
    }
    assert_eq!(count(&alone, "back", 10).await.len(), 2);
    backends[0].fail_next(usize::MAX);
    until_ejected(&alone, "back", 1).await;
    assert_eq!(count(&alone, "back", 20).await, [("back-1".into(), 20)].into());
    assert_eq!(ejections(&alone, "back").await, one_for("consecutive_gateway_failure"));
}

async fn consecutive_local_origin_failures_eject_a_host(which: Plane) {
    let backends = backends(1).await;
    let hosts = [backends[0].address(), NOBODY.parse().unwrap()];
    // External and local origin errors are counted separately.
    let detection = json!({"outlier_detection": {
        "split_external_local_origin_errors": true, "consecutive_local_origin_failure": 3,
        "consecutive_5xx": 1, "enforcing_consecutive_5xx": 0,
        "interval": "100s", "base_ejection_time": "100s", "max_ejection_percent": 100,
    }});
    let alone = plane(which, &[cluster_of("back", &hosts, detection)], json!({})).await;
    until_ejected(&alone, "back", 1).await;
    assert_eq!(count(&alone, "back", 20).await, [("back-0".into(), 20)].into());
    assert_eq!(
        ejections(&alone, "back").await,
        one_for("consecutive_local_origin_failure")
    );
}

/// A connection from the loopback address 127.0.0.`last`.
async fn from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// The HTTP backend that answers a client at this address.
async fn answering_http(last: u8, to: SocketAddr) -> String {
    let (mut sender, connection) = http1::handshake(TokioIo::new(from(last, to).await)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("/")
        .header("host", "web")
        .body(Empty::<Bytes>::new());
    let response = sender.send_request(request.unwrap()).await.unwrap();
    let name = response.headers()["x-backend"].to_str().unwrap().to_owned();
    response.into_body().collect().await.unwrap();
    name
}

fn tcp_listener(name: &str, more: Value) -> Value {
    let mut proxy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": name,
    });
    proxy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let filter = json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy});
    json!({"name": name, "filter_chains": [{"name": "chain", "filters": [filter]}]})
}

async fn source_ip_hashing_maps_each_address_to_one_host(which: Plane) {
    let http = backends(4).await;
    let tcp = join_all((0..4).map(async |number| Backend::tcp(&format!("tcp-{number}")).await)).await;
    let clusters = [
        cluster_of("http", &addresses(&http), json!({"lb_policy": "RING_HASH"})),
        cluster_of(
            "tcp",
            &addresses(&tcp),
            json!({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 251}}),
        ),
    ];
    let by_address = json!([{"connection_properties": {"source_ip": true}}]);
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "http", "hash_policy": by_address}}]);
    let listeners = [
        http_listener("http", "OUTBOUND", routes, json!({})),
        tcp_listener("tcp", json!({"cluster": "tcp", "hash_policy": [{"source_ip": {}}]})),
    ];
    let alone = Alone::start(which, &listeners, &clusters, json!({})).await;
    let mut used = BTreeSet::new();
    for last in 1..=25 {
        let mut of_address = BTreeSet::new();
        for _ in 0..3 {
            of_address.insert(answering_http(last, alone.listener(0)).await);
            of_address.insert(answering(from(last, alone.listener(1)).await).await.unwrap());
        }
        assert_eq!(of_address.len(), 2, "{of_address:?}");
        used.extend(of_address);
    }
    assert_eq!(used.len(), 8, "{used:?}");
}

async fn weighted_clusters_split_tcp_connections(which: Plane) {
    let (many, few) = (Backend::tcp("many1").await, Backend::tcp("few-1").await);
    let clusters = [
        cluster_of("many", &[many.address()], json!({})),
        cluster_of("few", &[few.address()], json!({})),
    ];
    let shares = json!([{"name": "many", "weight": 80}, {"name": "few", "weight": 20}]);
    let listener = tcp_listener("tcp", json!({"weighted_clusters": {"clusters": shares}}));
    let alone = Alone::start(which, &[listener], &clusters, json!({})).await;
    let mut few = 0;
    for _ in 0..200 {
        let stream = TcpStream::connect(alone.listener(0)).await.unwrap();
        few += usize::from(answering(stream).await.unwrap() == "few-1");
    }
    assert!((12..=68).contains(&few), "{few} of 200");
}
