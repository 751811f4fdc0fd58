//! Load balancing: hash policies with cookies, localities, degraded hosts and TCP connections.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::harness::alone::{Alone, cluster, http_listener, socket};
use super::harness::scripted::Scripted;
use super::harness::{Backend, Plane, answering, get};
use crate::on_each_plane;

on_each_plane! {
    hash_policy_cookies_are_added_beside_the_cookies_of_the_host,
    requests_without_a_cookie_stick_to_one_host_per_connection,
    localities_without_weights_are_used_only_as_the_last_resort,
    degraded_hosts_take_the_load_that_healthy_hosts_cannot,
    least_request_sends_tcp_connections_to_the_host_with_the_fewest,
}

/// A cluster with these groups of hosts: further fields of each group, and the health status of each host.
fn grouped(name: &str, groups: &[(Value, &[(SocketAddr, &str)])]) -> Value {
    let groups = groups.iter().map(|(more, hosts)| {
        let hosts = hosts
            .iter()
            .map(|(address, health)| json!({"endpoint": {"address": socket(*address)}, "health_status": health}));
        let mut group = json!({"lb_endpoints": hosts.collect::<Vec<_>>()});
        group.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        group
    });
    let endpoints = groups.collect::<Vec<_>>();
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    })
}

async fn plane(which: Plane, routes: Value, clusters: &[Value]) -> Alone {
    Alone::start(
        which,
        &[http_listener("in", "OUTBOUND", routes, json!({}))],
        clusters,
        json!({}),
    )
    .await
}

/// Sends requests and counts the answers of each backend.
async fn spread(alone: &Alone, path: &str, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        let answer = get(alone.listener(0), "web", path).send().await.unwrap();
        let backend = match answer.status.as_u16() {
            200 => answer.seen().backend,
            status => status.to_string(),
        };
        *counts.entry(backend).or_default() += 1;
    }
    counts
}

async fn hash_policy_cookies_are_added_beside_the_cookies_of_the_host(which: Plane) {
    let host = Scripted::start().await;
    let policy = json!([{"cookie": {"name": "c", "ttl": "10s", "path": "/p"}}]);
    let to = |cluster: &str| json!({"match": {"path": format!("/{cluster}")}, "route": {"cluster": cluster, "hash_policy": policy}});
    let mut again = to("back");
    again["match"]["path"] = json!("/again");
    again["route"]["retry_policy"] = json!({"retry_on": "5xx", "num_retries": 1});
    let mut dead = cluster("dead", "127.0.0.1:1".parse().unwrap());
    let mut back = cluster("back", host.address);
    for cluster in [&mut back, &mut dead] {
        cluster["lb_policy"] = json!("RING_HASH");
    }
    let alone = plane(which, json!([to("back"), to("dead"), again]), &[back, dead]).await;
    let call = get(alone.listener(0), "web", "/back");
    let script = "take; say HTTP/1.1 200 OK~set-cookie: a=1~set-cookie: b=2~content-length: 0~~";
    let answer = call.header("x-script", script).expect(200).await;
    let cookies: Vec<_> = answer
        .headers
        .get_all("set-cookie")
        .iter()
        .map(|one| one.to_str().unwrap())
        .collect();
    assert_eq!(cookies[..2], ["a=1", "b=2"]);
    assert_eq!(cookies.len(), 3);
    let (minted, rest) = cookies[2].strip_prefix("c=\"").unwrap().split_once('"').unwrap();
    assert_eq!((minted.len(), rest), (16, "; Max-Age=10; Path=/p; HttpOnly"));
    // Each attempt generates a cookie.
    let script = "take; say HTTP/1.1 503 No~content-length: 0~~";
    let answer = get(alone.listener(0), "web", "/again")
        .header("x-script", script)
        .expect(503)
        .await;
    let cookies = answer.headers.get_all("set-cookie");
    assert_eq!(cookies.iter().count(), 2);
    // Without an answer from a host, no cookie is set.
    let answer = get(alone.listener(0), "web", "/dead").expect(503).await;
    assert_eq!(answer.header("set-cookie"), "");
}

