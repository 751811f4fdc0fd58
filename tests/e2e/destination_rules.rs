//! Traffic policies of DestinationRules, on live traffic.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::harness::{Backend, Mesh, Plane, Planes, Workload, eventually};
use crate::web::{Web, service};
use crate::{on_each_pair_of_planes, on_each_plane};

on_each_pair_of_planes! {
    load_balancers_distribute_or_pin_requests,
    outlier_detection_ejects_a_failing_backend,
    connection_pool_limits_reject_excess_requests,
    port_and_subset_traffic_policies_override_the_default,
    prefer_same_node_uses_the_local_backend_while_it_exists,
}

on_each_plane! {
    warmup_gives_a_new_backend_little_traffic_first_and_then_its_full_share,
}

/// A Service `name` for all workloads of `web`, and a DestinationRule with this `spec`, to which the host is added.
fn ruled(name: &str, spec: &str) -> String {
    format!(
        "{}\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}}}\n\
         spec:\n  host: {name}\n  {}",
        service(name),
        spec.trim().replace('\n', "\n  ")
    )
}

async fn load_balancers_distribute_or_pin_requests(planes: Planes) {
    let balanced = |simple: &str| format!("trafficPolicy: {{loadBalancer: {{simple: {simple}}}}}");
    let hashed = |by: &str| format!("trafficPolicy: {{loadBalancer: {{consistentHash: {{{by}}}}}}}");
    let documents = [
        ruled("round", &balanced("ROUND_ROBIN")),
        ruled("random", &balanced("RANDOM")),
        ruled("least", &balanced("LEAST_REQUEST")),
        ruled("by-header", &hashed("httpHeaderName: x-user")),
        ruled("by-query", &hashed("httpQueryParameterName: user")),
        ruled("by-cookie", &hashed("httpCookie: {name: user, ttl: 60s}")),
        ruled("by-maglev", &hashed("httpHeaderName: x-user, maglev: {tableSize: 251}")),
    ];
    let web = Web::start(planes, &documents).await;
    for host in ["round", "random", "least"] {
        web.reachable(host).await;
        let counts = web.get(host, "/").count(60).await;
        assert!(
            counts.len() == 2 && counts.values().all(|count| *count >= 5),
            "{host}: {counts:?}"
        );
    }
    let calls = |host: &'static str, user: usize| match host {
        "by-query" => web.get(host, &format!("/?user={user}")),
        "by-cookie" => web.get(host, "/").header("cookie", &format!("user={user}")),
        _ => web.get(host, "/").header("x-user", &user.to_string()),
    };
    for host in ["by-header", "by-query", "by-cookie", "by-maglev"] {
        web.reachable(host).await;
        let mut used = BTreeSet::new();
        for user in 0..20 {
            let counts = calls(host, user).count(3).await;
            assert_eq!(counts.len(), 1, "{host}: one user, one backend: {counts:?}");
            used.extend(counts.into_keys());
        }
        assert_eq!(used.len(), 2, "{host}: twenty users, both backends");
    }
    let cookie = web.get("by-cookie", "/").expect(200).await;
    assert!(cookie.header("set-cookie").starts_with("user="), "{:?}", cookie.headers);
}

async fn outlier_detection_ejects_a_failing_backend(planes: Planes) {
    let detection = "trafficPolicy: {outlierDetection: \
        {consecutive5xxErrors: 2, interval: 0.1s, baseEjectionTime: 300s, maxEjectionPercent: 100}}";
    let web = Web::start(planes, &[ruled("watched", detection)]).await;
    web.reachable("watched").await;
    web.v1.backend().fail_next(usize::MAX);
    eventually("only v2 answers", async || {
        let mut answers = Vec::new();
        // Often enough to rule out chance.
        for _ in 0..30 {
            answers.push(web.get("watched", "/").send().await?.status.as_u16());
        }
        if answers.iter().all(|status| *status == 200) {
            Ok(())
        } else {
            Err(format!("{answers:?}"))
        }
    })
    .await;
}

async fn connection_pool_limits_reject_excess_requests(planes: Planes) {
    let pool = "trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}}";
    let web = Web::start(planes, &[ruled("narrow", pool)]).await;
    web.reachable("narrow").await;
    let slow = web.get("narrow", "/").header("x-echo-delay", "300");
    let all = futures::future::join_all((0..20).map(|_| slow.send())).await;
    let refused = all
        .into_iter()
        .filter(|answer| answer.as_ref().unwrap().status == 503)
        .count();
    assert!((1..20).contains(&refused), "{refused} of 20 refused");
}

