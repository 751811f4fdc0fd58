//! Configuration of the proxies: documents for the control plane.

use std::net::SocketAddr;

use crate::backend;

/// An HTTP/1.1 service.
pub(crate) const HTTP_HOST: &str = "http.bench";
/// An HTTP/1.1 service with a hundred routes and retries.
pub(crate) const ROUTES_HOST: &str = "routes.bench";
/// An HTTP/2 service.
pub(crate) const HTTP2_HOST: &str = "http2.bench";
/// A gRPC service.
pub(crate) const GRPC_HOST: &str = "grpc.bench";

pub(crate) const CLIENT_IP: &str = "127.0.41.1";
pub(crate) const OUTBOUND_IP: &str = "127.0.42.1";
pub(crate) const SERVER_IP: &str = "127.0.41.2";
pub(crate) const HTTP_PORT: u16 = 9080;
pub(crate) const HTTP2_PORT: u16 = 9081;
pub(crate) const GRPC_PORT: u16 = 9082;
pub(crate) const TCP_PORT: u16 = 9083;
pub(crate) const BULK_PORT: u16 = 9084;

/// The documents; the endpoint of services is the server's sidecar, or the backend itself.
pub(crate) fn mesh(pair: bool) -> String {
    let ports = [
        (HTTP_PORT, "HTTP"),
        (HTTP2_PORT, "HTTP2"),
        (GRPC_PORT, "GRPC"),
        (TCP_PORT, "TCP"),
        (BULK_PORT, "TCP"),
    ];
    let mut text = String::new();
    let workloads = [("client", CLIENT_IP), ("server", SERVER_IP)];
    for (name, ip) in workloads {
        text.push_str(&format!(
            "{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: {name}, namespace: bench}},
              spec: {{address: {ip}, serviceAccount: {name}, labels: {{app: {name}}}}}}}\n---\n"
        ));
    }
    let listeners = |bind: &str, more: &dyn Fn(u16) -> String| {
        let listener = |(port, protocol): &(u16, &str)| {
            let more = more(*port);
            format!(
                "{{port: {{number: {port}, protocol: {protocol}, name: p{port}}}, bind: {bind}, captureMode: NONE, {more}}}"
            )
        };
        ports.iter().map(listener).collect::<Vec<_>>().join(", ")
    };
    text.push_str(&format!(
        "{{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {{name: client, namespace: bench}},
          spec: {{workloadSelector: {{labels: {{app: client}}}}, egress: [{}]}}}}\n---\n\
         {{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {{name: server, namespace: bench}},
          spec: {{workloadSelector: {{labels: {{app: server}}}}, egress: [{{hosts: [\"~/*\"]}}], ingress: [{}]}}}}\n---\n",
        listeners(OUTBOUND_IP, &|_| "hosts: [\"*/*\"]".to_owned()),
        listeners(SERVER_IP, &|port| format!("defaultEndpoint: \"{}\"", backend_of(port)))
    ));
    let services = [
        (HTTP_HOST, HTTP_PORT, "HTTP"),
        (ROUTES_HOST, HTTP_PORT, "HTTP"),
        (HTTP2_HOST, HTTP2_PORT, "HTTP2"),
        (GRPC_HOST, GRPC_PORT, "GRPC"),
        ("tcp.bench", TCP_PORT, "TCP"),
        ("bulk.bench", BULK_PORT, "TCP"),
    ];
    for (host, port, protocol) in services {
        let backend = backend_of(port);
        let endpoints = match pair {
            true => "workloadSelector: {labels: {app: server}}".to_owned(),
            false => format!(
                "endpoints: [{{address: {}, ports: {{p: {}}}}}]",
                backend.ip(),
                backend.port()
            ),
        };
        let name = host.replace('.', "-");
        text.push_str(&format!(
            "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: {name}, namespace: bench}},
              spec: {{hosts: [{host}], resolution: STATIC, location: MESH_INTERNAL,
                      ports: [{{number: {port}, protocol: {protocol}, name: p}}], {endpoints}}}}}\n---\n"
        ));
    }
    text.push_str(&routes());
    text
}

/// A hundred routes with retries.
fn routes() -> String {
    let route = |number: usize| {
        format!(
            "{{match: [{{uri: {{prefix: /route-{number}/}}}}], retries: {{attempts: 2, retryOn: \"5xx\"}},
               route: [{{destination: {{host: {ROUTES_HOST}}}}}]}}"
        )
    };
    let routes: Vec<_> = (0..100).map(route).collect();
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: routes, namespace: bench}},
          spec: {{hosts: [{ROUTES_HOST}], http: [{}]}}}}\n",
        routes.join(", ")
    )
}

fn backend_of(port: u16) -> SocketAddr {
    match port {
        BULK_PORT => backend::BULK_ADDRESS,
        _ => backend::ADDRESS,
    }
}