async fn requests_without_a_cookie_stick_to_one_host_per_connection(which: Plane) {
    let backends = [
        Backend::http("a").await,
        Backend::http("b").await,
        Backend::http("c").await,
    ];
    let hosts: Vec<_> = backends.iter().map(|one| (one.address(), "HEALTHY")).collect();
    let mut cluster = grouped("back", &[(json!({}), &hosts)]);
    cluster["lb_policy"] = json!("RING_HASH");
    let policy = json!([{"cookie": {"name": "c", "ttl": "0s"}}]);
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "back", "hash_policy": policy}}]);
    let alone = plane(which, routes, &[cluster]).await;
    let (mut all, mut cookies) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..60 {
        let mut wire = super::harness::wire::Wire::open(alone.listener(0)).await;
        let mut of_connection = BTreeSet::new();
        for _ in 0..3 {
            wire.send(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
            let said = wire.answer().await.unwrap();
            of_connection.insert((
                said.header("x-backend").to_owned(),
                said.header("set-cookie").to_owned(),
            ));
        }
        assert_eq!(of_connection.len(), 1, "{of_connection:?}");
        let (backend, cookie) = of_connection.pop_first().unwrap();
        all.insert(backend);
        cookies.insert(cookie);
    }
    assert_eq!((all.len(), cookies.len()), (3, 60));
}

async fn localities_without_weights_are_used_only_as_the_last_resort(which: Plane) {
    let (a, b) = (Backend::http("a").await, Backend::http("b").await);
    let locality = |zone: &str, weight: u32| match weight {
        0 => json!({"locality": {"zone": zone}}),
        weight => json!({"locality": {"zone": zone}, "load_balancing_weight": weight}),
    };
    let of = |name: &str, health: &str| {
        let mut cluster = grouped(
            name,
            &[
                (locality("a", 1), &[(a.address(), health)]),
                (locality("b", 0), &[(b.address(), "HEALTHY")]),
            ],
        );
        let none = json!({"value": 0});
        cluster["common_lb_config"] = json!({"locality_weighted_lb_config": {}, "healthy_panic_threshold": none});
        cluster
    };
    let to = |cluster: &str| json!({"match": {"path": format!("/{cluster}")}, "route": {"cluster": cluster}});
    let routes = json!([to("well"), to("ill")]);
    let alone = plane(which, routes, &[of("well", "HEALTHY"), of("ill", "UNHEALTHY")]).await;
    assert_eq!(spread(&alone, "/well", 8).await, [("a".to_owned(), 8)].into());
    assert_eq!(spread(&alone, "/ill", 8).await, [("b".to_owned(), 8)].into());
}

