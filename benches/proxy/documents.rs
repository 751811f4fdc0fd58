//! What the proxies are configured with.

use std::net::SocketAddr;
use std::path::Path;

use crate::backend;

/// A service of HTTP/1.1.
pub(crate) const HTTP_HOST: &str = "http.bench";
/// The same with a hundred routes and retries.
pub(crate) const ROUTES_HOST: &str = "routes.bench";
/// A service of HTTP/2.
pub(crate) const HTTP2_HOST: &str = "http2.bench";
/// A service of gRPC.
pub(crate) const GRPC_HOST: &str = "grpc.bench";

pub(crate) const CLIENT_IP: &str = "127.0.41.1";
pub(crate) const OUTBOUND_IP: &str = "127.0.42.1";
pub(crate) const SERVER_IP: &str = "127.0.41.2";
pub(crate) const HTTP_PORT: u16 = 9080;
pub(crate) const HTTP2_PORT: u16 = 9081;
pub(crate) const GRPC_PORT: u16 = 9082;
pub(crate) const TCP_PORT: u16 = 9083;
pub(crate) const BULK_PORT: u16 = 9084;

/// The mesh's documents: services whose endpoint is the server's sidecar, or the backend itself.
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

/// A hundred routes, each with retries.
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

/// A bootstrap with one listener for HTTP/1.1 that logs every request to a file in Istio's format: the control plane
/// does not ask for access logs.
pub(crate) fn logging_bootstrap(log: &Path) -> String {
    let backend = backend::ADDRESS;
    format!(
        r#"
node: {{id: bench, cluster: bench}}
admin: {{address: {{socket_address: {{address: {CLIENT_IP}, port_value: 15000}}}}}}
static_resources:
  listeners:
  - name: in
    address: {{socket_address: {{address: {OUTBOUND_IP}, port_value: {HTTP_PORT}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {log}
              log_format:
                text_format_source: {{inline_string: "{ISTIO_FORMAT}\n"}}
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: out}}}}]}}
          http_filters:
          - name: envoy.filters.http.fault
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}}
          - name: envoy.filters.http.cors
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: out
    type: STATIC
    load_assignment:
      cluster_name: out
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}
"#,
        log = log.display(),
        ip = backend.ip(),
        port = backend.port(),
    )
}

/// Istio's default format of access logs.
const ISTIO_FORMAT: &str = "[%START_TIME%] \\\"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\\\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    \\\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\\\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \\\"%REQ(X-FORWARDED-FOR)%\\\" \\\"%REQ(USER-AGENT)%\\\" \
    \\\"%REQ(X-REQUEST-ID)%\\\" \\\"%REQ(:AUTHORITY)%\\\" \\\"%UPSTREAM_HOST%\\\" %UPSTREAM_CLUSTER% \
    %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%";
