//! The full filter chain of a mesh, including access logs, which the control plane does not
//! configure. Therefore these proxies have static bootstraps, with the filters, headers and TLS
//! settings that it would send.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

use crate::backend;
use crate::documents::{CLIENT_IP, HTTP_HOST, HTTP_PORT, OUTBOUND_IP, ROUTES_HOST, SERVER_IP};

/// Istio's default access log format.
const ISTIO_FORMAT: &str = "[%START_TIME%] \\\"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\\\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    \\\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\\\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \\\"%REQ(X-FORWARDED-FOR)%\\\" \\\"%REQ(USER-AGENT)%\\\" \
    \\\"%REQ(X-REQUEST-ID)%\\\" \\\"%REQ(:AUTHORITY)%\\\" \\\"%UPSTREAM_HOST%\\\" %UPSTREAM_CLUSTER% \
    %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%";

const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions";

/// Bootstrap of a client sidecar that logs every request and forwards it to the backend.
pub(crate) fn alone(folder: &Path) -> String {
    bootstrap(&Proxy {
        ip: CLIENT_IP,
        listener: (OUTBOUND_IP, HTTP_PORT),
        host: backend::ADDRESS,
        more: "",
        log: &folder.join("client.log"),
        listener_tls: None,
        cluster_tls: None,
    })
}

/// Bootstraps of a client and a server sidecar with access logs, a hundred routes and mutual TLS.
pub(crate) fn pair(folder: &Path) -> [String; 2] {
    let [client, server] = certificates(folder);
    let server_port = SocketAddr::new(SERVER_IP.parse().expect("an address"), HTTP_PORT);
    let sidecar = |name: &str| folder.join(name);
    [
        bootstrap(&Proxy {
            ip: CLIENT_IP,
            listener: (OUTBOUND_IP, HTTP_PORT),
            host: server_port,
            more: "",
            log: &sidecar("client.log"),
            listener_tls: None,
            cluster_tls: Some(tls("Upstream", &client, ", sni: outbound_.9080_._.routes.bench", "")),
        }),
        bootstrap(&Proxy {
            ip: SERVER_IP,
            listener: (SERVER_IP, HTTP_PORT),
            host: backend::ADDRESS,
            more: "forward_client_cert_details: APPEND_FORWARD, \
                   set_current_client_cert_details: {subject: true, dns: true, uri: true}, ",
            log: &sidecar("server.log"),
            listener_tls: Some(tls("Downstream", &server, "", ", require_client_certificate: true")),
            cluster_tls: None,
        }),
    ]
}

/// A proxy with one listener and one cluster.
struct Proxy<'a> {
    ip: &'a str,
    listener: (&'a str, u16),
    host: SocketAddr,
    /// Further fields of its connection manager.
    more: &'a str,
    log: &'a Path,
    listener_tls: Option<String>,
    cluster_tls: Option<String>,
}

