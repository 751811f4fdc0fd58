//! What outlier detection counts: gRPC statuses, and failures before and after a connection is established.

use serde_json::{Value, json};

use super::harness::alone::{Alone, cluster, cluster_http2, http_listener};
use super::harness::scripted::Scripted;
use super::harness::{Backend, Plane, eventually, get};
use crate::on_each_plane;

on_each_plane! {
    outlier_detection_counts_grpc_statuses,
    only_connect_failures_count_as_local_origin_failures,
}

/// The cluster with outlier detection that ejects a host after two failures of this kind.
fn watched(mut cluster: Value, failure: &str, more: Value) -> Value {
    let mut detection = json!({
        "consecutive_5xx": 100, "enforcing_consecutive_5xx": 100,
        "consecutive_gateway_failure": 100, "enforcing_success_rate": 0,
        "base_ejection_time": "300s", "max_ejection_percent": 100,
    });
    detection[failure] = json!(2);
    detection
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    cluster["outlier_detection"] = detection;
    cluster["common_lb_config"] = json!({"healthy_panic_threshold": {"value": 0}});
    cluster
}

/// The request statistics of the only host of a cluster.
async fn of_host(alone: &Alone, cluster: &str) -> Vec<String> {
    let hosts = alone.sidecar.admin("/clusters").await;
    let lines = hosts.lines().filter_map(|line| {
        let (_, line) = line.strip_prefix(&format!("{cluster}::127.0.0.1:"))?.split_once("::")?;
        let zero = line.ends_with("::0");
        (line.starts_with("rq_") && !zero).then(|| line.to_owned())
    });
    lines.collect()
}

async fn outlier_detection_counts_grpc_statuses(which: Plane) {
    let (grpc, _health) = Backend::grpc("grpc").await;
    let host = Scripted::start().await;
    let to = |name: &str| json!({"match": {"prefix": format!("/{name}/")}, "route": {"cluster": name}});
    let mut service = to("grpc");
    service["route"]["prefix_rewrite"] = json!("/");
    let routes = json!([service, to("alone"), to("twice")]);
    let listener = http_listener("in", "OUTBOUND", routes, json!({}));
    let clusters = [
        cluster_http2("grpc", grpc.address()),
        watched(cluster("alone", host.address), "consecutive_5xx", json!({})),
        watched(
            cluster("twice", host.address),
            "consecutive_gateway_failure",
            json!({"enforcing_consecutive_gateway_failure": 100}),
        ),
    ];
    let alone = Alone::start(which, &[listener], &clusters, json!({})).await;
    let call = |path: &str| {
        let call = get(alone.listener(0), "web", path).method(http::Method::POST);
        call.header("content-type", "application/grpc").header("te", "trailers")
    };
    // Empty messages for an existing and a missing method.
    for path in [
        "/grpc/grpc.health.v1.Health/Check",
        "/grpc/grpc.health.v1.Health/Nothing",
    ] {
        call(path).body("\0\0\0\0\0").http2().expect(200).await;
    }
    let counted = of_host(&alone, "grpc").await;
    assert_eq!(counted, ["rq_error::1", "rq_success::1", "rq_total::2"]);
    let says = |status: &str| format!("take; say HTTP/1.1 200 OK~content-length: 0~{status}~");
    // Only the last of these statuses is a server error.
    for status in [0, 1, 3, 5, 6, 7, 8, 9, 10, 11, 16, 12] {
        let script = says(&format!("grpc-status: {status}~"));
        call("/alone/a").header("x-script", &script).expect(200).await;
    }
    assert_eq!(
        of_host(&alone, "alone").await,
        ["rq_error::1", "rq_success::11", "rq_total::12"]
    );
    let unknown = says("grpc-status: 77~");
    call("/alone/a").header("x-script", &unknown).expect(200).await;
    // Once every worker knows of the ejection, the answer is a gRPC local reply.
    let is_ejected = async |path: &str| {
        eventually("the host is left out", async || {
            let answer = call(path).header("x-script", &unknown).send().await?;
            match answer.header("grpc-message") {
                "no healthy upstream" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await;
    };
    is_ejected("/alone/a").await;
    // The gRPC status counts for gRPC requests only.
    for _ in 0..3 {
        let plain = get(alone.listener(0), "web", "/twice/a");
        plain.header("x-script", &says("grpc-status: 14~")).expect(200).await;
    }
    // A missing status is an error, too.
    for script in [says(""), says("grpc-status: 14~"), says("grpc-status: 4~")] {
        call("/twice/a").header("x-script", &script).expect(200).await;
    }
    assert_eq!(
        of_host(&alone, "twice").await,
        ["rq_error::3", "rq_success::3", "rq_total::6"]
    );
    is_ejected("/twice/a").await;
}

async fn only_connect_failures_count_as_local_origin_failures(which: Plane) {
    let host = Scripted::start().await;
    let split = json!({
        "split_external_local_origin_errors": true, "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_local_origin_success_rate": 0,
    });
    let to = |name: &str| {
        let policy = json!({"retry_on": "reset", "num_retries": 0});
        json!({"match": {"path": format!("/{name}")}, "route": {"cluster": name, "timeout": "0.3s", "retry_policy": policy}})
    };
    let routes = json!([to("slow"), to("breaks"), to("dead")]);
    let listener = http_listener("in", "OUTBOUND", routes, json!({}));
    let local = |name: &str, address| {
        watched(
            cluster(name, address),
            "consecutive_local_origin_failure",
            split.clone(),
        )
    };
    let dead = "127.0.0.1:1".parse().unwrap();
    let clusters = [
        local("slow", host.address),
        local("breaks", host.address),
        local("dead", dead),
    ];
    let alone = Alone::start(which, &[listener], &clusters, json!({})).await;
    let ask = async |name: &str, script: &str| {
        let call = get(alone.listener(0), "web", &format!("/{name}")).header("x-script", script);
        let answer = call.send().await.unwrap();
        (answer.status.as_u16(), answer.text().contains("no healthy upstream"))
    };
    for _ in 0..4 {
        assert_eq!(ask("slow", "stall").await, (504, false));
        assert_eq!(ask("breaks", "take; close").await, (503, false));
    }
    assert_eq!(ask("dead", "take").await, (503, false));
    assert_eq!(ask("dead", "take").await, (503, false));
    eventually("the host is left out", async || match ask("dead", "take").await {
        (503, true) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}
