//! gRPC through two sidecars: unary calls, streams and gRPC statuses.

use http::Uri;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::ServingStatus::{self, NotServing, Serving};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{Backend, Mesh, Planes, Workload, eventually};
use crate::on_each_pair_of_planes;

on_each_pair_of_planes! {
    unary_calls_return_trailers_and_streams_are_not_buffered,
}

const SERVICES: &str = "
{apiVersion: v1, kind: Service, metadata: {name: health}, spec: {selector: {app: health}, ports: [{name: grpc, port: 9080}]}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: istio-system}, spec: {mtls: {mode: STRICT}}}
";

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.into(),
    }
}

fn as_sent(status: ServingStatus) -> i32 {
    match status {
        ServingStatus::Unknown => 0,
        Serving => 1,
        NotServing => 2,
    }
}

async fn unary_calls_return_trailers_and_streams_are_not_buffered(planes: Planes) {
    let mesh = Mesh::start(planes, &[("services.yaml", SERVICES)]).await;
    let (backend, reporter) = Backend::grpc("health").await;
    let workload = Workload::new("health-v1").label("app", "health").account("health");
    let _server = mesh.run(workload.serves(9080, "GRPC", backend)).await;
    let client = Workload::new("client").label("app", "client").calls(9080, "GRPC");
    let client = mesh.run(client).await;

    let channel: Channel = Endpoint::from_shared(format!("http://{}", client.outbound(9080)))
        .unwrap()
        .origin(Uri::from_static("http://health:9080"))
        .connect()
        .await
        .unwrap();
    let mut health = HealthClient::new(channel);
    eventually("an answer", async || {
        health
            .clone()
            .check(about(""))
            .await
            .map(drop)
            .map_err(|status| status.to_string())
    })
    .await;

    let unknown = health.check(about("nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound, "{unknown}");

    let mut states = health.watch(about("")).await.unwrap().into_inner();
    assert_eq!(states.message().await.unwrap().unwrap().status, as_sent(Serving));
    for status in [NotServing, Serving, NotServing] {
        reporter.set_service_status("", status).await;
        assert_eq!(states.message().await.unwrap().unwrap().status, as_sent(status));
    }
    let now = health.check(about("")).await.unwrap().into_inner();
    assert_eq!(now.status, as_sent(NotServing));
}
