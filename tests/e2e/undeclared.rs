//! Ports without a declared protocol: it is detected from the first bytes, on both ends of mutual TLS.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{App, Backend, Mesh, Planes, Workload, get};
use crate::on_each_pair_of_planes;

on_each_pair_of_planes! {
    http_is_detected_on_ports_without_a_protocol,
    other_protocols_are_forwarded_over_mutual_tls,
}

const UNDECLARED: &str = "\"\"";

const SERVICES: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{name: one, port: 9081}, {name: two, port: 9082}]}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: istio-system}, spec: {mtls: {mode: STRICT}}}
";

/// A server with HTTP on 9081 and TCP on 9082, and a client of both.
async fn pair(mesh: &Mesh) -> (App, App) {
    let server = Workload::new("web-v1")
        .label("app", "web")
        .account("web")
        .serves(9081, UNDECLARED, Backend::http("web").await)
        .serves(9082, UNDECLARED, Backend::tcp("web").await);
    let client = Workload::new("client")
        .label("app", "client")
        .account("client")
        .calls(9081, UNDECLARED)
        .calls(9082, UNDECLARED);
    (mesh.run(server).await, mesh.run(client).await)
}

async fn http_is_detected_on_ports_without_a_protocol(planes: Planes) {
    let mesh = Mesh::start(planes, &[("services.yaml", SERVICES)]).await;
    let (_server, client) = pair(&mesh).await;
    let call = get(client.outbound(9081), "web", "/");
    for (call, version) in [(call.clone(), "HTTP/1.1"), (call.http2(), "HTTP/2.0")] {
        let seen = call.expect(200).await.seen();
        assert_eq!(seen.protocol, version, "the client's protocol");
        let caller = &seen.headers["x-forwarded-client-cert"];
        assert!(
            caller.contains("URI=spiffe://cluster.local/ns/default/sa/client"),
            "{caller}"
        );
    }
}

async fn other_protocols_are_forwarded_over_mutual_tls(planes: Planes) {
    let mesh = Mesh::start(planes, &[("services.yaml", SERVICES)]).await;
    let (server, client) = pair(&mesh).await;
    assert_eq!(answer(client.outbound(9082)).await, b"web:\x00\x01hello");
    assert_eq!(
        answer(server.inbound(9082)).await,
        b"",
        "clients without a certificate are rejected"
    );
}

/// Sends a few bytes and returns the first bytes of the answer; none if the connection is closed.
async fn answer(address: SocketAddr) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answer = vec![0; 11];
    let exchange = async {
        stream.write_all(b"\x00\x01hello").await?;
        stream.read_exact(&mut answer).await
    };
    match exchange.await {
        Ok(_) => answer,
        Err(_) => Vec::new(),
    }
}