fn bootstrap(proxy: &Proxy<'_>) -> String {
    let Proxy {
        ip,
        listener,
        host,
        more,
        ..
    } = proxy;
    let transport = |tls: &Option<String>| {
        let tls = tls.as_ref();
        tls.map_or(String::new(), |tls| {
            format!(", transport_socket: {{name: envoy.transport_sockets.tls, typed_config: {tls}}}")
        })
    };
    format!(
        r#"
node: {{id: bench, cluster: bench}}
admin: {{address: {{socket_address: {{address: {ip}, port_value: 15000}}}}}}
static_resources:
  listeners:
  - name: in
    address: {{socket_address: {{address: {listener_ip}, port_value: {listener_port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config: {{
          "@type": {EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager,
          stat_prefix: in, {more}
          use_remote_address: false, generate_request_id: true, normalize_path: true, stream_idle_timeout: 0s,
          proxy_100_continue: true, upgrade_configs: [{{upgrade_type: websocket}}],
          access_log: [{{name: envoy.access_loggers.file, typed_config: {{
            "@type": {EXTENSIONS}.access_loggers.file.v3.FileAccessLog, path: {log},
            log_format: {{text_format_source: {{inline_string: "{ISTIO_FORMAT}\n"}}}}}}}}],
          route_config: {{virtual_hosts: [{routes}]}},
          http_filters: [
            {{name: envoy.filters.http.grpc_stats, typed_config: {{
              "@type": {EXTENSIONS}.filters.http.grpc_stats.v3.FilterConfig,
              emit_filter_state: true, stats_for_all_methods: false}}}},
            {{name: envoy.filters.http.fault, typed_config: {{
              "@type": {EXTENSIONS}.filters.http.fault.v3.HTTPFault}}}},
            {{name: envoy.filters.http.cors, typed_config: {{"@type": {EXTENSIONS}.filters.http.cors.v3.Cors}}}},
            {{name: envoy.filters.http.router, typed_config: {{"@type": {EXTENSIONS}.filters.http.router.v3.Router}}}}]
        }}
      {listener_tls}
  clusters:
  - {{name: out, type: STATIC, load_assignment: {{cluster_name: out, endpoints: [{{lb_endpoints: [
      {{endpoint: {{address: {{socket_address: {{address: {host_ip}, port_value: {host_port}}}}}}}}}]}}]}}{cluster_tls}}}
"#,
        listener_ip = listener.0,
        listener_port = listener.1,
        log = proxy.log.display(),
        routes = virtual_hosts(),
        listener_tls = transport(&proxy.listener_tls).trim_start_matches(", "),
        host_ip = host.ip(),
        host_port = host.port(),
        cluster_tls = transport(&proxy.cluster_tls),
    )
}

/// A host with one route and one with a hundred, all with retries.
fn virtual_hosts() -> String {
    let to_cluster = "route: {cluster: out, timeout: 0s, retry_policy: {retry_on: 5xx, num_retries: 2}}";
    let route = |number| format!("{{match: {{prefix: /route-{number}/}}, {to_cluster}}}");
    let routes: Vec<_> = (0..100).map(route).collect();
    format!(
        "{{name: one, domains: [{HTTP_HOST}], routes: [{{match: {{prefix: /}}, {to_cluster}}}]}}, \
         {{name: hundred, domains: [{ROUTES_HOST}], routes: [{}]}}",
        routes.join(", ")
    )
}

/// TLS context of one side: the common settings followed by `more`, and the side's own.
fn tls(side: &str, certificate: &Certificate, more: &str, own: &str) -> String {
    let Certificate { chain, key, ca } = certificate;
    format!(
        "{{\"@type\": {EXTENSIONS}.transport_sockets.tls.v3.{side}TlsContext, common_tls_context: {{
           tls_params: {{tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3}},
           alpn_protocols: [istio-http/1.1, istio, http/1.1],
           tls_certificates: [{{certificate_chain: {{filename: {chain}}}, private_key: {{filename: {key}}}}}],
           validation_context: {{trusted_ca: {{filename: {ca}}},
             match_typed_subject_alt_names: [{{san_type: URI, matcher: {{prefix: \"spiffe://cluster.local/\"}}}}]}}}}{more}{own}}}"
    )
}

/// Files of a certificate.
struct Certificate {
    chain: String,
    key: String,
    ca: String,
}

/// Certificates of the two sidecars, issued by one CA.
fn certificates(folder: &Path) -> [Certificate; 2] {
    let write = |name: String, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).expect("a file");
        path.to_string_lossy().into_owned()
    };
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Its name must differ from that of the certificates it signs.
    params.distinguished_name.push(DnType::CommonName, "ca");
    let key = KeyPair::generate().expect("a key");
    let ca = write("ca.pem".into(), params.self_signed(&key).expect("a certificate").pem());
    let issuer = Issuer::new(params, key);
    ["client", "server"].map(|name| {
        let mut params = CertificateParams::default();
        let id = format!("spiffe://cluster.local/ns/bench/sa/{name}");
        params.subject_alt_names = vec![SanType::URI(id.try_into().expect("an identity"))];
        let key = KeyPair::generate().expect("a key");
        Certificate {
            chain: write(
                format!("{name}.pem"),
                params.signed_by(&key, &issuer).expect("a certificate").pem(),
            ),
            key: write(format!("{name}.key"), key.serialize_pem()),
            ca: ca.clone(),
        }
    })
}
