//! xDS transports: state of the world, delta, and separate SDS streams.

use serde_json::{Value, json};

use crate::harness::alone::{cluster, socket};
use crate::harness::{Backend, Identity, Mesh, Plane, answering, eventually, tls};
use crate::on_each_plane;
use crate::web::service;

on_each_plane! {
    delta_xds,
    state_of_the_world_xds,
    secrets_over_separate_sds_streams,
}

/// Requests are answered, a service is added, and it is removed.
async fn serves(mesh: Mesh) {
    mesh.write("web.yaml", &service("web"));
    let _app = mesh.app("web", "v1").await;
    let client = mesh.client().await;
    let status = async |host: &str| client.get(host, "/").send().await.map(|answer| answer.status.as_u16());
    let becomes = async |host: &str, wanted: u16| {
        eventually(&format!("{wanted} for {host}"), async || match status(host).await? {
            status if status == wanted => Ok(()),
            status => Err(status.to_string()),
        })
        .await;
    };
    becomes("web", 200).await;
    mesh.write("more.yaml", &service("more"));
    becomes("more", 200).await;
    mesh.remove("more.yaml");
    eventually("the service is removed", async || match status("more").await? {
        200 => Err("still served".into()),
        _ => Ok(()),
    })
    .await;
    becomes("web", 200).await;
}

async fn delta_xds(plane: Plane) {
    serves(Mesh::start(plane, &[]).await).await;
}

async fn state_of_the_world_xds(plane: Plane) {
    let mut mesh = Mesh::start(plane, &[]).await;
    mesh.bootstrap_flag("--xds=sotw");
    serves(mesh).await;
}

/// A bootstrap listener whose certificate and roots come from the server over a separate SDS stream of API type `kind`.
fn secured(name: &str, address: std::net::SocketAddr, backend: std::net::SocketAddr, kind: &str) -> (Value, Value) {
    let secret = |name: &str| {
        json!({"name": name, "sds_config": {"resource_api_version": "V3", "api_config_source": {
            "api_type": kind,
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
        }}})
    };
    let listener = json!({
        "name": name,
        "address": socket(address),
        "filter_chains": [{
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": true,
                "common_tls_context": {
                    "tls_certificate_sds_secret_configs": [secret("default")],
                    "validation_context_sds_secret_config": secret("ROOTCA"),
                },
            }},
            "filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": name,
                "cluster": name,
            }}],
        }],
    });
    (listener, cluster(name, backend))
}

async fn secrets_over_separate_sds_streams(plane: Plane) {
    let mut mesh = Mesh::start(plane, &[]).await;
    mesh.bootstrap_flag("--output=json");
    let (ip, backend) = (mesh.address(), Backend::tcp("own-1").await);
    let mut bootstrap: Value = serde_json::from_str(&mesh.bootstrap("own", "own", ip).await).unwrap();
    let kinds = [("delta", 9443, "DELTA_GRPC"), ("whole", 9444, "GRPC")];
    for (name, port, kind) in kinds {
        let (listener, cluster) = secured(name, (ip, port).into(), backend.address(), kind);
        let fixed = &mut bootstrap["static_resources"];
        fixed["listeners"].as_array_mut().unwrap().push(listener);
        fixed["clusters"].as_array_mut().unwrap().push(cluster);
    }
    let mut sidecar = mesh.sidecar_on("own", ip, &bootstrap.to_string()).await;
    sidecar.allow_log("gRPC config stream");
    sidecar.allow_log("StreamSecrets gRPC");
    sidecar.allow_log("DeltaSecrets gRPC");
    let insider = Identity::issued(
        &mesh.server.state(),
        "cluster.local",
        "spiffe://cluster.local/ns/default/sa/x",
    );
    let serves = async |port: u16| {
        let connected = tls::connect((ip, port).into(), "own.example", Some(&insider), &[]).await;
        answering(connected?).await
    };
    for (_, port, _) in kinds {
        sidecar.listens((ip, port).into()).await;
        assert_eq!(eventually("an answer", async || serves(port).await).await, "own-1");
        let stranger = tls::connect((ip, port).into(), "own.example", None, &[]).await;
        answering(stranger.unwrap()).await.unwrap_err();
    }
    mesh.server.kill().await;
    mesh.server.start().await;
    for (_, port, _) in kinds {
        assert_eq!(serves(port).await.unwrap(), "own-1");
    }
}

#[tokio::test]
async fn delta_xds_to_an_older_envoy() {
    serves(Mesh::start(Plane::EnvoyRelease("1.36.4"), &[]).await).await;
}