async fn degraded_hosts_take_the_load_that_healthy_hosts_cannot(which: Plane) {
    let (a, b, c) = (
        Backend::http("a").await,
        Backend::http("b").await,
        Backend::http("c").await,
    );
    let (a, b, c) = (a.address(), b.address(), c.address());
    let first = json!({"priority": 0});
    let second = json!({"priority": 1});
    let mut hashed = grouped("hashed", &[(first.clone(), &[(a, "DEGRADED"), (b, "DEGRADED")])]);
    hashed["lb_policy"] = json!("RING_HASH");
    let mut mixed = grouped("mixed", &[(first.clone(), &[(a, "HEALTHY"), (b, "DEGRADED")])]);
    mixed["lb_policy"] = json!("RING_HASH");
    let clusters = [
        grouped("half", &[(first.clone(), &[(a, "HEALTHY"), (b, "DEGRADED")])]),
        grouped(
            "few",
            &[(first.clone(), &[(a, "HEALTHY"), (b, "DEGRADED"), (c, "UNHEALTHY")])],
        ),
        grouped("all", &[(first.clone(), &[(a, "DEGRADED"), (b, "DEGRADED")])]),
        grouped(
            "next",
            &[(first.clone(), &[(a, "DEGRADED")]), (second, &[(b, "HEALTHY")])],
        ),
        hashed,
        mixed,
        grouped(
            "panic",
            &[(
                json!({"priority": 0}),
                &[(a, "DEGRADED"), (b, "UNHEALTHY"), (c, "UNHEALTHY")],
            )],
        ),
    ];
    let to = |cluster: &str| json!({"match": {"path": format!("/{cluster}")}, "route": {"cluster": cluster}});
    let routes = json!(["half", "few", "all", "next", "hashed", "mixed", "panic"].map(to));
    let alone = plane(which, routes, &clusters).await;
    let share = |counts: &BTreeMap<String, usize>, name: &str| counts.get(name).copied().unwrap_or_default();
    // The overprovisioning factor is 1.4.
    let half = spread(&alone, "/half", 300).await;
    assert!((45..135).contains(&share(&half, "b")), "{half:?}");
    let few = spread(&alone, "/few", 300).await;
    assert!(
        (110..190).contains(&share(&few, "b")) && share(&few, "c") == 0,
        "{few:?}"
    );
    assert_eq!(spread(&alone, "/all", 20).await.len(), 2);
    assert_eq!(spread(&alone, "/next", 20).await, [("b".to_owned(), 20)].into());
    assert_eq!(spread(&alone, "/hashed", 4).await, [("503".to_owned(), 4)].into());
    assert_eq!(spread(&alone, "/mixed", 60).await, [("a".to_owned(), 60)].into());
    assert_eq!(spread(&alone, "/panic", 60).await.len(), 3);
    let stats = alone.sidecar.stats("membership").await;
    let members = ["healthy", "degraded", "total"].map(|name| stats[&format!("cluster.few.membership_{name}")]);
    assert_eq!(members, [1, 1, 3]);
    let hosts = alone.sidecar.admin("/clusters").await;
    let flags = hosts
        .lines()
        .filter_map(|line| line.strip_prefix("few::")?.split_once("::health_flags::"));
    let flags: Vec<_> = flags.map(|(_, flags)| flags).collect();
    assert_eq!(flags, ["healthy", "/degraded_eds_health", "/failed_eds_health"]);
}

async fn least_request_sends_tcp_connections_to_the_host_with_the_fewest(which: Plane) {
    let backends = [Backend::tcp("tcp-a").await, Backend::tcp("tcp-b").await];
    let hosts: Vec<_> = backends.iter().map(|one| (one.address(), "HEALTHY")).collect();
    let mut cluster = grouped("tcp", &[(json!({}), &hosts)]);
    cluster["lb_policy"] = json!("LEAST_REQUEST");
    cluster["least_request_lb_config"] = json!({"choice_count": 16});
    let listener = json!({"name": "tcp", "filter_chains": [{"filters": [{"name": "tcp", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp", "cluster": "tcp",
    }}]}]});
    let alone = Alone::start(which, &[listener], &[cluster], json!({})).await;
    let mut open = Vec::new();
    let mut ahead = 0_i32;
    for number in 0..60 {
        let mut stream = TcpStream::connect(alone.listener(0)).await.unwrap();
        let backend = answering(&mut stream).await.unwrap();
        ahead += if backend == "tcp-a" { 1 } else { -1 };
        assert!(ahead.abs() <= 3, "{number}: {ahead}");
        open.push(stream);
    }
    let hosts = alone.sidecar.admin("/clusters").await;
    let counts = hosts
        .lines()
        .filter_map(|line| line.rsplit_once("::rq_active::")?.1.parse::<u32>().ok());
    assert_eq!(counts.sum::<u32>(), 60);
    let totals = hosts
        .lines()
        .filter_map(|line| line.rsplit_once("::rq_total::")?.1.parse::<u32>().ok());
    assert_eq!(totals.sum::<u32>(), 60);
    assert_eq!(
        alone.sidecar.stats("tcp.upstream_rq_total").await["cluster.tcp.upstream_rq_total"],
        60
    );
}