async fn port_and_subset_traffic_policies_override_the_default(planes: Planes) {
    let spec = "
trafficPolicy:
  tls: {mode: ISTIO_MUTUAL}
  portLevelSettings:
  - {port: {number: 9080}, loadBalancer: {consistentHash: {httpHeaderName: x-user}}}
subsets:
- {name: v1, labels: {version: v1}}
- name: every
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}
";
    let to_subset = "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: layered}, spec: {hosts: [layered], \
        http: [{match: [{uri: {prefix: /every}}], route: [{destination: {host: layered, subset: every}}]}, \
        {route: [{destination: {host: layered}}]}]}}";
    let web = Web::start(planes, &[ruled("layered", spec), to_subset.to_owned()]).await;
    web.reachable("layered").await;
    let call = |path| web.get("layered", path).header("x-user", "one");
    assert_eq!(call("/").count(20).await.len(), 1);
    assert_eq!(call("/every").count(20).await.len(), 2);
}

/// Here the Service has `trafficDistribution` instead of a DestinationRule.
async fn prefer_same_node_uses_the_local_backend_while_it_exists(planes: Planes) {
    let service = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, \
                   trafficDistribution: PreferSameNode, ports: [{name: http, port: 9080}]}}";
    let mesh = Mesh::start(planes, &[("web.yaml", service)]).await;
    let on = |name: &str, app: &str, node: &str| {
        Workload::new(name)
            .label("app", app)
            .label("kubernetes.io/hostname", node)
    };
    let mut webs = Vec::new();
    for (name, node) in [("web-far", "n2"), ("web-near", "n1")] {
        let backend = Backend::http(name).await;
        webs.push(mesh.run(on(name, "web", node).serves(9080, "HTTP", backend)).await);
    }
    let client = mesh.run(on("client", "client", "n1").calls(9080, "HTTP")).await;
    eventually("an answer", async || {
        match client.get("web", "/").send().await?.status.as_u16() {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    let counts = client.get("web", "/").count(20).await;
    assert_eq!(counts, [("web-near".to_owned(), 20)].into());
    mesh.remove("workload-web-near.yaml");
    eventually("the backend on the other node gets requests", async || {
        let backend = client.get("web", "/").send().await?.seen().backend;
        if backend == "web-far" { Ok(()) } else { Err(backend) }
    })
    .await;
}

/// The small share of a new backend can be measured only while its warm-up lasts: if a busy machine takes too long, the
/// backend is removed and added again.
async fn warmup_gives_a_new_backend_little_traffic_first_and_then_its_full_share(plane: Plane) {
    const WARM_UP: Duration = Duration::from_secs(12);
    let (old, new) = (Backend::http("old").await, Backend::http("new").await);
    let over = |backends: &[&Backend]| {
        let ports = backends.iter().map(|backend| backend.address().port());
        let endpoints: Vec<_> = ports
            .map(|port| format!("{{address: 127.0.0.1, ports: {{http: {port}}}}}"))
            .collect();
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: warm}}\n\
             spec: {{hosts: [warm.example], location: MESH_EXTERNAL, resolution: STATIC, \
             ports: [{{number: 9080, protocol: HTTP, name: http}}], endpoints: [{}]}}",
            endpoints.join(", ")
        )
    };
    let rule = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: warm}, \
        spec: {host: warm.example, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 12s}}}}}";
    let mesh = Mesh::start(plane, &[("backends.yaml", &over(&[&old])), ("rule.yaml", rule)]).await;
    let client = mesh.client().await;
    let call = client.get("warm.example", "/");
    let asked = async |of: usize, alike: fn(usize) -> bool| match call.send().await?.status.as_u16() {
        200 => match call.count(of).await.get("new").copied().unwrap_or(0) {
            share if alike(share) => Ok(share),
            share => Err(format!("the new backend got {share} of {of}")),
        },
        status => Err(status.to_string()),
    };
    eventually("only the old backend gets requests", async || {
        asked(1, |share| share == 0).await
    })
    .await;
    tokio::time::sleep(WARM_UP).await;
    let mut tries = 0..5;
    let share = loop {
        assert!(
            tries.next().is_some(),
            "forty requests never took less than {:?}",
            WARM_UP / 4
        );
        mesh.write("backends.yaml", &over(&[&old, &new]));
        let added = Instant::now();
        eventually("the new backend gets a request", async || {
            asked(1, |share| share == 1).await
        })
        .await;
        let counts = call.count(40).await;
        if added.elapsed() < WARM_UP / 4 {
            break counts.get("new").copied().unwrap_or(0);
        }
        mesh.write("backends.yaml", &over(&[&old]));
        eventually("the new backend is removed", async || {
            asked(20, |share| share == 0).await
        })
        .await;
    };
    // At most a quarter of the old backend's weight, a fifth of all requests.
    assert!(
        share < 14,
        "the new backend got {share} of 40 requests during its warm-up"
    );
    eventually("both backends get the same share", async || {
        asked(40, |share| share > 16).await
    })
    .await;
}
